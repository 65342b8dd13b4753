//! Causal attention of one sequence over its cache, whose blocks lie anywhere in a buffer.

use moeflux_kernels::{AttentionShape, KV_BLOCK, MlaShape};

use crate::{Encoder, Program, View};

use super::{EACH, ELEMENT, GRID_ROW, LANES, MATH, grid};

const SOFTMAX: &str = include_str!("softmax.wgsl");
const ATTENTION: &[&str] = &[include_str!("attention.wgsl"), SOFTMAX, MATH];
static WHOLE: Program = Program { name: "attention", entry: "whole", source: ATTENTION };
static SPLIT: Program = Program { name: "attention", entry: "split", source: ATTENTION };
static MERGE: Program = Program {
    name: "attention_merge",
    entry: "main",
    source: &[include_str!("attention_merge.wgsl"), SOFTMAX, MATH],
};
static KV_WRITE: Program =
    Program { name: "kv_write", entry: "main", source: &[include_str!("kv_write.wgsl"), ELEMENT] };
static LATENT_WRITE: Program =
    Program { name: "latent_write", entry: "main", source: &[include_str!("latent_write.wgsl"), ELEMENT] };

/// A sequence's keys and values (of latents: both in one).
#[derive(Clone)]
pub struct KvView {
    /// Blocks of keys, `[kv_heads, head_dim, KV_BLOCK]`, or of latents, `[rank + rope_dim, KV_BLOCK]`.
    pub keys: View,
    /// Blocks of values, `[kv_heads, KV_BLOCK, head_dim]`; of latents the same view as `keys`.
    pub values: View,
    /// For each KV_BLOCK positions of the sequence the index of their block (u32), among the keys and then, of the same
    /// positions, among the values: `[2, blocks]`, of latents `[1, blocks]`.
    pub blocks: View,
}

impl KvView {
    /// From where a block of keys is said to where the one of values is.
    fn to_values(&self, has_values: bool) -> u32 {
        if has_values { self.blocks.len() as u32 / 2 } else { 0 }
    }
}

/// Where queries are, and what they may use.
#[derive(Clone, Copy)]
pub struct AttentionArgs<'a> {
    /// Position of the first query.
    pub first_position: usize,
    /// Multiplies scores.
    pub scale: f32,
    /// Memory for the parts of a split; how much there is changes no bit.
    pub parts: &'a View,
}

/// Writes keys and values, `[n, kv_heads, head_dim]`, of the positions from `first_position` on into their blocks.
pub fn kv_write(
    enc: &mut Encoder<'_>,
    k: &View,
    v: &View,
    shape: &AttentionShape,
    first_position: usize,
    cache: &KvView,
) {
    let n = k.len();
    assert!(n.is_multiple_of(shape.kv_heads * shape.head_dim) && v.len() == n);
    let constants = [EACH[0], EACH[1], ("KV_BLOCK", KV_BLOCK as u32)];
    let [n, kv_heads, head_dim, first_position] =
        [n, shape.kv_heads, shape.head_dim, first_position].map(|x| x as u32);
    let params = [n, kv_heads, head_dim, first_position, cache.to_values(true)];
    let views = [k, v, &cache.keys, &cache.values, &cache.blocks];
    enc.dispatch(&KV_WRITE, &constants, &views, &params, grid(k.len().div_ceil(LANES)));
}

/// Writes latents (`[n, rank]`) and rotary keys (`[n, rope_dim]`) of the positions from `first_position` on into their
/// blocks.
pub fn latent_write(
    enc: &mut Encoder<'_>,
    latents: &View,
    rotary: &View,
    shape: &MlaShape,
    first_position: usize,
    cache: &KvView,
) {
    let MlaShape { rank, rope_dim, .. } = *shape;
    assert!(latents.len().is_multiple_of(rank) && rotary.len() * rank == latents.len() * rope_dim);
    let n = latents.len() + rotary.len();
    let constants = [EACH[0], EACH[1], ("KV_BLOCK", KV_BLOCK as u32)];
    let params = [n, rank, rope_dim, first_position].map(|x| x as u32);
    let views = [latents, rotary, &cache.keys, &cache.blocks];
    enc.dispatch(&LATENT_WRITE, &constants, &views, &params, grid(n.div_ceil(LANES)));
}

