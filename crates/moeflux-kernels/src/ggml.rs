//! GGML's block encodings: a row is a whole number of blocks, and a block holds its own scales.
//!
//! The layouts are those of `ggml-common.h`; each value is rounded as the `gguf` package for Python rounds it, bit for
//! bit.

mod codebooks;
mod few_bits;
mod k_quants;

use self::codebooks::{Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Shifted, Signed};
use self::few_bits::{
    centred, nvfp4, nvfp4_codes, nvfp4_scales, q1_0_codes, q2_0_codes, tq1_0_codes, tq2_0_codes,
};
use self::k_quants::{q2_k, q3_k, q4_k, q5_k, q6_k, scales_and_mins};
use crate::dequant::{decode_floats, e8m0, f16};
use crate::encoding::Float;
use crate::int8::weights::E2M1;

/// What a code of 0 is below a value of 0 in the span codes of IQ2 types and `IQ3_XXS`.
pub(crate) const CODEBOOK_ZERO: u8 = 64;
/// The same of `IQ3_S`.
pub(crate) const IQ3_S_ZERO: u8 = 16;
/// The same of IQ1 types.
pub(crate) const IQ1_ZERO: u8 = codebooks::SHIFTED_ZERO;
/// The same of ternary types and those of one and two bits.
pub(crate) const FEW_BITS_ZERO: u8 = few_bits::ZERO;

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
    /// `d·v`, eight signed values by a codebook of 256, a scale of 4 bits for each 32 columns.
    Iq2Xxs,
    /// `d·v`, a codebook of 512, a scale of 4 bits for each 16 columns.
    Iq2Xs,
    /// `d·v`, a codebook of 1024, a scale of 4 bits for each 16 columns.
    Iq2S,
    /// `d·v`, four signed values by a codebook of 256, a scale of 4 bits for each 32 columns.
    Iq3Xxs,
    /// `d·v`, a codebook of 512, a scale of 4 bits for each 32 columns.
    Iq3S,
    /// `d·(v ± 1/8)`, eight of -1, 0 and 1 by a codebook of 2048, a scale of 3 bits for each 32 columns.
    Iq1S,
    /// `d·(v ± 1/8)` with that codebook, a scale of 3 bits for each 16 columns.
    Iq1M,
    /// `d·q`, -1, 0 and 1, five a byte, 256 columns.
    Tq1_0,
    /// `d·q`, -1, 0 and 1 (and 2), four a byte, 256 columns.
    Tq2_0,
    /// e2m1 codes, one e4m3 scale for each 16 columns, 64 columns.
    Nvfp4,
    /// `d` or `-d`, 128 columns.
    Q1_0,
    /// `d·q`, -1 to 2, 64 columns.
    Q2_0,
}

