//! GGML's encodings of one or two bits without a codebook, and its NVFP4.

use super::{E2M1_DOUBLED, half, part};
use crate::int8::weights::E2M1;

/// What a code of 0 is below a value of 0 in the types of this file but NVFP4.
pub(super) const ZERO: u8 = 1;

/// 48 bytes of five digits to base 3, 4 bytes of four, `d`. A byte is a fraction of 256 whose first digit is the lowest
/// column's; each 32 bytes, or what is left of them, hold the first digits of 32 columns, then the second.
#[inline(always)]
pub(super) fn tq1_0_codes(block: &[u8; 54], out: &mut [u8; 256]) {
    let digit = |byte: u8, power: u8| ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8;
    for (n, power) in [1u8, 3, 9, 27, 81].into_iter().enumerate() {
        for i in 0..32 {
            out[32 * n + i] = digit(block[i], power);
        }
        for i in 0..16 {
            out[160 + 16 * n + i] = digit(block[32 + i], power);
        }
        if n < 4 {
            for i in 0..4 {
                out[240 + 4 * n + i] = digit(block[48 + i], power);
            }
        }
    }
}

/// 64 bytes of four codes, `d`. Of 128 columns, each 32 are two bits of the same 32 bytes.
#[inline(always)]
pub(super) fn tq2_0_codes(block: &[u8; 66], out: &mut [u8; 256]) {
    for (h, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let codes = part::<32>(block, 32 * h);
        for i in 0..128 {
            out[i] = codes[i % 32] >> (i / 32 * 2) & 3;
        }
    }
}

/// `d`, then a bit for each column: whether it is `d` or `-d`. A code is twice the bit.
#[inline(always)]
pub(super) fn q1_0_codes(block: &[u8; 18], out: &mut [u8; 128]) {
    for i in 0..128 {
        out[i] = (block[2 + i / 8] >> (i % 8) & 1) << 1;
    }
}

/// `d`, then two bits for each column.
#[inline(always)]
pub(super) fn q2_0_codes(block: &[u8; 18], out: &mut [u8; 64]) {
    for i in 0..64 {
        out[i] = block[2 + i / 4] >> (i % 4 * 2) & 3;
    }
}

/// Values of a block that has one scale.
#[inline(always)]
pub(super) fn centred<const BYTES: usize, const COLS: usize>(
    block: &[u8; BYTES],
    scale_at: usize,
    codes: impl Fn(&[u8; BYTES], &mut [u8; COLS]),
    out: &mut [f32; COLS],
) {
    let (d, mut wide) = (half(block, scale_at), [0; COLS]);
    codes(block, &mut wide);
    for i in 0..COLS {
        out[i] = d * (i32::from(wide[i]) - i32::from(ZERO)) as f32;
    }
}

/// Four scales, then for each 16 columns eight bytes of codes, the lower halves first. Codes count in halves, so scales
/// are halved.
#[inline(always)]
pub(super) fn nvfp4(block: &[u8; 36], out: &mut [f32; 64]) {
    let scales = nvfp4_scales(block);
    for (g, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let codes = part::<8>(block, 4 + 8 * g);
        for i in 0..8 {
            out[i] = scales[g] * E2M1_DOUBLED[usize::from(codes[i] & 15)];
            out[8 + i] = scales[g] * E2M1_DOUBLED[usize::from(codes[i] >> 4)];
        }
    }
}

/// As [`E2M1`] has them.
#[inline(always)]
pub(super) fn nvfp4_codes(block: &[u8; 36], out: &mut [u8; 64]) {
    for (g, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let codes = part::<8>(block, 4 + 8 * g);
        for i in 0..8 {
            (out[i], out[8 + i]) = (E2M1[usize::from(codes[i] & 15)], E2M1[usize::from(codes[i] >> 4)]);
        }
    }
}

/// The halved scales: e4m3 without a sign, of which GGML takes 0x7f for 0 and does not look at the upper bit of others.
#[inline(always)]
pub(super) fn nvfp4_scales(block: &[u8; 36]) -> [f32; 4] {
    part::<4>(block, 0).map(|bits| {
        let (exponent, significand) = (u32::from(bits >> 3 & 15), u32::from(bits & 7));
        match (bits, exponent) {
            (0x7f, _) => 0.0,
            (_, 0) => significand as f32 * f32::from_bits((127 - 10) << 23),
            _ => f32::from_bits((exponent + 127 - 8) << 23 | significand << 20),
        }
    })
}
