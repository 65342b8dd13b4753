//! The up-projections of multi-head latent attention, which checkpoints store in two ways.

use super::Weights;
use crate::error::Error;
use crate::matrix::Matrix;
use moeflux_kernels::RowRuns;

/// Sizes of a latent attention's up-projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentDims {
    /// Query heads.
    pub heads: usize,
    /// Channels of a latent, `kv_lora_rank`.
    pub rank: usize,
    /// Channels of a key without a position, `qk_nope_head_dim`.
    pub nope_dim: usize,
    /// Channels of a value, `v_head_dim`.
    pub value_dim: usize,
}

/// What makes keys and values of latents, head by head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatentHeads {
    /// The heads' matrices one after the other: `[nope_dim, rank]` each or, if folded, `[rank, nope_dim]`.
    pub keys: Matrix,
    /// Whether `keys` take queries into the space of latents, instead of latents to keys.
    pub keys_are_folded: bool,
    /// The heads' matrices one after the other, `[value_dim, rank]` each.
    pub values: Matrix,
}

impl Weights<'_> {
    /// The up-projections of the latent attention `name` (`layers.3.self_attn`): one `kv_b_proj` with keys and values
    /// head by head, as trained, or `embed_q` and `unembed_out`, as `mlx_lm.convert` takes it apart.
    pub fn latent_heads(&self, name: &str, dims: LatentDims) -> Result<LatentHeads, Error> {
        let LatentDims { heads, rank, nope_dim, value_dim } = dims;
        let (embed_q, unembed_out) = (format!("{name}.embed_q"), format!("{name}.unembed_out"));
        if self.has_matrix(&embed_q) {
            return Ok(LatentHeads {
                keys: self.module(&self.conventions.module(&embed_q), &[heads, rank, nope_dim])?,
                keys_are_folded: true,
                values: self.module(&self.conventions.module(&unembed_out), &[heads, value_dim, rank])?,
            });
        }
        let period = nope_dim + value_dim;
        let both = self.matrix(&format!("{name}.kv_b_proj"), heads * period, rank)?;
        Ok(LatentHeads {
            keys: both.row_runs(RowRuns { first: 0, len: nope_dim, period }),
            keys_are_folded: false,
            values: both.row_runs(RowRuns { first: nope_dim, len: value_dim, period }),
        })
    }
}
