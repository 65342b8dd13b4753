//! The routed experts of a mixture-of-experts layer.

use std::ops::Range;

use crate::elementwise::add_to_rows;
use crate::instruction_set::multiversion;
use crate::int8::groups::Groups;
use crate::int8::weights::Format;
use crate::int8::{self, Input, PLANES, Tokens};
use crate::linear::{Rows, product};
use crate::math::{sigmoid, silu};
use crate::matrix::Matrix;
use crate::pool::ThreadPool;
use crate::precision::Precision;
use crate::tile::{Band, Tile, Tiling, for_each_band_tile, for_each_tile};

/// The three linear maps of one expert.
#[derive(Clone, Copy, Debug)]
pub struct ExpertWeights<'a> {
    /// `[intermediate, hidden]`.
    pub gate: Matrix<'a>,
    /// `[intermediate, hidden]`.
    pub up: Matrix<'a>,
    /// `[hidden, intermediate]`.
    pub down: Matrix<'a>,
    /// What is added to the products, if anything.
    pub biases: Option<ExpertBiases<'a>>,
}

/// The biases of one expert, each a column.
#[derive(Clone, Copy, Debug)]
pub struct ExpertBiases<'a> {
    /// `[intermediate, 1]`.
    pub gate: Matrix<'a>,
    /// `[intermediate, 1]`.
    pub up: Matrix<'a>,
    /// `[hidden, 1]`.
    pub down: Matrix<'a>,
}

/// What an expert makes of its two inner products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `silu(gate)·up` (Shazeer 2020).
    Swiglu,
    /// `gate·sigmoid(alpha·gate)·(up + 1)` with `gate` at most `limit` and `up` between `±limit` (gpt-oss).
    ClampedSwiglu {
        /// Slope inside the sigmoid.
        alpha: f32,
        /// Where the inputs are cut.
        limit: f32,
    },
}

/// Memory that layers of experts use again.
#[derive(Debug, Default)]
pub struct ExpertScratch {
    /// (expert, token, weight) of every choice, by expert, then token.
    choices: Vec<(u32, u32, f32)>,
    /// The tokens of `choices`.
    tokens: Vec<u32>,
    /// The experts chosen, ascending.
    experts: Vec<u32>,
    /// Where the choices of each of `experts` begin, and where the last one's end.
    starts: Vec<usize>,
    /// For each token, which of `choices` are its own, by expert: `[n, k]`.
    of_token: Vec<u32>,
    /// `[choices, intermediate]`.
    activations: Vec<f32>,
    /// What the down projections give, `[choices, hidden]`.
    outputs: Vec<f32>,
    /// In fast mode: `x`, each expert's tokens of it a group.
    inputs: Groups,
    /// In fast mode: the activations of the experts at hand, each expert's a group.
    intermediates: Groups,
}

/// Experts that the threads work on together in [`experts`]: after each batch all wait for the last of them.
pub const BATCH_EXPERTS: usize = 32;

/// Inputs of a layer of experts. `X` is `&[f32]` and `I` `&[u32]`, or both are views of a device's memory.
#[derive(Clone, Copy, Debug)]
pub struct ExpertsArgs<X, I> {
    /// `[n, hidden]`.
    pub x: X,
    /// The experts that each token chose, `[n, k]`.
    pub indices: I,
    /// The weight of each choice, `[n, k]`.
    pub weights: X,
    /// Experts of a token.
    pub k: usize,
    /// Activation that joins the gate and up projections of an expert.
    pub activation: Activation,
}

/// `y_t = Σ w · down(act(gate x_t, up x_t))` over the token's `k` experts, in ascending order of expert index; biases
/// are added to the products where an expert has them.
///
/// `y` is `[n, hidden]`. Each expert is asked for once, in ascending order, and multiplies all its tokens together. All experts
/// have the same shapes; encodings may differ.
pub fn experts<'a>(
    pool: &ThreadPool,
    args: ExpertsArgs<&[f32], &[u32]>,
    expert: impl Fn(u32) -> ExpertWeights<'a> + Sync,
    precision: Precision,
    scratch: &mut ExpertScratch,
    y: &mut [f32],
) {
    let mut run = scratch.begin(args, precision);
    for first in (0..run.experts().len()).step_by(BATCH_EXPERTS) {
        let chosen = &run.experts()[first..];
        let ready: Vec<_> = chosen.iter().take(BATCH_EXPERTS).map(|&index| (index, expert(index))).collect();
        run.compute(pool, &ready);
    }
    run.finish(pool, y);
}

