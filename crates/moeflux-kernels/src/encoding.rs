//! How a row of numbers lies in bytes.

use crate::ggml::Ggml;

/// A floating-point element type, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
}

impl Float {
    /// Size of one element in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Float::F32 => 4,
            Float::F16 | Float::Bf16 => 2,
        }
    }
}

/// How a matrix's rows are encoded. Quantised encodings, but for [`Ggml`](Self::Ggml), are MLX's: the codes of a row
/// are one little-endian bit stream, least significant bit first, and groups run along the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Plain floats.
    Float(Float),
    /// `w = f32(scale)·q + f32(bias)` with one scale and one bias for each `group` of columns.
    Affine {
        /// Width of a code: 2, 3, 4, 5, 6 or 8.
        bits: u8,
        /// Columns that share a scale and a bias: 32, 64 or 128.
        group: usize,
        /// Element type of scales and biases.
        params: Float,
    },
    /// e2m1 codes, one e8m0 scale for each 32 columns.
    Mxfp4,
    /// e4m3 codes, one e8m0 scale for each 32 columns.
    Mxfp8,
    /// e2m1 codes, one e4m3 scale for each 16 columns.
    Nvfp4,
    /// e4m3 codes, one scale for each block of rows and columns; the last block of a side may be cut short.
    Fp8 {
        /// Rows that share a scale, at least 1.
        block_rows: usize,
        /// Columns that share a scale, at least 1.
        block_cols: usize,
        /// Element type of scales.
        params: Float,
    },
    /// Blocks that hold codes and scales together.
    Ggml(Ggml),
}

/// Bytes that one row takes in each of a matrix's three parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowBytes {
    /// The codes, the floats themselves, or whole blocks.
    pub codes: usize,
    /// The scales, which can serve several rows ([`Encoding::scale_row`]); 0 if the encoding has none.
    pub scales: usize,
    /// The biases; 0 if the encoding has none.
    pub biases: usize,
}

impl Encoding {
    /// What a row's length must be a multiple of: columns that share a scale, or a block. 1 where any length will do.
    pub const fn group(self) -> usize {
        match self {
            Encoding::Float(_) | Encoding::Fp8 { .. } => 1,
            Encoding::Affine { group, .. } => group,
            Encoding::Mxfp4 | Encoding::Mxfp8 => 32,
            Encoding::Nvfp4 => 16,
            Encoding::Ggml(ggml) => ggml.block(),
        }
    }

    /// Width of one code in bits.
    pub const fn bits(self) -> usize {
        match self {
            Encoding::Float(float) => float.bytes() * 8,
            Encoding::Affine { bits, .. } => bits as usize,
            Encoding::Mxfp4 | Encoding::Nvfp4 => 4,
            Encoding::Mxfp8 | Encoding::Fp8 { .. } => 8,
            Encoding::Ggml(ggml) => ggml.bits(),
        }
    }

    /// Bytes of a row of `cols` columns, which must be a multiple of [`group`](Self::group).
    pub const fn row_bytes(self, cols: usize) -> RowBytes {
        let codes = cols * self.bits() / 8;
        let groups = cols / self.group();
        match self {
            Encoding::Float(_) => RowBytes { codes, scales: 0, biases: 0 },
            Encoding::Affine { params, .. } => {
                let bytes = groups * params.bytes();
                RowBytes { codes, scales: bytes, biases: bytes }
            }
            Encoding::Mxfp4 | Encoding::Mxfp8 | Encoding::Nvfp4 => {
                RowBytes { codes, scales: groups, biases: 0 }
            }
            Encoding::Fp8 { block_cols, params, .. } => {
                RowBytes { codes, scales: cols.div_ceil(block_cols) * params.bytes(), biases: 0 }
            }
            Encoding::Ggml(ggml) => RowBytes { codes: groups * ggml.block_bytes(), scales: 0, biases: 0 },
        }
    }

    /// The same with scales for each row.
    #[must_use]
    pub const fn by_row(self) -> Self {
        match self {
            Encoding::Fp8 { block_cols, params, .. } => Encoding::Fp8 { block_rows: 1, block_cols, params },
            _ => self,
        }
    }

    /// The row of scales that serves row `row`.
    pub const fn scale_row(self, row: usize) -> usize {
        match self {
            Encoding::Fp8 { block_rows, .. } => row / block_rows,
            _ => row,
        }
    }

    /// How many rows of scales serve `rows` rows.
    pub const fn scale_rows(self, rows: usize) -> usize {
        match self {
            Encoding::Fp8 { block_rows, .. } => rows.div_ceil(block_rows),
            _ => rows,
        }
    }
}
