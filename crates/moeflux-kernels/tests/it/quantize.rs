//! Encoding against `mx.quantize`, and there and back.

use crate::property;
use crate::support::{OwnedMatrix, Random, Sets};
use moeflux_kernels::{Encoding, Float, Matrix, QuantizeError, quantize_row};
use proptest::prelude::*;
use safetensors::SafeTensors;

const ROWS: usize = 8;
const COLS: usize = 256;
const WIDTHS: [u8; 6] = [2, 3, 4, 5, 6, 8];
const GROUPS: [usize; 3] = [32, 64, 128];

fn affine(bits: u8, group: usize, params: Float) -> Encoding {
    Encoding::Affine { bits, group, params }
}

fn quantize(values: &[f32], cols: usize, encoding: Encoding) -> OwnedMatrix {
    let bytes = encoding.row_bytes(cols);
    let rows = values.len() / cols;
    let mut codes = vec![0; rows * bytes.codes];
    let mut scales = vec![0; rows * bytes.scales];
    let mut biases = vec![0; rows * bytes.biases];
    for (row, values) in values.chunks_exact(cols).enumerate() {
        let part = |len: usize| row * len..(row + 1) * len;
        let (codes, scales) = (&mut codes[part(bytes.codes)], &mut scales[part(bytes.scales)]);
        quantize_row(encoding, values, codes, scales, &mut biases[part(bytes.biases)]).unwrap();
    }
    OwnedMatrix { rows, cols, encoding, codes, scales, biases }
}

fn dequantize(matrix: &OwnedMatrix) -> Vec<f32> {
    let OwnedMatrix { rows, cols, encoding, .. } = *matrix;
    let view = Matrix::new(rows, cols, encoding, &matrix.codes, &matrix.scales, &matrix.biases).unwrap();
    let mut values = vec![0.0; rows * cols];
    for (row, out) in values.chunks_exact_mut(cols).enumerate() {
        view.dequantize_row(row, out);
    }
    values
}

/// bf16 as the float32 of the same value.
fn widen(bytes: &[u8]) -> Vec<u8> {
    bytes.as_chunks::<2>().0.iter().flat_map(|&[a, b]| [0, 0, a, b]).collect()
}

#[test]
fn every_vector_quantises_as_in_mlx() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/quant_vectors.safetensors");
    let bytes = std::fs::read(data).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let part = |name: &str| tensors.tensor(name).unwrap().data().to_vec();
    let w: Vec<f32> = part("w").as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    assert_eq!(w.len(), ROWS * COLS);
    let rounded = dequantize(&quantize(&w, COLS, Encoding::Float(Float::Bf16)));

    let sets = Sets::lock();
    for _ in sets.each() {
        let mut checked = 0;
        for (dtype, values, params) in [("f32", &w, Float::F32), ("bf16", &rounded, Float::Bf16)] {
            for bits in WIDTHS {
                for group in GROUPS {
                    let case = format!("{dtype}.affine.b{bits}.g{group}");
                    let found = quantize(values, COLS, affine(bits, group, params));
                    // The file widens parameters to float32.
                    let stored =
                        |bytes: &[u8]| if params == Float::F32 { bytes.to_vec() } else { widen(bytes) };
                    assert!(found.codes == part(&format!("{case}.q")), "{case} codes");
                    assert!(stored(&found.scales) == part(&format!("{case}.scales")), "{case} scales");
                    assert!(stored(&found.biases) == part(&format!("{case}.biases")), "{case} biases");
                    checked += 1;
                }
            }
            let case = format!("{dtype}.mxfp4.b4.g32");
            let found = quantize(values, COLS, Encoding::Mxfp4);
            assert!(found.codes == part(&format!("{case}.q")), "{case} codes");
            assert!(found.scales == part(&format!("{case}.scales")), "{case} scales");
            checked += 1;
        }
        assert_eq!(checked, 38);
    }
}

