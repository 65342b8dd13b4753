//! Latent attention and its per-head products against their formulas in f64, and their independence of calls and threads.

use crate::support::{OwnedMatrix, Random, assert_close, bits, f64s, unwritten};
use moeflux_kernels::{
    AttentionScratch, Encoding, Float, KV_BLOCK, KvBlock, KvType, MlaShape, RowRuns, ThreadPool, head_linear,
    head_linear_transposed, latent_write, linear, mla_attention,
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
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let mut expected = Vec::new();
        for (i, (q, q_rope)) in q.chunks(rank).zip(q_rope.chunks(rope_dim)).enumerate() {
            let latent = |p: usize| &case.latents[p * rank..][..rank];
            let weight = |p: usize| {
                (0.3 * (dot(q, latent(p)) + dot(q_rope, &case.keys[p * rope_dim..][..rope_dim]))).exp()
            };
            let weights: Vec<f64> = (0..=first + i / heads).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            expected.extend((0..rank).map(|c| {
                weights.iter().enumerate().map(|(p, w)| w * f64::from(latent(p)[c])).sum::<f64>() / sum
            }));
        }
        assert_close(&y, &expected, 5e-6);
    }
}

/// Rows of `x` in calls of these lengths.
fn in_calls(
    calls: &[usize],
    (x, x_width): (&[f32], usize),
    y_width: usize,
    run: impl Fn(&[f32], &mut [f32]),
) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / x_width * y_width];
    let mut done = 0;
    for n in calls {
        run(&x[done * x_width..(done + n) * x_width], &mut y[done * y_width..(done + n) * y_width]);
        done += n;
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bits_do_not_depend_on_calls_or_threads(
        calls in prop::collection::vec(1usize..24, 1..6),
        threads in 1usize..=3,
        seed: u64,
        first in prop_oneof![0usize..150, 480usize..1100],
        kv_type in prop::sample::select(vec![KvType::F32, KvType::F16]),
    ) {
        let mut random = Random(seed);
        let n = calls.iter().sum::<usize>();
        let shape = MlaShape { heads: 6, rank: 96, rope_dim: 20 };
        let case = Case::new(&mut random, shape, first + n, kv_type);
        let (q, q_rope) = (random.floats(n * 6 * 96, 1.0), random.floats(n * 6 * 20, 1.0));
        let whole = case.run(&pool(1), (&q, &q_rope), first, &[n]);
        let cut = case.run(&pool(threads), (&q, &q_rope), first, &calls);
        prop_assert!(whole.iter().all(|x| x.is_finite()));
        prop_assert_eq!(bits(&cut), bits(&whole));

        let w: OwnedMatrix = random.matrix(6 * 70, 96, Q4);
        let down = |threads, calls: &[usize]| {
            in_calls(calls, (&q, 6 * 96), 6 * 70, |x, y| head_linear(&pool(threads), &w.view(), 6, x, y))
        };
        prop_assert_eq!(bits(&down(threads, &calls)), bits(&down(1, &[n])));
        let x = random.floats(n * 6 * 70, 1.0);
        let up = |threads, calls: &[usize]| {
            in_calls(calls, (&x, 6 * 70), 6 * 96, |x, y| head_linear_transposed(&pool(threads), &w.view(), 6, x, y))
        };
        prop_assert_eq!(bits(&up(threads, &calls)), bits(&up(1, &[n])));
    }
}
