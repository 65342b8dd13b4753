//! Numbers as checkpoints store them.

use moeflux_kernels::{Encoding, Float, quantize_row};

use crate::Result;
use crate::file::Kind;
use crate::tensor::{Data, Tensor};

/// Which part of a quantised tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Codes,
    Scales,
    Biases,
}

/// The bytes of a tensor of a file.
pub(crate) fn encode(tensor: Tensor, kind: Kind) -> Result<Vec<u8>> {
    let values = match tensor.data {
        Data::Bytes(bytes) if kind == Kind::Bytes => return Ok(bytes),
        Data::Bytes(_) => return Err(format!("bytes where the file has {kind:?}")),
        Data::Floats(values) => values,
    };
    match kind {
        Kind::F32 => Ok(values.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Kind::F16 => Ok(values.iter().flat_map(|&x| f16(x).to_le_bytes()).collect()),
        Kind::Bf16 => Ok(values.iter().flat_map(|&x| bf16(x).to_le_bytes()).collect()),
        Kind::Q8_0 => Ok(values.as_chunks().0.iter().flat_map(q8_0).collect()),
        Kind::Bytes => Err("numbers where the file has codes".to_owned()),
    }
}

/// The numbers of a tensor of a file; codes stay bytes.
pub(crate) fn decode(bytes: &[u8], kind: Kind) -> Result<Data> {
    match kind {
        Kind::F32 => Ok(Data::Floats(bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect())),
        Kind::Bf16 => Ok(Data::Floats(
            bytes.as_chunks().0.iter().map(|&[low, high]| f32::from_le_bytes([0, 0, low, high])).collect(),
        )),
        Kind::Bytes => Ok(Data::Bytes(bytes.to_vec())),
        Kind::F16 | Kind::Q8_0 => Err(format!("{kind:?} is only written")),
    }
}

/// Rounds to nearest, ties to even.
pub(crate) fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// A number that bf16 has.
pub(crate) fn round_to_bf16(x: f32) -> f32 {
    f32::from_bits(u32::from(bf16(x)) << 16)
}

/// Rounds to nearest, ties to even; what is too large becomes infinite.
fn f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    let magnitude = x.abs();
    // The smallest normal number is 2^-14, and those below it are multiples of 2^-24.
    if magnitude < 2f32.powi(-14) {
        return sign | (magnitude * 2f32.powi(24)).round_ties_even() as u16;
    }
    let bits = magnitude.to_bits();
    let rounded = bits + 0xfff + (bits >> 13 & 1);
    sign | ((rounded >> 13) - (112 << 10)).min(0x7c00) as u16
}

/// As the `gguf` package does it: halves are rounded away from 0.
fn q8_0(values: &[f32; 32]) -> [u8; 34] {
    let scale = values.iter().fold(0f32, |max, x| max.max(x.abs())) / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut block = [0; 34];
    block[..2].copy_from_slice(&f16(scale).to_le_bytes());
    for (code, x) in block[2..].iter_mut().zip(values) {
        *code = (x * inverse).round() as i8 as u8;
    }
    block
}

/// A part of what `mx.quantize` makes of rows, with scales and biases in bf16; `bits` codes with one scale for each
/// `group` of columns, or mxfp4.
pub(crate) fn mlx(tensor: &Tensor, encoding: Encoding, part: Part) -> Result<Tensor> {
    let columns = tensor.columns();
    let bytes = encoding.row_bytes(columns);
    let mut found = Vec::new();
    for row in tensor.values()?.chunks_exact(columns) {
        let mut codes = vec![0; bytes.codes];
        let mut scales = vec![0; bytes.scales];
        let mut biases = vec![0; bytes.biases];
        quantize_row(encoding, row, &mut codes, &mut scales, &mut biases)
            .map_err(|error| error.to_string())?;
        found.extend(match part {
            Part::Codes => codes,
            Part::Scales => scales,
            Part::Biases => biases,
        });
    }
    // Scales in bf16 are numbers; a power of two in a byte is a code.
    let data = if part == Part::Codes || encoding == Encoding::Mxfp4 {
        Data::Bytes(found)
    } else {
        decode(&found, Kind::Bf16)?
    };
    Ok(Tensor { shape: tensor.shape.clone(), data })
}