#[test]
fn groups_at_the_edge() {
    let quantized = |values: [f32; 64]| quantize(&values, 64, affine(4, 64, Float::F32));
    let params = |matrix: &OwnedMatrix| {
        let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        (float(&matrix.scales), float(&matrix.biases))
    };
    // What mx.quantize gives for a group of zeros and for groups of one value.
    for (value, expected) in [(0.0, (-1e-7, 0.0)), (1.5, (-1e-7, 1.5)), (-1.5, (-1e-7, -1.5))] {
        let found = quantized([value; 64]);
        assert_eq!(params(&found), expected);
        assert_eq!(found.codes, [0; 32]);
    }
    let mxfp4 = |x: f32| quantize(&[[x; 1].as_slice(), &[0.0; 31]].concat(), 32, Encoding::Mxfp4).scales[0];
    // Scales are the least power of two with which 6 reaches the largest value; zeros have 1.
    for (largest, scale) in
        [(0.0, 127), (6.0, 127), (6.0000005, 128), (5.9999995, 127), (3.0, 126), (1e-39, 0)]
    {
        assert_eq!(mxfp4(largest), scale, "{largest}");
    }
    assert_eq!(mxfp4(f32::MAX), 253);
}

#[test]
fn what_cannot_be_written_is_refused() {
    let mut codes = [0; 128];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut row = [0.5; 32];
        row[7] = bad;
        let refused = quantize_row(Encoding::Mxfp4, &row, &mut codes[..16], &mut [0], &mut []);
        assert_eq!(refused, Err(QuantizeError::NotFinite { column: 7 }));
    }
    let encoding = Encoding::Mxfp8;
    let refused = quantize_row(encoding, &[0.5; 32], &mut codes[..32], &mut [0], &mut []);
    assert_eq!(refused, Err(QuantizeError::Unsupported { encoding }));
}

/// 256 values of groups as weights have them, and of groups at the edge: of one value, of zeros, near zero, on one side of
/// zero, with one far from the others.
fn rows() -> impl Strategy<Value = Vec<f32>> {
    let size = prop::sample::select(vec![1.0f32, 1.0, 1.0, 0.02, 300.0, 1e-8, 1e-6, 1e20]);
    let shift = prop_oneof![2 => Just(0.0f32), 3 => -2f32..2.0];
    let kind =
        prop_oneof![6 => Just(None), 1 => Just(Some(0.0f32)), 1 => Just(Some(1.0)), 1 => Just(Some(25.0))];
    (any::<u64>(), size, shift, kind).prop_map(|(seed, size, shift, kind)| {
        let mut random = Random(seed);
        let mut values: Vec<f32> = random.floats(256, 1.0).iter().map(|x| (x + shift) * size).collect();
        let at = random.below(256);
        match kind {
            None => {}
            Some(outlier) if outlier > 1.0 => values[at] *= outlier,
            // From some column on all are one value, or zero.
            Some(factor) => values[at / 32 * 32..].fill(shift * size * factor),
        }
        values
    })
}

/// What each code of an affine group stands for.
fn codes_of(scale: f32, bias: f32, width: u8) -> impl Iterator<Item = f64> {
    (0..1u32 << width).map(move |code| f64::from(scale).mul_add(f64::from(code), f64::from(bias)))
}

/// No code is nearer to a value than its own, no value is farther than a step from it, and no bit depends on the instruction
/// set.
#[test]
fn codes_are_the_nearest() {
    let sets = Sets::lock();
    let (width, group) = (prop::sample::select(&WIDTHS[..]), prop::sample::select(&GROUPS[..]));
    property::check(3000, &(rows(), width, group), |(values, width, group)| {
        let encoding = affine(width, group, Float::F32);
        let found: Vec<OwnedMatrix> = sets.each().map(|_| quantize(&values, 256, encoding)).collect();
        let parts =
            |matrix: &OwnedMatrix| (matrix.codes.clone(), matrix.scales.clone(), matrix.biases.clone());
        assert!(found.windows(2).all(|pair| parts(&pair[0]) == parts(&pair[1])));
        let back = dequantize(&found[0]);
        for (number, (values, back)) in values.chunks(group).zip(back.chunks(group)).enumerate() {
            let parameter =
                |bytes: &[u8]| f32::from_le_bytes(bytes[4 * number..4 * number + 4].try_into().unwrap());
            let (scale, bias) = (parameter(&found[0].scales), parameter(&found[0].biases));
            let step = f64::from(scale.abs());
            for (x, back) in values.iter().zip(back) {
                let error = f64::from(x - back).abs();
                let least = codes_of(scale, bias, width).map(|code| (f64::from(*x) - code).abs());
                let least = least.fold(f64::INFINITY, f64::min);
                let rounding = 1e-6 * f64::from(x.abs().max(bias.abs())) + 1e-4 * step;
                assert!(error <= least + rounding, "{x} became {back}, {least} would do, steps of {step}");
                // 0 has a code of its own, which may cost half a step at the other end.
                assert!(error <= step * 1.001 + rounding, "{x} became {back}, in steps of {step}");
            }
        }
    });
}

