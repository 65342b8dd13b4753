use moeflux_kernels::{self as cpu, AttentionScratch, AttentionShape, KV_BLOCK, KvBlock, KvType, MlaShape};
use moeflux_wgpu::{AttentionArgs, KvView, View};
use proptest::prelude::*;

use crate::property;
use crate::support::{Gpu, POOL, Random, assert_close, bits};

/// A cache of so many positions in blocks of `len` values, with a block between, and NaN in it: those of keys backwards,
/// those of values forwards.
fn cache(gpu: &Gpu, positions: usize, len: usize, values: bool) -> KvView {
    let blocks = positions.div_ceil(KV_BLOCK);
    let mut table: Vec<u32> = (0..blocks).rev().map(|block| 2 * block as u32).collect();
    if values {
        table.extend((0..blocks).map(|block| 2 * block as u32 + 1));
    }
    let keys = gpu.out(2 * blocks * len);
    let values = if values { gpu.out(2 * blocks * len) } else { keys.clone() };
    KvView { keys, values, blocks: gpu.up_u32(&table) }
}

fn cpu_blocks(positions: usize, len: usize) -> Vec<KvBlock> {
    vec![KvBlock::zeros(len, KvType::F32); positions.div_ceil(KV_BLOCK)]
}

pub(crate) fn attention_is_that_of_the_cpu_in_any_chunks() {
    let (gpu, mut random) = (Gpu::new(), Random(11));
    for (positions, heads, kv_heads, head_dim, window, has_sinks) in [
        (1, 1, 1, 1, None, false),
        (70, 3, 1, 10, None, true),
        (200, 4, 2, 64, Some(50), false),
        (300, 6, 2, 80, Some(128), true),
        (333, 16, 2, 256, None, false),
        (150, 8, 8, 128, None, false),
        (130, 20, 1, 192, None, false),
    ] {
        let shape = AttentionShape { heads, kv_heads, head_dim, window };
        let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let q = random.floats(positions * width, 2.0);
        let (k, v) = (random.floats(positions * kv_width, 2.0), random.floats(positions * kv_width, 2.0));
        let sinks = has_sinks.then(|| random.floats(heads, 2.0));
        let scale = 1.0 / (head_dim as f32).sqrt();

        let (mut keys, mut values) =
            (cpu_blocks(positions, shape.block_len()), cpu_blocks(positions, shape.block_len()));
        cpu::kv_write(&k, &v, &shape, 0, &mut keys, &mut values);
        let mut expected = vec![0.0; q.len()];
        let mut scratch = AttentionScratch::default();
        let sinks = sinks.as_deref();
        cpu::attention(&POOL, &q, &keys, &values, sinks, &shape, 0, scale, &mut scratch, &mut expected);

        let (gq, gk, gv) = (gpu.up(&q), gpu.up(&k), gpu.up(&v));
        let gsinks = sinks.map(|sinks| gpu.up(sinks));
        let run = |chunks: &[usize], parts: &View| {
            let (cache, y) = (cache(&gpu, positions, shape.block_len(), true), gpu.out(q.len()));
            let mut first = 0;
            for &chunk in chunks.iter().cycle() {
                let end = positions.min(first + chunk);
                let rows = |view: &View, width: usize| view.slice(first * width..end * width);
                gpu.run(|enc| {
                    let (k, v) = (rows(&gk, kv_width), rows(&gv, kv_width));
                    moeflux_wgpu::kv_write(enc, &k, &v, &shape, first, &cache);
                    let args = AttentionArgs { first_position: first, scale, parts };
                    let (q, y) = (rows(&gq, width), rows(&y, width));
                    moeflux_wgpu::attention(enc, &q, &cache, gsinks.as_ref(), &shape, &args, &y);
                });
                first = end;
                if first == positions {
                    break;
                }
            }
            gpu.down(&y)
        };
        let (none, some) = (gpu.out(1), gpu.out(4 << 20));
        let whole = run(&[positions], &none);
        assert_close(&format!("attention {positions} {shape:?}"), &whole, &expected);
        for chunks in [&[positions][..], &[1, 64, 3, 100], &[7]] {
            for parts in [&none, &some] {
                assert!(bits(&run(chunks, parts)) == bits(&whole), "{shape:?} in chunks of {chunks:?}");
            }
        }
    }
}

