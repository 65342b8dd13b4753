//! A tensor as a file describes it.

use moeflux_kernels::Float;
/// Element type of a tensor, under safetensors' names.
pub use safetensors::Dtype;

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

/// The float type of a dtype, if it is one that weights are computed from.
pub(crate) fn float(dtype: Dtype) -> Option<Float> {
    match dtype {
        Dtype::F32 => Some(Float::F32),
        Dtype::F16 => Some(Float::F16),
        Dtype::BF16 => Some(Float::Bf16),
        _ => None,
    }
}
