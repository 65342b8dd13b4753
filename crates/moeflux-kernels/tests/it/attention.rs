//! Attention against a softmax over all positions seen, in f64, and its independence of calls and threads: fixed cases,
//! and random ones around the borders of blocks, of ranges and of windows.

use crate::support::{Pools, Random, Sets, assert_close, bits, unwritten};
use crate::{formulas, property};
use moeflux_kernels::{
    AttentionScratch, AttentionShape, F16, InstructionSet, KV_BLOCK, KvBlock, KvType, ThreadPool, attention,
    kv_write,
};
use proptest::prelude::*;

/// Positions whose sums stand alone before they are merged with those of others (`flash.rs`).
const RANGE: usize = 512;

#[derive(Clone, Debug)]
struct Case {
    kv_heads: usize,
    /// Query heads of each of `kv_heads`.
    heads: usize,
    head_dim: usize,
    window: Option<usize>,
    has_sinks: bool,
    kv_type: KvType,
    /// Positions before the first query.
    before: usize,
    /// Queries of each call.
    calls: Vec<usize>,
    threads: usize,
    set: InstructionSet,
    seed: u64,
}

/// What queries, keys, values and sinks are, `[n, ...]`, keys and values as the cache rounds them.
struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    sinks: Option<Vec<f32>>,
}

impl Case {
    fn n(&self) -> usize {
        self.calls.iter().sum()
    }

    fn shape(&self) -> AttentionShape {
        let Case { kv_heads, heads, head_dim, window, .. } = *self;
        AttentionShape { heads: kv_heads * heads, kv_heads, head_dim, window }
    }

    /// Scores of a few units, whatever the number of channels.
    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn inputs(&self) -> Inputs {
        let mut random = Random(self.seed);
        let (heads, kv_width) = (self.shape().heads, self.kv_heads * self.head_dim);
        let rounded = |mut x: Vec<f32>| {
            if self.kv_type == KvType::F16 {
                for x in &mut x {
                    *x = F16::from_f32(*x).to_f32();
                }
            }
            x
        };
        Inputs {
            q: random.floats(self.n() * heads * self.head_dim, 3.0),
            k: rounded(random.floats((self.before + self.n()) * kv_width, 2.0)),
            v: rounded(random.floats((self.before + self.n()) * kv_width, 1.0)),
            sinks: self.has_sinks.then(|| random.floats(heads, 2.0)),
        }
    }

    /// Attends in calls of these lengths. Blocks that no query of a call sees any more are not there.
    fn run(&self, inputs: &Inputs, pool: &ThreadPool, calls: &[usize]) -> Vec<f32> {
        let (shape, width, kv_width) =
            (self.shape(), self.shape().heads * self.head_dim, self.kv_heads * self.head_dim);
        let blocks = unwritten((self.before + self.n()).div_ceil(KV_BLOCK), shape.block_len(), self.kv_type);
        let (mut keys, mut values) = (blocks.clone(), blocks);
        let write = |from: usize, to: usize, keys: &mut [KvBlock], values: &mut [KvBlock]| {
            let new = from * kv_width..to * kv_width;
            kv_write(&inputs.k[new.clone()], &inputs.v[new], &shape, from, keys, values);
        };
        write(0, self.before, &mut keys, &mut values);
        let mut scratch = AttentionScratch::default();
        let mut y = vec![f32::NAN; inputs.q.len()];
        let mut done = 0;
        for n in calls {
            let first = self.before + done;
            write(first, first + n, &mut keys, &mut values);
            for side in [&mut keys, &mut values] {
                side[..shape.first_seen(first) / KV_BLOCK].fill(KvBlock::zeros(0, self.kv_type));
            }
            let rows = done * width..(done + n) * width;
            let (q, y, sinks) = (&inputs.q[rows.clone()], &mut y[rows], inputs.sinks.as_deref());
            attention(pool, q, &keys, &values, sinks, &shape, first, self.scale(), &mut scratch, y);
            done += n;
        }
        y
    }

