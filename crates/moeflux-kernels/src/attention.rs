//! Causal attention of one sequence over its key-value cache.
//!
//! The cache is cut into blocks of [`KV_BLOCK`] absolute positions; a block is `[kv_heads, KV_BLOCK, head_dim]`. A
//! query takes the blocks in order and keeps a running maximum, sum and weighted mean of values (the online softmax
//! of FlashAttention, Dao et al. 2022); inside a block the sums go by position. So bits depend on a query's own
//! position alone.

use crate::dot::{dot, dot4};
use crate::instruction_set::multiversion;
use crate::math::exp;
use crate::pool::ThreadPool;
use crate::tile::{Tile, Tiling, for_each_tile};

/// Positions in a block of the cache.
pub const KV_BLOCK: usize = 64;

/// Heads and their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head `h` uses `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Values in one block of the cache (keys, or values).
    pub const fn block_len(&self) -> usize {
        self.kv_heads * KV_BLOCK * self.head_dim
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
/// `first_position + i` and sees the positions up to its own.
pub fn attention(
    pool: &ThreadPool,
    q: &[f32],
    keys: &[Box<[f32]>],
    values: &[Box<[f32]>],
    shape: &AttentionShape,
    first_position: usize,
    scale: f32,
    y: &mut [f32],
) {
    let AttentionShape { heads, kv_heads, head_dim } = *shape;
    assert!(q.len() == y.len() && heads.is_multiple_of(kv_heads));
    let width = heads * head_dim;
    let n = q.len() / width;
    assert_eq!(q.len(), n * width);
    let work = n * (first_position + n) * head_dim * 2;
    let heads_per_task = pool.units_per_task(heads, work);
    for_each_tile(pool, y, Tiling::columns(n, width, heads_per_task * head_dim), |_, y| {
        for_each_head(q, keys, values, shape, first_position, scale, y);
    });
}

/// Attends with the heads whose columns the tile has.
fn for_each_head(
    q: &[f32],
    keys: &[Box<[f32]>],
    values: &[Box<[f32]>],
    shape: &AttentionShape,
    first_position: usize,
    scale: f32,
    y: &mut Tile<'_>,
) {
    let AttentionShape { heads, kv_heads, head_dim } = *shape;
    let n = q.len() / (heads * head_dim);
    let first_head = y.first_column() / head_dim;
    for local in 0..y.width() / head_dim {
        let head = first_head + local;
        let cached = head / (heads / kv_heads) * KV_BLOCK * head_dim..;
        let cached = cached.start..cached.start + KV_BLOCK * head_dim;
        let mut softmax = vec![Softmax { max: f32::NEG_INFINITY, sum: 0.0 }; n];
        for t in 0..n {
            y.row(t)[local * head_dim..][..head_dim].fill(0.0);
        }
        // Blocks outside, queries inside: a block stays in the processor's cache for all of them.
        for block in 0..(first_position + n).div_ceil(KV_BLOCK) {
            let (keys, values) = (&keys[block][cached.clone()], &values[block][cached.clone()]);
            let first_seeing = (block * KV_BLOCK).saturating_sub(first_position);
            for t in first_seeing..n {
                let seen = (first_position + t + 1 - block * KV_BLOCK).min(KV_BLOCK);
                let q = &q[(t * heads + head) * head_dim..][..head_dim];
                let (keys, values) = (&keys[..seen * head_dim], &values[..seen * head_dim]);
                let y = &mut y.row(t)[local * head_dim..][..head_dim];
                attend_block(q, keys, values, scale, &mut softmax[t], y);
            }
        }
        for t in 0..n {
            for y in &mut y.row(t)[local * head_dim..][..head_dim] {
                *y /= softmax[t].sum;
            }
        }
    }
}

/// A softmax over the positions seen so far: the largest score, and the sum of the weights relative to it.
#[derive(Clone, Copy)]
struct Softmax {
    max: f32,
    sum: f32,
}

multiversion! {
    /// Adds the positions of one block to `softmax` and to the weighted sum of values `y`.
    fn attend_block(q: &[f32], keys: &[f32], values: &[f32], scale: f32, softmax: &mut Softmax, y: &mut [f32]) {
        let head_dim = q.len();
        let seen = keys.len() / head_dim;
        let mut weights = [0.0f32; KV_BLOCK];
        let key = |position: usize| &keys[position * head_dim..][..head_dim];
        let in_fours = seen - seen % 4;
        for p in (0..in_fours).step_by(4) {
            let scores = dot4(q, [key(p), key(p + 1), key(p + 2), key(p + 3)]);
            weights[p..p + 4].copy_from_slice(&scores);
        }
        for p in in_fours..seen {
            weights[p] = dot(q, key(p));
        }

        let mut max = softmax.max;
        for score in &mut weights[..seen] {
            *score *= scale;
            max = max.max(*score);
        }
        for weight in &mut weights[..seen] {
            *weight = exp(*weight - max);
        }
        let correction = exp(softmax.max - max);
        softmax.max = max;
        softmax.sum *= correction;
        for weight in &weights[..seen] {
            softmax.sum += weight;
        }

        // Channels in strips that registers hold.
        let (strips, tail) = y.as_chunks_mut::<STRIP>();
        for (strip, y) in strips.iter_mut().enumerate() {
            accumulate(&weights[..seen], values, head_dim, strip * STRIP, correction, y);
        }
        let done = head_dim - tail.len();
        for (i, y) in tail.iter_mut().enumerate() {
            accumulate(&weights[..seen], values, head_dim, done + i, correction, std::array::from_mut(y));
        }
    }
}

/// Channels accumulated at once.
const STRIP: usize = 64;

/// `y = y·correction + Σ weights[p]·values[p]`, by position, over `N` channels from `channel` on.
#[inline(always)]
fn accumulate<const N: usize>(
    weights: &[f32],
    values: &[f32],
    head_dim: usize,
    channel: usize,
    correction: f32,
    y: &mut [f32; N],
) {
    let mut sum = y.map(|y| y * correction);
    for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
        let value = &value[channel..][..N];
        for i in 0..N {
            sum[i] += weight * value[i];
        }
    }
    *y = sum;
}
