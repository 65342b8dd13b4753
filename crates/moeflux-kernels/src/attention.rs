//! Causal attention of one sequence over its key-value cache.
//!
//! The cache is cut into blocks of [`KV_BLOCK`] absolute positions: a block of keys is `[kv_heads, head_dim, KV_BLOCK]`,
//! so that a score's channels meet many positions at once, a block of values `[kv_heads, KV_BLOCK, head_dim]`. Sums are
//! ordered as in `flash.rs`, so bits depend on a query's own position alone.

use crate::flash::{AttentionScratch, Block, BlockScratch, Lines, Past, Queries, attend, widen};
use crate::kv::{Floats, KV_BLOCK, KvBlock};
use crate::pool::ThreadPool;

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

/// Writes keys and values, `[n, kv_heads, head_dim]`, of the positions from `first_position` on into their blocks.
pub fn kv_write(
    k: &[f32],
    v: &[f32],
    shape: &AttentionShape,
    first_position: usize,
    keys: &mut [KvBlock],
    values: &mut [KvBlock],
) {
    let AttentionShape { kv_heads, head_dim, .. } = *shape;
    let width = kv_heads * head_dim;
    assert!(k.len().is_multiple_of(width) && k.len() == v.len());
    for (i, (k, v)) in k.chunks_exact(width).zip(v.chunks_exact(width)).enumerate() {
        let position = first_position + i;
        let (block, at) = (position / KV_BLOCK, position % KV_BLOCK);
        let (keys, values) = (&mut keys[block], &mut values[block]);
        assert!(keys.len() == shape.block_len() && values.len() == keys.len());
        keys.write(at, KV_BLOCK, k);
        for (head, v) in v.chunks_exact(head_dim).enumerate() {
            values.write((head * KV_BLOCK + at) * head_dim, 1, v);
        }
    }
}

/// Reads keys and values back, `[n, kv_heads, head_dim]`, of the positions from 0 on, as they were rounded.
pub fn kv_read(keys: &[KvBlock], values: &[KvBlock], shape: &AttentionShape, k: &mut [f32], v: &mut [f32]) {
    let AttentionShape { kv_heads, head_dim, .. } = *shape;
    let width = kv_heads * head_dim;
    assert!(k.len().is_multiple_of(width) && k.len() == v.len());
    for (position, (k, v)) in k.chunks_exact_mut(width).zip(v.chunks_exact_mut(width)).enumerate() {
        let (block, at) = (position / KV_BLOCK, position % KV_BLOCK);
        keys[block].read(at, KV_BLOCK, k);
        for (head, v) in v.chunks_exact_mut(head_dim).enumerate() {
            values[block].read((head * KV_BLOCK + at) * head_dim, 1, v);
        }
    }
}

/// `y = softmax(scale · q·kᵀ)·v` per head: `q` and `y` are `[n, heads, head_dim]`; query `i` sits at
/// `first_position + i` and sees the positions of its window up to its own. `sinks` (`[heads]`), if any, are scores that
/// take part in the softmax without a value of their own. Blocks that no query sees may be empty.
pub fn attention(
    pool: &ThreadPool,
    q: &[f32],
    keys: &[KvBlock],
    values: &[KvBlock],
    sinks: Option<&[f32]>,
    shape: &AttentionShape,
    first_position: usize,
    scale: f32,
    scratch: &mut AttentionScratch,
    y: &mut [f32],
) {
    let AttentionShape { heads, kv_heads, head_dim, .. } = *shape;
    assert!(q.len() == y.len() && q.len().is_multiple_of(heads * head_dim) && heads.is_multiple_of(kv_heads));
    assert!(sinks.is_none_or(|sinks| sinks.len() == heads));
    let queries = Queries {
        q,
        groups: kv_heads,
        heads: heads / kv_heads,
        key_dim: head_dim,
        value_dim: head_dim,
        first_position,
        sinks,
        scale,
    };
    attend(pool, &queries, &Cache { keys, values, shape }, &mut scratch.parts, y);
}

/// What queries attend to.
struct Cache<'a> {
    keys: &'a [KvBlock],
    values: &'a [KvBlock],
    shape: &'a AttentionShape,
}

/// From so many rows on a block of half floats is widened once rather than for every four rows.
const WIDEN_FROM: usize = 16;

impl Past for Cache<'_> {
    fn first_seen(&self, position: usize) -> usize {
        self.shape.first_seen(position)
    }

    fn block<'a>(
        &'a self,
        group: usize,
        block: usize,
        rows: usize,
        scratch: &'a mut BlockScratch,
    ) -> Block<'a> {
        let len = KV_BLOCK * self.shape.head_dim;
        let range = group * len..(group + 1) * len;
        match (self.keys[block].part(range.clone()), self.values[block].part(range)) {
            (Floats::F32(keys), Floats::F32(values)) => Block::F32 { keys, values },
            (Floats::F16(keys), Floats::F16(values)) if rows < WIDEN_FROM => Block::F16 { keys, values },
            (Floats::F16(keys), Floats::F16(values)) => {
                scratch.keys.resize(len, 0.0);
                scratch.values.resize(len, 0.0);
                widen(keys, &mut scratch.keys);
                widen(values, &mut scratch.values);
                Block::F32 { keys: &scratch.keys, values: &scratch.values }
            }
            _ => unreachable!("keys and values are of one type"),
        }
    }

    fn memory(&self, group: usize, block: usize) -> [Lines; 2] {
        let len = KV_BLOCK * self.shape.head_dim;
        [self.keys, self.values].map(|side| Lines::of(side[block].part(group * len..(group + 1) * len)))
    }
}
