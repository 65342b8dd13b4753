//! From encoded rows to float32.

mod packed;

pub(crate) use packed::ROWS as PACKED_ROWS;

use crate::encoding::{Encoding, Float};
use crate::instruction_set::multiversion;
use crate::matrix::Matrix;

impl Matrix<'_> {
    /// Writes row `row`, dequantised, to `out` (`[cols]`).
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols());
        dequantize_row(self, row, out);
    }

    /// Writes row `row` in the encoding that [`Encoding::repacked`] names.
    pub fn repack_row(&self, row: usize, codes: &mut [u8], scales: &mut [u8], biases: &mut [u8]) {
        packed::repack(self, row, codes, scales, biases);
    }

    /// Writes `rows` rows from row `first` on, at most 16, to `out` (`[rows, cols]`), for a body that is compiled per
    /// instruction set.
    #[inline(always)]
    pub(crate) fn dequantize_rows_inline(&self, first: usize, rows: usize, out: &mut [f32]) {
        if let Encoding::Packed { .. } = self.encoding()
            && self.are_adjacent(first, rows)
        {
            return packed::dequantize(self, first, rows, out);
        }
        for (i, out) in out.chunks_exact_mut(self.cols().max(1)).take(rows).enumerate() {
            self.dequantize_row_inline(first + i, out);
        }
    }

    /// [`dequantize_row`](Self::dequantize_row) for a body that is compiled per instruction set.
    #[inline(always)]
    pub(crate) fn dequantize_row_inline(&self, row: usize, out: &mut [f32]) {
        if let Encoding::Packed { .. } = self.encoding() {
            return packed::dequantize(self, row, 1, out);
        }
        let (codes, scales, biases) = self.row(row);
        match self.encoding() {
            Encoding::Float(float) => floats(float, codes, out),
            Encoding::Affine { bits, group, params } => {
                let affine = Affine { group, params, scales, biases };
                match bits {
                    2 => affine.dequantize::<2>(codes, out),
                    3 => affine.dequantize::<3>(codes, out),
                    4 => affine.dequantize::<4>(codes, out),
                    5 => affine.dequantize::<5>(codes, out),
                    6 => affine.dequantize::<6>(codes, out),
                    8 => affine.dequantize::<8>(codes, out),
                    _ => unreachable!("Matrix::new admits no other width"),
                }
            }
            Encoding::Mxfp4 => scaled::<4, 32>(codes, scales, e2m1, e8m0, out),
            Encoding::Mxfp8 => scaled::<8, 32>(codes, scales, e4m3, e8m0, out),
            Encoding::Nvfp4 => scaled::<4, 16>(codes, scales, e2m1, e4m3, out),
            Encoding::Nvfp4Scaled { divided } => {
                let mut global = [0.0];
                floats(Float::F32, biases, &mut global);
                let [global] = global;
                if divided {
                    scaled::<4, 16>(codes, scales, e2m1, |bits| e4m3(bits) / global, out);
                } else {
                    scaled::<4, 16>(codes, scales, e2m1, |bits| e4m3(bits) * global, out);
                }
            }
            Encoding::Symmetric { bits, group, params, signed } => {
                let symmetric = Symmetric { group, params, scales };
                match bits {
                    8 if signed => symmetric.dequantize::<8>(codes, |q| i32::from(q as u8 as i8), out),
                    2 => symmetric.dequantize::<2>(codes, |q| q as i32 - 2, out),
                    3 => symmetric.dequantize::<3>(codes, |q| q as i32 - 4, out),
                    4 => symmetric.dequantize::<4>(codes, |q| q as i32 - 8, out),
                    5 => symmetric.dequantize::<5>(codes, |q| q as i32 - 16, out),
                    6 => symmetric.dequantize::<6>(codes, |q| q as i32 - 32, out),
                    7 => symmetric.dequantize::<7>(codes, |q| q as i32 - 64, out),
                    _ => symmetric.dequantize::<8>(codes, |q| q as i32 - 128, out),
                }
            }
            Encoding::Codebook { table, group } => codebook(table.values(), group, codes, scales, out),
            Encoding::Packed { .. } => unreachable!("done above"),
            Encoding::Fp8 { block_cols, params, .. } => fp8(block_cols, params, codes, scales, out),
            Encoding::Ggml(ggml) => ggml.dequantize(codes, out),
            Encoding::GgmlScaled(ggml) => {
                let mut scale = [0.0];
                floats(Float::F32, biases, &mut scale);
                ggml.dequantize(codes, out);
                for value in out {
                    *value *= scale[0];
                }
            }
        }
    }
}

