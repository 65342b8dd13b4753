//! What is done to each value by itself, and copies of parts.

use std::ops::Range;

use crate::instruction_set::multiversion;
use crate::math::{sigmoid, silu};

multiversion! {
    /// `y = a + b`.
    pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
        assert!(a.len() == y.len() && b.len() == y.len());
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    }
}

multiversion! {
    /// Adds `bias` to each row of `y`, `[n, bias.len()]`.
    pub fn add_to_rows(bias: &[f32], y: &mut [f32]) {
        assert!(y.len().is_multiple_of(bias.len().max(1)));
        for y in y.chunks_exact_mut(bias.len().max(1)) {
            for (y, bias) in y.iter_mut().zip(bias) {
                *y += bias;
            }
        }
    }
}

multiversion! {
    /// `y = silu(gate) · up`.
    pub fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) {
        assert!(gate.len() == y.len() && up.len() == y.len());
        for ((y, &gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = silu(gate) * up;
        }
    }
}

multiversion! {
    /// `y = x · sigmoid(gate)`.
    pub fn sigmoid_gate(x: &[f32], gate: &[f32], y: &mut [f32]) {
        assert!(x.len() == y.len() && gate.len() == y.len());
        for ((y, x), &gate) in y.iter_mut().zip(x).zip(gate) {
            *y = x * sigmoid(gate);
        }
    }
}

multiversion! {
    /// Row `t` of `x` times `sigmoid(s[t])`: `x` and `y` are `[n, d]`, `s` is `[n]`.
    pub fn scale_rows_by_sigmoid(x: &[f32], s: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        let width = x.len().checked_div(s.len()).unwrap_or(0);
        assert_eq!(x.len(), s.len() * width);
        let rows = y.chunks_exact_mut(width.max(1)).zip(x.chunks_exact(width.max(1)));
        for ((y, x), &s) in rows.zip(s) {
            let scale = sigmoid(s);
            for (y, x) in y.iter_mut().zip(x) {
                *y = x * scale;
            }
        }
    }
}

/// Takes columns of groups apart: the columns of `x`, `[n, cols]`, are groups of `group`. A row of `y` has, part by
/// part, the part's columns of every group.
pub fn gather_columns(x: &[f32], cols: usize, group: usize, parts: &[Range<usize>], y: &mut [f32]) {
    let width: usize = parts.iter().map(Range::len).sum();
    assert!(group > 0 && cols.is_multiple_of(group) && x.len() * width == y.len() * group);
    for (x, mut y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols / group * width)) {
        for part in parts {
            for group in x.chunks_exact(group) {
                let (first, rest) = y.split_at_mut(part.len());
                first.copy_from_slice(&group[part.clone()]);
                y = rest;
            }
        }
    }
}