    /// In one call on one thread it is what the formula says, and in the case's calls and threads the same bits.
    #[track_caller]
    fn check(&self, pools: &Pools) {
        let inputs = self.inputs();
        let whole = self.run(&inputs, pools.of(1), &[self.n()]);
        let Inputs { q, k, v, sinks } = &inputs;
        let scale = f64::from(self.scale());
        let expected = formulas::attention(q, k, v, sinks.as_deref(), &self.shape(), self.before, scale);
        assert_close(&whole, &expected, 5e-6);
        let cut = self.run(&inputs, pools.of(self.threads), &self.calls);
        assert_eq!(bits(&cut), bits(&whole));
    }
}

#[test]
fn attention_is_a_softmax_over_the_past() {
    let mut random = Random(4);
    for (heads, kv_heads, head_dim, first, n, window) in [
        (1, 1, 1, 0, 1, None),
        (4, 2, 19, 0, 130, None),
        (6, 3, 80, 63, 2, None),
        (2, 1, 256, 200, 1, None),
        (8, 8, 16, 64, 5, None),
        (4, 2, 19, 0, 130, Some(1)),
        (4, 2, 19, 3, 140, Some(16)),
        (6, 3, 80, 200, 3, Some(64)),
        (2, 1, 16, 150, 70, Some(129)),
        (16, 1, 64, 1500, 1, None),
        (13, 1, 48, 1000, 40, Some(700)),
    ] {
        let shape = AttentionShape { heads, kv_heads, head_dim, window };
        let q = random.floats(n * heads * head_dim, 4.0);
        let k = random.floats((first + n) * kv_heads * head_dim, 1.0);
        let v = random.floats((first + n) * kv_heads * head_dim, 1.0);
        let blocks = || unwritten((first + n).div_ceil(KV_BLOCK), shape.block_len(), KvType::F32);
        let (mut keys, mut values) = (blocks(), blocks());
        let split = first * kv_heads * head_dim;
        kv_write(&k[..split], &v[..split], &shape, 0, &mut keys, &mut values);
        kv_write(&k[split..], &v[split..], &shape, first, &mut keys, &mut values);
        // Blocks that no query sees any more are not there.
        for side in [&mut keys, &mut values] {
            side[..shape.first_seen(first) / KV_BLOCK].fill(KvBlock::zeros(0, KvType::F32));
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        let sinks = random.floats(heads, 4.0);
        for sinks in [None, Some(&sinks[..])] {
            let mut y = vec![f32::NAN; q.len()];
            let mut scratch = AttentionScratch::default();
            attention(
                &ThreadPool::new(2).unwrap(),
                &q,
                &keys,
                &values,
                sinks,
                &shape,
                first,
                scale,
                &mut scratch,
                &mut y,
            );
            assert_close(&y, &formulas::attention(&q, &k, &v, sinks, &shape, first, f64::from(scale)), 5e-6);
        }
    }
}

#[test]
fn a_cache_of_half_floats_is_that_of_the_rounded_numbers() {
    let shape = AttentionShape { heads: 8, kv_heads: 2, head_dim: 40, window: None };
    let (n, width, kv_width) = (70, 8 * 40, 2 * 40);
    let mut random = Random(14);
    let q = random.floats(n * width, 2.0);
    let (k, v) = (random.floats(n * kv_width, 1.0), random.floats(n * kv_width, 1.0));
    let run = |kv_type, k: &[f32], v: &[f32]| {
        let blocks = || unwritten(n.div_ceil(KV_BLOCK), shape.block_len(), kv_type);
        let (mut keys, mut values) = (blocks(), blocks());
        kv_write(k, v, &shape, 0, &mut keys, &mut values);
        let mut y = vec![f32::NAN; q.len()];
        let mut scratch = AttentionScratch::default();
        attention(
            &ThreadPool::new(2).unwrap(),
            &q,
            &keys,
            &values,
            None,
            &shape,
            0,
            0.2,
            &mut scratch,
            &mut y,
        );
        y
    };
    let rounded = |x: &[f32]| -> Vec<f32> { x.iter().map(|&x| F16::from_f32(x).to_f32()).collect() };
    let half = run(KvType::F16, &k, &v);
    assert_eq!(half, run(KvType::F32, &rounded(&k), &rounded(&v)));
    assert_ne!(half, run(KvType::F32, &k, &v));
}

#[test]
fn attention_bears_huge_scores() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 1, window: None };
    let block = || vec![KvBlock::zeros(KV_BLOCK, KvType::F32)];
    let (mut keys, mut values) = (block(), block());
    kv_write(&[-1e30, 1e30, 0.0], &[1.0, 2.0, 3.0], &shape, 0, &mut keys, &mut values);
    let mut y = [0.0; 3];
    let mut scratch = AttentionScratch::default();
    attention(
        &ThreadPool::new(2).unwrap(),
        &[1.0; 3],
        &keys,
        &values,
        None,
        &shape,
        0,
        1.0,
        &mut scratch,
        &mut y,
    );
    assert_eq!(y, [1.0, 2.0, 2.0]);
}