/// `y = softmax(scale · q·kᵀ)·v` per head: `q` and `y` are `[n, heads, head_dim]`; query `i` sits at
/// `first_position + i` and sees the positions of its window up to its own. `sinks` (`[heads]`), if any, are scores that
/// take part in the softmax without a value of their own.
pub fn attention(
    enc: &mut Encoder<'_>,
    q: &View,
    cache: &KvView,
    sinks: Option<&View>,
    shape: &AttentionShape,
    args: &AttentionArgs<'_>,
    y: &View,
) {
    let AttentionShape { heads, kv_heads, head_dim, window } = *shape;
    assert!(heads.is_multiple_of(kv_heads) && q.len() == y.len() && q.len().is_multiple_of(heads * head_dim));
    assert!(sinks.is_none_or(|sinks| sinks.len() == heads));
    let geometry = Geometry {
        groups: kv_heads,
        heads: heads / kv_heads,
        query_dim: head_dim,
        rope_dim: 0,
        value_dim: head_dim,
        value_channel: 1,
        value_position: head_dim,
        window,
    };
    attend(enc, &geometry, [q, q], cache, sinks, args, y);
}

/// `y = Σ softmax(scale · (q_latent·c_j + q_rope·k_j)) · c_j` per head over the positions `j` up to the query's own:
/// `q_latent` and `y` are `[n, heads, rank]`, `q_rope` is `[n, heads, rope_dim]`.
pub fn mla_attention(
    enc: &mut Encoder<'_>,
    q_latent: &View,
    q_rope: &View,
    cache: &KvView,
    shape: &MlaShape,
    args: &AttentionArgs<'_>,
    y: &View,
) {
    let MlaShape { heads, rank, rope_dim } = *shape;
    assert!(q_latent.len() == y.len() && y.len().is_multiple_of(heads * rank));
    assert_eq!(q_rope.len() * rank, y.len() * rope_dim);
    let geometry = Geometry {
        groups: 1,
        heads,
        query_dim: rank,
        rope_dim,
        value_dim: rank,
        value_channel: KV_BLOCK,
        value_position: 1,
        window: None,
    };
    attend(enc, &geometry, [q_latent, q_rope], cache, None, args, y);
}

/// Heads, and how a block of a group lies.
struct Geometry {
    groups: usize,
    /// Of a group.
    heads: usize,
    query_dim: usize,
    rope_dim: usize,
    value_dim: usize,
    /// Steps from a value to the next channel's and to the next position's.
    value_channel: usize,
    value_position: usize,
    window: Option<usize>,
}

impl Geometry {
    fn key_dim(&self) -> usize {
        self.query_dim + self.rope_dim
    }

