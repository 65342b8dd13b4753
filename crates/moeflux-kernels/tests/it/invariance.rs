//! Random sizes: results are those of the formulas, and bits depend neither on how tokens are cut into calls nor on the
//! number of threads. Attention and experts have files of their own.

use crate::formulas::{self, DeltaInputs};
use crate::property;
use crate::support::{Pools, Random, Sets, assert_close, bits, encodings};
use moeflux_kernels::{
    DeltaRows, DeltaShape, Encoding, Float, GatedDeltaArgs, HeadOrder, InstructionSet, ThreadPool,
    conv1d_silu, gated_delta, head_linear, head_linear_transposed, linear,
};
use proptest::prelude::*;

/// Lengths of calls, one after the other, threads, an instruction set, and a seed for data.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) calls: Vec<usize>,
    pub(crate) threads: usize,
    pub(crate) set: InstructionSet,
    pub(crate) seed: u64,
}

/// Mostly a few tokens; one in eight has some tens.
pub(crate) fn schedule() -> impl Strategy<Value = Schedule> {
    let sets: Vec<InstructionSet> = InstructionSet::available().collect();
    let calls = prop_oneof![
        7 => prop::collection::vec(1..7usize, 1..4),
        1 => prop::collection::vec(1..24usize, 1..4),
    ];
    (calls, 1..=3usize, prop::sample::select(sets), any::<u64>())
        .prop_map(|(calls, threads, set, seed)| Schedule { calls, threads, set, seed })
}

impl Schedule {
    pub(crate) fn n(&self) -> usize {
        self.calls.iter().sum()
    }

    /// The same tokens in one call on one thread.
    fn whole(&self) -> Self {
        Schedule { calls: vec![self.n()], threads: 1, ..self.clone() }
    }

    /// The calls as ranges of tokens.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.calls.iter().scan(0, |first, n| {
            *first += n;
            Some(*first - n..*first)
        })
    }

    /// What `run` makes of rows of `x`, so wide, in these calls: rows so wide.
    fn in_calls(
        &self,
        x: &[f32],
        x_width: usize,
        y_width: usize,
        run: impl Fn(&[f32], &mut [f32]),
    ) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.n() * y_width];
        for call in self.ranges() {
            let part = |width: usize| call.start * width..call.end * width;
            run(&x[part(x_width)], &mut y[part(y_width)]);
        }
        y
    }

    /// What `run` gives for all tokens in one call on one thread; the same bits for this schedule.
    #[track_caller]
    pub(crate) fn check(&self, pools: &Pools, run: impl Fn(&ThreadPool, &Schedule) -> Vec<f32>) -> Vec<f32> {
        let whole = run(pools.of(1), &self.whole());
        let cut = run(pools.of(self.threads), self);
        assert!(whole.iter().all(|x| x.is_finite()));
        assert_eq!(bits(&cut), bits(&whole));
        whole
    }
}

/// Matrices that some thread gets a part of, and smaller ones.
fn rows() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..20usize, 1 => 20..90usize]
}

#[test]
fn of_linear() {
    let (sets, pools, encodings) = (Sets::lock(), Pools::new(), encodings());
    let encodings = prop::sample::select(encodings);
    property::check(3000, &(schedule(), encodings, rows(), 1..4usize, 1..300usize), |case| {
        let (schedule, encoding, rows, groups, cols) = case;
        // Floats have no groups.
        let cols = if matches!(encoding, Encoding::Float(_)) { cols } else { groups * 128 };
        sets.choose(schedule.set);
        let mut random = Random(schedule.seed);
        let w = random.matrix(rows, cols, encoding);
        let x = random.floats(schedule.n() * cols, 1.0);
        let whole = schedule.check(&pools, |pool, schedule| {
            schedule.in_calls(&x, cols, rows, |x, y| linear(pool, &w.view(), x, y))
        });
        let expected = formulas::linear(&w, &x).into_iter().zip(formulas::linear_magnitudes(&w, &x));
        for (i, (&found, (expected, size))) in whole.iter().zip(expected).enumerate() {
            let error = (f64::from(found) - expected).abs();
            assert!(error <= 2e-6 * size, "value {i}: expected {expected}, found {found}");
        }
    });
}

#[test]
fn of_convolution() {
    let (sets, pools) = (Sets::lock(), Pools::new());
    let channels = prop_oneof![6 => 1..140usize, 1 => 140..700usize];
    let kernels = prop_oneof![2 => Just(4usize), 1 => 1..7usize];
    property::check(4000, &(schedule(), channels, kernels), |(schedule, channels, kernel)| {
        sets.choose(schedule.set);
        let mut random = Random(schedule.seed);
        let x = random.floats(schedule.n() * channels, 1.0);
        let weight = random.floats(channels * kernel, 1.0);
        let first = random.floats((kernel - 1) * channels, 1.0);
        let mut whole = schedule.check(&pools, |pool, schedule| {
            let mut state = first.clone();
            let mut y = vec![f32::NAN; x.len()];
            for call in schedule.ranges() {
                let of_call = call.start * channels..call.end * channels;
                let mut new_state = vec![f32::NAN; state.len()];
                let (x, y) = (&x[of_call.clone()], &mut y[of_call]);
                conv1d_silu(pool, x, &weight, kernel, &state, &mut new_state, y);
                state = new_state;
            }
            [y, state].concat()
        });
        let state = whole.split_off(x.len());
        assert_close(&whole, &formulas::convolution(&x, &weight, kernel, &first), 2e-6);
        assert_eq!(state, [first, x].concat()[schedule.n() * channels..]);
    });
}

