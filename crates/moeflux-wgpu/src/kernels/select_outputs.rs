//! The rows that logits are asked for.

use crate::{Encoder, Program, View};

use super::{EACH, ELEMENT, LANES, grid};

static SELECT_OUTPUTS: Program = Program {
    name: "select_outputs",
    entry: "main",
    source: &[include_str!("select_outputs.wgsl"), ELEMENT],
};

/// `y[i] = x[rows[i]]`: `x` is `[n, width]`, `rows` are indices (u32), each below `n`.
pub fn select_outputs(enc: &mut Encoder<'_>, x: &View, width: usize, rows: &View, y: &View) {
    assert!(x.len().is_multiple_of(width) && y.len() == rows.len() * width);
    let params = [y.len() as u32, width as u32];
    enc.dispatch(&SELECT_OUTPUTS, &EACH, &[x, rows, y], &params, grid(y.len().div_ceil(LANES)));
}
