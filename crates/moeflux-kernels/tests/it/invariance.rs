//! Bits depend neither on how tokens are cut into calls nor on the number of threads.

use crate::support::{Random, bits, encodings, unwritten};
use moeflux_kernels::{
    Activation, AttentionScratch, AttentionShape, DeltaRows, DeltaShape, Encoding, ExpertScratch,
    ExpertWeights, Float, HeadOrder, KV_BLOCK, KvType, Numbers, ThreadPool, attention, causal_conv1d_silu,
    experts, gated_delta_rule, kv_write, linear,
};
use proptest::prelude::*;

/// Lengths of calls, one after the other, and threads.
fn schedule() -> impl Strategy<Value = (Vec<usize>, usize)> {
    (prop::collection::vec(prop_oneof![Just(1usize), 1usize..24], 1..6), 1usize..=3)
}

/// `run(pool, calls)` gives the same bits for the schedule as for all tokens in one call on one thread.
fn check(calls: &[usize], threads: usize, run: impl Fn(&ThreadPool, &[usize]) -> Vec<f32>) {
    let whole = run(&ThreadPool::new(1).unwrap(), &[calls.iter().sum()]);
    let cut = run(&ThreadPool::new(threads).unwrap(), calls);
    assert!(whole.iter().all(|x| x.is_finite()));
    assert_eq!(bits(&cut), bits(&whole));
}

