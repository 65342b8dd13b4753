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

/// How a matrix's rows are encoded. But for [`Ggml`](Self::Ggml) and [`Packed`](Self::Packed), the codes of a row are one
/// little-endian bit stream, least significant bit first, and groups run along the row.
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
    /// As [`Nvfp4`](Self::Nvfp4), with one float32 for the whole matrix, in place of biases, that scales are multiplied
    /// with, or that they are divided by.
    Nvfp4Scaled {
        /// Whether scales are divided.
        divided: bool,
    },
    /// `w = f32(scale)·(q - 2^(bits - 1))`, or of signed bytes `w = f32(scale)·q`.
    Symmetric {
        /// Width of a code: 2 to 8.
        bits: u8,
        /// Columns that share a scale: a multiple of 16, or all of a row.
        group: usize,
        /// Element type of scales.
        params: Float,
        /// Whether codes are signed bytes.
        signed: bool,
    },
    /// `w = f32(scale)·(q - zero)`, with zeros, in place of biases, that are packed as tightly as codes are. Rows do not
    /// lie by themselves.
    Packed {
        /// Width of codes and zeros: 2 to 8.
        bits: u8,
        /// Columns that share a scale and a zero: a multiple of 32.
        group: usize,
        /// Element type of scales.
        params: Float,
        /// How codes, scales and zeros lie.
        packing: Packing,
    },
    /// `w = table[q]·scale`: codes of 4 bits, two a byte, the earlier column in the higher bits, and one float32 scale for
    /// each `group` columns, as bitsandbytes has them.
    Codebook {
        /// What codes stand for.
        table: Codebook,
        /// Columns that share a scale: an even number.
        group: usize,
    },
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
    /// Such blocks with one float32 for the whole matrix, in place of biases, that every weight is multiplied with.
    GgmlScaled(Ggml),
}

/// The values of codes of 4 bits, as bitsandbytes defines them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codebook {
    /// Quantiles of a normal distribution (Dettmers et al. 2023), from -1 to 1.
    Nf4,
    /// Floats with a sign, two bits of exponent and one of significand, from -1 to 1.
    Fp4,
}

impl Codebook {
    /// What each code stands for.
    pub const fn values(self) -> &'static [f32; 16] {
        match self {
            Codebook::Nf4 => &NF4,
            Codebook::Fp4 => &FP4,
        }
    }
}

static NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

static FP4: [f32; 16] = [
    0.0,
    1.0 / 192.0,
    2.0 / 3.0,
    1.0,
    1.0 / 3.0,
    0.5,
    1.0 / 6.0,
    0.25,
    0.0,
    -1.0 / 192.0,
    -2.0 / 3.0,
    -1.0,
    -1.0 / 3.0,
    -0.5,
    -1.0 / 6.0,
    -0.25,
];

