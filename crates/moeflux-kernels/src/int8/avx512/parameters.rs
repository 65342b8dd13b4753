//! Scales and biases of sixteen rows, by span. Where rows are narrow, bringing them into order costs as much as the products.

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

use super::transpose16;
use crate::encoding::Float;
use crate::int8::weights::{ByRow, ROWS};

/// [`parameters`] of rows that lie one after the other, as those of nearly every block do, if there is an even number of floats
/// of 16 bits in each; whether there is.
///
/// Two neighbouring floats move as one integer of 32 bits, which stands at `row · pairs + pair`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
pub(in crate::int8) fn adjacent_parameters(
    float: Float,
    values: &[u8],
    repeat: usize,
    out: &mut [ByRow],
) -> bool {
    let pairs = values.len() / (4 * ROWS);
    if float == Float::F32 || values.len() != pairs * 4 * ROWS {
        return false;
    }
    match repeat {
        1 => pairs_of_rows::<1>(float, values, pairs, out),
        2 => pairs_of_rows::<2>(float, values, pairs, out),
        _ => return false,
    }
    true
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
#[inline]
fn pairs_of_rows<const REPEAT: usize>(float: Float, values: &[u8], pairs: usize, out: &mut [ByRow]) {
    assert!(out.len() == pairs * 2 * REPEAT);
    match pairs {
        1 => few::<1, REPEAT>(float, values, out),
        2 => few::<2, REPEAT>(float, values, out),
        3 => few::<3, REPEAT>(float, values, out),
        4 => few::<4, REPEAT>(float, values, out),
        _ => many::<REPEAT>(float, values, pairs, out),
    }
}

/// Up to four pairs of each row, which are in as many registers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
#[inline]
fn few<const PAIRS: usize, const REPEAT: usize>(float: Float, values: &[u8], out: &mut [ByRow]) {
    let mut lines = [_mm512_setzero_si512(); 4];
    for (line, values) in lines.iter_mut().zip(values.as_chunks::<64>().0) {
        // SAFETY: 64 bytes.
        *line = unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
    }
    let of_rows = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let first = _mm512_mullo_epi32(of_rows, _mm512_set1_epi32(PAIRS as i32));
    for pair in 0..PAIRS {
        let at = _mm512_add_epi32(first, _mm512_set1_epi32(pair as i32));
        let mut both = _mm512_permutex2var_epi32(lines[0], at, lines[1]);
        if PAIRS > 2 {
            let beyond = _mm512_cmpge_epi32_mask(at, _mm512_set1_epi32(32));
            both = _mm512_mask_mov_epi32(both, beyond, _mm512_permutex2var_epi32(lines[2], at, lines[3]));
        }
        store::<REPEAT>(float, both, &mut out[2 * REPEAT * pair..]);
    }
}

/// Sixteen pairs of each row at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
#[inline]
fn many<const REPEAT: usize>(float: Float, values: &[u8], pairs: usize, out: &mut [ByRow]) {
    for first in (0..pairs).step_by(ROWS) {
        let here = ROWS.min(pairs - first);
        let mask = ((1_u32 << here) - 1) as __mmask16;
        let mut rows = [_mm512_setzero_si512(); ROWS];
        for (i, row) in rows.iter_mut().enumerate() {
            let at = values.as_ptr().wrapping_add((i * pairs + first) * 4);
            // SAFETY: the mask lets `here` pairs be loaded, which the row has from there.
            *row = unsafe { _mm512_maskz_loadu_epi32(mask, at.cast()) };
        }
        let columns = transpose16(&rows);
        for (i, &both) in columns.iter().enumerate().take(here) {
            store::<REPEAT>(float, both, &mut out[2 * REPEAT * (first + i)..]);
        }
    }
}

/// The lower floats, so many times, then the upper ones.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
#[inline]
fn store<const REPEAT: usize>(float: Float, both: __m512i, out: &mut [ByRow]) {
    for (i, values) in widen(float, both).into_iter().enumerate() {
        for out in &mut out[i * REPEAT..(i + 1) * REPEAT] {
            // SAFETY: 16 floats, aligned.
            unsafe { _mm512_store_ps(out.0.as_mut_ptr(), values) };
        }
    }
}

/// The lower and the upper float of each 32 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
#[inline]
fn widen(float: Float, both: __m512i) -> [__m512; 2] {
    match float {
        Float::F16 => {
            [both, _mm512_srli_epi32::<16>(both)].map(|x| _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x)))
        }
        Float::Bf16 | Float::F32 => {
            let odd = _mm512_and_si512(both, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            [_mm512_slli_epi32::<16>(both), odd].map(|x| _mm512_castsi512_ps(x))
        }
    }
}

/// `out[i·repeat..][row]` becomes float `i` of each row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
pub(in crate::int8) fn parameters(float: Float, rows: &[&[u8]; ROWS], repeat: usize, out: &mut [ByRow]) {
    let count = out.len() / repeat;
    assert!(rows.iter().all(|row| row.len() == count * float.bytes()));
    for first in (0..count).step_by(ROWS) {
        let here = ROWS.min(count - first);
        let mask = ((1_u32 << here) - 1) as __mmask16;
        let mut values = [_mm512_setzero_si512(); ROWS];
        for i in 0..ROWS {
            let at = rows[i].as_ptr().wrapping_add(first * float.bytes());
            // SAFETY: the mask lets `here` values be loaded, which the row has from there.
            values[i] = unsafe {
                match float {
                    Float::F32 => _mm512_maskz_loadu_epi32(mask, at.cast()),
                    Float::Bf16 => {
                        let halves = _mm256_maskz_loadu_epi16(mask, at.cast());
                        _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves))
                    }
                    Float::F16 => {
                        let halves = _mm256_maskz_loadu_epi16(mask, at.cast());
                        _mm512_castps_si512(_mm512_cvtph_ps(halves))
                    }
                }
            };
        }
        let columns = transpose16(&values);
        let out = &mut out[first * repeat..(first + here) * repeat];
        for (out, column) in out.chunks_exact_mut(repeat).zip(columns) {
            for out in out {
                // SAFETY: `out` has 16 floats.
                unsafe { _mm512_store_ps(out.0.as_mut_ptr(), _mm512_castsi512_ps(column)) };
            }
        }
    }
}
