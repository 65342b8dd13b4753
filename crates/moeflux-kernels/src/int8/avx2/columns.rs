//! Rows turned into columns, four values of eight rows at a time.

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

use crate::int8::activations::{FourColumns, GROUP, TOKENS};
use crate::int8::tiles::Sums;
use crate::int8::weights::{ByRow, ROWS};

/// Rows that stand in a register.
pub(super) const LANES: usize = 8;

/// Values `first` to `first + 4`, of 32 bits, of each of eight rows, by column.
///
/// # Safety
/// Each row has so many values.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn four_columns(rows: &[*const u8; LANES], first: usize) -> [__m256i; 4] {
    let mut quads = [_mm256_setzero_si256(); 4];
    for i in 0..4 {
        let [low, high] = [rows[i], rows[i + 4]].map(|row| row.wrapping_add(4 * first));
        // SAFETY: the caller says so.
        quads[i] = unsafe {
            let low = _mm256_castsi128_si256(_mm_loadu_si128(low.cast()));
            _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(high.cast()))
        };
    }
    turn(quads)
}

/// Four values of row `i` and of row `i + 4` each, by column.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn turn([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// `out[i][row] = by_row[row][i]`.
#[target_feature(enable = "avx2")]
pub(in crate::int8) fn transpose(by_row: &[f32], out: &mut [ByRow]) {
    let width = out.len();
    assert_eq!(by_row.len(), ROWS * width);
    let whole = width - width % 4;
    for half in [0, LANES] {
        let rows = std::array::from_fn(|i| by_row[(half + i) * width..].as_ptr().cast());
        for first in (0..whole).step_by(4) {
            // SAFETY: each row has `width` values.
            let columns = unsafe { four_columns(&rows, first) };
            for (out, column) in out[first..].iter_mut().zip(columns) {
                store(column, &mut out.0[half..]);
            }
        }
    }
    for i in whole..width {
        for row in 0..ROWS {
            out[i].0[row] = by_row[row * width + i];
        }
    }
}

/// `out[i][token]` becomes the token's columns from `4i` on.
#[target_feature(enable = "avx2")]
pub(in crate::int8) fn regroup(tokens: &[&[i8; GROUP]; TOKENS], out: &mut FourColumns) {
    for half in [0, LANES] {
        let rows = std::array::from_fn(|i| tokens[half + i].as_ptr().cast());
        for first in (0..GROUP / 4).step_by(4) {
            // SAFETY: each token has 16 times four columns.
            let columns = unsafe { four_columns(&rows, first) };
            for (out, column) in out[first..].iter_mut().zip(columns) {
                let out = &mut out[half..][..LANES];
                // SAFETY: `out` has 32 bytes.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), column) };
            }
        }
    }
}

/// The sums by token.
#[target_feature(enable = "avx2")]
pub(in crate::int8) fn transpose_sums(sums: &Sums, y: &mut [[f32; ROWS]; TOKENS]) {
    for half in [0, LANES] {
        let rows = std::array::from_fn(|i| sums.0[half + i].as_ptr().cast());
        for first in (0..TOKENS).step_by(4) {
            // SAFETY: each row has a sum for each token.
            let columns = unsafe { four_columns(&rows, first) };
            for (y, column) in y[first..].iter_mut().zip(columns) {
                store(column, &mut y[half..]);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store(column: __m256i, out: &mut [f32]) {
    let out = &mut out[..LANES];
    // SAFETY: `out` has 8 floats.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), column) };
}
