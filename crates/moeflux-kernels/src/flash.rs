//! Attention of many queries to blocks of the past (FlashAttention, Dao et al. 2022), whatever the blocks are made of.
//!
//! The order of sums, which depends on absolute positions alone:
//!
//! - a score is summed over channels by index, each product fused with its addition;
//! - positions come in ranges of [`RANGE`]. Within a range blocks of [`KV_BLOCK`] go in order: each gives its weights
//!   as [`OnlineSoftmax::add`] says, what was summed so far is multiplied by the correction, and the weighted values
//!   are added by position, each product fused with its addition;
//! - ranges are then merged in order, whether one task saw all of them or each was a task of its own. A range that gives
//!   a row no weight (its window begins later, or every score is -inf) is left out for that row.
//!
//! Fused multiply-adds are rounded once everywhere: where the instruction set has none the standard library's are
//! exact too, if slow.

mod block;

use std::ops::Range;

use self::block::attend_block;
pub(crate) use self::block::{Block, Lines, widen};
use crate::instruction_set::multiversion;
use crate::kv::KV_BLOCK;
use crate::pool::ThreadPool;
use crate::softmax::OnlineSoftmax;
use crate::tile::{Band, Tile, Tiling, for_each_band_tile, for_each_tile};
use crate::vector::LANES;

/// Positions whose sums stand alone before they are merged with those of others.
pub(crate) const RANGE: usize = 512;

/// Rows (a query of one head) that share a block while it is at hand.
const ROWS: usize = 64;

/// The queries of a call. Heads come in groups, and a group's heads attend to the same keys and values.
pub(crate) struct Queries<'a> {
    /// `[n, groups, heads, key_dim]`.
    pub(crate) q: &'a [f32],
    pub(crate) groups: usize,
    /// Of a group.
    pub(crate) heads: usize,
    pub(crate) key_dim: usize,
    pub(crate) value_dim: usize,
    /// Position of the first query.
    pub(crate) first_position: usize,
    /// Scores of no position, `[groups, heads]`.
    pub(crate) sinks: Option<&'a [f32]>,
    pub(crate) scale: f32,
}

/// What queries attend to.
pub(crate) trait Past: Sync {
    /// The first position that a query at `position` sees.
    fn first_seen(&self, position: usize) -> usize;

    /// A group's keys (`[key_dim, KV_BLOCK]`) and values (`[KV_BLOCK, value_dim]`) in one block, for so many rows.
    fn block<'a>(
        &'a self,
        group: usize,
        block: usize,
        rows: usize,
        scratch: &'a mut BlockScratch,
    ) -> Block<'a>;

    /// Where the cache has a group's keys and values of one block.
    fn memory(&self, group: usize, block: usize) -> [Lines; 2];
}

/// Where a block is put that is not at hand in the form needed.
#[derive(Debug, Default)]
pub(crate) struct BlockScratch {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

/// Memory that attention keeps from call to call.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    /// What ranges gave, until they are merged.
    pub(crate) parts: Vec<f32>,
    /// Queries in another form.
    pub(crate) queries: Vec<f32>,
}

impl AttentionScratch {
    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        4 * (self.parts.capacity() + self.queries.capacity())
    }
}

impl Queries<'_> {
    fn n(&self) -> usize {
        self.q.len() / (self.groups * self.heads * self.key_dim)
    }

    /// Queries of the group's heads at token `t`.
    fn of(&self, t: usize, group: usize) -> &[f32] {
        let len = self.heads * self.key_dim;
        &self.q[(t * self.groups + group) * len..][..len]
    }

    /// Floats of what a range gives for one row: the weighted sum of values, then the softmax.
    fn part_len(&self) -> usize {
        self.value_dim.next_multiple_of(LANES) + LANES
    }
}

/// `y = softmax(scale · q·kᵀ)·v`, `y` being `[n, groups, heads, value_dim]`.
pub(crate) fn attend(
    pool: &ThreadPool,
    queries: &Queries<'_>,
    past: &impl Past,
    parts: &mut Vec<f32>,
    y: &mut [f32],
) {
    let Queries { groups, heads, value_dim, first_position, .. } = *queries;
    let n = queries.n();
    if n == 0 {
        return;
    }
    let tokens_per_tile = (ROWS / heads).max(1);
    let bands: Vec<Band> = (0..n)
        .step_by(tokens_per_tile)
        .map(|t| Band { rows: t..n.min(t + tokens_per_tile), width: heads * value_dim })
        .collect();
    let (stride, width) = (groups * heads * value_dim, heads * value_dim);
    let first_range = past.first_seen(first_position) / RANGE;
    let ranges = (first_position + n).div_ceil(RANGE) - first_range;
    if ranges == 1 || bands.len() * groups >= 4 * pool.threads() {
        for_each_band_tile(pool, y, stride, &bands, |band, y| {
            let (group, tokens) = (y.first_column() / width, bands[band].rows.clone());
            let mut part = vec![0.0; tokens.len() * heads * queries.part_len()];
            let mut merged = Merged::new(queries, group, y);
            for range in first_range..first_range + ranges {
                attend_range(queries, past, group, tokens.clone(), range, &mut part);
                merged.add(&part, y);
            }
            merged.finish(y);
        });
    } else {
        // Too few tasks: ranges become tasks of their own.
        let part_len = tokens_per_tile * heads * queries.part_len();
        let len = ranges * bands.len() * groups * part_len;
        if parts.len() < len {
            parts.resize(len, 0.0);
        }
        let parts = &mut parts[..len];
        let part = |range: usize, band: usize, group: usize| (range * bands.len() + band) * groups + group;
        for_each_tile(pool, parts, Tiling::chunks(len, part_len), |index, tile| {
            let (range, band, group) =
                (index / groups / bands.len(), index / groups % bands.len(), index % groups);
            let tokens = bands[band].rows.clone();
            let part = &mut tile.row(0)[..tokens.len() * heads * queries.part_len()];
            attend_range(queries, past, group, tokens, first_range + range, part);
        });
        let parts = &*parts;
        for_each_band_tile(pool, y, stride, &bands, |band, y| {
            let group = y.first_column() / width;
            let mut merged = Merged::new(queries, group, y);
            for range in 0..ranges {
                merged.add(&parts[part(range, band, group) * part_len..][..part_len], y);
            }
            merged.finish(y);
        });
    }
}