    /// Rows of a workgroup, as many as 16 KiB of its memory have queries and sums for. They change no bit.
    fn rows(&self) -> usize {
        let bytes = 4 * (self.key_dim() + WORKGROUP + KV_BLOCK + 2);
        [8, 4, 2].into_iter().find(|rows| rows * bytes <= 16_384).unwrap_or(1)
    }

    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// Invocations of a workgroup.
const WORKGROUP: usize = 256;
/// Blocks are split among workgroups while there are fewer of these than would keep a device busy.
const BUSY: usize = 256;
/// What a dimension of the grid may have.
const MAX_GROUPS: usize = 65_535;

fn attend(
    enc: &mut Encoder<'_>,
    geometry: &Geometry,
    [q, q_rope]: [&View; 2],
    cache: &KvView,
    sinks: Option<&View>,
    args: &AttentionArgs<'_>,
    y: &View,
) {
    let Geometry { groups, heads, query_dim, rope_dim, value_dim, .. } = *geometry;
    let all_heads = groups * heads;
    let n = q.len() / (all_heads * query_dim);
    let most = MAX_GROUPS * geometry.rows() / heads;
    for first in (0..n).step_by(most) {
        let tokens = first..n.min(first + most);
        let part = |view: &View, dim: usize| {
            view.slice(tokens.start * all_heads * dim..tokens.end * all_heads * dim)
        };
        let q_rope = if rope_dim == 0 { q.clone() } else { part(q_rope, rope_dim) };
        let args = AttentionArgs { first_position: args.first_position + first, ..*args };
        let y = part(y, value_dim);
        attend_tokens(enc, geometry, [&part(q, query_dim), &q_rope], cache, sinks, &args, &y);
    }
}

fn attend_tokens(
    enc: &mut Encoder<'_>,
    geometry: &Geometry,
    [q, q_rope]: [&View; 2],
    cache: &KvView,
    sinks: Option<&View>,
    args: &AttentionArgs<'_>,
    y: &View,
) {
    let Geometry { groups, heads, query_dim, value_dim, .. } = *geometry;
    let AttentionArgs { first_position, scale, parts } = *args;
    let n = q.len() / (groups * heads * query_dim);
    let tiles = (n * heads).div_ceil(geometry.rows());
    let first_block = geometry.first_seen(first_position) / KV_BLOCK;
    let blocks = (first_position + n).div_ceil(KV_BLOCK) - first_block;
    let parts_len = n * groups * heads * blocks * (value_dim + 2);
    let is_split = blocks > 1 && tiles * groups < BUSY && parts_len <= parts.len() && blocks <= MAX_GROUPS;

    let window = geometry.window.unwrap_or(u32::MAX as usize).min(u32::MAX as usize);
    let value_parts = (WORKGROUP / value_dim.next_power_of_two()).clamp(1, 8);
    let constants = [
        ("KV_BLOCK", KV_BLOCK),
        ("ROWS", geometry.rows()),
        ("KEY_DIM", geometry.key_dim()),
        ("Q_DIM", query_dim),
        ("VALUE_DIM", value_dim),
        ("VALUE_BLOCK", geometry.key_dim() * KV_BLOCK),
        ("VALUE_CHANNEL", geometry.value_channel),
        ("VALUE_POSITION", geometry.value_position),
        ("POSITION_PARTS", value_parts),
        ("HAS_SINKS", usize::from(sinks.is_some())),
    ]
    .map(|(name, value)| (name, value as u32));
    let split = if is_split { blocks } else { 0 };
    let params = [
        n as u32,
        groups as u32,
        heads as u32,
        first_position as u32,
        window as u32,
        scale.to_bits(),
        first_block as u32,
        split as u32,
        cache.to_values(geometry.rope_dim == 0 && geometry.value_channel == 1),
    ];
    let none = enc.no_view();
    let sinks_view = sinks.unwrap_or(&none);
    let (program, out) = if is_split { (&SPLIT, parts) } else { (&WHOLE, y) };
    let views = [q, q_rope, &cache.keys, &cache.values, &cache.blocks, sinks_view, out];
    let depth = if is_split { blocks } else { 1 };
    enc.dispatch(program, &constants, &views, &params, [tiles as u32, groups as u32, depth as u32]);
    if !is_split {
        return;
    }
    let constants = [
        ("GRID_ROW", GRID_ROW),
        ("KV_BLOCK", KV_BLOCK as u32),
        ("VALUE_DIM", value_dim as u32),
        ("HAS_SINKS", u32::from(sinks.is_some())),
    ];
    let rows = n * groups * heads;
    let params = [rows, groups * heads, first_position, window, first_block, blocks].map(|x| x as u32);
    enc.dispatch(&MERGE, &constants, &[parts, sinks_view, y], &params, grid(rows));
}
