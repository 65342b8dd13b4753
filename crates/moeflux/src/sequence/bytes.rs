//! How many bytes the states of a sequence take.

use moeflux_kernels::KvType;
use serde::Serialize;

use crate::graph::StateSpec;

/// Memory of one sequence in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SequenceBytes {
    /// KV cache for each token, of float32 as exact numbers have it; fast numbers take half.
    pub kv_per_token: u64,
    /// KV cache of sliding windows that are full, likewise.
    pub windows: u64,
    /// Recurrent state, whatever the length.
    pub recurrent: u64,
}

impl SequenceBytes {
    /// Of a model with these states, with caches of float32, which is the most; keys and values are two of them for each
    /// channel.
    pub fn of(specs: &[StateSpec]) -> Self {
        let mut bytes = SequenceBytes { kv_per_token: 0, windows: 0, recurrent: 0 };
        for state in specs {
            match *state {
                StateSpec::Kv { kv_heads, head_dim, window } => {
                    let per_token = (2 * 4 * kv_heads * head_dim) as u64;
                    match window {
                        None => bytes.kv_per_token += per_token,
                        Some(window) => bytes.windows += per_token * window as u64,
                    }
                }
                StateSpec::Latent { rank, rope_dim } => bytes.kv_per_token += 4 * (rank + rope_dim) as u64,
                StateSpec::Recurrent { len } => bytes.recurrent += 4 * len as u64,
            }
        }
        bytes
    }

    /// The same with keys and values of another type than float32.
    pub(crate) fn with(self, kv_type: KvType) -> Self {
        let of = |bytes: u64| bytes / KvType::F32.bytes() as u64 * kv_type.bytes() as u64;
        SequenceBytes { kv_per_token: of(self.kv_per_token), windows: of(self.windows), ..self }
    }
}
