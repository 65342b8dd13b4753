//! Encoding against `mx.quantize`, and there and back.

use crate::support::{OwnedMatrix, Random};
use moeflux_kernels::{
    Encoding, Float, InstructionSet, Matrix, QuantizeError, quantize_row, set_instruction_set,
};
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

    for set in InstructionSet::available() {
        set_instruction_set(set);
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

proptest! {
    /// No value is farther from its code than half a step, and no bit depends on the instruction set.
    #[test]
    fn codes_are_the_nearest(seed in any::<u64>(), width in 0..6usize, group in 0..3usize, shift in -2f32..2.0) {
        let values: Vec<f32> = Random(seed).floats(256, 1.0).into_iter().map(|x| x + shift).collect();
        let encoding = affine(WIDTHS[width], GROUPS[group], Float::F32);
        let mut found = Vec::new();
        for set in InstructionSet::available() {
            set_instruction_set(set);
            let matrix = quantize(&values, 256, encoding);
            found.push((matrix.codes.clone(), matrix.scales.clone(), matrix.biases.clone()));
            for (group, back) in dequantize(&matrix).chunks(GROUPS[group]).enumerate() {
                let scale: [u8; 4] = matrix.scales[4 * group..4 * group + 4].try_into().unwrap();
                let step = f32::from_le_bytes(scale).abs();
                // 0 has a code of its own, which may cost half a step at the other end.
                for (a, b) in values[group * back.len()..].iter().zip(back) {
                    prop_assert!((a - b).abs() <= step * 1.001, "{a} {b} {step}");
                }
            }
        }
        prop_assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
    }

    /// What has been rounded to codes once stays as it is.
    #[test]
    fn bf16_round_trip(bits in any::<u16>()) {
        let x = f32::from_bits(u32::from(bits) << 16);
        prop_assume!(x.is_finite());
        let again = quantize(&[x], 1, Encoding::Float(Float::Bf16));
        prop_assert_eq!(again.codes, bits.to_le_bytes());
    }
}