impl ExpertScratch {
    /// Begins a layer of experts.
    pub fn begin<'s>(
        &'s mut self,
        args: ExpertsArgs<&'s [f32], &'s [u32]>,
        precision: Precision,
    ) -> ExpertRun<'s> {
        let ExpertsArgs { x, indices, weights, k, activation } = args;
        assert!(k > 0 && indices.len().is_multiple_of(k) && weights.len() == indices.len());
        let n = indices.len() / k;
        let hidden = x.len().checked_div(n).unwrap_or(0);
        assert_eq!(x.len(), n * hidden);

        let ExpertScratch { choices, tokens, experts, starts, of_token, .. } = self;
        choices.clear();
        choices.extend(indices.iter().zip(weights).enumerate().map(|(i, (&e, &w))| (e, (i / k) as u32, w)));
        choices.sort_by_key(|&(expert, token, _)| (expert, token));
        for list in [&mut *tokens, &mut *experts, &mut *of_token] {
            list.clear();
        }
        starts.clear();
        of_token.resize(choices.len(), 0);
        let mut found = vec![0; n];
        for (i, &(expert, token, _)) in choices.iter().enumerate() {
            if experts.last() != Some(&expert) {
                experts.push(expert);
                starts.push(i);
            }
            let slot = &mut found[token as usize];
            of_token[token as usize * k + *slot] = i as u32;
            *slot += 1;
            tokens.push(token);
        }
        starts.push(choices.len());
        self.outputs.resize(self.choices.len() * hidden, 0.0);
        let computed = vec![false; self.experts.len()];
        ExpertRun { scratch: self, x, hidden, k, activation, precision, quantized: false, computed }
    }
}

/// Experts of one layer, computed as their weights come: `y_t = Σ w · down(act(gate x_t, up x_t))` over the token's `k`
/// experts in ascending order of expert index, whatever order and grouping they were computed in.
///
/// All experts have the same shapes; encodings may differ.
#[derive(Debug)]
pub struct ExpertRun<'s> {
    scratch: &'s mut ExpertScratch,
    x: &'s [f32],
    hidden: usize,
    k: usize,
    activation: Activation,
    precision: Precision,
    /// Whether `x` is.
    quantized: bool,
    /// Which of the experts are done.
    computed: Vec<bool>,
}

/// An expert that is ready, and its choices.
struct Visit<'a> {
    weights: &'a ExpertWeights<'a>,
    choices: Range<usize>,
}

