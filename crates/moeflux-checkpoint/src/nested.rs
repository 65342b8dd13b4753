//! Scales that are quantised themselves, as bitsandbytes stores them ("double quantization"): a byte each that stands for a
//! value of a table, a float32 for each block of them that it is multiplied with, and one float32 that is added.
//!
//! Products take float32 scales, so these are widened in memory when they are first read: one for each 64 weights or so.

use crate::files::Map;
use crate::tensor::Span;
use std::sync::{Arc, OnceLock};

/// Values that a byte stands for.
pub(crate) const TABLE: usize = 256;

/// A tensor of bytes, read as float32.
#[derive(Debug)]
pub(crate) struct NestedScales {
    pub(crate) source: Arc<Map>,
    /// The bytes in the source.
    pub(crate) codes: Span,
    /// Values of bytes, [`TABLE`] of them.
    pub(crate) table: Vec<f32>,
    /// The factor of each block's values.
    pub(crate) absmax: Vec<f32>,
    /// Scales in a block, at least 1; there is an `absmax` for each block.
    pub(crate) block: usize,
    /// The summand of every scale.
    pub(crate) offset: f32,
    pub(crate) widened: OnceLock<Vec<u8>>,
}

impl NestedScales {
    /// Bytes of the float32 scales.
    pub(crate) fn len(&self) -> u64 {
        self.codes.len * 4
    }

    /// The float32 scales; made at the first call.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.widened.get_or_init(|| {
            let start = self.codes.offset as usize;
            let codes = &self.source[start..start + self.codes.len as usize];
            let scales = codes.chunks(self.block).zip(&self.absmax).flat_map(|(codes, absmax)| {
                codes.iter().map(move |&code| self.table[usize::from(code)] * absmax + self.offset)
            });
            scales.flat_map(f32::to_le_bytes).collect()
        })
    }

    /// Bytes of the float32 scales from `offset` on.
    ///
    /// # Panics
    ///
    /// If they do not lie in the tensor.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) {
        out.copy_from_slice(&self.bytes()[offset as usize..][..out.len()]);
    }
}
