//! GGML's block encodings: a row is a whole number of blocks, and a block holds its own scales.
//!
//! The layouts are those of `ggml-common.h`; each value is rounded as the `gguf` package for Python rounds it, bit for
//! bit. In the k-quants a block of 256 columns has a float for its 8 or 16 scales, which are small integers.

use crate::dequant::{decode_floats, e8m0, f16};
use crate::encoding::Float;
use crate::int8::weights::E2M1;

/// An encoding in blocks, under GGML's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ggml {
    /// `d·q`, 4 bits, 32 columns.
    Q4_0,
    /// `d·q + m`, 4 bits, 32 columns.
    Q4_1,
    /// `d·q`, 5 bits, 32 columns.
    Q5_0,
    /// `d·q + m`, 5 bits, 32 columns.
    Q5_1,
    /// `d·q`, 8 bits, 32 columns.
    Q8_0,
    /// `d·q - m`, 2 bits, scale and minimum of 4 bits for each 16 columns.
    Q2K,
    /// `d·q`, 3 bits, a scale of 6 bits for each 16 columns.
    Q3K,
    /// `d·q - m`, 4 bits, scale and minimum of 6 bits for each 32 columns.
    Q4K,
    /// `d·q - m`, 5 bits, scale and minimum of 6 bits for each 32 columns.
    Q5K,
    /// `d·q`, 6 bits, a scale of 8 bits for each 16 columns.
    Q6K,
    /// `d·level(q)` with 16 levels unevenly apart, 32 columns.
    Iq4Nl,
    /// `d·level(q)` with those levels, a scale of 6 bits for each 32 columns.
    Iq4Xs,
    /// e2m1 codes, one e8m0 scale for each 32 columns.
    Mxfp4,
}

impl Ggml {
    /// All of them.
    pub const ALL: [Ggml; 13] = [
        Ggml::Q4_0,
        Ggml::Q4_1,
        Ggml::Q5_0,
        Ggml::Q5_1,
        Ggml::Q8_0,
        Ggml::Q2K,
        Ggml::Q3K,
        Ggml::Q4K,
        Ggml::Q5K,
        Ggml::Q6K,
        Ggml::Iq4Nl,
        Ggml::Iq4Xs,
        Ggml::Mxfp4,
    ];

