//! Scales or biases of sixteen rows that lie one after the other, as those of nearly every block do. Where rows are narrow,
//! bringing them into order row by row costs more than the products.

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

use super::weights::{ByRow, ROWS};
use crate::encoding::Float;

/// `out[i·repeat..][row]` becomes float `i` of each row of `values`, if those are an even number up to eight of 16 bits;
/// whether they are.
///
/// Two neighbouring floats move as one integer of 32 bits, which stands at `row · pairs + pair`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
pub(crate) fn parameters(float: Float, values: &[u8], repeat: usize, out: &mut [ByRow]) -> bool {
    match (float, values.len() / ROWS) {
        (Float::F32, _) => return false,
        (_, 4) => pairs::<1>(float, values, repeat, out),
        (_, 8) => pairs::<2>(float, values, repeat, out),
        (_, 12) => pairs::<3>(float, values, repeat, out),
        (_, 16) => pairs::<4>(float, values, repeat, out),
        _ => return false,
    }
    true
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn pairs<const PAIRS: usize>(float: Float, values: &[u8], repeat: usize, out: &mut [ByRow]) {
    assert!(values.len() == ROWS * 4 * PAIRS && out.len() == 2 * PAIRS * repeat);
    let mut lines = [_mm512_setzero_si512(); 4];
    for (line, values) in lines.iter_mut().zip(values.as_chunks::<64>().0) {
        // SAFETY: 64 bytes.
        *line = unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
    }
    let of_rows = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let first = _mm512_mullo_epi32(of_rows, _mm512_set1_epi32(PAIRS as i32));
    for (pair, out) in out.chunks_exact_mut(2 * repeat).enumerate() {
        let at = _mm512_add_epi32(first, _mm512_set1_epi32(pair as i32));
        let mut both = _mm512_permutex2var_epi32(lines[0], at, lines[1]);
        if PAIRS > 2 {
            let beyond = _mm512_cmpge_epi32_mask(at, _mm512_set1_epi32(32));
            both = _mm512_mask_mov_epi32(both, beyond, _mm512_permutex2var_epi32(lines[2], at, lines[3]));
        }
        let [even, odd] = widen(float, both);
        let (of_even, of_odd) = out.split_at_mut(repeat);
        for (of, values) in [(of_even, even), (of_odd, odd)] {
            for out in of {
                // SAFETY: 16 floats, aligned.
                unsafe { _mm512_store_ps(out.0.as_mut_ptr(), values) };
            }
        }
    }
}

/// The lower and the upper float of each 32 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
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
