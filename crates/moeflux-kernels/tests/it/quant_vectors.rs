//! Codes, scales and results of MLX's `mx.quantize`, `mx.dequantize` and a matrix product with the latter.

use crate::support::{assert_close, bits, f64s};
use moeflux_kernels::{Encoding, Float, Matrix, ThreadPool, linear};
use safetensors::SafeTensors;

const ROWS: usize = 8;
const COLS: usize = 256;
const VECTORS: usize = 3;

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// `f32.affine.b4.g64` and the like.
fn encoding(case: &str, params: Float) -> Encoding {
    let parts: Vec<&str> = case.split('.').collect();
    match parts[1] {
        "affine" => Encoding::Affine {
            bits: parts[2][1..].parse().unwrap(),
            group: parts[3][1..].parse().unwrap(),
            params,
        },
        "mxfp4" => Encoding::Mxfp4,
        "mxfp8" => Encoding::Mxfp8,
        "nvfp4" => Encoding::Nvfp4,
        mode => panic!("mode {mode}"),
    }
}

#[test]
fn every_vector_dequantises_and_multiplies_as_in_mlx() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/quant_vectors");
    let bytes = std::fs::read(format!("{data}.safetensors")).unwrap();
    let json = std::fs::read(format!("{data}.json")).unwrap();
    let cases: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&json).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let part =
        |case: &str, part: &str| tensors.tensor(&format!("{case}.{part}")).ok().map(|t| t.data().to_vec());
    let x = floats(tensors.tensor("x").unwrap().data());
    let pool = ThreadPool::new(1).unwrap();
    assert_eq!(cases.len(), 42);

    let mut exact = 0;
    for case in cases.keys() {
        let codes = part(case, "q").unwrap();
        let scales = part(case, "scales").unwrap();
        let biases = part(case, "biases").unwrap_or_default();
        let check = |params: Float, scales: &[u8], biases: &[u8]| {
            let w = Matrix::new(ROWS, COLS, encoding(case, params), &codes, scales, biases).unwrap();
            let mut rows = vec![0.0; ROWS * COLS];
            for (row, out) in rows.chunks_exact_mut(COLS).enumerate() {
                w.dequantize_row(row, out);
            }
            if let Some(expected) = part(case, "dequant") {
                assert_eq!(bits(&rows), bits(&floats(&expected)), "{case}");
            }
            let mut y = vec![0.0; VECTORS * ROWS];
            linear(&pool, &w, &x, &mut y);
            assert_close(&y, &f64s(&floats(&part(case, "y").unwrap())), 2e-5);
        };
        check(Float::F32, &scales, &biases);
        exact += usize::from(part(case, "dequant").is_some());
        // The file widens parameters to float32; narrowed again, those made in bf16 must give the same.
        if case.starts_with("bf16.affine") {
            check(Float::Bf16, &narrow(&scales), &narrow(&biases));
        }
    }
    assert_eq!(exact, 21);
}

/// float32 to bf16, where nothing is lost.
fn narrow(bytes: &[u8]) -> Vec<u8> {
    let halves = bytes.as_chunks::<4>().0.iter().map(|&[a, b, c, d]| {
        assert_eq!([a, b], [0, 0]);
        [c, d]
    });
    halves.flatten().collect()
}

#[test]
fn every_code_of_e4m3_is_what_torch_makes_of_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/e4m3.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let expected = floats(SafeTensors::deserialize(&bytes).unwrap().tensor("values").unwrap().data());
    let codes: Vec<u8> = (0..=255).collect();
    let one = 1f32.to_le_bytes();
    let encoding = Encoding::Fp8 { block_rows: 1, block_cols: 256, params: Float::F32 };
    let mut found = vec![0.0; 256];
    Matrix::new(1, 256, encoding, &codes, &one, &[]).unwrap().dequantize_row(0, &mut found);
    for (code, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{code:#x}");
    }
    assert_eq!(expected.iter().filter(|value| value.is_nan()).count(), 2);
}
