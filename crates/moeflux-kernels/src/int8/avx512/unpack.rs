//! Codes as bytes.

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

use crate::int8::activations::{LOW_BITS, PLANES};
use crate::int8::weights::ROWS;

/// Codes of `BITS` bits from a little-endian stream, each into a byte.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,bmi2")]
pub(crate) fn unpack<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    assert!(codes.len() * 8 == out.len() * BITS);
    if BITS == 4 {
        let (out, out_tail) = out.as_chunks_mut::<64>();
        let (codes, codes_tail) = codes.as_chunks::<32>();
        for (out, codes) in out.iter_mut().zip(codes) {
            // SAFETY: 32 bytes are read and 64 written.
            unsafe {
                let wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(codes.as_ptr().cast()));
                let apart = _mm512_or_si512(wide, _mm512_slli_epi16::<4>(wide));
                let codes = _mm512_and_si512(apart, _mm512_set1_epi8(15));
                _mm512_storeu_si512(out.as_mut_ptr().cast(), codes);
            }
        }
        return unpack_words::<BITS>(codes_tail, out_tail);
    }
    unpack_words::<BITS>(codes, out);
}

#[target_feature(enable = "bmi2")]
#[inline]
fn unpack_words<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    let mask = 0x0101_0101_0101_0101 * ((1 << BITS) - 1);
    for (out, bytes) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes.as_chunks::<BITS>().0) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(bytes);
        *out = _pdep_u64(u64::from_le_bytes(word), mask).to_le_bytes();
    }
}

/// A row's codes of 4 bits, one a byte, into their places in `[spans, rows, width]`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn unpack4_spans<const WIDTH: usize>(
    codes: &[u8],
    row: usize,
    weights: &mut [[[u8; WIDTH]; ROWS]],
) {
    for (codes, weights) in codes.chunks_exact(WIDTH / 2).zip(weights) {
        let out = &mut weights[row];
        // SAFETY: as many bytes are read as `codes` has, and not more written than `out` has.
        unsafe {
            match WIDTH {
                64 => {
                    let wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(codes.as_ptr().cast()));
                    let apart = _mm512_or_si512(wide, _mm512_slli_epi16::<4>(wide));
                    let codes = _mm512_and_si512(apart, _mm512_set1_epi8(15));
                    _mm512_storeu_si512(out.as_mut_ptr().cast(), codes);
                }
                32 => {
                    let wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(codes.as_ptr().cast()));
                    let apart = _mm256_or_si256(wide, _mm256_slli_epi16::<4>(wide));
                    let codes = _mm256_and_si256(apart, _mm256_set1_epi8(15));
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), codes);
                }
                _ => {
                    let wide = _mm_cvtepu8_epi16(_mm_loadl_epi64(codes.as_ptr().cast()));
                    let apart = _mm_or_si128(wide, _mm_slli_epi16::<4>(wide));
                    let codes = _mm_and_si128(apart, _mm_set1_epi8(15));
                    _mm_storeu_si128(out.as_mut_ptr().cast(), codes);
                }
            }
        }
    }
}

/// A row's codes below 16 as AMX wants them, into their places in `[spans, planes, rows, width]`: 16 times the codes, then, if
/// there are two planes, the codes. `HALVES` of bytes or bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn unpack_planes<const WIDTH: usize, const HALVES: bool>(
    codes: &[u8],
    row: usize,
    planes: usize,
    weights: &mut [[[u8; WIDTH]; ROWS]],
) {
    /// Bits of either of two, if the third has them too.
    const OR_AND: i32 = 0xa8;
    assert!(matches!(WIDTH, 16 | 32 | 64));
    let bytes = if HALVES { WIDTH / 2 } else { WIDTH };
    let (of_codes, of_span) = (u64::MAX >> (64 - bytes), u64::MAX >> (64 - WIDTH));
    for (codes, weights) in codes.chunks_exact(bytes).zip(weights.chunks_exact_mut(planes)) {
        // SAFETY: the masks let as many bytes be read as `codes` has, and as many written as a row has.
        unsafe {
            let codes = if HALVES {
                let wide =
                    _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(of_codes as u32, codes.as_ptr().cast()));
                let apart = _mm512_slli_epi16::<4>(wide);
                _mm512_ternarylogic_epi32::<OR_AND>(wide, apart, _mm512_set1_epi8(15))
            } else {
                _mm512_maskz_loadu_epi8(of_codes, codes.as_ptr().cast())
            };
            // No code reaches its neighbour.
            let high = _mm512_slli_epi16::<LOW_BITS>(codes);
            _mm512_mask_storeu_epi8(weights[0][row].as_mut_ptr().cast(), of_span, high);
            if planes == PLANES {
                _mm512_mask_storeu_epi8(weights[1][row].as_mut_ptr().cast(), of_span, codes);
            }
        }
    }
}