/// Products that overflow to -inf give no weight: in a whole block, in a whole range, and beside a sink.
#[test]
fn scores_of_minus_infinity_weigh_nothing() {
    let sets = Sets::lock();
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 1, window: None };
    for set in sets.each() {
        for (overflowing, n) in [(1usize, 2usize), (64, 65), (64, 130), (512, 513), (520, 700), (1024, 1100)]
        {
            let blocks = unwritten(n.div_ceil(KV_BLOCK), shape.block_len(), KvType::F32);
            let (mut keys, mut values) = (blocks.clone(), blocks);
            let k: Vec<f32> = (0..n).map(|p| if p < overflowing { -1e30 } else { 0.0 }).collect();
            let v: Vec<f32> = (0..n).map(|p| if p < overflowing { 9.0 } else { 2.0 }).collect();
            kv_write(&k, &v, &shape, 0, &mut keys, &mut values);
            let seen = (n - overflowing) as f32;
            for (sinks, expected) in [(None, 2.0), (Some(&[0.0][..]), 2.0 * seen / (seen + 1.0))] {
                let (mut y, mut scratch) = ([f32::NAN], AttentionScratch::default());
                let pool = ThreadPool::new(2).unwrap();
                attention(&pool, &[1e30], &keys, &values, sinks, &shape, n - 1, 1.0, &mut scratch, &mut y);
                assert!((y[0] - expected).abs() < 1e-5, "{set:?}, {overflowing} of {n}: {}", y[0]);
            }
        }
    }
}

/// Windows that begin behind a range of positions, or a block, that an earlier row of the same call still sees.
#[test]
fn windows_may_begin_behind_what_an_earlier_row_sees() {
    let (sets, pools) = (Sets::lock(), Pools::new());
    for set in sets.each() {
        for (window, before, n) in [
            (503, 1013, 2),
            (69, 1090, 3),
            (508, 1010, 10),
            (49, 544, 17),
            // A row for each place at a range's border, and at a block's.
            (1, 509, 6),
            (2, 509, 6),
            (64, 570, 12),
            (512, 1019, 10),
            (513, 1021, 9),
            (30, 90, 12),
            // So many rows that every band of them begins in another block, and a range lies between the first and last.
            (5, 500, 140),
            (700, 1100, 120),
            (40, 0, 600),
        ] {
            for has_sinks in [false, true] {
                for (kv_heads, heads, kv_type, threads) in
                    [(1, 6, KvType::F32, 1), (1, 6, KvType::F16, 3), (3, 1, KvType::F32, 2)]
                {
                    let case = Case {
                        kv_heads,
                        heads,
                        head_dim: if n < 100 { 20 } else { 3 },
                        window: Some(window),
                        has_sinks,
                        kv_type,
                        before,
                        calls: vec![n],
                        threads,
                        set,
                        seed: 7,
                    };
                    println!("{case:?}");
                    case.check(&pools);
                }
            }
        }
    }
}

/// 0 and borders of blocks and ranges, up to two positions away from them, or anything between.
pub(crate) fn near_a_border() -> impl Strategy<Value = usize> {
    let border = prop_oneof![
        2 => (1..18usize).prop_map(|block| block * KV_BLOCK),
        2 => prop::sample::select(vec![RANGE, 2 * RANGE]),
    ];
    prop_oneof![
        1 => 0..4usize,
        4 => (border, 0..5usize).prop_map(|(border, offset)| border + offset - 2),
        2 => 0..1150usize,
    ]
}