impl ExpertRun<'_> {
    /// The experts that tokens chose, ascending.
    pub fn experts(&self) -> &[u32] {
        &self.scratch.experts
    }

    /// Computes these experts for all their tokens; each expert once in a run.
    pub fn compute(&mut self, pool: &ThreadPool, ready: &[(u32, ExpertWeights<'_>)]) {
        let mut visits: Vec<Visit<'_>> = ready
            .iter()
            .map(|(index, weights)| {
                let at = self.scratch.experts.binary_search(index);
                let at = at.unwrap_or_else(|_| unreachable!("expert {index} was not chosen"));
                assert!(!std::mem::replace(&mut self.computed[at], true), "expert {index} is done");
                Visit { weights, choices: self.scratch.starts[at]..self.scratch.starts[at + 1] }
            })
            .collect();
        let Some(Visit { weights: ExpertWeights { gate, .. }, .. }) = visits.first() else {
            return;
        };
        let (intermediate, hidden) = (gate.rows(), self.hidden);
        for Visit { weights, .. } in &visits {
            weights.check(intermediate, hidden);
        }
        visits.sort_by_key(|visit| visit.choices.start);

        let ExpertScratch { tokens, activations, outputs, choices, inputs, intermediates, .. } =
            &mut *self.scratch;
        let (x, activation) = (self.x, self.activation);
        let has_format = |w: &Matrix<'_>| Format::of_expert(w).is_some();
        let quantized = |Visit { weights: ExpertWeights { gate, up, down, .. }, .. }: &Visit<'_>| {
            [gate, up, down].into_iter().any(has_format)
        };
        let precision = if visits.iter().any(quantized) { self.precision } else { Precision::Exact };
        // Planes of activations that these matrices take, all together.
        let planes = |matrix: &dyn Fn(&Visit<'_>) -> usize| visits.iter().map(matrix).max().unwrap_or(1);
        let of = |w: &Matrix<'_>| Format::of_expert(w).map_or(1, |format| format.planes);
        let planes_in = planes(&|visit| of(&visit.weights.gate).max(of(&visit.weights.up)));
        let planes_down = planes(&|visit| of(&visit.weights.down));
        if precision == Precision::Fast {
            if !std::mem::replace(&mut self.quantized, true) {
                // Experts that come later may take more planes than these.
                inputs.quantize(pool, hidden, PLANES, &Rows::all(x, hidden));
            }
            let chosen = |visit: &Visit<'_>| Tokens::Chosen(&tokens[visit.choices.clone()]);
            inputs.group(pool, hidden, planes_in, visits.iter().map(chosen));
        }
        activations.resize(choices.len() * intermediate, 0.0);
        let bands = bands(pool, &visits, |weights| (&weights.gate, 2));
        for_each_band_tile(pool, activations, intermediate, &bands, |visit, gate| {
            let Visit { weights, choices } = &visits[visit];
            let tokens = &tokens[choices.clone()];
            let x = Rows::gathered(x, hidden, tokens);
            let input = || inputs.input(visit, Tokens::Chosen(tokens));
            gate_and_up(weights, precision, &x, input, activation, gate);
        });

        // The rows of `intermediates` are the choices at hand, one expert's after the other's.
        let mut first = 0;
        let rows_at_hand: Vec<Range<usize>> = visits
            .iter()
            .map(|Visit { choices, .. }| {
                first += choices.len();
                first - choices.len()..first
            })
            .collect();
        if precision == Precision::Fast {
            let at_hand: Vec<u32> =
                visits.iter().flat_map(|visit| visit.choices.clone()).map(|i| i as u32).collect();
            let x = Rows::gathered(activations, intermediate, &at_hand);
            intermediates.quantize(pool, intermediate, planes_down, &x);
            intermediates.group(
                pool,
                intermediate,
                planes_down,
                rows_at_hand.iter().cloned().map(Tokens::Range),
            );
        }
        let bands = self::bands(pool, &visits, |weights| (&weights.down, 1));
        for_each_band_tile(pool, outputs, hidden, &bands, |visit, down| {
            let Visit { weights, choices } = &visits[visit];
            let rows = choices.start * intermediate..choices.end * intermediate;
            let x = Rows::all(&activations[rows], intermediate);
            let input = || intermediates.input(visit, Tokens::Range(rows_at_hand[visit].clone()));
            multiply(&weights.down, precision, &x, input, down);
            if let Some(biases) = &weights.biases {
                add_bias(&biases.down, down, x.len());
            }
        });
    }

    /// Adds what the experts gave: `y` is `[n, hidden]`. All must have been computed.
    pub fn finish(self, pool: &ThreadPool, y: &mut [f32]) {
        assert!(self.computed.iter().all(|&computed| computed), "an expert was not computed");
        assert_eq!(y.len(), self.x.len());
        let (hidden, k) = (self.hidden, self.k);
        let ExpertScratch { choices, of_token, outputs, .. } = &*self.scratch;
        let width = pool.units_per_task(hidden, k);
        let tiling = Tiling { groups: of_token.len() / k, rows: 1, stride: hidden, width };
        for_each_tile(pool, y, tiling, |index, y| {
            let token = index / hidden.div_ceil(width);
            let (first, width) = (y.first_column(), y.width());
            let y = y.row(0);
            y.fill(0.0);
            for &choice in &of_token[token * k..(token + 1) * k] {
                let output = &outputs[choice as usize * hidden + first..][..width];
                add_scaled(output, choices[choice as usize].2, y);
            }
        });
    }
}

impl ExpertWeights<'_> {
    /// The shapes must be those of a layer of experts.
    fn check(&self, intermediate: usize, hidden: usize) {
        let ExpertWeights { gate, up, down, biases } = self;
        assert!([gate, up].iter().all(|w| w.rows() == intermediate && w.cols() == hidden));
        assert!(down.rows() == hidden && down.cols() == intermediate);
        if let Some(ExpertBiases { gate, up, down }) = biases {
            assert!([gate, up].iter().all(|b| b.rows() == intermediate && b.cols() == 1));
            assert!(down.rows() == hidden && down.cols() == 1);
        }
    }
}

