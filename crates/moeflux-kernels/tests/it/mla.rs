//! Latent attention and its per-head products against their formulas in f64, and their independence of calls and threads.

use crate::attention::{affordable, calls, near_a_border, sets};
use crate::support::{Pools, Random, Sets, assert_close, bits, f64s, unwritten};
use crate::{formulas, property};
use moeflux_kernels::{
    AttentionScratch, Encoding, F16, Float, InstructionSet, KV_BLOCK, KvBlock, KvType, MlaShape, RowRuns,
    ThreadPool, head_linear, head_linear_transposed, latent_write, linear, mla_attention,
};
use proptest::prelude::*;

const BF16: Encoding = Encoding::Float(Float::Bf16);
const Q4: Encoding = Encoding::Affine { bits: 4, group: 32, params: Float::Bf16 };

fn pool(threads: usize) -> ThreadPool {
    ThreadPool::new(threads).unwrap()
}

#[test]
fn each_head_has_its_own_matrix() {
    let mut random = Random(1);
    for (heads, rows, cols, n, encoding) in [
        (1, 1, 32, 1, BF16),
        (3, 65, 32, 5, Q4),
        (5, 7, 64, 4, BF16),
        (2, 130, 96, 9, Q4),
        (3, 4, 32, 0, BF16),
    ] {
        let w = random.matrix(heads * rows, cols, encoding);
        let value = |head: usize, row: usize, col: usize| w.value(head * rows + row, col);
        let (x, x_rows) = (random.floats(n * heads * cols, 1.0), random.floats(n * heads * rows, 1.0));
        let mut y = vec![f32::NAN; n * heads * rows];
        head_linear(&pool(2), &w.view(), heads, &x, &mut y);
        let expected: Vec<f64> = (0..n * heads * rows)
            .map(|i| {
                let x = &f64s(&x)[i / rows * cols..][..cols];
                x.iter().enumerate().map(|(col, x)| x * value(i / rows % heads, i % rows, col)).sum()
            })
            .collect();
        assert_close(&y, &expected, 1e-5);

        let mut y = vec![f32::NAN; n * heads * cols];
        head_linear_transposed(&pool(2), &w.view(), heads, &x_rows, &mut y);
        let expected: Vec<f64> = (0..n * heads * cols)
            .map(|i| {
                let x = &f64s(&x_rows)[i / cols * rows..][..rows];
                x.iter().enumerate().map(|(row, x)| x * value(i / cols % heads, row, i % cols)).sum()
            })
            .collect();
        assert_close(&y, &expected, 1e-5);
    }
}

#[test]
fn runs_of_rows_are_a_matrix() {
    let mut random = Random(2);
    let w = random.matrix(3 * 7, 64, Q4);
    let x = random.floats(2 * 64, 1.0);
    let runs = RowRuns { first: 2, len: 4, period: 7 };
    let taken = w.view().row_runs(runs);
    let mut y = vec![f32::NAN; 2 * 12];
    linear(&pool(1), &taken, &x, &mut y);
    let mut all = vec![f32::NAN; 2 * 21];
    linear(&pool(1), &w.view(), &x, &mut all);
    let expected: Vec<f32> =
        (0..24).map(|i| all[i / 12 * 21 + [2, 3, 4, 5, 9, 10, 11, 12, 16, 17, 18, 19][i % 12]]).collect();
    assert_eq!((y, taken.bytes()), (expected, w.view().bytes() / 21 * 12));
}

/// Latents and rotary keys of all positions, and where a call's queries begin.
struct Case {
    shape: MlaShape,
    latents: Vec<f32>,
    keys: Vec<f32>,
    kv_type: KvType,
}

impl Case {
    fn new(random: &mut Random, shape: MlaShape, positions: usize, kv_type: KvType) -> Self {
        let MlaShape { rank, rope_dim, .. } = shape;
        Case {
            shape,
            kv_type,
            latents: random.floats(positions * rank, 1.0),
            keys: random.floats(positions * rope_dim, 1.0),
        }
    }

