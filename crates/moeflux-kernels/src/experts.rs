//! The routed experts of a mixture-of-experts layer.

use std::ops::Range;

use crate::elementwise::add_to_rows;
use crate::instruction_set::multiversion;
use crate::linear::{Rows, product, rows_per_task};
use crate::math::{sigmoid, silu};
use crate::matrix::Matrix;
use crate::pool::ThreadPool;
use crate::tile::{Tile, Tiling, for_each_tile};

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

/// Memory that calls of [`experts`] use again.
#[derive(Debug, Default)]
pub struct ExpertScratch {
    /// (expert, token, weight) of every choice, by expert, then token.
    choices: Vec<(u32, u32, f32)>,
    /// The tokens of `choices`.
    tokens: Vec<u32>,
    /// Activations of a batch's choices, `[choices, intermediate]`.
    activations: Vec<f32>,
}

/// Choices that make a batch of experts large enough to keep all threads busy.
const BATCH_CHOICES: usize = 64;

/// `y_t = Σ w · down(act(gate x_t, up x_t))` over the token's `k` experts, in ascending order of expert index; biases
/// are added to the products where an expert has them.
///
/// `x` and `y` are `[n, hidden]`, `indices` and `weights` `[n, k]`. Each expert is asked for once, in ascending order,
/// and multiplies all its tokens together. All experts have the same shapes; encodings may differ.
pub fn experts<'a>(
    pool: &ThreadPool,
    x: &[f32],
    indices: &[u32],
    weights: &[f32],
    k: usize,
    expert: impl Fn(u32) -> ExpertWeights<'a> + Sync,
    activation: Activation,
    scratch: &mut ExpertScratch,
    y: &mut [f32],
) {
    assert!(k > 0 && indices.len().is_multiple_of(k) && weights.len() == indices.len() && x.len() == y.len());
    let ExpertScratch { choices, tokens, activations } = scratch;
    choices.clear();
    choices.extend(indices.iter().zip(weights).enumerate().map(|(i, (&e, &w))| (e, (i / k) as u32, w)));
    choices.sort_by_key(|&(expert, token, _)| (expert, token));
    tokens.clear();
    tokens.extend(choices.iter().map(|&(_, token, _)| token));

    y.fill(0.0);
    let n = indices.len() / k;
    let hidden = x.len().checked_div(n).unwrap_or(0);
    assert_eq!(x.len(), n * hidden);
    let mut batch: Vec<Visit<'a>> = Vec::new();
    let mut first = 0;
    while first < choices.len() {
        batch.clear();
        let mut end = first;
        while end < choices.len() && end - first < BATCH_CHOICES {
            let index = choices[end].0;
            let count = choices[end..].iter().take_while(|choice| choice.0 == index).count();
            batch.push(Visit { weights: expert(index), choices: end - first..end - first + count });
            end += count;
        }
        let (choices, tokens) = (&choices[first..end], &tokens[first..end]);
        let batch = Batch { visits: &batch, choices, tokens, activation };
        batch.run(pool, x, hidden, activations, y);
        first = end;
    }
}

/// An expert, and the choices of its batch that are its own.
struct Visit<'a> {
    weights: ExpertWeights<'a>,
    choices: Range<usize>,
}

/// Experts that the threads work on together: each task takes some rows of every expert's matrices.
struct Batch<'a> {
    visits: &'a [Visit<'a>],
    choices: &'a [(u32, u32, f32)],
    tokens: &'a [u32],
    activation: Activation,
}

impl Batch<'_> {
    /// Adds the batch's share to `y`.
    fn run(&self, pool: &ThreadPool, x: &[f32], hidden: usize, activations: &mut Vec<f32>, y: &mut [f32]) {
        let Some(Visit { weights: ExpertWeights { gate, down, .. }, .. }) = self.visits.first() else {
            return;
        };
        let intermediate = gate.rows();
        for Visit { weights: ExpertWeights { gate, up, down, biases }, .. } in self.visits {
            assert!([gate, up].iter().all(|w| w.rows() == intermediate && w.cols() == hidden));
            assert!(down.rows() == hidden && down.cols() == intermediate);
            if let Some(ExpertBiases { gate, up, down }) = biases {
                assert!([gate, up].iter().all(|b| b.rows() == intermediate && b.cols() == 1));
                assert!(down.rows() == hidden && down.cols() == 1);
            }
        }
        let count = self.choices.len();

        activations.resize(count * intermediate, 0.0);
        let tiling = Tiling::columns(count, intermediate, rows_per_task(pool, gate, 2 * count));
        for_each_tile(pool, activations, tiling, |_, tile| self.activate(x, hidden, tile));

        let activations = &activations[..];
        let tiling = Tiling::columns(y.len() / hidden, hidden, rows_per_task(pool, down, count));
        for_each_tile(pool, y, tiling, |_, tile| self.combine(activations, intermediate, tile));
    }

    /// Rows of the gate and up projections, and their activation.
    fn activate(&self, x: &[f32], hidden: usize, tile: &mut Tile<'_>) {
        let (first_row, width) = (tile.first_column(), tile.width());
        let mut up = Vec::new();
        for Visit { weights, choices } in self.visits {
            let x = Rows::gathered(x, hidden, &self.tokens[choices.clone()]);
            let mut gate = tile.rows(choices.clone());
            product(&weights.gate, first_row, &x, &mut gate);
            up.resize(choices.len() * width, 0.0);
            let mut up = Tile::whole(&mut up, width);
            product(&weights.up, first_row, &x, &mut up);
            if let Some(biases) = &weights.biases {
                add_bias(&biases.gate, first_row, &mut gate, choices.len());
                add_bias(&biases.up, first_row, &mut up, choices.len());
            }
            for i in 0..choices.len() {
                activate(self.activation, gate.row(i), up.row(i));
            }
        }
    }

    /// Rows of the down projection, weighted and added to their tokens' sums.
    fn combine(&self, activations: &[f32], intermediate: usize, y: &mut Tile<'_>) {
        let (first_row, width) = (y.first_column(), y.width());
        let mut down = Vec::new();
        for Visit { weights, choices } in self.visits {
            let rows = choices.start * intermediate..choices.end * intermediate;
            let x = Rows::all(&activations[rows], intermediate);
            down.resize(choices.len() * width, 0.0);
            let mut tile = Tile::whole(&mut down, width);
            product(&weights.down, first_row, &x, &mut tile);
            if let Some(biases) = &weights.biases {
                add_bias(&biases.down, first_row, &mut tile, choices.len());
            }
            for (&(_, token, weight), down) in
                self.choices[choices.clone()].iter().zip(down.chunks_exact(width))
            {
                add_scaled(down, weight, y.row(token as usize));
            }
        }
    }
}

/// Adds rows `first_row..` of `bias` to each of the tile's `n` rows.
fn add_bias(bias: &Matrix<'_>, first_row: usize, tile: &mut Tile<'_>, n: usize) {
    let mut values = vec![0.0; tile.width()];
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
