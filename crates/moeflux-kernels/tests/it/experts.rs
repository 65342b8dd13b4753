//! Layers of experts of random sizes, choices and encodings: the weighted sum, whatever calls, threads, order and grouping.

use crate::formulas::{self, Expert};
use crate::invariance::{Schedule, schedule};
use crate::property;
use crate::support::{Pools, Random, Sets, assert_close, bits};
use moeflux_kernels::{
    Activation, Encoding, ExpertScratch, ExpertsArgs, Float, Precision, ThreadPool, experts,
};
use proptest::prelude::*;

/// Neighbours that differ in encoding make every way of computing meet every other.
const ENCODINGS: [Encoding; 5] = [
    Encoding::Affine { bits: 4, group: 32, params: Float::Bf16 },
    Encoding::Mxfp4,
    Encoding::Affine { bits: 8, group: 32, params: Float::Bf16 },
    Encoding::Float(Float::Bf16),
    Encoding::Affine { bits: 5, group: 32, params: Float::Bf16 },
];

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
struct Layer {
    schedule: Schedule,
    /// In groups of 32.
    hidden: usize,
    intermediate: usize,
    count: usize,
    /// At most `count` are chosen.
    k: usize,
    /// Shares a token's first choice with all others.
    is_skewed: bool,
    first_encoding: usize,
    is_mixed: bool,
    has_biases: bool,
    activation: Activation,
    precision: Precision,
    /// Experts computed at once, and whether the last come first.
    group: usize,
    is_reversed: bool,
}

fn layers() -> impl Strategy<Value = Layer> {
    let sizes =
        (1..4usize, 1..4usize, prop_oneof![4 => 1..9usize, 1 => 30..40usize], 1..5usize, any::<bool>());
    let kinds = (0..ENCODINGS.len(), any::<bool>(), any::<bool>());
    let clamped = Activation::ClampedSwiglu { alpha: 1.702, limit: 0.8 };
    let activation = prop::sample::select(vec![Activation::Swiglu, clamped]);
    let precision = prop::sample::select(vec![Precision::Exact, Precision::Fast]);
    (schedule(), sizes, kinds, activation, precision, (1..6usize, any::<bool>())).prop_map(
        |(schedule, (hidden, intermediate, count, k, is_skewed), kinds, activation, precision, order)| {
            Layer {
                schedule,
                hidden: 32 * hidden,
                intermediate: 32 * intermediate,
                count,
                k: k.min(count),
                is_skewed,
                first_encoding: kinds.0,
                is_mixed: kinds.1,
                has_biases: kinds.2,
                activation,
                precision,
                group: order.0,
                is_reversed: order.1,
            }
        },
    )
}

/// Experts, and what tokens bring and choose.
struct Data {
    experts: Vec<Expert>,
    x: Vec<f32>,
    indices: Vec<u32>,
    factors: Vec<f32>,
}

impl Layer {
    fn data(&self) -> Data {
        let Layer { hidden, intermediate, count, k, .. } = *self;
        let (n, mut random) = (self.schedule.n(), Random(self.schedule.seed));
        let shapes = [(intermediate, hidden), (intermediate, hidden), (hidden, intermediate)];
        let expert = |i: usize| {
            let encoding =
                ENCODINGS[(self.first_encoding + if self.is_mixed { i } else { 0 }) % ENCODINGS.len()];
            let weights = shapes.map(|(rows, cols)| random.matrix(rows, cols, encoding));
            let bias = Encoding::Float(Float::Bf16);
            let biases = self.has_biases.then(|| shapes.map(|(rows, _)| random.matrix(rows, 1, bias)));
            Expert { weights, biases }
        };
        let experts = (0..count).map(expert).collect();
        let mut indices = Vec::new();
        for _ in 0..n {
            let mut left: Vec<u32> = (0..count as u32).collect();
            for slot in 0..k {
                let at = if slot == 0 && self.is_skewed { 0 } else { random.below(left.len()) };
                indices.push(left.swap_remove(at));
            }
        }
        Data { experts, x: random.floats(n * hidden, 1.0), indices, factors: random.floats(n * k, 1.0) }
    }

    /// In calls, the experts asked for one by one in ascending order.
    fn run(&self, data: &Data, pool: &ThreadPool, schedule: &Schedule) -> Vec<f32> {
        let mut scratch = ExpertScratch::default();
        let mut y = vec![f32::NAN; data.x.len()];
        for call in schedule.ranges() {
            let part = |width: usize| call.start * width..call.end * width;
            let (x, choices) = (&data.x[part(self.hidden)], part(self.k));
            let (indices, factors) = (&data.indices[choices.clone()], &data.factors[choices]);
            let y = &mut y[part(self.hidden)];
            let (activation, precision) = (self.activation, self.precision);
            let expert = |e: u32| data.experts[e as usize].view();
            let args = ExpertsArgs { x, indices, weights: factors, k: self.k, activation };
            experts(pool, args, expert, precision, &mut scratch, y);
        }
        y
    }

    /// In one call, the experts in groups.
    fn run_in_groups(&self, data: &Data, pool: &ThreadPool) -> Vec<f32> {
        let Data { experts, x, indices, factors } = data;
        let mut scratch = ExpertScratch::default();
        let (k, activation) = (self.k, self.activation);
        let args = ExpertsArgs { x: &x[..], indices: &indices[..], weights: &factors[..], k, activation };
        let mut run = scratch.begin(args, self.precision);
        let mut order = run.experts().to_vec();
        if self.is_reversed {
            order.reverse();
        }
        for group in order.chunks(self.group) {
            let ready: Vec<_> = group.iter().map(|&index| (index, experts[index as usize].view())).collect();
            run.compute(pool, &ready);
        }
        let mut y = vec![f32::NAN; x.len()];
        run.finish(pool, &mut y);
        y
    }
}

#[test]
fn any_layer_is_the_weighted_sum() {
    let (sets, pools) = (Sets::lock(), Pools::new());
    property::check(1500, &layers(), |layer| {
        sets.choose(layer.schedule.set);
        let data = layer.data();
        let whole = layer.schedule.check(&pools, |pool, schedule| layer.run(&data, pool, schedule));
        let grouped = layer.run_in_groups(&data, pools.of(layer.schedule.threads));
        assert_eq!(bits(&grouped), bits(&whole), "in groups");
        let expected =
            formulas::experts(&data.experts, &data.x, &data.indices, &data.factors, layer.activation);
        match layer.precision {
            Precision::Exact => assert_close(&whole, &expected, 1e-5),
            // Activations of 12 bits and 8, a step of which is 0.8 % of the largest in its group: where one channel
            // dwarfs the others, little is left of them. What is computed with them is exact, and `int8` holds it to that.
            Precision::Fast => {
                let largest = expected.iter().fold(0.0f64, |max, y| max.max(y.abs()));
                for (found, expected) in whole.iter().zip(&expected) {
                    let error = (f64::from(*found) - expected).abs();
                    assert!(error <= 0.1 * largest, "expected {expected}, found {found}, of up to {largest}");
                }
            }
        }
    });
}