/// The calls as ranges of tokens.
fn ranges(calls: &[usize]) -> impl Iterator<Item = std::ops::Range<usize>> {
    calls.iter().scan(0, |first, n| {
        *first += n;
        Some(*first - n..*first)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_linear((calls, threads) in schedule(), seed: u64) {
        let (rows, cols) = (70, 512);
        let mut random = Random(seed);
        let encodings = encodings();
        let encoding = encodings[random.below(encodings.len())];
        let w = random.matrix(rows, cols, encoding);
        let x = random.floats(calls.iter().sum::<usize>() * cols, 1.0);
        check(&calls, threads, |pool, calls| {
            let mut y = vec![f32::NAN; x.len() / cols * rows];
            for call in ranges(calls) {
                let y = &mut y[call.start * rows..call.end * rows];
                linear(pool, &w.view(), &x[call.start * cols..call.end * cols], y);
            }
            y
        });
    }

    #[test]
    fn of_attention(
        (calls, threads) in schedule(),
        seed: u64,
        before in prop_oneof![0usize..150, 480usize..1100],
        window in prop::option::of(prop_oneof![1usize..100, 500usize..600]),
        kv_heads in prop::sample::select(vec![1usize, 2, 6]),
        kv_type in prop::sample::select(vec![KvType::F32, KvType::F16]),
    ) {
        let shape = AttentionShape { heads: 6, kv_heads, head_dim: 72, window };
        let (width, kv_width) = (6 * 72, kv_heads * 72);
        let mut random = Random(seed);
        let n = calls.iter().sum::<usize>();
        let q = random.floats(n * width, 2.0);
        let sinks = random.floats(6, 2.0);
        let sinks = (seed % 2 == 0).then_some(&sinks[..]);
        let (k, v) = (random.floats((before + n) * kv_width, 2.0), random.floats((before + n) * kv_width, 1.0));
        check(&calls, threads, |pool, calls| {
            let blocks = unwritten((before + n).div_ceil(KV_BLOCK), shape.block_len(), kv_type);
            let (mut keys, mut values) = (blocks.clone(), blocks);
            let old = ..before * kv_width;
            kv_write(&k[old], &v[old], &shape, 0, &mut keys, &mut values);
            let mut scratch = AttentionScratch::default();
            let mut y = vec![f32::NAN; n * width];
            for call in ranges(calls) {
                let first = before + call.start;
                let new = first * kv_width..(before + call.end) * kv_width;
                kv_write(&k[new.clone()], &v[new], &shape, first, &mut keys, &mut values);
                let of_call = call.start * width..call.end * width;
                let (q, y) = (&q[of_call.clone()], &mut y[of_call]);
                attention(pool, q, &keys, &values, sinks, &shape, first, 0.1, &mut scratch, y);
            }
            y
        });
    }

    #[test]
    fn of_convolution((calls, threads) in schedule(), seed: u64) {
        let (channels, kernel) = (1500, 4);
        let mut random = Random(seed);
        let x = random.floats(calls.iter().sum::<usize>() * channels, 1.0);
        let weight = random.floats(channels * kernel, 1.0);
        check(&calls, threads, |pool, calls| {
            let mut state = vec![0.0; (kernel - 1) * channels];
            let mut y = vec![f32::NAN; x.len()];
            for call in ranges(calls) {
                let of_call = call.start * channels..call.end * channels;
                let mut new_state = vec![f32::NAN; state.len()];
                let (x, y) = (&x[of_call.clone()], &mut y[of_call]);
                causal_conv1d_silu(pool, x, &weight, kernel, &state, &mut new_state, y);
                state = new_state;
            }
            [y, state].concat()
        });
    }

    #[test]
    fn of_the_delta_rule((calls, threads) in schedule(), seed: u64, value_dim in prop::sample::select(vec![5usize, 32, 128])) {
        let shape = DeltaShape { key_heads: 2, value_heads: 4, key_dim: 24, value_dim, order: HeadOrder::Grouped };
        let (key_width, value_width) = (2 * 24, 4 * value_dim);
        let mut random = Random(seed);
        let n = calls.iter().sum::<usize>();
        let (q, k) = (random.floats(n * key_width, 0.2), random.floats(n * key_width, 0.2));
        let v = random.floats(n * value_width, 1.0);
        let (decay, beta) = (random.floats(n * 4, 1.0), random.floats(n * 4, 1.0));
        check(&calls, threads, |pool, calls| {
            let mut state = vec![0.0; 4 * 24 * value_dim];
            let mut y = vec![f32::NAN; n * value_width];
            for call in ranges(calls) {
                let mut new_state = vec![f32::NAN; state.len()];
                let part = |width: usize| call.start * width..call.end * width;
                gated_delta_rule(
                    pool,
                    &q[part(key_width)],
                    &k[part(key_width)],
                    &v[part(value_width)],
                    &decay[part(4)],
                    &beta[part(4)],
                    &shape,
                    &state,
                    &mut new_state,
                    &mut y[part(value_width)],
                );
                state = new_state;
            }
            [y, state].concat()
        });
    }

    #[test]
    fn of_the_delta_rule_read_again(n in 1usize..7, seed: u64, value_dim in prop::sample::select(vec![5usize, 128])) {
        let shape = DeltaShape { key_heads: 2, value_heads: 4, key_dim: 24, value_dim, order: HeadOrder::Tiled };
        let mut random = Random(seed);
        let (q, k) = (random.floats(n * 2 * 24, 0.2), random.floats(n * 2 * 24, 0.2));
        let v = random.floats(n * 4 * value_dim, 1.0);
        let (decay, beta) = (random.floats(n * 4, 1.0), random.floats(n * 4, 1.0));
        let state = random.floats(4 * 24 * value_dim, 1.0);
        let rows = DeltaRows::new(&k, &v, &decay, &beta, shape);
        let pool = ThreadPool::new(1).unwrap();
        for kept in 1..=n {
            let (keys, heads) = (kept * 2 * 24, kept * 4);
            let mut y = vec![f32::NAN; heads * value_dim];
            let [mut expected, mut found] = [(); 2].map(|()| vec![f32::NAN; state.len()]);
            let (q, k, v) = (&q[..keys], &k[..keys], &v[..y.len()]);
            let (decay, beta) = (&decay[..heads], &beta[..heads]);
            gated_delta_rule(&pool, q, k, v, decay, beta, &shape, &state, &mut expected, &mut y);
            rows.state_after(kept, &state, &mut found);
            assert_eq!(bits(&found), bits(&expected));
        }
    }

    #[test]
    fn of_experts((calls, threads) in schedule(), seed: u64) {
        let (hidden, intermediate, count, k) = (192, 160, 12, 4);
        let mut random = Random(seed);
        let encoding = Encoding::Affine { bits: 4, group: 32, params: Float::Bf16 };
        let weights_of: Vec<_> = (0..count)
            .map(|_| {
                [(intermediate, hidden), (intermediate, hidden), (hidden, intermediate)]
                    .map(|(rows, cols)| random.matrix(rows, cols, encoding))
            })
            .collect();
        let n = calls.iter().sum::<usize>();
        let x = random.floats(n * hidden, 1.0);
        let indices: Vec<u32> = (0..n)
            .flat_map(|_| {
                let first = random.below(count);
                [0, 7, 2, 5].map(|step| ((first + step) % count) as u32)
            })
            .collect();
        let weights = random.floats(n * k, 1.0);
        check(&calls, threads, |pool, calls| {
            let mut scratch = ExpertScratch::default();
            let mut y = vec![f32::NAN; n * hidden];
            for call in ranges(calls) {
                let part = |width: usize| call.start * width..call.end * width;
                let expert = |e: u32| {
                    let [gate, up, down] = &weights_of[e as usize];
                    ExpertWeights { gate: gate.view(), up: up.view(), down: down.view(), biases: None }
                };
                let (indices, weights) = (&indices[part(k)], &weights[part(k)]);
                let y = &mut y[part(hidden)];
                experts(pool, &x[part(hidden)], indices, weights, k, expert, Activation::Swiglu, Numbers::Exact, &mut scratch, y);
            }
            y
        });
    }
}