    /// Its name in GGML, such as `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self {
            Ggml::Q4_0 => "Q4_0",
            Ggml::Q4_1 => "Q4_1",
            Ggml::Q5_0 => "Q5_0",
            Ggml::Q5_1 => "Q5_1",
            Ggml::Q8_0 => "Q8_0",
            Ggml::Q2K => "Q2_K",
            Ggml::Q3K => "Q3_K",
            Ggml::Q4K => "Q4_K",
            Ggml::Q5K => "Q5_K",
            Ggml::Q6K => "Q6_K",
            Ggml::Iq4Nl => "IQ4_NL",
            Ggml::Iq4Xs => "IQ4_XS",
            Ggml::Mxfp4 => "MXFP4",
        }
    }

    /// Columns of a block.
    pub const fn block(self) -> usize {
        match self {
            Ggml::Q2K | Ggml::Q3K | Ggml::Q4K | Ggml::Q5K | Ggml::Q6K | Ggml::Iq4Xs => 256,
            _ => 32,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Ggml::Q4_0 | Ggml::Iq4Nl => 18,
            Ggml::Q4_1 => 20,
            Ggml::Q5_0 => 22,
            Ggml::Q5_1 => 24,
            Ggml::Q8_0 => 34,
            Ggml::Q2K => 84,
            Ggml::Q3K => 110,
            Ggml::Q4K => 144,
            Ggml::Q5K => 176,
            Ggml::Q6K => 210,
            Ggml::Iq4Xs => 136,
            Ggml::Mxfp4 => 17,
        }
    }

    /// Width of a code in bits, scales left out.
    pub const fn bits(self) -> usize {
        match self {
            Ggml::Q2K => 2,
            Ggml::Q3K => 3,
            Ggml::Q4_0 | Ggml::Q4_1 | Ggml::Q4K | Ggml::Iq4Nl | Ggml::Iq4Xs | Ggml::Mxfp4 => 4,
            Ggml::Q5_0 | Ggml::Q5_1 | Ggml::Q5K => 5,
            Ggml::Q6K => 6,
            Ggml::Q8_0 => 8,
        }
    }

    /// A row of whole blocks.
    #[inline(always)]
    pub(crate) fn dequantize(self, row: &[u8], out: &mut [f32]) {
        match self {
            Ggml::Q4_0 => blocks(row, out, q4_0),
            Ggml::Q4_1 => blocks(row, out, q4_1),
            Ggml::Q5_0 => blocks(row, out, q5_0),
            Ggml::Q5_1 => blocks(row, out, q5_1),
            Ggml::Q8_0 => blocks(row, out, q8_0),
            Ggml::Q2K => blocks(row, out, q2_k),
            Ggml::Q3K => blocks(row, out, q3_k),
            Ggml::Q4K => blocks(row, out, q4_k),
            Ggml::Q5K => blocks(row, out, q5_k),
            Ggml::Q6K => blocks(row, out, q6_k),
            Ggml::Iq4Nl => blocks(row, out, iq4_nl),
            Ggml::Iq4Xs => blocks(row, out, iq4_xs),
            Ggml::Mxfp4 => blocks(row, out, mxfp4),
        }
    }

    /// The codes of a row, one a byte and none negative, for the encodings that have a
    /// [`Format`](crate::int8::weights::Format).
    #[inline(always)]
    pub(crate) fn span_codes(self, row: &[u8], out: &mut [u8]) {
        match self {
            Ggml::Q4_0 => code_blocks(row, out, |block: &[u8; 18], out| halves(part(block, 2), out)),
            Ggml::Q8_0 => code_blocks(row, out, |block: &[u8; 34], out: &mut [u8; 32]| {
                let codes = part::<32>(block, 2);
                for i in 0..32 {
                    out[i] = codes[i] ^ 0x80;
                }
            }),
            Ggml::Mxfp4 => code_blocks(row, out, |block: &[u8; 17], out| {
                halves(part(block, 1), out);
                *out = out.map(|q| E2M1[usize::from(q)]);
            }),
            Ggml::Q4K => code_blocks(row, out, |block: &[u8; 144], out: &mut [u8; 256]| {
                for (codes, out) in block[16..].as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0) {
                    for i in 0..32 {
                        (out[i], out[32 + i]) = (codes[i] & 15, codes[i] >> 4);
                    }
                }
            }),
            Ggml::Q6K => code_blocks(row, out, |block: &[u8; 210], out: &mut [u8; 256]| {
                for (h, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
                    let (low, high) = (part::<64>(block, 64 * h), part::<32>(block, 128 + 32 * h));
                    for i in 0..32 {
                        out[i] = low[i] & 15 | (high[i] & 3) << 4;
                        out[32 + i] = low[32 + i] & 15 | (high[i] >> 2 & 3) << 4;
                        out[64 + i] = low[i] >> 4 | (high[i] >> 4 & 3) << 4;
                        out[96 + i] = low[32 + i] >> 4 | (high[i] >> 6) << 4;
                    }
                }
            }),
            _ => unreachable!("{self:?} has no format"),
        }
    }

    /// The scales of a row's spans, or what is added to them, for the same encodings.
    pub(crate) fn span_parameters(self, row: &[u8], biases: bool, out: &mut [f32]) {
        match self {
            Ggml::Q4_0 => leading_halves::<18>(row, out),
            Ggml::Q8_0 => leading_halves::<34>(row, out),
            Ggml::Mxfp4 => parameter_blocks(row, out, |block: &[u8; 17], out| *out = [e8m0(block[0]) * 0.5]),
            Ggml::Q4K => parameter_blocks(row, out, |block: &[u8; 144], out: &mut [f32; 8]| {
                *out = scales_and_mins(block).map(|(scale, min)| if biases { -min } else { scale });
            }),
            Ggml::Q6K => parameter_blocks(row, out, |block: &[u8; 210], out: &mut [f32; 16]| {
                let d = half(block, 208);
                *out = part::<16>(block, 192).map(|scale| d * f32::from(scale as i8));
            }),
            _ => unreachable!("{self:?} has no format"),
        }
    }
}

#[inline(always)]
fn code_blocks<const BYTES: usize, const COLS: usize>(
    row: &[u8],
    out: &mut [u8],
    block: impl Fn(&[u8; BYTES], &mut [u8; COLS]),
) {
    for (out, bytes) in out.as_chunks_mut().0.iter_mut().zip(row.as_chunks().0) {
        block(bytes, out);
    }
}

fn parameter_blocks<const BYTES: usize, const SPANS: usize>(
    row: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; SPANS]),
) {
    for (out, bytes) in out.as_chunks_mut().0.iter_mut().zip(row.as_chunks().0) {
        block(bytes, out);
    }
}

/// The float16 that each block begins with.
fn leading_halves<const BYTES: usize>(row: &[u8], out: &mut [f32]) {
    const AT_ONCE: usize = 64;
    for (out, blocks) in out.chunks_mut(AT_ONCE).zip(row.chunks(AT_ONCE * BYTES)) {
        let mut halves = [[0; 2]; AT_ONCE];
        for (half, block) in halves.iter_mut().zip(blocks.as_chunks::<BYTES>().0) {
            *half = *part(block, 0);
        }
        decode_floats(Float::F16, halves[..out.len()].as_flattened(), out);
    }
}

