//! Encodings of checkpoints that neither MLX nor GGUF's older types have: vectors of their packages' layouts
//! (`tools/reference/packed_vectors.py`), and products in both kinds of numbers.

use crate::formulas;
use crate::int8::{ggml, int8, quantized};
use crate::support::{OwnedMatrix, Random, Sets, assert_close, bits, compressed_encodings, f64s};
use moeflux_kernels::{
    Encoding, Float, Ggml, InstructionSet, Matrix, Packing, ThreadPool, has_int8_products, linear,
};
use safetensors::SafeTensors;

const ROWS: usize = 32;
const COLS: usize = 64;

fn encoding(case: &str) -> Encoding {
    let (kind, rest) = case.split_once('.').unwrap_or((case, ""));
    let bits = rest.split('.').next().and_then(|bits| bits.strip_prefix('b')?.parse().ok()).unwrap_or(4);
    let packed = |packing| Encoding::Packed { bits, group: 32, params: Float::F16, packing };
    match kind {
        "gptq1" => packed(Packing::Gptq { less_one: true }),
        "gptq2" => packed(Packing::Gptq { less_one: false }),
        "awq" => packed(Packing::Awq),
        "zeros_by_row" => packed(Packing::ZerosByRow),
        "symmetric" => Encoding::Symmetric { bits, group: 32, params: Float::Bf16, signed: false },
        "signed" => Encoding::Symmetric { bits: 8, group: COLS, params: Float::F32, signed: true },
        "nvfp4_divided" => Encoding::Nvfp4Scaled { divided: true },
        "nvfp4_multiplied" => Encoding::Nvfp4Scaled { divided: false },
        _ => panic!("case {case}"),
    }
}