multiversion! {
    fn dequantize_row(matrix: &Matrix<'_>, row: usize, out: &mut [f32]) {
        matrix.dequantize_row_inline(row, out);
    }
}

multiversion! {
    /// Decodes little-endian floats.
    pub fn decode_floats(float: Float, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), out.len() * float.bytes());
        floats(float, bytes, out);
    }
}

#[inline(always)]
pub(crate) fn floats(float: Float, bytes: &[u8], out: &mut [f32]) {
    match float {
        Float::F32 => {
            for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f32::from_le_bytes(bytes);
            }
        }
        Float::F16 => {
            for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f16(u16::from_le_bytes(bytes));
            }
        }
        Float::Bf16 => {
            for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = bf16(u16::from_le_bytes(bytes));
            }
        }
    }
}

/// Codes of a table, two a byte, the earlier column in the higher bits, with a float32 scale for each group.
#[inline(always)]
fn codebook(table: &[f32; 16], group: usize, codes: &[u8], scales: &[u8], out: &mut [f32]) {
    let groups = out.chunks_exact_mut(group).zip(codes.chunks_exact(group / 2)).zip(scales.as_chunks().0);
    for ((out, codes), &scale) in groups {
        let scale = f32::from_le_bytes(scale);
        for (out, &code) in out.as_chunks_mut().0.iter_mut().zip(codes) {
            *out = [table[usize::from(code >> 4)] * scale, table[usize::from(code & 15)] * scale];
        }
    }
}

/// A little-endian stream of codes of `BITS` bits.
#[inline(always)]
pub(crate) fn unpack_stream<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    let mask = 0x0101_0101_0101_0101 * ((1 << BITS) - 1);
    for (out, bytes) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes.as_chunks::<BITS>().0) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(bytes);
        *out = spread::<BITS>(u64::from_le_bytes(word), mask).to_le_bytes();
    }
}

/// Eight codes of `BITS` bits, each into a byte: fields are halved and moved apart until there is one a byte.
#[inline(always)]
fn spread<const BITS: usize>(word: u64, mask: u64) -> u64 {
    let four = (1 << (4 * BITS)) - 1;
    let word = word & four | (word >> (4 * BITS) & four) << 32;
    let two = 0x0000_0001_0000_0001 * ((1 << (2 * BITS)) - 1);
    let word = word & two | (word >> (2 * BITS) & two) << 16;
    let one = 0x0001_0001_0001_0001 * ((1 << BITS) - 1);
    (word & one | (word >> BITS & one) << 8) & mask
}

/// An affine row's parameters, a scale and a bias for each `group` of columns.
struct Affine<'a> {
    group: usize,
    params: Float,
    scales: &'a [u8],
    biases: &'a [u8],
}

impl Affine<'_> {
    /// `scale·q + bias`, rounded after the product and after the sum.
    #[inline(always)]
    fn dequantize<const BITS: usize>(&self, codes: &[u8], out: &mut [f32]) {
        let param = |bytes: &[u8]| {
            let mut value = [0.0];
            floats(self.params, bytes, &mut value);
            value[0]
        };
        let (group, param_bytes) = (self.group, self.params.bytes());
        let params = self.scales.chunks_exact(param_bytes).zip(self.biases.chunks_exact(param_bytes));
        let groups = out.chunks_exact_mut(group).zip(codes.chunks_exact(group * BITS / 8));
        for ((out, codes), (scale, bias)) in groups.zip(params) {
            let (scale, bias) = (param(scale), param(bias));
            for_each_code::<BITS>(codes, out, |q| scale * q as i32 as f32 + bias);
        }
    }
}

/// A symmetric row's scales, one for each `group` of columns.
struct Symmetric<'a> {
    group: usize,
    params: Float,
    scales: &'a [u8],
}

impl Symmetric<'_> {
    /// `scale·value(code)`.
    #[inline(always)]
    fn dequantize<const BITS: usize>(&self, codes: &[u8], value: impl Fn(u32) -> i32, out: &mut [f32]) {
        let groups = out.chunks_exact_mut(self.group).zip(codes.chunks_exact(self.group * BITS / 8));
        for ((out, codes), bytes) in groups.zip(self.scales.chunks_exact(self.params.bytes())) {
            let mut scale = [0.0];
            floats(self.params, bytes, &mut scale);
            for_each_code::<BITS>(codes, out, |q| scale[0] * value(q) as f32);
        }
    }
}

