//! What is done to each value by itself, and copies of parts.

use std::ops::Range;

use crate::instruction_set::multiversion;
use crate::math::{sigmoid, silu};
use crate::pool::ThreadPool;
use crate::tile::{Tiling, for_each_tile};

/// Operations that an exponential and a division count for when work is shared out.
const EXP_WORK: usize = 16;

/// `y = a + b`.
pub fn add(pool: &ThreadPool, a: &[f32], b: &[f32], y: &mut [f32]) {
    assert!(a.len() == y.len() && b.len() == y.len());
    for_each_part(pool, y, 1, 2, |part, y| add_part(&a[part.clone()], &b[part], y));
}

/// `y = silu(gate) · up`.
pub fn swiglu(pool: &ThreadPool, gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(gate.len() == y.len() && up.len() == y.len());
    for_each_part(pool, y, 1, EXP_WORK, |part, y| swiglu_part(&gate[part.clone()], &up[part], y));
}

/// `y = x · sigmoid(gate)`.
pub fn sigmoid_gate(pool: &ThreadPool, x: &[f32], gate: &[f32], y: &mut [f32]) {
    assert!(x.len() == y.len() && gate.len() == y.len());
    for_each_part(pool, y, 1, EXP_WORK, |part, y| gate_part(&x[part.clone()], &gate[part], y));
}

/// Row `t` of `x` times `sigmoid(s[t])`: `x` and `y` are `[n, d]`, `s` is `[n]`.
pub fn scale_by_sigmoid(pool: &ThreadPool, x: &[f32], s: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    let width = x.len().checked_div(s.len()).unwrap_or(0);
    assert_eq!(x.len(), s.len() * width);
    for_each_part(pool, y, width, 2, |part, y| {
        let rows = y.chunks_exact_mut(width).zip(x[part.clone()].chunks_exact(width));
        for ((y, x), &s) in rows.zip(&s[part.start / width..]) {
            scale_row(x, sigmoid(s), y);
        }
    });
}

/// Takes columns of groups apart: the columns of `x`, `[n, cols]`, are groups of `group`. A row of `y` has, part by
/// part, the part's columns of every group.
pub fn columns(
    pool: &ThreadPool,
    x: &[f32],
    cols: usize,
    group: usize,
    parts: &[Range<usize>],
    y: &mut [f32],
) {
    let width: usize = parts.iter().map(Range::len).sum();
    assert!(group > 0 && cols.is_multiple_of(group) && x.len() * width == y.len() * group);
    let width = cols / group * width;
    for_each_part(pool, y, width, 2, |part, y| {
        let x = &x[part.start / width * cols..part.end / width * cols];
        for (x, mut y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(width)) {
            for part in parts {
                for group in x.chunks_exact(group) {
                    let (first, rest) = y.split_at_mut(part.len());
                    first.copy_from_slice(&group[part.clone()]);
                    y = rest;
                }
            }
        }
    });
}

/// Runs `f` on parts of `y`, whole rows of `row` values each of which is `work` operations, with their place in `y`.
fn for_each_part(
    pool: &ThreadPool,
    y: &mut [f32],
    row: usize,
    work: usize,
    f: impl Fn(Range<usize>, &mut [f32]) + Sync + Send,
) {
    if y.is_empty() {
        return;
    }
    // Parts begin where lines of the cache do, so that no two threads write one, as far as rows allow.
    let rows = pool.units_per_task(y.len() / row, row * work).next_multiple_of(16);
    for_each_tile(pool, y, Tiling::chunks(y.len(), rows * row), |_, tile| {
        let first = tile.first_column();
        f(first..first + tile.width(), tile.row(0));
    });
}

multiversion! {
    fn add_part(a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    }
}

multiversion! {
    fn swiglu_part(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = silu(gate) * up;
        }
    }
}

multiversion! {
    fn gate_part(x: &[f32], gate: &[f32], y: &mut [f32]) {
        for ((y, x), &gate) in y.iter_mut().zip(x).zip(gate) {
            *y = x * sigmoid(gate);
        }
    }
}

multiversion! {
    fn scale_row(x: &[f32], scale: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x * scale;
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
