//! Blocks of GGML, and scales of MXFP4: codes as bytes, parameters by span. See [`Ggml`] for where they lie.

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

use super::columns::{LANES, four_columns, store};
use super::unpack::{levels, nibbles};
use crate::encoding::Encoding;
use crate::ggml::Ggml;
use crate::int8::weights::{ByRow, ROWS};

/// A row's codes, one a byte, of MXFP4 or GGML's blocks, if there is a way for them; whether there is.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::int8) fn unpack_blocks(encoding: Encoding, codes: &[u8], out: &mut [u8]) -> bool {
    let nibble = _mm256_set1_epi8(15);
    match encoding {
        Encoding::Mxfp4 => {
            assert!(codes.len() * 2 == out.len() && out.len().is_multiple_of(32));
            for (codes, out) in codes.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<32>().0) {
                store_codes(_mm256_shuffle_epi8(levels(), nibbles(codes)), out);
            }
        }
        Encoding::Ggml(Ggml::Q4_0) => {
            for (block, out) in codes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
                store_codes(halves(part(block, 2)), out);
            }
        }
        Encoding::Ggml(Ggml::Mxfp4) => {
            for (block, out) in codes.as_chunks::<17>().0.iter().zip(out.as_chunks_mut::<32>().0) {
                store_codes(_mm256_shuffle_epi8(levels(), halves(part(block, 1))), out);
            }
        }
        Encoding::Ggml(Ggml::Q8_0) => {
            for (block, out) in codes.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<32>().0) {
                store_codes(_mm256_xor_si256(load(part(block, 2)), _mm256_set1_epi8(-128)), out);
            }
        }
        Encoding::Ggml(Ggml::Q4K) => {
            for (block, out) in codes.as_chunks::<144>().0.iter().zip(out.as_chunks_mut::<256>().0) {
                for (i, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
                    let codes = load(part(block, 16 + 32 * i));
                    let [low, high] = out.as_chunks_mut::<32>().0 else { unreachable!("64 bytes") };
                    store_codes(_mm256_and_si256(codes, nibble), low);
                    store_codes(_mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble), high);
                }
            }
        }
        Encoding::Ggml(Ggml::Q6K) => {
            let two = _mm256_set1_epi8(0x30);
            for (block, out) in codes.as_chunks::<210>().0.iter().zip(out.as_chunks_mut::<256>().0) {
                for (h, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
                    let low = [load(part(block, 64 * h)), load(part(block, 64 * h + 32))];
                    let high = load(part(block, 128 + 32 * h));
                    let up = [
                        _mm256_slli_epi16::<4>(high),
                        _mm256_slli_epi16::<2>(high),
                        high,
                        _mm256_srli_epi16::<2>(high),
                    ];
                    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                        let low = low[i % 2];
                        let low = if i < 2 { low } else { _mm256_srli_epi16::<4>(low) };
                        let (low, up) = (_mm256_and_si256(low, nibble), _mm256_and_si256(up[i], two));
                        store_codes(_mm256_or_si256(low, up), out);
                    }
                }
            }
        }
        _ => return false,
    }
    true
}

/// The scales of each row's spans by row, or what is added to them, of the same encodings: `rows` are what the scales lie in.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::int8) fn block_parameters(
    encoding: Encoding,
    rows: &[&[u8]; ROWS],
    biases: bool,
    out: &mut [ByRow],
) -> bool {
    match encoding {
        Encoding::Mxfp4 => exponents::<1>(rows, out),
        Encoding::Ggml(Ggml::Mxfp4) => exponents::<17>(rows, out),
        Encoding::Ggml(Ggml::Q4_0) => leading_halves::<18>(rows, out),
        Encoding::Ggml(Ggml::Q8_0) => leading_halves::<34>(rows, out),
        Encoding::Ggml(Ggml::Q4K) => {
            for (rows, first) in rows.as_chunks::<LANES>().0.iter().zip([0, LANES]) {
                for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                    let mut values = [[0.0; 8]; LANES];
                    for (row, values) in rows.iter().zip(&mut values) {
                        let block: &[u8; 144] = part(row, 144 * i);
                        let factor = half(block, if biases { 2 } else { 0 });
                        let parts = packed_of_6_bits(part(block, 4), biases);
                        let parts = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(parts)));
                        let products = _mm256_mul_ps(parts, _mm256_set1_ps(factor));
                        let sign = _mm256_set1_ps(if biases { -0.0 } else { 0.0 });
                        // SAFETY: 8 floats.
                        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), _mm256_xor_ps(products, sign)) };
                    }
                    transpose_into(&values, first, out);
                }
            }
        }
        Encoding::Ggml(Ggml::Q6K) => {
            for (rows, first) in rows.as_chunks::<LANES>().0.iter().zip([0, LANES]) {
                for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                    let mut values = [[0.0; 16]; LANES];
                    for (row, values) in rows.iter().zip(&mut values) {
                        let block: &[u8; 210] = part(row, 210 * i);
                        let factor = _mm256_set1_ps(half(block, 208));
                        for (eight, values) in values.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                            let scales = i64::from_le_bytes(*part(block, 192 + 8 * eight));
                            let scales = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(scales));
                            let products = _mm256_mul_ps(factor, _mm256_cvtepi32_ps(scales));
                            // SAFETY: 8 floats.
                            unsafe { _mm256_storeu_ps(values.as_mut_ptr(), products) };
                        }
                    }
                    transpose_into(&values, first, out);
                }
            }
        }
        _ => return false,
    }
    true
}