pub(crate) fn latent_attention_is_that_of_the_cpu_in_any_chunks() {
    let (gpu, mut random) = (Gpu::new(), Random(12));
    for (positions, heads, rank, rope_dim) in [(1, 1, 1, 2), (100, 3, 24, 6), (140, 16, 512, 64)] {
        let shape = MlaShape { heads, rank, rope_dim };
        let q = random.floats(positions * heads * rank, 1.0);
        let q_rope = random.floats(positions * heads * rope_dim, 1.0);
        let (latent, k_rope) =
            (random.floats(positions * rank, 1.0), random.floats(positions * rope_dim, 1.0));
        let scale = 1.0 / ((rank + rope_dim) as f32).sqrt();

        let mut blocks = cpu_blocks(positions, shape.block_len());
        cpu::latent_write(&latent, &k_rope, &shape, 0, &mut blocks);
        let mut expected = vec![0.0; q.len()];
        let mut scratch = AttentionScratch::default();
        cpu::mla_attention(&POOL, &q, &q_rope, &blocks, &shape, 0, scale, &mut scratch, &mut expected);

        let views = [&q, &q_rope, &latent, &k_rope].map(|x| gpu.up(x));
        let widths = [heads * rank, heads * rope_dim, rank, rope_dim];
        let run = |chunk: usize, parts: &View| {
            let (cache, y) = (cache(&gpu, positions, shape.block_len(), false), gpu.out(q.len()));
            for first in (0..positions).step_by(chunk) {
                let end = positions.min(first + chunk);
                let rows = |i: usize| views[i].slice(first * widths[i]..end * widths[i]);
                gpu.run(|enc| {
                    moeflux_wgpu::latent_write(enc, &rows(2), &rows(3), &shape, first, &cache);
                    let args = AttentionArgs { first_position: first, scale, parts };
                    let y = y.slice(first * widths[0]..end * widths[0]);
                    moeflux_wgpu::mla_attention(enc, &rows(0), &rows(1), &cache, &shape, &args, &y);
                });
            }
            gpu.down(&y)
        };
        let (none, some) = (gpu.out(1), gpu.out(4 << 20));
        let whole = run(positions, &none);
        assert_close(&format!("mla_attention {positions} {shape:?}"), &whole, &expected);
        for (chunk, parts) in [(positions, &some), (13, &none), (1, &some), (67, &some)] {
            assert!(bits(&run(chunk, parts)) == bits(&whole), "{shape:?} in chunks of {chunk}");
        }
    }
}

/// Queries of one call behind positions that are in the cache already.
#[derive(Clone, Debug)]
struct Window {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    has_sinks: bool,
    before: usize,
    n: usize,
    seed: u64,
}

impl Window {
    /// Blocks by one workgroup after the other, and split among workgroups and merged, are what the formula says, and the
    /// same bits.
    fn check(&self, gpu: &Gpu) {
        let Window { heads, kv_heads, head_dim, window, has_sinks, before, n, seed } = *self;
        let shape = AttentionShape { heads, kv_heads, head_dim, window };
        let (positions, width, kv_width) = (before + n, heads * head_dim, kv_heads * head_dim);
        let mut random = Random(seed);
        let q = random.floats(n * width, 3.0);
        let (k, v) = (random.floats(positions * kv_width, 2.0), random.floats(positions * kv_width, 1.0));
        let sinks = has_sinks.then(|| random.floats(heads, 2.0));
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (gq, gk, gv) = (gpu.up(&q), gpu.up(&k), gpu.up(&v));
        let gsinks = sinks.as_ref().map(|sinks| gpu.up(sinks));
        let [whole, split] = [1, 1 << 20].map(|parts| {
            let (parts, y) = (gpu.out(parts), gpu.out(q.len()));
            let cache = cache(gpu, positions, shape.block_len(), true);
            gpu.run(|enc| {
                moeflux_wgpu::kv_write(enc, &gk, &gv, &shape, 0, &cache);
                let args = AttentionArgs { first_position: before, scale, parts: &parts };
                moeflux_wgpu::attention(enc, &gq, &cache, gsinks.as_ref(), &shape, &args, &y);
            });
            gpu.down(&y)
        });
        let expected = plain(&q, &k, &v, sinks.as_deref(), &shape, before, f64::from(scale));
        assert_close(&format!("{self:?}"), &whole, &expected);
        assert!(bits(&split) == bits(&whole), "split blocks of {self:?}");
    }
}

