//! AVX-512 with VNNI.

mod parameters;
mod tiles;
mod unpack;
mod vectors;

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

pub(super) use self::parameters::{adjacent_parameters, parameters};
pub(super) use self::tiles::{Scaled, add_spans, join, transpose_sums};
pub(super) use self::unpack::{unpack, unpack_planes, unpack4_spans};
pub(super) use self::vectors::vectors;
use super::activations::{FourColumns, GROUP, TOKENS};
use super::weights::{ByRow, ROWS};

/// `out[i][row] = by_row[row][i]`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(crate) fn transpose(by_row: &[f32], out: &mut [ByRow]) {
    let width = out.len();
    assert_eq!(by_row.len(), ROWS * width);
    let whole = width - width % ROWS;
    for first in (0..whole).step_by(ROWS) {
        let mut rows = [_mm512_setzero_si512(); ROWS];
        for (i, row) in rows.iter_mut().enumerate() {
            let values = by_row[i * width + first..][..ROWS].as_array().unwrap_or(&[0.0; ROWS]);
            *row = _mm512_castps_si512(load_floats(values));
        }
        for (out, values) in out[first..].iter_mut().zip(transpose16(&rows)) {
            // SAFETY: `out` has 16 floats.
            unsafe { _mm512_storeu_ps(out.0.as_mut_ptr(), _mm512_castsi512_ps(values)) };
        }
    }
    for i in whole..width {
        for row in 0..ROWS {
            out[i].0[row] = by_row[row * width + i];
        }
    }
}

/// Sixteen rows of sixteen values, by column.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
#[inline]
fn transpose16(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let mut quads = [_mm512_setzero_si512(); 16];
    for q in 0..4 {
        let [a, b, c, d] = [rows[4 * q], rows[4 * q + 1], rows[4 * q + 2], rows[4 * q + 3]];
        let (ab, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        quads[q] = _mm512_unpacklo_epi64(ab, cd);
        quads[4 + q] = _mm512_unpackhi_epi64(ab, cd);
        quads[8 + q] = _mm512_unpacklo_epi64(ab_high, cd_high);
        quads[12 + q] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    let mut columns = [_mm512_setzero_si512(); 16];
    for i in 0..4 {
        let of_quads = by_span::<4>([quads[4 * i], quads[4 * i + 1], quads[4 * i + 2], quads[4 * i + 3]]);
        for (lane, column) in of_quads.into_iter().enumerate() {
            columns[4 * lane + i] = column;
        }
    }
    columns
}

/// The sums of each of `SPANS` spans, by row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
#[inline]
fn by_span<const SPANS: usize>(sums: [__m512i; 4]) -> [__m512i; 4] {
    let [a, b, c, d] = sums;
    if SPANS == 4 {
        let (ab, ab_high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        let (cd, cd_high) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
        return [
            _mm512_shuffle_i32x4::<0x88>(ab, cd),
            _mm512_shuffle_i32x4::<0xdd>(ab, cd),
            _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
            _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
        ];
    }
    let ab = _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
    let cd = _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
    let (first, second) = (_mm512_shuffle_i32x4::<0x88>(ab, cd), _mm512_shuffle_i32x4::<0xdd>(ab, cd));
    let zero = _mm512_setzero_si512();
    if SPANS == 2 { [first, second, zero, zero] } else { [_mm512_add_epi32(first, second), zero, zero, zero] }
}

/// `out[i][token]` becomes the token's columns from `4i` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(crate) fn regroup(tokens: &[&[i8; GROUP]; TOKENS], out: &mut FourColumns) {
    let mut rows = [_mm512_setzero_si512(); TOKENS];
    for i in 0..TOKENS {
        rows[i] = load(tokens[i]);
    }
    for (out, columns) in out.iter_mut().zip(transpose16(&rows)) {
        // SAFETY: `out` has 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), columns) };
    }
}

/// Multiplies what stays in registers, and says how many operations that were.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn multiply_registers(steps: u32) -> u64 {
    const SUMS: usize = 16;
    let x = _mm512_set1_epi32(std::hint::black_box(1));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, x, x);
        }
    }
    std::hint::black_box(sums);
    u64::from(steps) * SUMS as u64 * (64 * 2)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_columns(tokens: &[[i8; 4]; TOKENS]) -> __m512i {
    load(tokens.as_flattened().as_array().unwrap_or(&[0; 64]))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load128(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_floats(values: &[f32; 16]) -> __m512 {
    // SAFETY: 16 floats.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn store_floats(values: __m512, out: &mut [f32; 16]) {
    // SAFETY: 16 floats.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) };
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_ints(values: &[i32; 16]) -> __m512i {
    // SAFETY: 16 integers.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}