    /// Attends with the queries `q` in calls of these lengths; positions before the first are there already.
    fn run(&self, pool: &ThreadPool, q: (&[f32], &[f32]), first: usize, calls: &[usize]) -> Vec<f32> {
        let MlaShape { heads, rank, rope_dim } = self.shape;
        let positions = first + calls.iter().sum::<usize>();
        let mut blocks = unwritten(positions.div_ceil(KV_BLOCK), self.shape.block_len(), self.kv_type);
        let mut scratch = AttentionScratch::default();
        let write = |from: usize, to: usize, blocks: &mut [KvBlock]| {
            let (latents, keys) =
                (&self.latents[from * rank..to * rank], &self.keys[from * rope_dim..to * rope_dim]);
            latent_write(latents, keys, &self.shape, from, blocks);
        };
        write(0, first, &mut blocks);
        let mut y = vec![f32::NAN; (positions - first) * heads * rank];
        let mut done = 0;
        for n in calls {
            let part = |width: usize| done * width..(done + n) * width;
            write(first + done, first + done + n, &mut blocks);
            let (q, q_rope) = (&q.0[part(heads * rank)], &q.1[part(heads * rope_dim)]);
            let y = &mut y[part(heads * rank)];
            mla_attention(pool, q, q_rope, &blocks, &self.shape, first + done, 0.3, &mut scratch, y);
            done += n;
        }
        y
    }
}

#[test]
fn attention_goes_over_latents() {
    let mut random = Random(3);
    for (heads, rank, rope_dim, first, n) in
        [(1, 1, 2, 0, 1), (3, 19, 6, 0, 130), (34, 80, 16, 63, 2), (2, 64, 8, 1200, 1)]
    {
        let shape = MlaShape { heads, rank, rope_dim };
        let case = Case::new(&mut random, shape, first + n, KvType::F32);
        let (q, q_rope) = (random.floats(n * heads * rank, 1.0), random.floats(n * heads * rope_dim, 1.0));
        let y = case.run(&pool(2), (&q, &q_rope), first, &[n]);
        let (q, Case { latents, keys, .. }) = ((&q[..], &q_rope[..]), &case);
        let expected = formulas::mla_attention(q, latents, keys, &shape, first, f64::from(0.3f32));
        assert_close(&y, &expected, 5e-6);
    }
}

#[derive(Clone, Debug)]
struct Sizes {
    shape: MlaShape,
    kv_type: KvType,
    /// Positions before the first query.
    before: usize,
    calls: Vec<usize>,
    threads: usize,
    set: InstructionSet,
    seed: u64,
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let shape = (
        // Groups of heads that registers and a task have room for, and heads that form none.
        prop::sample::select(vec![1usize, 1, 2, 3, 5, 8, 17, 34]),
        prop::sample::select(vec![1usize, 2, 3, 3, 16, 19, 33, 64, 83]),
        1..20usize,
    );
    let kv_type = prop::sample::select(vec![KvType::F32, KvType::F16]);
    (shape, kv_type, near_a_border(), calls(), 1..=3usize, sets(), any::<u64>()).prop_map(
        |((heads, rank, rope_dim), kv_type, before, calls, threads, set, seed)| {
            let n = calls.iter().sum::<usize>();
            let (heads, rank) = affordable(heads, rank, n * (before + n), set);
            let (_, rope_dim) = affordable(heads, rope_dim, n * (before + n), set);
            let shape = MlaShape { heads, rank, rope_dim };
            Sizes { shape, kv_type, before, calls, threads, set, seed }
        },
    )
}

#[test]
fn any_rows_attend_to_their_past() {
    let (sets, pools) = (Sets::lock(), Pools::new());
    property::check(3000, &sizes(), |sizes| {
        let Sizes { shape, kv_type, before, calls, threads, set, seed } = sizes;
        sets.choose(set);
        let (mut random, n) = (Random(seed), calls.iter().sum::<usize>());
        let mut case = Case::new(&mut random, shape, before + n, kv_type);
        let q = random.floats(n * shape.heads * shape.rank, 1.0);
        let q_rope = random.floats(n * shape.heads * shape.rope_dim, 1.0);
        let whole = case.run(pools.of(1), (&q, &q_rope), before, &[n]);
        let cut = case.run(pools.of(threads), (&q, &q_rope), before, &calls);
        assert_eq!(bits(&cut), bits(&whole));
        if kv_type == KvType::F16 {
            for x in case.latents.iter_mut().chain(&mut case.keys) {
                *x = F16::from_f32(*x).to_f32();
            }
        }
        let Case { latents, keys, .. } = &case;
        let expected =
            formulas::mla_attention((&q, &q_rope), latents, keys, &shape, before, f64::from(0.3f32));
        assert_close(&whole, &expected, 1e-5);
    });
}
