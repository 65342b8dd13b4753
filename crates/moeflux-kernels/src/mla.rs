//! Multi-head latent attention (DeepSeek-V2, 2024) in its absorbed form: each token is cached as one latent vector and
//! one rotary key, which all heads share. Heads bring queries that were folded into the latent space, and take away
//! weighted sums of latents.
//!
//! The cache is cut into blocks of [`KV_BLOCK`] absolute positions, each `[KV_BLOCK, rank]` latents, then
//! `[KV_BLOCK, rope_dim]` rotary keys. Sums are ordered as in [`attention`](mod@crate::attention).

use crate::attention::KV_BLOCK;
use crate::dot::dot_rows;
use crate::instruction_set::multiversion;
use crate::pool::ThreadPool;
use crate::softmax::OnlineSoftmax;
use crate::tile::{Tile, Tiling, for_each_tile};
use crate::weighted_sum::add_weighted_rows;

/// Heads and the sizes of what a token leaves in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlaShape {
    /// Query heads.
    pub heads: usize,
    /// Channels of a latent, `kv_lora_rank`.
    pub rank: usize,
    /// Channels of a rotary key.
    pub rope_dim: usize,
}

impl MlaShape {
    /// Values in one block of the cache.
    pub const fn block_len(&self) -> usize {
        KV_BLOCK * (self.rank + self.rope_dim)
    }
}

/// Writes latents (`[n, rank]`) and rotary keys (`[n, rope_dim]`) of the positions from `first_position` on into their
/// blocks.
pub fn latent_write(
    latents: &[f32],
    keys: &[f32],
    shape: &MlaShape,
    first_position: usize,
    blocks: &mut [Box<[f32]>],
) {
    let MlaShape { rank, rope_dim, .. } = *shape;
    assert!(latents.len().is_multiple_of(rank) && keys.len() * rank == latents.len() * rope_dim);
    for (i, (latent, key)) in latents.chunks_exact(rank).zip(keys.chunks_exact(rope_dim)).enumerate() {
        let position = first_position + i;
        let block = &mut blocks[position / KV_BLOCK];
        assert_eq!(block.len(), shape.block_len());
        let (latents, keys) = block.split_at_mut(KV_BLOCK * rank);
        latents[position % KV_BLOCK * rank..][..rank].copy_from_slice(latent);
        keys[position % KV_BLOCK * rope_dim..][..rope_dim].copy_from_slice(key);
    }
}

/// `y = Σ softmax(scale · (q_latent·c_j + q_rope·k_j)) · c_j` per head over the positions `j` up to the query's own:
/// `q_latent` and `y` are `[n, heads, rank]`, `q_rope` is `[n, heads, rope_dim]`; query `i` sits at
/// `first_position + i`.
pub fn mla_attention(
    pool: &ThreadPool,
    q_latent: &[f32],
    q_rope: &[f32],
    blocks: &[Box<[f32]>],
    shape: &MlaShape,
    first_position: usize,
    scale: f32,
    y: &mut [f32],
) {
    let MlaShape { heads, rank, rope_dim } = *shape;
    let n = y.len() / (heads * rank);
    assert!(y.len() == n * heads * rank && q_latent.len() == y.len() && q_rope.len() == n * heads * rope_dim);
    let work = n * (first_position + n) * (2 * rank + rope_dim);
    let heads_per_task = pool.units_per_task(heads, work);
    for_each_tile(pool, y, Tiling::columns(n, heads * rank, heads_per_task * rank), |_, y| {
        for_each_head(q_latent, q_rope, blocks, shape, first_position, scale, y);
    });
}

/// Attends with the heads whose columns the tile has.
fn for_each_head(
    q_latent: &[f32],
    q_rope: &[f32],
    blocks: &[Box<[f32]>],
    shape: &MlaShape,
    first_position: usize,
    scale: f32,
    y: &mut Tile<'_>,
) {
    let MlaShape { heads, rank, rope_dim } = *shape;
    let n = q_latent.len() / (heads * rank);
    let (first_head, tile_heads) = (y.first_column() / rank, y.width() / rank);
    let mut softmax = vec![OnlineSoftmax::new(None); tile_heads * n];
    for t in 0..n {
        y.row(t).fill(0.0);
    }
    // Blocks outside: one stays in the processor's cache for all heads and queries.
    for block in 0..(first_position + n).div_ceil(KV_BLOCK) {
        let (latents, keys) = blocks[block].split_at(KV_BLOCK * rank);
        let first_seeing = (block * KV_BLOCK).saturating_sub(first_position);
        for local in 0..tile_heads {
            for t in first_seeing..n {
                let seen = (first_position + t + 1 - block * KV_BLOCK).min(KV_BLOCK);
                let query = t * heads + first_head + local;
                let q = (&q_latent[query * rank..][..rank], &q_rope[query * rope_dim..][..rope_dim]);
                let (latents, keys) = (&latents[..seen * rank], &keys[..seen * rope_dim]);
                let y = &mut y.row(t)[local * rank..][..rank];
                attend_block(q, latents, keys, scale, &mut softmax[local * n + t], y);
            }
        }
    }
    for t in 0..n {
        for (local, y) in y.row(t).chunks_exact_mut(rank).enumerate() {
            for y in y {
                *y /= softmax[local * n + t].sum();
            }
        }
    }
}

multiversion! {
    /// Adds the positions of one block to `softmax` and to the weighted sum of latents `y`.
    fn attend_block(
        q: (&[f32], &[f32]),
        latents: &[f32],
        keys: &[f32],
        scale: f32,
        softmax: &mut OnlineSoftmax,
        y: &mut [f32],
    ) {
        let seen = latents.len() / y.len();
        let (mut weights, mut rotary) = ([0.0; KV_BLOCK], [0.0; KV_BLOCK]);
        let (weights, rotary) = (&mut weights[..seen], &mut rotary[..seen]);
        dot_rows(q.0, latents, weights);
        dot_rows(q.1, keys, rotary);
        for (weight, rotary) in weights.iter_mut().zip(rotary) {
            *weight += *rotary;
        }
        let correction = softmax.add(weights, scale);
        add_weighted_rows(weights, latents, correction, y);
    }
}