/// A row of float codes of `BITS` bits with one scale for each `GROUP` columns: `scale·code`.
#[inline(always)]
fn scaled<const BITS: usize, const GROUP: usize>(
    codes: &[u8],
    scales: &[u8],
    code: impl Fn(u8) -> f32,
    scale: impl Fn(u8) -> f32,
    out: &mut [f32],
) {
    let groups = out.as_chunks_mut::<GROUP>().0.iter_mut().zip(codes.chunks_exact(GROUP * BITS / 8));
    for ((out, codes), &s) in groups.zip(scales) {
        let scale = scale(s);
        for_each_code::<BITS>(codes, out, |q| scale * code(q as u8));
    }
}

/// A row of e4m3 codes with one scale for each `block` columns, the last of which may be fewer: `scale·code`.
#[inline(always)]
fn fp8(block: usize, params: Float, codes: &[u8], scales: &[u8], out: &mut [f32]) {
    let blocks = out.chunks_mut(block).zip(codes.chunks(block));
    for ((out, codes), scale) in blocks.zip(scales.chunks_exact(params.bytes())) {
        let mut value = [0.0];
        floats(params, scale, &mut value);
        for_each_code::<8>(codes, out, |q| value[0] * e4m3(q as u8));
    }
}

/// Sets each of `out`, a multiple of eight unless codes are bytes, to `f` of its code; the codes are a little-endian
/// bit stream.
#[inline(always)]
fn for_each_code<const BITS: usize>(codes: &[u8], out: &mut [f32], f: impl Fn(u32) -> f32) {
    if BITS == 8 {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = f(u32::from(code));
        }
        return;
    }
    let mask = (1 << BITS) - 1;
    for (out, bytes) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes.as_chunks::<BITS>().0) {
        // Eight codes fill `BITS` bytes; shifts of the narrower word are faster where they fit it.
        if BITS <= 4 {
            let mut word = [0; 4];
            word[..BITS].copy_from_slice(bytes);
            let word = u32::from_le_bytes(word);
            for i in 0..8 {
                out[i] = f(word >> (i * BITS) & mask);
            }
        } else {
            let mut word = [0; 8];
            word[..BITS].copy_from_slice(bytes);
            let word = u64::from_le_bytes(word);
            for i in 0..8 {
                out[i] = f((word >> (i * BITS)) as u32 & mask);
            }
        }
    }
}

/// IEEE 754 binary16. The cases are selected between, not branched on, so that loops vectorise, and no intermediate
/// is a subnormal float32, which some processors handle slowly.
#[inline(always)]
pub(crate) fn f16(bits: u16) -> f32 {
    const REBIAS: u32 = (127 - 15) << 23;
    let magnitude = u32::from(bits & 0x7fff);
    let normal = (magnitude << 13) + REBIAS;
    let subnormal = (magnitude as i32 as f32 * f32::from_bits((127 - 24) << 23)).to_bits();
    let value = if magnitude < 0x400 {
        subnormal
    } else if magnitude < 0x7c00 {
        normal
    } else {
        normal + REBIAS // the largest exponent again: inf and NaN
    };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}

/// The upper half of binary32.
#[inline(always)]
fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// 1 sign, 4 exponent and 3 significand bits, no infinities, NaN at the largest magnitude (OCP FP8 E4M3).
#[inline(always)]
fn e4m3(bits: u8) -> f32 {
    let magnitude = u32::from(bits & 0x7f);
    let normal = (magnitude << 20) + ((127 - 7) << 23);
    let subnormal = (magnitude as i32 as f32 * f32::from_bits((127 - 9) << 23)).to_bits();
    let value = if magnitude < 8 {
        subnormal
    } else if magnitude < 0x7f {
        normal
    } else {
        f32::NAN.to_bits()
    };
    f32::from_bits(value | u32::from(bits & 0x80) << 24)
}

/// A power of two, `2^(bits - 127)`; NaN at 255 (OCP E8M0).
#[inline(always)]
pub(crate) fn e8m0(bits: u8) -> f32 {
    match bits {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

/// 1 sign, 2 exponent and 1 significand bit: 0, 0.5, 1, 1.5, 2, 3, 4, 6 (OCP FP4 E2M1). The low 4 bits count.
#[inline(always)]
fn e2m1(bits: u8) -> f32 {
    /// Twice each magnitude, four bits each.
    const DOUBLED: u32 = 0xc864_3210;
    let magnitude = (DOUBLED >> (4 * u32::from(bits & 7))) & 15;
    let value = magnitude as i32 as f32 * 0.5;
    f32::from_bits(value.to_bits() | u32::from(bits & 8) << 28)
}