/// How the parts of a matrix with zeros lie. Words have 32 bits, and packed numbers begin at a word's lowest bit; numbers of
/// a width that does not divide 32 run on in the next word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// GPTQ's: words of codes along the columns, `[cols·bits/32, rows]`, scales `[groups, rows]`, zeros packed along the
    /// rows, `[groups, rows·bits/32]`.
    Gptq {
        /// Whether zeros are stored less 1, modulo `2^bits`, as the format's first version has it.
        less_one: bool,
    },
    /// AWQ's: eight codes of four bits a word along the rows, `[cols, rows/8]`, even rows before odd ones; scales
    /// `[groups, rows]`; zeros `[groups, rows/8]` as codes are.
    Awq,
    /// That of `compressed-tensors`: codes and scales row by row, zeros packed along the rows, `[rows·bits/32, groups]`.
    ZerosByRow,
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
            Encoding::Affine { group, .. }
            | Encoding::Symmetric { group, .. }
            | Encoding::Codebook { group, .. }
            | Encoding::Packed { group, .. } => group,
            Encoding::Mxfp4 | Encoding::Mxfp8 => 32,
            Encoding::Nvfp4 | Encoding::Nvfp4Scaled { .. } => 16,
            Encoding::Ggml(ggml) | Encoding::GgmlScaled(ggml) => ggml.block(),
        }
    }

    /// Width of one code in bits.
    pub const fn bits(self) -> usize {
        match self {
            Encoding::Float(float) => float.bytes() * 8,
            Encoding::Affine { bits, .. }
            | Encoding::Symmetric { bits, .. }
            | Encoding::Packed { bits, .. } => bits as usize,
            Encoding::Mxfp4 | Encoding::Nvfp4 | Encoding::Nvfp4Scaled { .. } | Encoding::Codebook { .. } => 4,
            Encoding::Mxfp8 | Encoding::Fp8 { .. } => 8,
            Encoding::Ggml(ggml) | Encoding::GgmlScaled(ggml) => ggml.bits(),
        }
    }

    /// Bytes of a row of `cols` columns, which must be a multiple of [`group`](Self::group).
    pub const fn row_bytes(self, cols: usize) -> RowBytes {
        let codes = cols * self.bits() / 8;
        let groups = match self.group() {
            0 => 0,
            group => cols / group,
        };
        match self {
            Encoding::Float(_) => RowBytes { codes, scales: 0, biases: 0 },
            Encoding::Affine { params, .. } => {
                let bytes = groups * params.bytes();
                RowBytes { codes, scales: bytes, biases: bytes }
            }
            Encoding::Mxfp4 | Encoding::Mxfp8 | Encoding::Nvfp4 => {
                RowBytes { codes, scales: groups, biases: 0 }
            }
            Encoding::Nvfp4Scaled { .. } => RowBytes { codes, scales: groups, biases: 4 },
            Encoding::Codebook { .. } => RowBytes { codes, scales: groups * 4, biases: 0 },
            Encoding::Symmetric { params, .. } => {
                RowBytes { codes, scales: groups * params.bytes(), biases: 0 }
            }
            Encoding::Packed { bits, params, .. } => {
                // Of 32 rows together.
                let biases = groups * bits as usize * 4;
                RowBytes { codes, scales: groups * params.bytes(), biases }
            }
            Encoding::Fp8 { block_cols, params, .. } => {
                RowBytes { codes, scales: cols.div_ceil(block_cols) * params.bytes(), biases: 0 }
            }
            Encoding::Ggml(ggml) => RowBytes { codes: groups * ggml.block_bytes(), scales: 0, biases: 0 },
            Encoding::GgmlScaled(ggml) => {
                RowBytes { codes: groups * ggml.block_bytes(), scales: 0, biases: 4 }
            }
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

    /// The row of biases that serves row `row`.
    pub const fn bias_row(self, row: usize) -> usize {
        match self {
            Encoding::Nvfp4Scaled { .. } | Encoding::GgmlScaled(_) => 0,
            Encoding::Packed { .. } => row / 32,
            _ => row,
        }
    }

    /// How many rows of biases serve `rows` rows.
    pub const fn bias_rows(self, rows: usize) -> usize {
        match self {
            Encoding::Nvfp4Scaled { .. } | Encoding::GgmlScaled(_) => 1,
            Encoding::Packed { .. } => rows.div_ceil(32),
            _ => rows,
        }
    }

    /// Bytes of codes, scales and biases of a matrix; `None` if they overflow.
    pub fn part_bytes(self, rows: usize, cols: usize) -> Option<[usize; 3]> {
        let row = self.row_bytes(cols);
        Some([
            rows.checked_mul(row.codes)?,
            self.scale_rows(rows).checked_mul(row.scales)?,
            self.bias_rows(rows).checked_mul(row.biases)?,
        ])
    }

    /// Whether each row's codes and biases lie by themselves, so that some of the rows can be read without the others.
    pub const fn has_rows_apart(self) -> bool {
        !matches!(self, Encoding::Nvfp4Scaled { .. } | Encoding::GgmlScaled(_) | Encoding::Packed { .. })
    }

    /// The affine encoding that has the very weights of one that is [`Packed`](Self::Packed): its products `scale·q` and
    /// `scale·zero` are exact in float32, so that their difference is. `None` of others, and where scales are float32.
    pub const fn repacked(self) -> Option<Self> {
        let Encoding::Packed { bits, group, params: Float::F16 | Float::Bf16, .. } = self else {
            return None;
        };
        let bits = if bits == 7 { 8 } else { bits };
        let group = match group {
            _ if group.is_multiple_of(128) => 128,
            _ if group.is_multiple_of(64) => 64,
            _ => 32,
        };
        Some(Encoding::Affine { bits, group, params: Float::F32 })
    }
}
