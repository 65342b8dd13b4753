//! What is done to each value by itself.

use crate::{Encoder, Program, View};

use super::{EACH, ELEMENT, LANES, MATH, grid};

const SOURCE: &[&str] = &[include_str!("elementwise.wgsl"), ELEMENT, MATH];
static ADD: Program = Program { name: "add", entry: "add", source: SOURCE };
static SWIGLU: Program = Program { name: "swiglu", entry: "swiglu", source: SOURCE };
static SIGMOID_GATE: Program = Program { name: "sigmoid_gate", entry: "sigmoid_gate", source: SOURCE };
static SCALE_BY_SIGMOID: Program = Program {
    name: "scale_by_sigmoid",
    entry: "main",
    source: &[include_str!("scale_by_sigmoid.wgsl"), ELEMENT, MATH],
};

/// `y = a + b`.
pub fn add(enc: &mut Encoder<'_>, a: &View, b: &View, y: &View) {
    each(enc, &ADD, a, b, y);
}

/// `y = silu(gate) · up`.
pub fn swiglu(enc: &mut Encoder<'_>, gate: &View, up: &View, y: &View) {
    each(enc, &SWIGLU, gate, up, y);
}

/// `y = x · sigmoid(gate)`.
pub fn sigmoid_gate(enc: &mut Encoder<'_>, x: &View, gate: &View, y: &View) {
    each(enc, &SIGMOID_GATE, x, gate, y);
}

/// Row `t` of `x` times `sigmoid(score[t])`: `x` and `y` are `[n, d]`, `score` is `[n]`.
pub fn scale_by_sigmoid(enc: &mut Encoder<'_>, x: &View, score: &View, y: &View) {
    assert!(x.len() == y.len() && x.len().is_multiple_of(score.len()));
    let params = [y.len() as u32, (x.len() / score.len()) as u32];
    enc.dispatch(&SCALE_BY_SIGMOID, &EACH, &[x, score, y], &params, grid(y.len().div_ceil(LANES)));
}

fn each(enc: &mut Encoder<'_>, program: &'static Program, a: &View, b: &View, y: &View) {
    assert!(a.len() == y.len() && b.len() == y.len());
    enc.dispatch(program, &EACH, &[a, b, y], &[y.len() as u32], grid(y.len().div_ceil(LANES)));
}