/// Windows by what makes them matter.
#[derive(Clone, Debug)]
enum Window {
    None,
    Of(usize),
    /// That of a row (a share of all) begins up to two positions away from one of the last borders of this size.
    BeginsAt {
        row: prop::sample::Index,
        size: usize,
        back: usize,
        offset: usize,
    },
}

fn window() -> impl Strategy<Value = Window> {
    let sizes = prop::sample::select(vec![KV_BLOCK, RANGE, RANGE]);
    prop_oneof![
        1 => Just(Window::None),
        1 => (1..4usize).prop_map(Window::Of),
        1 => near_a_border().prop_map(|window| Window::Of(window.max(1))),
        4 => (any::<prop::sample::Index>(), sizes, 0..3usize, 0..5usize)
            .prop_map(|(row, size, back, offset)| Window::BeginsAt { row, size, back, offset }),
    ]
}

impl Window {
    fn len(&self, before: usize, n: usize) -> Option<usize> {
        match self {
            Window::None => None,
            Window::Of(window) => Some(*window),
            Window::BeginsAt { row, size, back, offset } => {
                let own = before + row.index(n);
                let begins = (own / size).saturating_sub(*back) * size + offset;
                Some((own + 3).saturating_sub(begins).max(1))
            }
        }
    }
}

/// Lengths of calls: mostly few rows, at times so many that they are several bands.
pub(crate) fn calls() -> impl Strategy<Value = Vec<usize>> {
    let call = prop_oneof![4 => Just(1usize), 8 => 1..6usize, 1 => 1..24usize];
    prop_oneof![
        12 => prop::collection::vec(call, 1..4),
        1 => (60..140usize).prop_map(|n| vec![n]),
        1 => (1..70usize, 1..70usize).prop_map(|(a, b)| vec![a, b]),
    ]
}

/// Instruction sets that the processor has, the slow one less often.
pub(crate) fn sets() -> impl Strategy<Value = InstructionSet> {
    let mut sets: Vec<InstructionSet> = InstructionSet::available().collect();
    if sets.len() > 1 {
        sets.retain(|&set| set != InstructionSet::Baseline);
    }
    prop_oneof![1 => Just(InstructionSet::Baseline), 5 => prop::sample::select(sets)]
}

fn cases() -> impl Strategy<Value = Case> {
    // Heads and channels that fill registers, and that leave some over.
    let shape = (
        prop::sample::select(vec![1usize, 1, 1, 2, 3]),
        prop::sample::select(vec![1usize, 1, 1, 2, 3, 4, 6, 8, 13]),
        prop::sample::select(vec![1usize, 1, 2, 3, 3, 5, 16, 18, 35, 64, 83]),
    );
    let cache = (any::<bool>(), prop::sample::select(vec![KvType::F32, KvType::F16]));
    let how = (1..=3usize, sets(), any::<u64>());
    (shape, cache, near_a_border(), window(), calls(), how).prop_map(
        |((kv_heads, heads, head_dim), (has_sinks, kv_type), before, window, calls, (threads, set, seed))| {
            let n = calls.iter().sum();
            let window = window.len(before, n);
            let scores = kv_heads * n * (before + n).min(window.unwrap_or(usize::MAX));
            let (heads, head_dim) = affordable(heads, head_dim, scores, set);
            Case { kv_heads, heads, head_dim, window, has_sinks, kv_type, before, calls, threads, set, seed }
        },
    )
}

/// As many heads and channels as can be had, for so many scores of a head, in a fraction of a millisecond. Without an
/// instruction for it, fused multiplication is a call.
pub(crate) fn affordable(
    heads: usize,
    channels: usize,
    scores: usize,
    set: InstructionSet,
) -> (usize, usize) {
    let products = if set == InstructionSet::Baseline { 1 << 14 } else { 1 << 17 };
    let heads = heads.min((1 << 13) / scores).max(1);
    (heads, channels.min(products / (scores * heads)).max(1))
}

#[test]
fn any_rows_see_their_windows() {
    let (sets, pools) = (Sets::lock(), Pools::new());
    property::check(10_000, &cases(), |case| {
        sets.choose(case.set);
        case.check(&pools);
    });
}