/// MXFP4 has the least scale with which the largest value fits, and each value the nearest code.
#[test]
fn mxfp4_codes_are_the_nearest() {
    let sets = Sets::lock();
    property::check(2000, &rows(), |values| {
        let found: Vec<OwnedMatrix> = sets.each().map(|_| quantize(&values, 256, Encoding::Mxfp4)).collect();
        let parts = |matrix: &OwnedMatrix| (matrix.codes.clone(), matrix.scales.clone());
        assert!(found.windows(2).all(|pair| parts(&pair[0]) == parts(&pair[1])));
        let back = dequantize(&found[0]);
        let groups = values.chunks(32).zip(back.chunks(32)).zip(&found[0].scales);
        for ((values, back), scale) in groups {
            let scale = 2f64.powi(i32::from(*scale) - 127);
            let largest = values.iter().fold(0.0f64, |max, x| max.max(f64::from(x.abs())));
            if largest == 0.0 {
                assert_eq!(scale, 1.0);
            } else {
                // 6 is the largest code; float32 rounds the quotient.
                let fits = |scale: f64| largest <= 6.0 * scale * (1.0 + 1e-7);
                assert!(fits(scale) && !fits(scale / 2.0 * (1.0 - 2e-7)), "{largest}: {scale}");
            }
            for (x, back) in values.iter().zip(back) {
                let error = |code: f64| (f64::from(*x).abs() - code * scale).abs();
                let least = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
                    .map(error)
                    .into_iter()
                    .fold(f64::INFINITY, f64::min);
                let found = f64::from(x - back).abs();
                assert!(found <= least + 1e-6 * f64::from(x.abs()), "{x} became {back}, with scale {scale}");
            }
        }
    });
}

/// bf16 is the nearest, of two as near the even one; float32 stays as it is; what is not finite is refused.
#[test]
fn floats_are_rounded_to_the_nearest() {
    let finite = any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite());
    // Halfway between two bf16, and just beside that.
    let half = (any::<u16>(), 0..3u32)
        .prop_map(|(high, beside)| f32::from_bits(u32::from(high) << 16 | (0x7fff + beside)))
        .prop_filter("finite", |x| x.is_finite());
    property::check(4000, &(prop_oneof![finite, half], any::<bool>()), |(x, is_exact)| {
        let x = if is_exact { f32::from_bits(x.to_bits() & 0xffff_0000) } else { x };
        let bytes = quantize(&[x], 1, Encoding::Float(Float::F32)).codes;
        assert_eq!(bytes, x.to_le_bytes());
        let codes = quantize(&[x], 1, Encoding::Float(Float::Bf16)).codes;
        let (below, found) = (x.to_bits() >> 16, u32::from(u16::from_le_bytes([codes[0], codes[1]])));
        let (low, high) = (f32::from_bits(below << 16), f32::from_bits((below + 1) << 16));
        // Beyond the largest float the next one would be 2^128.
        let high = if high.is_finite() { f64::from(high) } else { 2f64.powi(128).copysign(f64::from(x)) };
        let (down, up) = ((f64::from(x) - f64::from(low)).abs(), (high - f64::from(x)).abs());
        let expected = if down < up || (down == up && below % 2 == 0) { below } else { below + 1 };
        assert_eq!(found, expected, "{x:e}");
    });
    let bad = prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
    property::check(200, &(bad, 0..64usize), |(bad, column)| {
        let mut row = [0.5; 64];
        row[column] = bad;
        let refused = quantize_row(Encoding::Mxfp4, &row, &mut [0; 32], &mut [0; 2], &mut []);
        assert_eq!(refused, Err(QuantizeError::NotFinite { column }));
    });
}