/// The low halves of 16 bytes, then the high ones.
#[inline(always)]
fn halves(codes: &[u8; 16], out: &mut [u8; 32]) {
    for i in 0..16 {
        (out[i], out[16 + i]) = (codes[i] & 15, codes[i] >> 4);
    }
}

#[inline(always)]
fn blocks<const BYTES: usize, const COLS: usize>(
    row: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; COLS]),
) {
    for (out, bytes) in out.as_chunks_mut().0.iter_mut().zip(row.as_chunks().0) {
        block(bytes, out);
    }
}

/// `d`, 16 bytes of codes.
#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block, 0);
    nibbles(part(block, 2), out, |q, _| d * (q as i32 - 8) as f32);
}

/// `d`, `m`, 16 bytes of codes.
#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    nibbles(part(block, 4), out, |q, _| d * q as i32 as f32 + m);
}

/// `d`, 32 fifth bits, 16 bytes of codes.
#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let (d, fifth) = (half(block, 0), word(block, 2));
    nibbles(part(block, 6), out, |q, i| d * ((q | (fifth >> i & 1) << 4) as i32 - 16) as f32);
}

/// `d`, `m`, 32 fifth bits, 16 bytes of codes.
#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, fifth) = (half(block, 0), half(block, 2), word(block, 4));
    nibbles(part(block, 8), out, |q, i| d * (q | (fifth >> i & 1) << 4) as i32 as f32 + m);
}

/// `d`, 32 signed codes.
#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let (d, codes) = (half(block, 0), part::<32>(block, 2));
    for i in 0..32 {
        out[i] = d * f32::from(codes[i] as i8);
    }
}

/// 16 scales and minima, 64 bytes of codes, `d`, `dmin`. Of 128 columns, each 32 are two bits of the same 32 bytes.
#[inline(always)]
fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
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
fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
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
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
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
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
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
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
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

/// `d`, 16 bytes of codes.
#[inline(always)]
fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block, 0);
    nibbles(part(block, 2), out, |q, _| d * LEVELS[q as usize]);
}

/// `d`, the upper two bits of 8 scales, their lower four, 16 bytes of codes for each 32 columns.
#[inline(always)]
fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let (d, high, low) = (half(block, 0), short(block, 2), part::<4>(block, 4));
    for (g, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let scale = low[g / 2] >> (g % 2 * 4) & 15 | ((high >> (2 * g) & 3) as u8) << 4;
        let scale = d * (i32::from(scale) - 32) as f32;
        nibbles(part(block, 8 + 16 * g), out, |q, _| scale * LEVELS[q as usize]);
    }
}

/// The scale, 16 bytes of codes. Codes count in halves, so the scale is halved.
#[inline(always)]
fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let exponent = u32::from(block[0]);
    let scale = f32::from_bits(if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 });
    nibbles(part(block, 1), out, |q, _| scale * E2M1_DOUBLED[q as usize]);
}

/// Levels of `IQ4_NL` and `IQ4_XS`.
const LEVELS: [f32; 16] =
    [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];

/// Twice the values of e2m1; without a negative zero.
const E2M1_DOUBLED: [f32; 16] = [0., 1., 2., 3., 4., 6., 8., 12., 0., -1., -2., -3., -4., -6., -8., -12.];

/// Sets columns 0 to 15 from the low halves of 16 bytes and 16 to 31 from the high ones; `value` takes code and column.
#[inline(always)]
fn nibbles(codes: &[u8; 16], out: &mut [f32; 32], value: impl Fn(u32, usize) -> f32) {
    for i in 0..16 {
        out[i] = value(u32::from(codes[i] & 15), i);
    }
    for i in 0..16 {
        out[16 + i] = value(u32::from(codes[i] >> 4), 16 + i);
    }
}

/// Scale and minimum of each 32 columns of [`q4_k`] and [`q5_k`]: six bits each, of which the last four groups' upper
/// two lie above the first four groups'.
#[inline(always)]
fn scales_and_mins(block: &[u8]) -> [(f32, f32); 8] {
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

/// `N` bytes of a block from byte `at` on.
#[inline(always)]
fn part<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    let bytes = block[at..at + N].as_array();
    bytes.unwrap_or(&[0; N]) // the slice has `N` bytes
}

#[inline(always)]
fn short(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(*part(block, at))
}

#[inline(always)]
fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*part(block, at))
}

/// A float16.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16(short(block, at))
}