/// What the ranges so far gave for some tokens and a group's heads.
struct Merged {
    /// `[tokens, heads]`.
    softmax: Vec<OnlineSoftmax>,
    heads: usize,
    value_dim: usize,
    part_len: usize,
}

impl Merged {
    /// Nothing yet, which makes `y` zeros.
    fn new(queries: &Queries<'_>, group: usize, y: &mut Tile<'_>) -> Self {
        let tokens = y.height();
        for token in 0..tokens {
            y.row(token).fill(0.0);
        }
        let Queries { heads, value_dim, sinks, .. } = *queries;
        let sink = |head: usize| sinks.map(|sinks| sinks[group * heads + head]);
        let softmax = (0..tokens * heads).map(|row| OnlineSoftmax::new(sink(row % heads))).collect();
        Merged { softmax, heads, value_dim, part_len: queries.part_len() }
    }

    /// Merges what the next range gave into `y`, whose rows are tokens.
    fn add(&mut self, part: &[f32], y: &mut Tile<'_>) {
        let rows = self.softmax.iter_mut().zip(part.chunks_exact(self.part_len));
        for (row, (softmax, part)) in rows.enumerate() {
            let y = &mut y.row(row / self.heads)[row % self.heads * self.value_dim..][..self.value_dim];
            let (values, of_part) = split_part(part);
            if let Some((mine, others)) = softmax.merge(of_part) {
                merge_values(y, mine, &values[..y.len()], others);
            }
        }
    }

    /// Divides by the sums of weights.
    fn finish(&self, y: &mut Tile<'_>) {
        for (row, softmax) in self.softmax.iter().enumerate() {
            let y = &mut y.row(row / self.heads)[row % self.heads * self.value_dim..][..self.value_dim];
            divide(y, softmax.sum);
        }
    }
}

multiversion! {
    fn merge_values(y: &mut [f32], mine: f32, part: &[f32], others: f32) {
        for (y, part) in y.iter_mut().zip(part) {
            *y = *y * mine + part * others;
        }
    }
}

multiversion! {
    fn divide(y: &mut [f32], sum: f32) {
        for y in y {
            *y /= sum;
        }
    }
}

/// A row of a part: its sum of values, and the softmax that the weights are relative to.
fn split_part(part: &[f32]) -> (&[f32], OnlineSoftmax) {
    let (values, softmax) = part.split_at(part.len() - LANES);
    (values, OnlineSoftmax { max: softmax[0], sum: softmax[1] })
}

/// Attends to one range of positions with a group's heads at some tokens: `part` is `[tokens, heads, part_len]`.
fn attend_range(
    queries: &Queries<'_>,
    past: &impl Past,
    group: usize,
    tokens: Range<usize>,
    range: usize,
    part: &mut [f32],
) {
    let Queries { heads, first_position, scale, .. } = *queries;
    let (part_len, row_len) = (queries.part_len(), heads * queries.part_len());
    for part in part.chunks_exact_mut(part_len) {
        part.fill(0.0);
        part[part_len - LANES] = f32::NEG_INFINITY;
    }
    let mut scratch = BlockScratch::default();
    let seen_first = past.first_seen(first_position + tokens.start).max(range * RANGE);
    let seen_end = (first_position + tokens.end).min((range + 1) * RANGE);
    let end_block = seen_end.div_ceil(KV_BLOCK);
    for block in seen_first / KV_BLOCK..end_block {
        let start = block * KV_BLOCK;
        // Tokens before these come before the block; those after see nothing of it any more.
        let first = tokens.start.max(start.saturating_sub(first_position));
        let is_seen = |t: &usize| past.first_seen(first_position + t) < start + KV_BLOCK;
        let end = (first..tokens.end).take_while(is_seen).last().map_or(first, |t| t + 1);
        if first == end {
            continue;
        }
        let at_hand = past.block(group, block, (end - first) * heads, &mut scratch);
        let coming = if end - first == 1 {
            let next = past.memory(group, (block + 1).min(end_block - 1));
            [past.memory(group, block)[1], next[0]]
        } else {
            [Lines::NONE; 2] // all but the first have the block at hand
        };
        for t in first..end {
            let position = first_position + t;
            let seen = past.first_seen(position).saturating_sub(start)..(position + 1 - start).min(KV_BLOCK);
            let part = &mut part[(t - tokens.start) * row_len..][..row_len];
            attend_block(queries.of(t, group), at_hand, coming, seen, scale, part, part_len);
        }
    }
}
