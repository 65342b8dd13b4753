//! The short convolution before a gated delta net.

use crate::{Encoder, Program, View};

use super::{EACH, ELEMENT, LANES, MATH, grid};

static CONV1D_SILU: Program = Program {
    name: "conv1d_silu",
    entry: "main",
    source: &[include_str!("conv1d_silu.wgsl"), ELEMENT, MATH],
};

/// Causal depthwise convolution, then SiLU: `y[t][c] = silu(Σ_j weight[c][j] · x[t - (kernel-1) + j][c])`.
///
/// `x` and `y` are `[n, channels]`, `weight` is `[channels, kernel]`; inputs before the first are in `state`
/// (`[kernel-1, channels]`, oldest first). `new_states` gets the last `kernel-1` inputs: after the last token if it has
/// room for one state, after each if it has room for `n`.
pub fn conv1d_silu(
    enc: &mut Encoder<'_>,
    x: &View,
    weight: &View,
    kernel: usize,
    state: &View,
    new_states: &View,
    y: &View,
) {
    assert!(kernel > 0 && weight.len().is_multiple_of(kernel));
    let channels = weight.len() / kernel;
    let (tokens, history) = (x.len() / channels, (kernel - 1) * channels);
    let states = new_states.len().checked_div(history).unwrap_or(0);
    assert!(x.len() == tokens * channels && y.len() == x.len() && state.len() == history);
    assert!(new_states.len() == states * history && (states <= 1 || states == tokens));
    let n = tokens * channels + states * history;
    let constants = [EACH[0], EACH[1], ("KERNEL", kernel as u32)];
    let params = [tokens, channels, states].map(|x| x as u32);
    let views = [x, weight, state, new_states, y];
    enc.dispatch(&CONV1D_SILU, &constants, &views, &params, grid(n.div_ceil(LANES)));
}
