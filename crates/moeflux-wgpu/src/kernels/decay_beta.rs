//! The gates of a gated delta net.

use crate::{Encoder, Program, View};

use super::{EACH, ELEMENT, LANES, MATH, grid};

static DECAY_BETA: Program =
    Program { name: "decay_beta", entry: "main", source: &[include_str!("decay_beta.wgsl"), ELEMENT, MATH] };

/// `decay = exp(-exp(a_log) · softplus(a + dt_bias))` and `beta = sigmoid(b)`: `a`, `b`, `decay` and `beta` are
/// `[n, value_heads]`, `a_log` and `dt_bias` are `[value_heads]`.
pub fn decay_beta(
    enc: &mut Encoder<'_>,
    a: &View,
    b: &View,
    a_log: &View,
    dt_bias: &View,
    decay: &View,
    beta: &View,
) {
    let (n, heads) = (a.len(), a_log.len());
    assert!(n.is_multiple_of(heads) && dt_bias.len() == heads);
    assert!(b.len() == n && decay.len() == n && beta.len() == n);
    let views = [a, b, a_log, dt_bias, decay, beta];
    enc.dispatch(&DECAY_BETA, &EACH, &views, &[n as u32, heads as u32], grid(n.div_ceil(LANES)));
}
