//! A tensor as a file describes it.

use moeflux_kernels::{Encoding, Float, Ggml};
use std::fmt;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the formats")]
pub enum Dtype {
    F32,
    F16,
    BF16,
    U8,
    U32,
    /// 1 sign, 4 exponent and 3 significand bits; a weight only together with scales.
    F8E4M3,
    /// Blocks of a GGUF file.
    Ggml(Ggml),
    /// Another type of safetensors, which no weight is made of.
    Other(safetensors::Dtype),
}

impl Dtype {
    /// How a matrix of it lies in bytes, if it holds whole weights.
    pub(crate) fn encoding(self) -> Option<Encoding> {
        match self {
            Dtype::Ggml(ggml) => Some(Encoding::Ggml(ggml)),
            _ => self.float().map(Encoding::Float),
        }
    }

    /// The float type, if it is one that weights are computed from.
    pub(crate) fn float(self) -> Option<Float> {
        match self {
            Dtype::F32 => Some(Float::F32),
            Dtype::F16 => Some(Float::F16),
            Dtype::BF16 => Some(Float::Bf16),
            _ => None,
        }
    }
}

impl From<safetensors::Dtype> for Dtype {
    fn from(dtype: safetensors::Dtype) -> Self {
        match dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::BF16,
            safetensors::Dtype::U8 => Dtype::U8,
            safetensors::Dtype::U32 => Dtype::U32,
            safetensors::Dtype::F8_E4M3 => Dtype::F8E4M3,
            other => Dtype::Other(other),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dtype::Ggml(ggml) => f.pad(ggml.name()),
            Dtype::F8E4M3 => f.pad("F8_E4M3"),
            Dtype::Other(other) => f.pad(&other.to_string()),
            named => f.pad(&format!("{named:?}")),
        }
    }
}

/// A range of bytes in one of a checkpoint's files. Only checked ranges are made: they lie inside their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Index in [`Checkpoint::files`](crate::Checkpoint::files).
    pub file: u32,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

/// A tensor as its file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, the slowest first. `span.len` is what they and `dtype` imply.
    pub shape: Vec<usize>,
    /// Where the elements lie, little-endian.
    pub span: Span,
}
