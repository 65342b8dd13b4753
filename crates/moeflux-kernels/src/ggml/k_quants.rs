//! GGML's k-quants: blocks of 256 columns with a float for 8 or 16 scales, which are small integers.

use super::{half, part};

/// 16 scales and minima, 64 bytes of codes, `d`, `dmin`. Of 128 columns, each 32 are two bits of the same 32 bytes.
#[inline(always)]
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, codes) = (part::<16>(block, 0), part::<64>(block, 16));
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (g, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (scale, min) = (d * f32::from(scales[g] & 15), dmin * f32::from(scales[g] >> 4));
        let (codes, shift) = (part::<16>(codes, g / 8 * 32 + g % 2 * 16), g / 2 % 4 * 2);
        for i in 0..16 {
            out[i] = scale * f32::from(codes[i] >> shift & 3) - min;
        }
    }
}

/// 32 bytes of third bits, 64 bytes of two bits as in [`q2_k`], 16 scales in 12 bytes, `d`. A code is 4 lower where its
/// third bit is 0.
#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (third, codes, scales) = (part::<32>(block, 0), part::<64>(block, 32), part::<12>(block, 96));
    let d = half(block, 108);
    for (g, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (low, high) = (scales[g % 8] >> (g / 8 * 4) & 15, scales[8 + g % 4] >> (g / 4 * 2) & 3);
        let scale = d * (i32::from(low | high << 4) - 32) as f32;
        let (codes, shift) = (part::<16>(codes, g / 8 * 32 + g % 2 * 16), g / 2 % 4 * 2);
        let third = part::<16>(third, g % 2 * 16);
        for i in 0..16 {
            let low = i32::from(codes[i] >> shift & 3);
            let lowered = i32::from(!third[i] >> (g / 2) & 1) << 2;
            out[i] = scale * (low - lowered) as f32;
        }
    }
}

/// `d`, `dmin`, 8 scales and minima in 12 bytes, 128 bytes of codes. Of 64 columns, each 32 are half of the same 32
/// bytes.
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scales, codes) = (scales_and_mins(block), part::<128>(block, 16));
    for (g, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scales[g];
        let (codes, shift) = (part::<32>(codes, g / 2 * 32), g % 2 * 4);
        for i in 0..32 {
            out[i] = scale * f32::from(codes[i] >> shift & 15) - min;
        }
    }
}

/// As [`q4_k`], with 32 bytes of fifth bits in front of the codes.
#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (scales, fifth, codes) = (scales_and_mins(block), part::<32>(block, 16), part::<128>(block, 48));
    for (g, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scales[g];
        let (codes, shift) = (part::<32>(codes, g / 2 * 32), g % 2 * 4);
        for i in 0..32 {
            out[i] = scale * f32::from(codes[i] >> shift & 15 | (fifth[i] >> g & 1) << 4) - min;
        }
    }
}

/// 128 bytes of lower four bits, 64 bytes of upper two, 16 signed scales, `d`. Of 128 columns, each 64 are half of the
/// same 64 bytes below, each 32 two bits of the same 32 bytes above.
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(block, 208);
    for (h, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let low = [part::<32>(block, 64 * h), part::<32>(block, 64 * h + 32)];
        let (high, scales) = (part::<32>(block, 128 + 32 * h), part::<8>(block, 192 + 8 * h));
        let scales = scales.map(|scale| d * f32::from(scale as i8));
        q6_k_columns::<0, 0>(low[0], high, &scales, out);
        q6_k_columns::<1, 0>(low[1], high, &scales, out);
        q6_k_columns::<2, 4>(low[0], high, &scales, out);
        q6_k_columns::<3, 4>(low[1], high, &scales, out);
    }
}

/// The `G`-th 32 of 128 columns, whose lower bits begin at bit `SHIFT`: shifts are faster where they are constants.
#[inline(always)]
fn q6_k_columns<const G: usize, const SHIFT: u32>(
    low: &[u8; 32],
    high: &[u8; 32],
    scales: &[f32; 8],
    out: &mut [f32; 128],
) {
    for i in 0..32 {
        let q = low[i] >> SHIFT & 15 | (high[i] >> (2 * G) & 3) << 4;
        out[32 * G + i] = scales[2 * G + i / 16] * (i32::from(q) - 32) as f32;
    }
}

/// Scale and minimum of each 32 columns of [`q4_k`] and [`q5_k`]: six bits each, of which the last four groups' upper
/// two lie above the first four groups'.
#[inline(always)]
pub(super) fn scales_and_mins(block: &[u8]) -> [(f32, f32); 8] {
    let (d, dmin, packed) = (half(block, 0), half(block, 2), part::<12>(block, 4));
    std::array::from_fn(|g| {
        let (scale, min) = match g {
            0..4 => (packed[g] & 63, packed[4 + g] & 63),
            _ => {
                let low = packed[4 + g];
                (low & 15 | packed[g - 4] >> 6 << 4, low >> 4 | packed[g] >> 6 << 4)
            }
        };
        (d * f32::from(scale), dmin * f32::from(min))
    })
}
