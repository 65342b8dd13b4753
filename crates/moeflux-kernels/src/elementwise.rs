//! What is done to each value by itself, and copies of parts.

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
    /// `y = silu(gate) · up`.
    pub fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) {
        assert!(gate.len() == y.len() && up.len() == y.len());
        for ((y, &gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = silu(gate) * up;
        }
    }
}

multiversion! {
    /// `gate = silu(gate) · up`.
    pub(crate) fn swiglu_in_place(gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = silu(*gate) * up;
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

/// Separates pairs of vectors of `d`: `x` is `[n, heads, 2·d]`, `first` and `second` are `[n, heads, d]`.
pub fn split_pairs(x: &[f32], d: usize, first: &mut [f32], second: &mut [f32]) {
    assert!(first.len() == second.len() && x.len() == 2 * first.len() && first.len().is_multiple_of(d));
    let halves = first.chunks_exact_mut(d).zip(second.chunks_exact_mut(d));
    for (pair, (first, second)) in x.chunks_exact(2 * d).zip(halves) {
        first.copy_from_slice(&pair[..d]);
        second.copy_from_slice(&pair[d..]);
    }
}

/// Copies columns `first..first + width`: `x` is `[n, cols]`, `y` is `[n, width]`.
pub fn copy_columns(x: &[f32], cols: usize, first: usize, y: &mut [f32], width: usize) {
    assert!(first + width <= cols && x.len() * width == y.len() * cols);
    for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(width)) {
        y.copy_from_slice(&x[first..first + width]);
    }
}