impl Ggml {
    /// All of them.
    pub const ALL: [Ggml; 25] = [
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
        Ggml::Iq2Xxs,
        Ggml::Iq2Xs,
        Ggml::Iq2S,
        Ggml::Iq3Xxs,
        Ggml::Iq3S,
        Ggml::Iq1S,
        Ggml::Iq1M,
        Ggml::Tq1_0,
        Ggml::Tq2_0,
        Ggml::Nvfp4,
        Ggml::Q1_0,
        Ggml::Q2_0,
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
            Ggml::Iq2Xxs => "IQ2_XXS",
            Ggml::Iq2Xs => "IQ2_XS",
            Ggml::Iq2S => "IQ2_S",
            Ggml::Iq3Xxs => "IQ3_XXS",
            Ggml::Iq3S => "IQ3_S",
            Ggml::Iq1S => "IQ1_S",
            Ggml::Iq1M => "IQ1_M",
            Ggml::Tq1_0 => "TQ1_0",
            Ggml::Tq2_0 => "TQ2_0",
            Ggml::Nvfp4 => "NVFP4",
            Ggml::Q1_0 => "Q1_0",
            Ggml::Q2_0 => "Q2_0",
        }
    }

    /// Columns of a block.
    pub const fn block(self) -> usize {
        match self {
            Ggml::Q4_0 | Ggml::Q4_1 | Ggml::Q5_0 | Ggml::Q5_1 | Ggml::Q8_0 | Ggml::Iq4Nl | Ggml::Mxfp4 => 32,
            Ggml::Nvfp4 | Ggml::Q2_0 => 64,
            Ggml::Q1_0 => 128,
            _ => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Ggml::Q4_0 | Ggml::Iq4Nl | Ggml::Q1_0 | Ggml::Q2_0 => 18,
            Ggml::Q4_1 => 20,
            Ggml::Q5_0 => 22,
            Ggml::Q5_1 => 24,
            Ggml::Q8_0 => 34,
            Ggml::Q2K => 84,
            Ggml::Q3K | Ggml::Iq3S => 110,
            Ggml::Q4K => 144,
            Ggml::Q5K => 176,
            Ggml::Q6K => 210,
            Ggml::Iq4Xs => 136,
            Ggml::Mxfp4 => 17,
            Ggml::Iq2Xs => 74,
            Ggml::Iq2S => 82,
            Ggml::Iq3Xxs => 98,
            Ggml::Iq1S => 50,
            Ggml::Iq1M => 56,
            Ggml::Tq1_0 => 54,
            Ggml::Nvfp4 => 36,
            Ggml::Iq2Xxs | Ggml::Tq2_0 => 66,
        }
    }

    /// About the width of a code in bits, scales left out.
    pub const fn bits(self) -> usize {
        match self {
            Ggml::Q1_0 => 1,
            Ggml::Q2K
            | Ggml::Iq2Xxs
            | Ggml::Iq2Xs
            | Ggml::Iq2S
            | Ggml::Iq1S
            | Ggml::Iq1M
            | Ggml::Tq1_0
            | Ggml::Tq2_0
            | Ggml::Q2_0 => 2,
            Ggml::Q3K | Ggml::Iq3Xxs | Ggml::Iq3S => 3,
            Ggml::Q4_0 | Ggml::Q4_1 | Ggml::Q4K | Ggml::Iq4Nl | Ggml::Iq4Xs | Ggml::Mxfp4 | Ggml::Nvfp4 => 4,
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
            Ggml::Iq2Xxs => blocks(row, out, Iq2Xxs::dequantize),
            Ggml::Iq2Xs => blocks(row, out, Iq2Xs::dequantize),
            Ggml::Iq2S => blocks(row, out, Iq2S::dequantize),
            Ggml::Iq3Xxs => blocks(row, out, Iq3Xxs::dequantize),
            Ggml::Iq3S => blocks(row, out, Iq3S::dequantize),
            Ggml::Iq1S => blocks(row, out, Iq1S::dequantize),
            Ggml::Iq1M => blocks(row, out, Iq1M::dequantize),
            Ggml::Tq1_0 => blocks(row, out, |block, out| centred(block, 52, tq1_0_codes, out)),
            Ggml::Tq2_0 => blocks(row, out, |block, out| centred(block, 64, tq2_0_codes, out)),
            Ggml::Nvfp4 => blocks(row, out, nvfp4),
            Ggml::Q1_0 => blocks(row, out, |block, out| centred(block, 0, q1_0_codes, out)),
            Ggml::Q2_0 => blocks(row, out, |block, out| centred(block, 0, q2_0_codes, out)),
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
            Ggml::Iq2Xxs => code_blocks(row, out, |block, out| Iq2Xxs::codes(block, CODEBOOK_ZERO, out)),
            Ggml::Iq2Xs => code_blocks(row, out, |block, out| Iq2Xs::codes(block, CODEBOOK_ZERO, out)),
            Ggml::Iq2S => code_blocks(row, out, |block, out| Iq2S::codes(block, CODEBOOK_ZERO, out)),
            Ggml::Iq3Xxs => code_blocks(row, out, |block, out| Iq3Xxs::codes(block, CODEBOOK_ZERO, out)),
            Ggml::Iq3S => code_blocks(row, out, |block, out| Iq3S::codes(block, IQ3_S_ZERO, out)),
            Ggml::Iq1S => code_blocks(row, out, Iq1S::codes),
            Ggml::Iq1M => code_blocks(row, out, Iq1M::codes),
            Ggml::Tq1_0 => code_blocks(row, out, tq1_0_codes),
            Ggml::Tq2_0 => code_blocks(row, out, tq2_0_codes),
            Ggml::Nvfp4 => code_blocks(row, out, nvfp4_codes),
            Ggml::Q1_0 => code_blocks(row, out, q1_0_codes),
            Ggml::Q2_0 => code_blocks(row, out, q2_0_codes),
            _ => unreachable!("{self:?} has no format"),
        }
    }

    /// The scales of a row's spans, or what is added to them, for the same encodings.
    pub(crate) fn span_parameters(self, row: &[u8], biases: bool, out: &mut [f32]) {
        match self {
            Ggml::Q4_0 | Ggml::Q2_0 => leading_halves::<18>(row, out),
            Ggml::Q8_0 => leading_halves::<34>(row, out),
            Ggml::Mxfp4 => parameter_blocks(row, out, |block: &[u8; 17], out| *out = [e8m0(block[0]) * 0.5]),
            Ggml::Q4K => parameter_blocks(row, out, |block: &[u8; 144], out: &mut [f32; 8]| {
                *out = scales_and_mins(block).map(|(scale, min)| if biases { -min } else { scale });
            }),
            Ggml::Q6K => parameter_blocks(row, out, |block: &[u8; 210], out: &mut [f32; 16]| {
                let d = half(block, 208);
                *out = part::<16>(block, 192).map(|scale| d * f32::from(scale as i8));
            }),
            Ggml::Iq2Xxs => span_scales::<66, 8>(row, out, Iq2Xxs::scale),
            Ggml::Iq2Xs => span_scales::<74, 16>(row, out, Iq2Xs::scale),
            Ggml::Iq2S => span_scales::<82, 16>(row, out, Iq2S::scale),
            Ggml::Iq3Xxs => span_scales::<98, 8>(row, out, Iq3Xxs::scale),
            Ggml::Iq3S => span_scales::<110, 8>(row, out, Iq3S::scale),
            Ggml::Iq1S => span_scales::<50, 8>(row, out, |block, i| Iq1S::scale(block, i) * 0.125),
            Ggml::Iq1M => span_scales::<56, 16>(row, out, |block, i| Iq1M::scale(block, i) * 0.125),
            Ggml::Tq1_0 => span_scales::<54, 4>(row, out, |block, _| half(block, 52)),
            Ggml::Tq2_0 => span_scales::<66, 4>(row, out, |block, _| half(block, 64)),
            Ggml::Nvfp4 => parameter_blocks(row, out, |block, out| *out = nvfp4_scales(block)),
            Ggml::Q1_0 => span_scales::<18, 2>(row, out, |block, _| half(block, 0)),
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

/// The scale of each of a block's spans.
fn span_scales<const BYTES: usize, const SPANS: usize>(
    row: &[u8],
    out: &mut [f32],
    scale: impl Fn(&[u8; BYTES], usize) -> f32,
) {
    parameter_blocks(row, out, |block, out: &mut [f32; SPANS]| {
        *out = std::array::from_fn(|i| scale(block, i));
    });
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