/// A softmax over all positions seen at once, in f64.
fn plain(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    sinks: Option<&[f32]>,
    shape: &AttentionShape,
    before: usize,
    scale: f64,
) -> Vec<f32> {
    let AttentionShape { heads, kv_heads, head_dim, window } = *shape;
    let mut y = Vec::new();
    for (row, q) in q.chunks(head_dim).enumerate() {
        let (own, head) = (before + row / heads, row % heads);
        let at = |p: usize| (p * kv_heads + head / (heads / kv_heads)) * head_dim;
        let seen = window.map_or(0, |window| (own + 1).saturating_sub(window))..=own;
        let score =
            |p| q.iter().zip(&k[at(p)..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * scale;
        let scores: Vec<f64> = seen.clone().map(score).collect();
        let sink = sinks.map(|sinks| f64::from(sinks[head]));
        let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().copied().chain(sink).map(|score| (score - max).exp()).sum();
        y.extend((0..head_dim).map(|c| {
            let values = seen.clone().zip(&scores);
            values.map(|(p, score)| (score - max).exp() / sum * f64::from(v[at(p) + c])).sum::<f64>() as f32
        }));
    }
    y
}

/// Windows that begin behind blocks that an earlier row of the same call, and of the same workgroup, still sees.
pub(crate) fn windows_may_begin_behind_what_an_earlier_row_sees() {
    let gpu = Gpu::new();
    for (window, before, n) in [
        (503, 1013, 2),
        (69, 1090, 3),
        (508, 1010, 10),
        (49, 544, 17),
        (1, 509, 6),
        (64, 570, 12),
        (513, 1021, 9),
        (30, 90, 12),
        (5, 500, 140),
    ] {
        for (has_sinks, (heads, kv_heads)) in [(false, (6, 1)), (true, (6, 1)), (false, (2, 2))] {
            let window = Some(window);
            Window { heads, kv_heads, head_dim: 20, window, has_sinks, before, n, seed: 7 }.check(&gpu);
        }
    }
}

/// Windows whose beginnings lie around borders of blocks, and others.
fn windows() -> impl Strategy<Value = Window> {
    let near = || {
        let border = (1..9usize, 0..5usize).prop_map(|(block, offset)| block * KV_BLOCK + offset - 2);
        prop_oneof![1 => 0..4usize, 4 => border, 1 => 0..600usize]
    };
    let n = prop_oneof![6 => 1..12usize, 1 => 60..140usize];
    let window = prop_oneof![1 => Just(None), 4 => near().prop_map(|window| Some(window.max(1)))];
    // Of the window of the last row, by how much it begins behind a border of blocks.
    let begins = prop::option::of((0..3usize, 0..5usize));
    let heads = prop::sample::select(vec![(1usize, 1usize), (4, 1), (4, 2), (6, 3), (9, 1)]);
    let head_dim = prop::sample::select(vec![4usize, 20, 64]);
    (heads, head_dim, near(), n, (window, begins), any::<bool>(), any::<u64>()).prop_map(
        |((heads, kv_heads), head_dim, before, n, (window, begins), has_sinks, seed)| {
            let own = before + n - 1;
            let window = begins.map_or(window, |(back, offset)| {
                let begins = (own / KV_BLOCK).saturating_sub(back) * KV_BLOCK + offset;
                Some((own + 3).saturating_sub(begins).max(1))
            });
            Window { heads, kv_heads, head_dim, window, has_sinks, before, n, seed }
        },
    )
}

pub(crate) fn any_rows_see_their_windows() {
    let gpu = Gpu::new();
    property::check(300, &windows(), |window| window.check(&gpu));
}
