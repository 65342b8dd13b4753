//! Scales and biases of sixteen rows, by span.

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

use super::columns::{LANES, four_columns, turn};
use crate::dequant::decode_floats;
use crate::encoding::Float;
use crate::int8::scalar;
use crate::int8::weights::{ByRow, ROWS};

/// `out[i·repeat..][row]` becomes float `i` of each row. Two neighbouring floats of 16 bits move as one integer of 32 bits.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::int8) fn parameters(float: Float, rows: &[&[u8]; ROWS], repeat: usize, out: &mut [ByRow]) {
    if float == Float::F32 {
        return scalar::parameters(float, rows, repeat, out);
    }
    let count = out.len() / repeat;
    assert!(rows.iter().all(|row| row.len() == 2 * count) && out.len() == count * repeat);
    let pairs = count / 2;
    let whole = pairs - pairs % 4;
    for (half, rows) in rows.as_chunks::<LANES>().0.iter().enumerate() {
        let half = half * LANES;
        let starts: [*const u8; LANES] = std::array::from_fn(|i| rows[i].as_ptr());
        for first in (0..whole).step_by(4) {
            // SAFETY: each row has so many pairs.
            let columns = unsafe { four_columns(&starts, first) };
            store(float, &columns, half, repeat, &mut out[2 * first * repeat..]);
        }
        if whole < pairs {
            let left = (pairs - whole) as i32;
            let mask = _mm_cmpgt_epi32(_mm_set1_epi32(left), _mm_setr_epi32(0, 1, 2, 3));
            let mut quads = [_mm256_setzero_si256(); 4];
            for i in 0..4 {
                let [low, high] = [starts[i], starts[i + 4]].map(|row| row.wrapping_add(4 * whole).cast());
                // SAFETY: the mask lets what the row has from there be loaded.
                quads[i] = unsafe {
                    let low = _mm256_castsi128_si256(_mm_maskload_epi32(low, mask));
                    _mm256_inserti128_si256::<1>(low, _mm_maskload_epi32(high, mask))
                };
            }
            let columns = turn(quads);
            store(float, &columns[..pairs - whole], half, repeat, &mut out[2 * whole * repeat..]);
        }
        if count % 2 == 1 {
            for (i, row) in rows.iter().enumerate() {
                let mut value = [0.0];
                decode_floats(float, &row[2 * (count - 1)..], &mut value);
                for out in &mut out[(count - 1) * repeat..] {
                    out.0[half + i] = value[0];
                }
            }
        }
    }
}

/// Of each pair the lower floats of eight rows, so many times, then the upper ones.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn store(float: Float, pairs: &[__m256i], half: usize, repeat: usize, out: &mut [ByRow]) {
    for (&both, out) in pairs.iter().zip(out.chunks_exact_mut(2 * repeat)) {
        let values = widen(float, both);
        for (i, out) in out.iter_mut().enumerate() {
            let (value, out) = (if i < repeat { values[0] } else { values[1] }, &mut out.0[half..][..LANES]);
            // SAFETY: `out` has 8 floats.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), value) };
        }
    }
}

/// The lower and the upper float of each 32 bits.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn widen(float: Float, both: __m256i) -> [__m256; 2] {
    match float {
        Float::F16 => {
            let low = _mm256_and_si256(both, _mm256_set1_epi32(0xffff));
            let apart = _mm256_packus_epi32(low, _mm256_srli_epi32::<16>(both));
            let apart = _mm256_permute4x64_epi64::<0b11_01_10_00>(apart);
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(apart)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(apart)),
            ]
        }
        Float::Bf16 | Float::F32 => {
            let odd = _mm256_and_si256(both, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(both)), _mm256_castsi256_ps(odd)]
        }
    }
}
