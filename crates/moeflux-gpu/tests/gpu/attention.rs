use moeflux_gpu::{AttentionArgs, KvView, View};
use moeflux_kernels::{self as cpu, AttentionScratch, AttentionShape, KV_BLOCK, KvBlock, KvType, MlaShape};

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
                    moeflux_gpu::kv_write(enc, &k, &v, &shape, first, &cache);
                    let args = AttentionArgs { first_position: first, scale, parts };
                    let (q, y) = (rows(&gq, width), rows(&y, width));
                    moeflux_gpu::attention(enc, &q, &cache, gsinks.as_ref(), &shape, &args, &y);
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
                    moeflux_gpu::latent_write(enc, &rows(2), &rows(3), &shape, first, &cache);
                    let args = AttentionArgs { first_position: first, scale, parts };
                    let y = y.slice(first * widths[0]..end * widths[0]);
                    moeflux_gpu::mla_attention(enc, &rows(0), &rows(1), &cache, &shape, &args, &y);
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