/// `bits` codes with a scale and a bias for each `group` of columns.
pub(crate) fn affine(bits: u8, group: usize) -> Encoding {
    Encoding::Affine { bits, group, params: Float::Bf16 }
}

/// e4m3 codes or their scales, one for each block of rows and columns, as `tools/reference/make_fp8.py` makes them;
/// scales are rounded to bf16 first if so asked.
pub(crate) fn fp8(tensor: &Tensor, block: [usize; 2], narrow: bool, part: Part) -> Result<Tensor> {
    const LARGEST: f32 = 448.0;
    let (values, columns) = (tensor.values()?, tensor.columns());
    let rows = values.len() / columns;
    let blocks_in_row = columns.div_ceil(block[1]);
    let mut scales = vec![0f32; rows.div_ceil(block[0]) * blocks_in_row];
    let scale_of = |index: usize| index / columns / block[0] * blocks_in_row + index % columns / block[1];
    for (index, x) in values.iter().enumerate() {
        let largest = &mut scales[scale_of(index)];
        *largest = largest.max(x.abs());
    }
    for scale in &mut scales {
        *scale = (f64::from(*scale) / f64::from(LARGEST)) as f32;
        *scale = if narrow { round_to_bf16(*scale) } else { *scale };
    }
    if part == Part::Scales {
        return Ok(Tensor::floats(vec![scales.len()], scales));
    }
    let code = |(index, x): (usize, &f32)| e4m3((x / scales[scale_of(index)]).clamp(-LARGEST, LARGEST));
    let codes = values.iter().enumerate().map(code).collect();
    Ok(Tensor { shape: tensor.shape.clone(), data: Data::Bytes(codes) })
}

/// Rounds a magnitude of at most 448 to nearest, ties to even.
fn e4m3(x: f32) -> u8 {
    let sign = (x.to_bits() >> 24 & 0x80) as u8;
    let magnitude = x.abs();
    // The smallest normal number is 2^-6, and those below it are multiples of 2^-9.
    if magnitude < 2f32.powi(-6) {
        return sign | (magnitude * 2f32.powi(9)).round_ties_even() as u8;
    }
    let bits = magnitude.to_bits();
    let rounded = bits + 0x7_ffff + (bits >> 20 & 1);
    sign | ((rounded >> 20) - (120 << 3)) as u8
}

/// MXFP4 as the hub has it: of each 32 columns 16 bytes of two codes, the lower half first, or the exponent of their
/// scale. The scale is the power of two that brings the largest to between 4 and 8; of two codes as near the lower.
pub(crate) fn hub_mxfp4(tensor: &Tensor, part: Part) -> Result<Tensor> {
    let mut found = Vec::new();
    for group in tensor.values()?.as_chunks::<32>().0 {
        let largest = group.iter().fold(1e-30f32, |max, x| max.max(x.abs()));
        let exponent = (largest.to_bits() >> 23) as i32 - 127 - 2;
        if part == Part::Scales {
            found.push((exponent + 127) as u8);
            continue;
        }
        let codes = group.map(|x| e2m1(x / 2f32.powi(exponent)));
        found.extend(codes.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4));
    }
    Ok(Tensor { shape: tensor.shape.clone(), data: Data::Bytes(found) })
}

fn e2m1(x: f32) -> u8 {
    const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let distance = |code: u8| (x.abs() - MAGNITUDES[usize::from(code)]).abs();
    let nearest = (1..8).fold(0, |best, code| if distance(code) < distance(best) { code } else { best });
    nearest | u8::from(x < 0.0) << 3
}

/// The hub's MXFP4 as GGML has it: blocks of a scale and 16 bytes, of which the lower halves are the first 16 columns.
pub(crate) fn ggml_mxfp4(codes: &[u8], scales: &[u8]) -> Vec<u8> {
    let blocks = codes.as_chunks::<16>().0.iter().zip(scales);
    let regroup = |(codes, &scale): (&[u8; 16], &u8)| {
        let code = |column: usize| codes[column / 2] >> (column % 2 * 4) & 15;
        let mut block = [scale; 17];
        for (place, byte) in block[1..].iter_mut().enumerate() {
            *byte = code(place) | code(place + 16) << 4;
        }
        block
    };
    blocks.flat_map(regroup).collect()
}
