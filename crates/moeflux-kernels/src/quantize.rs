//! From float32 to encoded rows, bit for bit as `mx.quantize` does it.

use crate::encoding::{Encoding, Float};
use crate::instruction_set::multiversion;

/// Columns of the largest group.
const MAX_GROUP: usize = 128;
/// Above it float32 has whole numbers alone; added to a small one, its low bits are that number, rounded.
const TWO_TO_23: f32 = 8_388_608.0;

/// A row cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantizeError {
    /// A value that no code stands for.
    #[error("column {column} is infinite or not a number")]
    NotFinite {
        /// Its place in the row.
        column: usize,
    },
    /// Nothing here writes this encoding.
    #[error("{encoding:?} can be read but not written")]
    Unsupported {
        /// The encoding asked for.
        encoding: Encoding,
    },
}

/// Encodes a row of finite values; the three parts are as long as [`Encoding::row_bytes`] says. What can be written:
/// float32 and bf16 (rounded to nearest, ties to even), affine codes with parameters in either, mxfp4.
pub fn quantize_row(
    encoding: Encoding,
    values: &[f32],
    codes: &mut [u8],
    scales: &mut [u8],
    biases: &mut [u8],
) -> Result<(), QuantizeError> {
    let bytes = encoding.row_bytes(values.len());
    assert!(values.len().is_multiple_of(encoding.group()));
    assert_eq!((codes.len(), scales.len(), biases.len()), (bytes.codes, bytes.scales, bytes.biases));
    let written = match encoding {
        Encoding::Float(float) => matches!(float, Float::F32 | Float::Bf16),
        Encoding::Affine { bits, params, .. } => matches!(bits, 2..=6 | 8) && params != Float::F16,
        Encoding::Mxfp4 => true,
        _ => false,
    };
    if !written {
        return Err(QuantizeError::Unsupported { encoding });
    }
    if !all_finite(values) {
        let column = values.iter().position(|x| !x.is_finite()).unwrap_or_default();
        return Err(QuantizeError::NotFinite { column });
    }
    quantize(encoding, values, codes, scales, biases);
    Ok(())
}

multiversion! {
    fn all_finite(values: &[f32]) -> bool {
        values.iter().fold(true, |all, x| all & x.is_finite())
    }
}

multiversion! {
    fn quantize(encoding: Encoding, values: &[f32], codes: &mut [u8], scales: &mut [u8], biases: &mut [u8]) {
        match encoding {
            Encoding::Float(float) => floats(float, values, codes),
            Encoding::Affine { bits, group, params } => {
                let affine = Affine { group, params, scales, biases };
                match bits {
                    2 => affine.quantize::<2>(values, codes),
                    3 => affine.quantize::<3>(values, codes),
                    4 => affine.quantize::<4>(values, codes),
                    5 => affine.quantize::<5>(values, codes),
                    6 => affine.quantize::<6>(values, codes),
                    _ => affine.quantize::<8>(values, codes),
                }
            }
            _ => mxfp4(values, codes, scales),
        }
    }
}

/// Writes floats, rounded to nearest, ties to even.
#[inline(always)]
fn floats(float: Float, values: &[f32], out: &mut [u8]) {
    if float == Float::Bf16 {
        for (out, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
            let bits = x.to_bits();
            *out = (((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16).to_le_bytes();
        }
    } else {
        for (out, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *out = x.to_le_bytes();
        }
    }
}

/// Where an affine row's parameters go, a scale and a bias for each `group` of columns.
struct Affine<'a> {
    group: usize,
    params: Float,
    scales: &'a mut [u8],
    biases: &'a mut [u8],
}

impl Affine<'_> {
    /// Codes come from the parameters in float32, which are rounded only to be stored.
    #[inline(always)]
    fn quantize<const BITS: usize>(self, values: &[f32], codes: &mut [u8]) {
        let param_bytes = self.params.bytes();
        let params = self.scales.chunks_exact_mut(param_bytes).zip(self.biases.chunks_exact_mut(param_bytes));
        let groups = values.chunks_exact(self.group).zip(codes.chunks_exact_mut(self.group * BITS / 8));
        for ((values, codes), (stored_scale, stored_bias)) in groups.zip(params) {
            let last = ((1 << BITS) - 1) as f32;
            let (scale, bias) = scale_and_bias(values, last);
            let mut wide = [0; MAX_GROUP];
            for (code, &x) in wide.iter_mut().zip(values) {
                // Of two codes as near the even one, as the sum is rounded.
                let nearest = ((x - bias) / scale).max(0.0).min(last) + TWO_TO_23;
                *code = nearest.to_bits() as u8;
            }
            pack::<BITS>(&wide[..values.len()], codes);
            floats(self.params, &[scale], stored_scale);
            floats(self.params, &[bias], stored_bias);
        }
    }
}