/// Heads, sizes and order; some values are as wide as the way of a few tokens takes them.
fn delta_shapes() -> impl Strategy<Value = DeltaShape> {
    let order = prop::sample::select(vec![HeadOrder::Grouped, HeadOrder::Tiled]);
    let value_dims = prop_oneof![4 => 1..70usize, 1 => Just(128usize), 1 => Just(256usize)];
    (1..=3usize, 1..=3usize, 1..30usize, value_dims, order).prop_map(
        |(key_heads, each, key_dim, value_dim, order)| DeltaShape {
            key_heads,
            value_heads: key_heads * each,
            key_dim,
            value_dim,
            order,
        },
    )
}

#[test]
fn of_the_delta_rule() {
    let (sets, pools) = (Sets::lock(), Pools::new());
    property::check(2500, &(schedule(), delta_shapes()), |(schedule, shape)| {
        sets.choose(schedule.set);
        let DeltaShape { key_heads, value_heads, key_dim, value_dim, .. } = shape;
        let (key_width, value_width) = (key_heads * key_dim, value_heads * value_dim);
        let (n, mut random) = (schedule.n(), Random(schedule.seed));
        // Keys of about unit length, as after their norm: then the state stays bounded.
        let unit = 1.0 / (key_dim as f32).sqrt();
        let mut shares = |n| -> Vec<f32> { random.floats(n, 0.5).iter().map(|x| x + 0.5).collect() };
        let (decay, beta) = (shares(n * value_heads), shares(n * value_heads));
        let inputs = DeltaInputs {
            q: random.floats(n * key_width, unit),
            k: random.floats(n * key_width, unit),
            v: random.floats(n * value_width, 1.0),
            decay,
            beta,
            state: random.floats(value_width * key_dim, 1.0),
        };
        let DeltaInputs { q, k, v, decay, beta, state } = &inputs;
        let run = |pool: &ThreadPool, schedule: &Schedule| {
            let mut state = state.clone();
            let mut y = vec![f32::NAN; n * value_width];
            for call in schedule.ranges() {
                let mut new_state = vec![f32::NAN; state.len()];
                let part = |width: usize| call.start * width..call.end * width;
                let args = GatedDeltaArgs {
                    q: &q[part(key_width)],
                    k: &k[part(key_width)],
                    v: &v[part(value_width)],
                    decay: &decay[part(value_heads)],
                    beta: &beta[part(value_heads)],
                    shape: &shape,
                    state: &state,
                };
                gated_delta(pool, &args, &mut new_state, &mut y[part(value_width)]);
                state = new_state;
            }
            [y, state].concat()
        };
        let whole = schedule.check(&pools, run);
        let (y, last) = formulas::delta_rule(&inputs, &shape);
        assert_close(&whole, &[y, last].concat(), 1e-5);

        // Kept rows give the state after the first few of them again.
        let rows = DeltaRows::new(k, v, decay, beta, shape);
        let kept = 1 + schedule.seed as usize % n;
        let first = Schedule { calls: vec![kept], ..schedule.whole() };
        let expected = &run(pools.of(1), &first)[n * value_width..];
        let mut found = vec![f32::NAN; state.len()];
        rows.state_after(kept, state, &mut found);
        assert_eq!(bits(&found), bits(expected));
    });
}

#[test]
fn of_linear_by_heads() {
    let (sets, pools) = (Sets::lock(), Pools::new());
    let bf16 = Encoding::Float(Float::Bf16);
    let q4 = Encoding::Affine { bits: 4, group: 32, params: Float::Bf16 };
    let encodings = prop::sample::select(vec![bf16, q4, Encoding::Mxfp4]);
    property::check(3000, &(schedule(), encodings, 1..7usize, 1..70usize, 1..5usize), |case| {
        let (schedule, encoding, heads, rows, groups) = case;
        sets.choose(schedule.set);
        let cols = 32 * groups;
        let (n, mut random) = (schedule.n(), Random(schedule.seed));
        let w = random.matrix(heads * rows, cols, encoding);
        let (x, x_rows) = (random.floats(n * heads * cols, 1.0), random.floats(n * heads * rows, 1.0));
        let down = schedule.check(&pools, |pool, schedule| {
            let run = |x: &[f32], y: &mut [f32]| head_linear(pool, &w.view(), heads, x, y);
            schedule.in_calls(&x, heads * cols, heads * rows, run)
        });
        let up = schedule.check(&pools, |pool, schedule| {
            let run = |x: &[f32], y: &mut [f32]| head_linear_transposed(pool, &w.view(), heads, x, y);
            schedule.in_calls(&x_rows, heads * rows, heads * cols, run)
        });
        let weights: Vec<Vec<f64>> = (0..heads * rows).map(|row| w.row(row)).collect();
        let head_of = |i: usize, width: usize| (i / width % heads) * rows;
        let expected: Vec<f64> = (0..n * heads * rows)
            .map(|i| {
                let w = &weights[head_of(i, rows) + i % rows];
                w.iter().zip(&x[i / rows * cols..]).map(|(w, x)| w * f64::from(*x)).sum()
            })
            .collect();
        assert_close(&down, &expected, 1e-5);
        let expected: Vec<f64> = (0..n * heads * cols)
            .map(|i| {
                let rows = &weights[head_of(i, cols)..][..rows];
                rows.iter()
                    .zip(&x_rows[i / cols * rows.len()..])
                    .map(|(w, x)| w[i % cols] * f64::from(*x))
                    .sum()
            })
            .collect();
        assert_close(&up, &expected, 1e-5);
    });
}