/// How the experts' products are cut into tasks of about equal work; `matrix` gives an expert's matrix and how many of
/// its shape are multiplied.
fn bands<'a>(
    pool: &ThreadPool,
    visits: &[Visit<'a>],
    matrix: impl Fn(&'a ExpertWeights<'a>) -> (&'a Matrix<'a>, usize),
) -> Vec<Band> {
    let work_of_a_row = |visit: &Visit<'a>| {
        let (matrix, count) = matrix(visit.weights);
        matrix.cols() * count * (visit.choices.len() + 1)
    };
    let rows = |visit: &Visit<'a>| matrix(visit.weights).0.rows();
    let work = visits.iter().map(|visit| rows(visit) * work_of_a_row(visit)).sum();
    let task = pool.units_per_task(work, 1);
    let band = |visit: &Visit<'a>| {
        let together = int8::rows_together(visit.choices.len());
        let width = (task / work_of_a_row(visit).max(1)).next_multiple_of(together).max(together);
        Band { rows: visit.choices.clone(), width }
    };
    visits.iter().map(band).collect()
}

/// The rows of `w` that are the tile's columns times `x`, or `input`, which is `x` quantised.
fn multiply<'a>(
    w: &Matrix<'_>,
    precision: Precision,
    x: &Rows<'_>,
    input: impl FnOnce() -> Input<'a>,
    y: &mut Tile<'_>,
) {
    match Format::of_expert(w) {
        Some(format) if precision == Precision::Fast => {
            int8::product(w, format, y.first_column(), &input(), y);
        }
        _ => product(w, y.first_column(), x, y),
    }
}

/// Rows of the gate and up projections, and their activation.
fn gate_and_up<'a>(
    weights: &ExpertWeights<'_>,
    precision: Precision,
    x: &Rows<'_>,
    input: impl Fn() -> Input<'a>,
    activation: Activation,
    gate: &mut Tile<'_>,
) {
    let (first_row, width) = (gate.first_column(), gate.width());
    multiply(&weights.gate, precision, x, &input, gate);
    let mut up = vec![0.0; x.len() * width];
    let mut up = Tile::of_columns(&mut up, first_row, width);
    multiply(&weights.up, precision, x, &input, &mut up);
    if let Some(biases) = &weights.biases {
        add_bias(&biases.gate, gate, x.len());
        add_bias(&biases.up, &mut up, x.len());
    }
    for i in 0..x.len() {
        activate(activation, gate.row(i), up.row(i));
    }
}

/// Adds to each of the tile's `n` rows the rows of `bias` that are its columns.
fn add_bias(bias: &Matrix<'_>, tile: &mut Tile<'_>, n: usize) {
    let (first_row, mut values) = (tile.first_column(), vec![0.0; tile.width()]);
    for (i, value) in values.iter_mut().enumerate() {
        bias.dequantize_row(first_row + i, std::array::from_mut(value));
    }
    for t in 0..n {
        add_to_rows(&values, tile.row(t));
    }
}

multiversion! {
    /// `gate = act(gate, up)`.
    fn activate(activation: Activation, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        match activation {
            Activation::Swiglu => {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate = silu(*gate) * up;
                }
            }
            Activation::ClampedSwiglu { alpha, limit } => {
                for (gate, up) in gate.iter_mut().zip(up) {
                    // `clamp` passes a NaN on, `min` would hide it.
                    let (g, u) = (gate.clamp(f32::NEG_INFINITY, limit), up.clamp(-limit, limit));
                    *gate = (u + 1.0) * (g * sigmoid(g * alpha));
                }
            }
        }
    }
}

multiversion! {
    /// `y += weight · x`.
    fn add_scaled(x: &[f32], weight: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += weight * x;
        }
    }
}