/// Eight scales of Q4_K, or its minima, one a byte.
#[inline(always)]
fn packed_of_6_bits(packed: &[u8; 12], minima: bool) -> i64 {
    let [a, b, c] = [0, 4, 8].map(|at| u32::from_le_bytes(*part(packed, at)));
    let (own, rest) = if minima { (b, c >> 4) } else { (a, c) };
    let upper = rest & 0x0f0f_0f0f | own >> 2 & 0x3030_3030;
    (u64::from(own & 0x3f3f_3f3f) | u64::from(upper) << 32).cast_signed()
}

/// The float16 that each block of so many bytes begins with.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn leading_halves<const BYTES: usize>(rows: &[&[u8]; ROWS], out: &mut [ByRow]) {
    assert!(rows.iter().all(|row| row.len() == out.len() * BYTES));
    for (rows, first) in rows.as_chunks::<LANES>().0.iter().zip([0, LANES]) {
        for (span, out) in out.iter_mut().enumerate() {
            let [a, b, c, d, e, f, g, h] = rows.map(|row| i16::from_le_bytes(*part(row, span * BYTES)));
            let values = _mm256_cvtph_ps(_mm_setr_epi16(a, b, c, d, e, f, g, h));
            store(_mm256_castps_si256(values), &mut out.0[first..]);
        }
    }
}

/// Half of the power of two that each block of so many bytes begins with.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn exponents<const BYTES: usize>(rows: &[&[u8]; ROWS], out: &mut [ByRow]) {
    assert!(rows.iter().all(|row| row.len() == out.len() * BYTES));
    for (rows, first) in rows.as_chunks::<LANES>().0.iter().zip([0, LANES]) {
        for (span, out) in out.iter_mut().enumerate() {
            let [a, b, c, d, e, f, g, h] = rows.map(|row| i32::from(row[span * BYTES]));
            let exponents = _mm256_setr_epi32(a, b, c, d, e, f, g, h);
            let is_zero = _mm256_cmpeq_epi32(exponents, _mm256_setzero_si256());
            let is_nan = _mm256_cmpeq_epi32(exponents, _mm256_set1_epi32(255));
            let power = _mm256_slli_epi32::<23>(exponents);
            let power = _mm256_or_si256(power, _mm256_and_si256(is_zero, _mm256_set1_epi32(1 << 22)));
            let power = _mm256_or_si256(power, _mm256_and_si256(is_nan, _mm256_set1_epi32(1 << 22)));
            let values = _mm256_mul_ps(_mm256_castsi256_ps(power), _mm256_set1_ps(0.5));
            store(_mm256_castps_si256(values), &mut out.0[first..]);
        }
    }
}

/// `out[i][first + row] = values[row][i]`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn transpose_into<const SPANS: usize>(
    values: &[[f32; SPANS]; LANES],
    first: usize,
    out: &mut [ByRow; SPANS],
) {
    let rows = std::array::from_fn(|i| values[i].as_ptr().cast());
    for span in (0..SPANS).step_by(4) {
        // SAFETY: each row has a value for each span, whose number is a multiple of 4.
        let columns = unsafe { four_columns(&rows, span) };
        for (out, column) in out[span..].iter_mut().zip(columns) {
            store(column, &mut out.0[first..]);
        }
    }
}

/// The lower halves of bytes, then the upper ones.
#[target_feature(enable = "avx2")]
#[inline]
fn halves(codes: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes.
    let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
    _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(codes), codes), _mm256_set1_epi8(15))
}

/// The float16 at a byte.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn half(block: &[u8], at: usize) -> f32 {
    let bits = i32::from(u16::from_le_bytes(*part(block, at)));
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)))
}

/// So many bytes from a byte on, which are there.
#[inline(always)]
fn part<const BYTES: usize>(bytes: &[u8], at: usize) -> &[u8; BYTES] {
    bytes[at..].first_chunk().unwrap_or_else(|| unreachable!("blocks are whole"))
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store_codes(codes: __m256i, out: &mut [u8; 32]) {
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), codes) };
}
