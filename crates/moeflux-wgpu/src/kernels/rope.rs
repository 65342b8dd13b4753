//! Rotary position embedding (Su et al. 2021).

use moeflux_kernels::{RopeArgs, RopeLayout};

use crate::{Encoder, Program, View};

use super::{EACH, ELEMENT, LANES, grid};

static ROPE: Program = Program { name: "rope", entry: "main", source: &[include_str!("rope.wgsl"), ELEMENT] };

/// Turns pair `i` of each head by the angle whose cosine and sine are `cos[t][i]` and `sin[t][i]`. `y` is as long as `x`;
/// channels from `rotary_dim` on are copied.
pub fn rope(enc: &mut Encoder<'_>, args: &RopeArgs<&View>, y: &View) {
    let RopeArgs { x, heads, head_dim, rotary_dim, layout, cos, sin } = *args;
    let (pairs, width) = (rotary_dim / 2, heads * head_dim);
    assert!(rotary_dim.is_multiple_of(2) && rotary_dim <= head_dim);
    assert!(x.len() == y.len() && cos.len() == sin.len() && x.len() * pairs == cos.len() * width);
    let n = x.len() / head_dim * (head_dim - pairs);
    let constants = [EACH[0], EACH[1], ("IS_INTERLEAVED", u32::from(layout == RopeLayout::Interleaved))];
    let params = [n, heads, head_dim, pairs].map(|x| x as u32);
    enc.dispatch(&ROPE, &constants, &[x, cos, sin, y], &params, grid(n.div_ceil(LANES)));
}
