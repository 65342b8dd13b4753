//! Random matrices in any encoding.

use moeflux_kernels::{Encoding, Float, Matrix};

use crate::support::Random;

/// A matrix that owns its bytes.
pub(crate) struct Weights {
    rows: usize,
    cols: usize,
    encoding: Encoding,
    parts: [Vec<u8>; 3],
}

impl Weights {
    pub(crate) fn random(random: &mut Random, rows: usize, cols: usize, encoding: Encoding) -> Self {
        let bytes = encoding.row_bytes(cols);
        let mut some = |n: usize, byte: &dyn Fn(u64) -> u8| (0..n).map(|_| byte(random.next())).collect();
        let codes: Vec<u8> = match encoding {
            // Of e4m3 no NaN.
            Encoding::Mxfp8 => some(rows * bytes.codes, &|r| r as u8 & 0xf7),
            _ => some(rows * bytes.codes, &|r| r as u8),
        };
        let scales = match encoding {
            Encoding::Mxfp4 | Encoding::Mxfp8 => some(rows * bytes.scales, &|r| 118 + (r % 10) as u8),
            _ => some(rows * bytes.scales, &|r| 0x20 + (r % 0x40) as u8),
        };
        match encoding {
            Encoding::Float(float) => {
                let codes = floats(random, float, rows * cols);
                Weights { rows, cols, encoding, parts: [codes, vec![], vec![]] }
            }
            Encoding::Affine { group, params, .. } => {
                let count = rows * cols / group;
                let params = [floats(random, params, count), floats(random, params, count)];
                let [scales, biases] = params;
                Weights { rows, cols, encoding, parts: [codes, scales, biases] }
            }
            _ => Weights { rows, cols, encoding, parts: [codes, scales, vec![]] },
        }
    }

    pub(crate) fn matrix(&self) -> Matrix<'_> {
        let [codes, scales, biases] = &self.parts;
        Matrix::new(self.rows, self.cols, self.encoding, codes, scales, biases).unwrap()
    }

    /// All of them, dequantised.
    pub(crate) fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.cols];
        for (row, values) in values.chunks_exact_mut(self.cols).enumerate() {
            self.matrix().dequantize_row(row, values);
        }
        values
    }
}

/// Numbers up to 1 of a type, some of binary16's subnormal.
fn floats(random: &mut Random, float: Float, n: usize) -> Vec<u8> {
    match float {
        Float::F32 => random.floats(n, 1.0).iter().flat_map(|x| x.to_le_bytes()).collect(),
        Float::Bf16 => {
            random.floats(n, 1.0).iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect()
        }
        Float::F16 => (0..n)
            .flat_map(|_| ((random.next() % 0x3c00) as u16 | (random.next() as u16 & 0x8000)).to_le_bytes())
            .collect(),
    }
}