/// Each case of the vectors with its matrix and values.
fn for_each_case(mut f: impl FnMut(&str, &Matrix<'_>, &[f32])) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/packed_vectors.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let cases: Vec<_> = tensors.names().into_iter().filter_map(|name| name.strip_suffix(".values")).collect();
    assert_eq!(cases.len(), 18);
    for case in cases {
        let part =
            |part: &str| tensors.tensor(&format!("{case}.{part}")).ok().map(|part| part.data().to_vec());
        let [codes, scales, biases] =
            ["codes", "scales", "biases"].map(|name| part(name).unwrap_or_default());
        let groups: Option<Vec<u16>> = part("groups")
            .map(|bytes| bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect());
        let values = part("values").unwrap();
        let values: Vec<f32> = values.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let w = Matrix::new(ROWS, COLS, encoding(case), &codes, &scales, &biases).unwrap();
        let w = groups.as_deref().map_or(w, |groups| w.with_groups(groups));
        f(case, &w, &values);
    }
}

#[test]
fn every_layout_dequantises_to_its_packages_values() {
    let sets = Sets::lock();
    let pool = ThreadPool::new(1).unwrap();
    let x = Random(20).floats(3 * COLS, 1.0);
    for_each_case(|case, w, values| {
        for set in sets.each() {
            let mut rows = vec![f32::NAN; ROWS * COLS];
            for (row, out) in rows.chunks_exact_mut(COLS).enumerate() {
                w.dequantize_row(row, out);
            }
            // Zeros have no sign here.
            let unsigned = |values: &[f32]| bits(&values.iter().map(|x| x + 0.0).collect::<Vec<_>>());
            assert_eq!(unsigned(&rows), unsigned(values), "{case}, {set:?}");
        }
        // Products take rows several at a time.
        let mut y = vec![0.0; 3 * ROWS];
        linear(&pool, w, &x, &mut y);
        let expected: Vec<f64> = x
            .chunks(COLS)
            .flat_map(|x| {
                let dot = |row: &[f32]| f64s(row).iter().zip(f64s(x)).map(|(w, x)| w * x).sum::<f64>();
                values.chunks(COLS).map(dot).collect::<Vec<_>>()
            })
            .collect();
        assert_close(&y, &expected, 2e-5);
    });
}

#[test]
fn packed_rows_repack_to_affine_ones_of_the_same_values() {
    let mut repacked = 0;
    for_each_case(|case, w, values| {
        let Some(encoding) = w.encoding().repacked().filter(|_| !case.ends_with("ordered")) else { return };
        let row = encoding.row_bytes(COLS);
        let mut parts = [row.codes, row.scales, row.biases].map(|bytes| vec![0xaa; ROWS * bytes]);
        for r in 0..ROWS {
            let [codes, scales, biases] = parts.each_mut();
            w.repack_row(
                r,
                &mut codes[r * row.codes..][..row.codes],
                &mut scales[r * row.scales..][..row.scales],
                &mut biases[r * row.biases..][..row.biases],
            );
        }
        let [codes, scales, biases] = &parts;
        let affine = Matrix::new(ROWS, COLS, encoding, codes, scales, biases).unwrap();
        for (row, expected) in values.chunks(COLS).enumerate() {
            let mut found = vec![0.0; COLS];
            affine.dequantize_row(row, &mut found);
            assert!(found == expected, "{case}, row {row}");
        }
        repacked += 1;
    });
    assert_eq!(repacked, 11);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let packed = |bits, group, packing| Encoding::Packed { bits, group, params: Float::F16, packing };
    let symmetric = |bits, group, signed| Encoding::Symmetric { bits, group, params: Float::F16, signed };
    for encoding in [
        packed(1, 32, Packing::Awq),
        packed(8, 32, Packing::Awq),
        packed(4, 16, Packing::ZerosByRow),
        packed(4, 0, Packing::ZerosByRow),
        symmetric(4, 0, false),
        symmetric(4, 12, false),
        symmetric(4, 32, true),
        symmetric(9, 32, false),
    ] {
        assert!(Matrix::new(0, 0, encoding, &[], &[], &[]).is_err(), "{encoding:?}");
    }
    let gptq = packed(4, 32, Packing::Gptq { less_one: true });
    assert!(Matrix::new(32, 32, gptq, &[0; 512], &[0; 64], &[0; 16]).is_ok());
    assert!(Matrix::new(16, 32, gptq, &[0; 256], &[0; 32], &[0; 8]).is_err());
    assert!(Matrix::new(32, 32, gptq, &[0; 512], &[0; 64], &[0; 12]).is_err());
}

#[test]
fn compressed_encodings_are_what_their_definition_says() {
    let mut random = Random(21);
    let pool = ThreadPool::new(2).unwrap();
    for encoding in compressed_encodings() {
        let w = random.matrix(37, 256, encoding);
        let x = random.floats(5 * 256, 1.0);
        let mut y = vec![0.0; 5 * 37];
        linear(&pool, &w.view(), &x, &mut y);
        let expected = formulas::linear(&w, &x);
        assert_close(&y, &expected, 2e-5);
        for row in [0, 36] {
            let mut found = vec![0.0; 256];
            w.view().dequantize_row(row, &mut found);
            assert_eq!(f64s(&found), w.row(row), "{encoding:?}");
        }
    }
}

/// GGML's types of one to three bits, and its NVFP4.
const GGML: [Ggml; 12] = [
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

#[test]
fn integer_products_are_those_of_rounded_activations_with_every_instruction_set() {
    let sets = Sets::lock();
    let mut random = Random(22);
    for (rows, cols) in [(5, 256), (33, 512), (2050, 256)] {
        let compressed = compressed_encodings().into_iter().filter(|&encoding| has_int8_products(encoding));
        let mut all: Vec<OwnedMatrix> =
            compressed.map(|encoding| random.matrix(rows, cols, encoding)).collect();
        assert_eq!(all.len(), 10);
        all.extend(GGML.map(|kind| ggml(&mut random, rows, cols, kind)));
        for w in all {
            let n = if rows > 2000 { 2 } else { 17 };
            let x = random.floats(n * cols, 2.0);
            sets.choose(InstructionSet::Baseline);
            let expected: Vec<_> = x.chunks(cols).flat_map(|x| bits(&int8(&w.view(), x, 1))).collect();
            for set in sets.each() {
                assert!(bits(&int8(&w.view(), &x, 2)) == expected, "{:?}, {set:?}", w.encoding);
            }
            // Many rows of codes below 16 take the upper 8 bits of activations.
            if rows > 2000 {
                continue;
            }
            let rounded: Vec<f64> = quantized(&x[..cols])
                .iter()
                .flat_map(|(scale, codes)| codes.iter().map(|&code| f64::from(*scale) * code as f64))
                .collect();
            for row in 0..rows {
                let mut weights = vec![0.0; cols];
                w.view().dequantize_row(row, &mut weights);
                let products = || weights.iter().zip(&rounded).map(|(&w, x)| f64::from(w) * x);
                let (exact, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
                let found = f64::from(f32::from_bits(expected[row]));
                assert!(
                    (found - exact).abs() <= 2e-6 * size,
                    "{:?}, row {row}: {exact}, {found}",
                    w.encoding
                );
            }
        }
    }
}