/// The bias is the end of the range that is farther from 0, and the scale leads from it towards the other end; it is
/// then changed so that 0 has a code of its own. A group near 0 has bias 0.
#[inline(always)]
fn scale_and_bias(values: &[f32], last_code: f32) -> (f32, f32) {
    const LEAST_SCALE: f32 = 1e-7;
    let (min, max) = range(values);
    let min_is_farther = min.abs() > max.abs();
    let scale = ((max - min) / last_code).max(LEAST_SCALE);
    let (edge, scale) = if min_is_farther { (min, scale) } else { (max, -scale) };
    let code_of_zero = (edge / scale).round_ties_even();
    if code_of_zero == 0.0 { (scale, 0.0) } else { (edge / code_of_zero, edge) }
}

/// Smallest and largest of a multiple of eight values.
#[inline(always)]
fn range(values: &[f32]) -> (f32, f32) {
    let (mut min, mut max) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
    for values in values.as_chunks::<8>().0 {
        for i in 0..8 {
            min[i] = if values[i] < min[i] { values[i] } else { min[i] };
            max[i] = if values[i] > max[i] { values[i] } else { max[i] };
        }
    }
    (min.into_iter().fold(min[0], f32::min), max.into_iter().fold(max[0], f32::max))
}

/// e2m1 codes with one e8m0 scale for each 32 columns.
#[inline(always)]
fn mxfp4(values: &[f32], codes: &mut [u8], scales: &mut [u8]) {
    const LARGEST: f32 = 6.0;
    let groups = values.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<16>().0);
    for ((values, codes), stored_scale) in groups.zip(scales) {
        let (min, max) = range(values);
        *stored_scale = power_of_two_above(min.abs().max(max.abs()) / LARGEST);
        // 2^-127 is subnormal; its reciprocal is not.
        let inverse = f32::from_bits((254 - u32::from(*stored_scale)) << 23);
        pack::<4>(&values.map(|x| e2m1(x * inverse)), codes);
    }
}

/// The exponent, biased by 127, of the least power of two that is not below `x`; 127 for 0, as MLX has it.
#[inline(always)]
fn power_of_two_above(x: f32) -> u8 {
    let bits = x.to_bits();
    let exponent = bits >> 23;
    match exponent {
        _ if x == 0.0 => 127,
        // 2^-127 lies among the subnormal numbers.
        0 => u8::from(bits > 1 << 22),
        _ => (exponent + u32::from(bits & 0x7f_ffff != 0)) as u8,
    }
}

/// The nearest code; of two as near the one nearer to 0, and never negative 0.
#[inline(always)]
fn e2m1(x: f32) -> u8 {
    /// Midway between neighbouring magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6.
    const MIDPOINTS: [f32; 7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];
    let magnitude: u32 = MIDPOINTS.iter().map(|&midpoint| u32::from(x.abs() > midpoint)).sum();
    (if x < 0.0 && magnitude > 0 { magnitude | 8 } else { magnitude }) as u8
}

/// Writes a multiple of eight codes, one a byte, as a little-endian bit stream.
#[inline(always)]
fn pack<const BITS: usize>(wide: &[u8], codes: &mut [u8]) {
    for (wide, out) in wide.as_chunks::<8>().0.iter().zip(codes.as_chunks_mut::<BITS>().0) {
        let wide = u64::from_le_bytes(*wide);
        let mut word = 0;
        for i in 0..8 {
            word |= (wide >> (8 * i) & 0xff) << (i * BITS);
        }
        out.copy_from_slice(&word.to_le_bytes()[..BITS]);
    }
}
