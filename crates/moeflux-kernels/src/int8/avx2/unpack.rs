//! Codes as bytes.

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

use crate::dequant::unpack_stream;
use crate::int8::weights::{E2M1, ROWS};

/// Codes of `BITS` bits, 2 to 6, from a little-endian stream, each into a byte.
#[target_feature(enable = "avx2,fma")]
pub(in crate::int8) fn unpack<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    assert!(codes.len() * 8 == out.len() * BITS);
    if BITS == 4 {
        let (out, out_tail) = out.as_chunks_mut::<32>();
        let (codes, codes_tail) = codes.as_chunks::<16>();
        for (out, codes) in out.iter_mut().zip(codes) {
            // SAFETY: 32 bytes.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), nibbles(codes)) };
        }
        return unpack_stream::<BITS>(codes_tail, out_tail);
    }
    // Each 32 bits take the bytes of four codes, which begin within the first byte, at its upper half if `BITS` is odd and
    // the four are not the first of their eight.
    let mut places = [0_u8; 16];
    for (i, place) in places.iter_mut().enumerate() {
        *place = (i / 4 * 4 * BITS / 8 + i % 4) as u8;
    }
    // SAFETY: 16 bytes.
    let places = unsafe { _mm_loadu_si128(places.as_ptr().cast()) };
    let places = _mm256_broadcastsi128_si256(places);
    let late = if BITS % 2 == 1 { 4 } else { 0 };
    let shifts = _mm256_setr_epi32(0, late, 0, late, 0, late, 0, late);
    let (two, one) = ((1 << (2 * BITS)) - 1, 0x0001_0001 * ((1 << BITS) - 1));
    let (two, two_up) = (_mm256_set1_epi32(two), _mm256_set1_epi32(two << (2 * BITS)));
    let (one, one_up) = (_mm256_set1_epi32(one), _mm256_set1_epi32(one << BITS));
    let (twos, ones) = (_mm_cvtsi32_si128(16 - 2 * BITS as i32), _mm_cvtsi32_si128(8 - BITS as i32));
    // 32 codes at a time, of which each half is loaded with 16 bytes.
    let at_once = 4 * BITS;
    let mut done = 0;
    while done * BITS / 8 + 2 * BITS + 16 <= codes.len() {
        let at = codes[done * BITS / 8..].as_ptr();
        // SAFETY: so many bytes are left, as the condition says.
        let bytes = unsafe {
            let low = _mm256_castsi128_si256(_mm_loadu_si128(at.cast()));
            _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(at.wrapping_add(at_once / 2).cast()))
        };
        let words = _mm256_srlv_epi32(_mm256_shuffle_epi8(bytes, places), shifts);
        let upper = _mm256_sll_epi32(_mm256_and_si256(words, two_up), twos);
        let words = _mm256_or_si256(_mm256_and_si256(words, two), upper);
        let upper = _mm256_sll_epi32(_mm256_and_si256(words, one_up), ones);
        let words = _mm256_or_si256(_mm256_and_si256(words, one), upper);
        let out = &mut out[done..][..32];
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), words) };
        done += 32;
    }
    unpack_stream::<BITS>(&codes[done * BITS / 8..], &mut out[done..]);
}

/// [`E2M1`] in each half.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn levels() -> __m256i {
    // SAFETY: 16 bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(E2M1.as_ptr().cast()) })
}

/// A row's codes of 4 bits, one a byte, into their places in `[spans, rows, width]`.
#[target_feature(enable = "avx2,fma")]
pub(in crate::int8) fn unpack4_spans<const WIDTH: usize>(
    codes: &[u8],
    row: usize,
    weights: &mut [[[u8; WIDTH]; ROWS]],
) {
    for (codes, weights) in codes.chunks_exact(WIDTH / 2).zip(weights) {
        for (codes, out) in codes.as_chunks::<16>().0.iter().zip(weights[row].as_chunks_mut::<32>().0) {
            // SAFETY: 32 bytes.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), nibbles(codes)) };
        }
        if WIDTH == 16 {
            for (&both, out) in codes.iter().zip(weights[row].as_chunks_mut::<2>().0) {
                *out = [both & 15, both >> 4];
            }
        }
    }
}

/// Both halves of each byte.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn nibbles(codes: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes.
    let wide = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(codes.as_ptr().cast()) });
    _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16::<4>(wide)), _mm256_set1_epi8(15))
}
