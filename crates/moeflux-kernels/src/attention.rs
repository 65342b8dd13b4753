//! Causal attention of one sequence over its key-value cache.
//!
//! The cache is cut into blocks of [`KV_BLOCK`] absolute positions; a block is `[kv_heads, KV_BLOCK, head_dim]`. A
//! query takes the blocks in order and keeps an online softmax and a weighted sum of values; inside a block the sums go
//! by position. So bits depend on a query's own position alone.

use crate::dot::dot_rows;
use crate::instruction_set::multiversion;
use crate::pool::ThreadPool;
use crate::softmax::OnlineSoftmax;
use crate::tile::{Tile, Tiling, for_each_tile};
use crate::weighted_sum::add_weighted_rows;

/// Positions in a block of the cache.
pub const KV_BLOCK: usize = 64;

/// Heads, their size, and how far they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head `h` uses `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Positions that a query sees, its own included; all of the past if none.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// Values in one block of the cache (keys, or values).
    pub const fn block_len(&self) -> usize {
        self.kv_heads * KV_BLOCK * self.head_dim
    }

    /// The first position that a query at `position` sees.
    pub fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// Writes keys (or values) `x` (`[n, kv_heads, head_dim]`) of the positions from `first_position` on into their
/// blocks.
pub fn kv_write(x: &[f32], shape: &AttentionShape, first_position: usize, blocks: &mut [Box<[f32]>]) {
    let AttentionShape { kv_heads, head_dim, .. } = *shape;
    assert!(x.len().is_multiple_of(kv_heads * head_dim));
    for (i, x) in x.chunks_exact(kv_heads * head_dim).enumerate() {
        let position = first_position + i;
        let block = &mut blocks[position / KV_BLOCK];
        assert_eq!(block.len(), shape.block_len());
        for (head, x) in x.chunks_exact(head_dim).enumerate() {
            block[(head * KV_BLOCK + position % KV_BLOCK) * head_dim..][..head_dim].copy_from_slice(x);
        }
    }
}

/// `y = softmax(scale · q·kᵀ)·v` per head: `q` and `y` are `[n, heads, head_dim]`; query `i` sits at
/// `first_position + i` and sees the positions of its window up to its own. `sinks` (`[heads]`), if any, are scores that
/// take part in the softmax without a value of their own. Blocks that no query sees may be empty.
pub fn attention(
    pool: &ThreadPool,
    q: &[f32],
    keys: &[Box<[f32]>],
    values: &[Box<[f32]>],
    sinks: Option<&[f32]>,
    shape: &AttentionShape,
    first_position: usize,
    scale: f32,
    y: &mut [f32],
) {
    let AttentionShape { heads, kv_heads, head_dim, .. } = *shape;
    assert!(q.len() == y.len() && heads.is_multiple_of(kv_heads));
    assert!(sinks.is_none_or(|sinks| sinks.len() == heads));
    let width = heads * head_dim;
    let n = q.len() / width;
    assert_eq!(q.len(), n * width);
    let seen = first_position + n - shape.first_seen(first_position);
    let heads_per_task = pool.units_per_task(heads, n * seen * head_dim * 2);
    let cache = Cache { keys, values, sinks, first_position };
    for_each_tile(pool, y, Tiling::columns(n, width, heads_per_task * head_dim), |_, y| {
        for_each_head(q, &cache, shape, scale, y);
    });
}

/// What queries attend to.
struct Cache<'a> {
    keys: &'a [Box<[f32]>],
    values: &'a [Box<[f32]>],
    sinks: Option<&'a [f32]>,
    /// Position of the first query.
    first_position: usize,
}

/// Attends with the heads whose columns the tile has.
fn for_each_head(q: &[f32], cache: &Cache<'_>, shape: &AttentionShape, scale: f32, y: &mut Tile<'_>) {
    let AttentionShape { heads, kv_heads, head_dim, .. } = *shape;
    let (n, first_position) = (q.len() / (heads * head_dim), cache.first_position);
    let (first_head, tile_heads) = (y.first_column() / head_dim, y.width() / head_dim);
    let sink = |head: usize| cache.sinks.map(|sinks| sinks[head]);
    let mut softmax: Vec<OnlineSoftmax> =
        (0..tile_heads * n).map(|i| OnlineSoftmax::new(sink(first_head + i / n))).collect();
    for t in 0..n {
        y.row(t).fill(0.0);
    }
    // Blocks outside, then heads, queries inside: a block stays in the processor's cache for all that see it.
    let blocks = shape.first_seen(first_position) / KV_BLOCK..(first_position + n).div_ceil(KV_BLOCK);
    for block in blocks {
        let start = block * KV_BLOCK;
        for local in 0..tile_heads {
            let head = first_head + local;
            let in_block = head / (heads / kv_heads) * KV_BLOCK * head_dim;
            for t in start.saturating_sub(first_position)..n {
                let position = first_position + t;
                let from = shape.first_seen(position).saturating_sub(start);
                if from >= KV_BLOCK {
                    break; // it and all later ones see nothing of the block
                }
                let to = (position + 1 - start).min(KV_BLOCK);
                let seen = in_block + from * head_dim..in_block + to * head_dim;
                let (keys, values) = (&cache.keys[block][seen.clone()], &cache.values[block][seen]);
                let q = &q[(t * heads + head) * head_dim..][..head_dim];
                let y = &mut y.row(t)[local * head_dim..][..head_dim];
                attend_block(q, keys, values, scale, &mut softmax[local * n + t], y);
            }
        }
    }
    for t in 0..n {
        for (local, y) in y.row(t).chunks_exact_mut(head_dim).enumerate() {
            for y in y {
                *y /= softmax[local * n + t].sum();
            }
        }
    }
}

multiversion! {
    /// Adds the positions of one block to `softmax` and to the weighted sum of values `y`.
    fn attend_block(
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        scale: f32,
        softmax: &mut OnlineSoftmax,
        y: &mut [f32],
    ) {
        let mut weights = [0.0; KV_BLOCK];
        let weights = &mut weights[..keys.len() / q.len()];
        dot_rows(q, keys, weights);
        let correction = softmax.add(weights, scale);
        add_weighted_rows(weights, values, correction, y);
    }
}
