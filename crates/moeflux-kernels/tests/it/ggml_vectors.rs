//! Random blocks of every GGML type and what the `gguf` package for Python makes of them
//! (`tools/reference/ggml_vectors.py`).

use crate::support::{Sets, bits};
use moeflux_kernels::{Encoding, Ggml, Matrix};
use safetensors::SafeTensors;

#[test]
fn every_type_dequantises_as_in_gguf() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/ggml_vectors.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 2 * Ggml::ALL.len());
    let sets = Sets::lock();
    for ggml in Ggml::ALL {
        let blocks = tensors.tensor(&format!("{}.blocks", ggml.name())).unwrap();
        let values = tensors.tensor(&format!("{}.values", ggml.name())).unwrap();
        let [rows, cols] = values.shape() else { panic!("{:?}", values.shape()) };
        let expected: Vec<f32> = values.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let matrix = Matrix::new(*rows, *cols, Encoding::Ggml(ggml), blocks.data(), &[], &[]).unwrap();
        for set in sets.each() {
            let mut found = vec![f32::NAN; rows * cols];
            for (row, out) in found.chunks_exact_mut(*cols).enumerate() {
                matrix.dequantize_row(row, out);
            }
            assert_eq!(bits(&found), bits(&expected), "{} with {set:?}", ggml.name());
        }
    }
}

#[test]
fn rows_are_whole_blocks() {
    for ggml in Ggml::ALL {
        let (cols, bytes) = (ggml.block(), vec![0; ggml.block_bytes()]);
        assert!(Matrix::new(1, cols, Encoding::Ggml(ggml), &bytes, &[], &[]).is_ok());
        assert!(Matrix::new(1, cols + 16, Encoding::Ggml(ggml), &bytes, &[], &[]).is_err());
        assert!(Matrix::new(1, cols, Encoding::Ggml(ggml), &bytes[1..], &[], &[]).is_err());
    }
}
