//! How exactly kernels compute.

use crate::kv::KvType;

/// The precision of products with quantised weights. Either gives the same bits on every processor, for any number of
/// tokens and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Float32 activations, float32 products and sums, caches of float32.
    #[default]
    Exact,
    /// Activations rounded to 12 bits or 8 in groups of 64 where weights are quantised ([`int8`](mod@crate::int8)), and
    /// caches of keys and values of half floats ([`KvType::F16`](crate::KvType)).
    Fast,
}

impl Precision {
    /// What keys and values are kept as on the CPU.
    pub fn kv_type(self) -> KvType {
        match self {
            Precision::Exact => KvType::F32,
            Precision::Fast => KvType::F16,
        }
    }
}
