//! Normalisations over rows. Sums of squares are ordered as [`dot`](mod@crate::dot) says.

use crate::dot::sum_of_squares;
use crate::instruction_set::multiversion;
use crate::math::silu;
use crate::pool::ThreadPool;
use crate::tile::{Tiling, for_each_tile};

/// `y = x · 1/sqrt(mean(x²) + eps) · weight` over each row of `weight.len()` values (RMSNorm, Zhang & Sennrich 2019).
pub fn rms_norm(pool: &ThreadPool, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    for_each_row(pool, x, weight.len(), y, |_, x, y| rms_norm_row(x, weight, eps, y));
}

/// `rms_norm(x) · silu(gate)`, element by element; `gate` has the shape of `x`.
pub fn gated_rms_norm(pool: &ThreadPool, x: &[f32], gate: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    assert_eq!(gate.len(), x.len());
    for_each_row(pool, x, weight.len(), y, |first, x, y| {
        gated_rms_norm_row(x, &gate[first..][..x.len()], weight, eps, y);
    });
}

/// `y = x · 1/sqrt(sum(x²) + eps) · scale` over each row of `dim` values.
pub fn l2_norm(pool: &ThreadPool, x: &[f32], dim: usize, eps: f32, scale: f32, y: &mut [f32]) {
    for_each_row(pool, x, dim, y, |_, x, y| l2_norm_row(x, eps, scale, y));
}

/// Runs `f` on each row of `dim` values of `x` and `y`, with the index of the row's first value.
fn for_each_row(
    pool: &ThreadPool,
    x: &[f32],
    dim: usize,
    y: &mut [f32],
    f: impl Fn(usize, &[f32], &mut [f32]) + Sync + Send,
) {
    assert!(dim > 0 && x.len().is_multiple_of(dim));
    assert_eq!(y.len(), x.len());
    let rows_per_task = pool.units_per_task(x.len() / dim, 4 * dim);
    for_each_tile(pool, y, Tiling::chunks(x.len(), rows_per_task * dim), |_, tile| {
        let first = tile.first_column();
        for (i, y) in tile.row(0).chunks_exact_mut(dim).enumerate() {
            let first = first + i * dim;
            f(first, &x[first..first + dim], y);
        }
    });
}

multiversion! {
    fn rms_norm_row(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        let inverse = inverse_rms(x, eps);
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * inverse * w;
        }
    }
}

multiversion! {
    fn gated_rms_norm_row(x: &[f32], gate: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        let inverse = inverse_rms(x, eps);
        for (((y, x), w), &gate) in y.iter_mut().zip(x).zip(weight).zip(gate) {
            *y = x * inverse * w * silu(gate);
        }
    }
}

multiversion! {
    fn l2_norm_row(x: &[f32], eps: f32, scale: f32, y: &mut [f32]) {
        let inverse = 1.0 / (sum_of_squares(x) + eps).sqrt();
        for (y, x) in y.iter_mut().zip(x) {
            *y = x * inverse * scale;
        }
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt()
}
