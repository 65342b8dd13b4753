//! GGUF files in floats, made of quantised ones.

use std::path::Path;

use moeflux_kernels::{Encoding, Ggml, Matrix};
use tempfile::TempDir;

use crate::gguf_file::GgufFile;

/// A folder with the model of a file, Q8_0 and MXFP4 written as the F32 that they stand for.
pub(crate) fn folder(path: &Path) -> TempDir {
    let mut file = GgufFile::read(path);
    for tensor in &mut file.tensors {
        let ggml = match tensor.kind {
            8 => Ggml::Q8_0,
            39 => Ggml::Mxfp4,
            _ => continue,
        };
        let cols = *tensor.shape.last().unwrap();
        let rows = tensor.shape.iter().product::<usize>() / cols;
        let matrix = Matrix::new(rows, cols, Encoding::Ggml(ggml), &tensor.bytes, &[], &[]).unwrap();
        let mut values = vec![0.0; rows * cols];
        values.chunks_mut(cols).enumerate().for_each(|(row, out)| matrix.dequantize_row(row, out));
        (tensor.kind, tensor.bytes) = (0, values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), file.bytes()).unwrap();
    folder
}
