//! Multi-head latent attention (DeepSeek-V2, 2024) in its absorbed form: each token is cached as one latent vector and
//! one rotary key, which all heads share. Heads bring queries that were folded into the latent space, and take away
//! weighted sums of latents.
//!
//! The cache is cut into blocks of [`KV_BLOCK`] absolute positions, each `[KV_BLOCK, rank]` latents, then
//! `[KV_BLOCK, rope_dim]` rotary keys. Sums are ordered as in `flash.rs`, channels of latents before those
//! of rotary keys.

use crate::flash::{AttentionScratch, Block, BlockScratch, Lines, Past, Queries, attend, widen};
use crate::instruction_set::multiversion;
use crate::kv::{Floats, KV_BLOCK, KvBlock};
use crate::pool::ThreadPool;

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
    blocks: &mut [KvBlock],
) {
    let MlaShape { rank, rope_dim, .. } = *shape;
    assert!(latents.len().is_multiple_of(rank) && keys.len() * rank == latents.len() * rope_dim);
    for (i, (latent, key)) in latents.chunks_exact(rank).zip(keys.chunks_exact(rope_dim)).enumerate() {
        let position = first_position + i;
        let block = &mut blocks[position / KV_BLOCK];
        assert_eq!(block.len(), shape.block_len());
        block.write(position % KV_BLOCK * rank, 1, latent);
        block.write(KV_BLOCK * rank + position % KV_BLOCK * rope_dim, 1, key);
    }
}

/// `y = Σ softmax(scale · (q_latent·c_j + q_rope·k_j)) · c_j` per head over the positions `j` up to the query's own:
/// `q_latent` and `y` are `[n, heads, rank]`, `q_rope` is `[n, heads, rope_dim]`; query `i` sits at
/// `first_position + i`.
pub fn mla_attention(
    pool: &ThreadPool,
    q_latent: &[f32],
    q_rope: &[f32],
    blocks: &[KvBlock],
    shape: &MlaShape,
    first_position: usize,
    scale: f32,
    scratch: &mut AttentionScratch,
    y: &mut [f32],
) {
    let MlaShape { heads, rank, rope_dim } = *shape;
    let n = y.len() / (heads * rank);
    assert!(y.len() == n * heads * rank && q_latent.len() == y.len() && q_rope.len() == n * heads * rope_dim);
    let key_dim = rank + rope_dim;
    let AttentionScratch { parts, queries } = scratch;
    queries.clear();
    for (latent, rope) in q_latent.chunks_exact(rank).zip(q_rope.chunks_exact(rope_dim)) {
        queries.extend_from_slice(latent);
        queries.extend_from_slice(rope);
    }
    // All heads attend to the same latents; in groups, so that there is work for many threads.
    let of_group = (1..=HEADS_PER_GROUP).rev().find(|&n| heads.is_multiple_of(n)).unwrap_or(1);
    let queries = Queries {
        q: queries,
        groups: heads / of_group,
        heads: of_group,
        key_dim,
        value_dim: rank,
        first_position,
        sinks: None,
        scale,
    };
    attend(pool, &queries, &Cache { blocks, shape }, parts, y);
}

/// Heads that share a block while it is at hand.
const HEADS_PER_GROUP: usize = 16;

/// What queries attend to.
struct Cache<'a> {
    blocks: &'a [KvBlock],
    shape: &'a MlaShape,
}

impl Past for Cache<'_> {
    fn first_seen(&self, _position: usize) -> usize {
        0
    }

    fn block<'a>(
        &'a self,
        _group: usize,
        block: usize,
        _rows: usize,
        scratch: &'a mut BlockScratch,
    ) -> Block<'a> {
        let MlaShape { rank, rope_dim, .. } = *self.shape;
        let BlockScratch { keys, values } = scratch;
        let whole = match self.blocks[block].part(0..self.shape.block_len()) {
            Floats::F32(block) => block,
            Floats::F16(block) => {
                values.resize(block.len(), 0.0);
                widen(block, values);
                values
            }
        };
        keys.resize(whole.len(), 0.0);
        let (latents, rotary) = whole.split_at(KV_BLOCK * rank);
        let (of_latents, of_rotary) = keys.split_at_mut(KV_BLOCK * rank);
        transpose(latents, rank, of_latents);
        transpose(rotary, rope_dim, of_rotary);
        Block::F32 { keys, values: latents }
    }

    fn memory(&self, _group: usize, block: usize) -> [Lines; 2] {
        // Its latents are at hand once its keys are.
        [Lines::of(self.blocks[block].part(0..self.shape.block_len())), Lines::NONE]
    }
}

multiversion! {
    /// `[KV_BLOCK, width]` to `[width, KV_BLOCK]`: some rows at a time, few enough that their lines stay in the nearest
    /// cache, whatever their stride.
    fn transpose(from: &[f32], width: usize, to: &mut [f32]) {
        const ROWS: usize = 16;
        for (first, rows) in (0..KV_BLOCK).step_by(ROWS).zip(from.chunks_exact(ROWS * width)) {
            for (channel, to) in to.as_chunks_mut::<KV_BLOCK>().0.iter_mut().enumerate() {
                for (to, row) in to[first..first + ROWS].iter_mut().zip(rows.chunks_exact(width)) {
                    *to = row[channel];
                }
            }
        }
    }
}
