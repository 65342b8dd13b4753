//! What kernels compute, written again as it is defined, slowly and in f64.

use crate::support::{OwnedMatrix, f64s};
use moeflux_kernels::{
    Activation, AttentionShape, DeltaShape, ExpertBiases, ExpertWeights, HeadOrder, MlaShape,
};

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `w · x` for each row of `x`.
pub(crate) fn linear(w: &OwnedMatrix, x: &[f32]) -> Vec<f64> {
    products(w, x, |product| product)
}

/// The sums of the magnitudes of what [`linear`] adds, to which rounding errors are in proportion.
pub(crate) fn linear_magnitudes(w: &OwnedMatrix, x: &[f32]) -> Vec<f64> {
    products(w, x, f64::abs)
}

fn products(w: &OwnedMatrix, x: &[f32], f: impl Fn(f64) -> f64) -> Vec<f64> {
    let weights: Vec<Vec<f64>> = (0..w.rows).map(|row| w.row(row)).collect();
    let sum = |w: &Vec<f64>, x: &[f32]| w.iter().zip(x).map(|(w, x)| f(w * f64::from(*x))).sum();
    x.chunks(w.cols).flat_map(|x| weights.iter().map(|w| sum(w, x)).collect::<Vec<_>>()).collect()
}

/// A softmax over all positions seen, at once.
pub(crate) fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    sinks: Option<&[f32]>,
    shape: &AttentionShape,
    first: usize,
    scale: f64,
) -> Vec<f64> {
    let AttentionShape { heads, kv_heads, head_dim, window } = *shape;
    let mut y = vec![0.0; q.len()];
    for (row, (q, y)) in q.chunks(head_dim).zip(y.chunks_mut(head_dim)).enumerate() {
        let (t, head) = (row / heads, row % heads);
        let of = |x: &'_ [f32], p: usize| (p * kv_heads + head * kv_heads / heads) * head_dim..x.len();
        let start = window.map_or(0, |window| (first + t + 1).saturating_sub(window));
        let score = |p| dot(q, &k[of(k, p)]) * scale;
        let scores: Vec<f64> = (start..=first + t).map(score).collect();
        let sink = sinks.map(|sinks| f64::from(sinks[head]));
        add_softmax(&scores, sink, y, |i| &v[of(v, start + i)]);
    }
    y
}

/// The same over latents and rotary keys, which all heads share.
pub(crate) fn mla_attention(
    (q, q_rope): (&[f32], &[f32]),
    latents: &[f32],
    keys: &[f32],
    shape: &MlaShape,
    first: usize,
    scale: f64,
) -> Vec<f64> {
    let MlaShape { heads, rank, rope_dim } = *shape;
    let mut y = vec![0.0; q.len()];
    let rows = q.chunks(rank).zip(q_rope.chunks(rope_dim)).zip(y.chunks_mut(rank));
    for (row, ((q, q_rope), y)) in rows.enumerate() {
        let score = |p: usize| (dot(q, &latents[p * rank..]) + dot(q_rope, &keys[p * rope_dim..])) * scale;
        let scores: Vec<f64> = (0..=first + row / heads).map(score).collect();
        add_softmax(&scores, None, y, |p| &latents[p * rank..]);
    }
    y
}

/// Adds values, by their number, weighted with the softmax of their scores and maybe a sink's.
fn add_softmax<'v>(scores: &[f64], sink: Option<f64>, y: &mut [f64], value: impl Fn(usize) -> &'v [f32]) {
    let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let sum = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - max).exp());
    for (i, weight) in weights.iter().enumerate() {
        for (y, v) in y.iter_mut().zip(value(i)) {
            *y += weight / sum * f64::from(*v);
        }
    }
}

/// The inner product of `a` with as many of `b`.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// A causal depthwise convolution, then SiLU; the inputs before `x` are in `state`.
pub(crate) fn convolution(x: &[f32], weight: &[f32], kernel: usize, state: &[f32]) -> Vec<f64> {
    let channels = weight.len() / kernel;
    let inputs = [state, x].concat();
    (0..x.len())
        .map(|i| {
            let tap = |j| f64::from(weight[i % channels * kernel + j]) * f64::from(inputs[i + j * channels]);
            let sum: f64 = (0..kernel).map(tap).sum();
            sum * sigmoid(sum)
        })
        .collect()
}

/// What the gated delta rule takes.
pub(crate) struct DeltaInputs {
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) decay: Vec<f32>,
    pub(crate) beta: Vec<f32>,
    pub(crate) state: Vec<f32>,
}

/// The recurrence, channel by channel: outputs and the state after the last token.
pub(crate) fn delta_rule(inputs: &DeltaInputs, shape: &DeltaShape) -> (Vec<f64>, Vec<f64>) {
    let DeltaShape { key_heads, value_heads, key_dim, value_dim, order } = *shape;
    let DeltaInputs { q, k, v, decay, beta, state } = inputs;
    let mut s = f64s(state);
    let mut y = vec![0.0; v.len()];
    for t in 0..decay.len() / value_heads {
        for head in 0..value_heads {
            let key_head = match order {
                HeadOrder::Grouped => head * key_heads / value_heads,
                HeadOrder::Tiled => head % key_heads,
            };
            let key = (t * key_heads + key_head) * key_dim;
            let gate = t * value_heads + head;
            for j in 0..value_dim {
                let at = |d: usize| (head * key_dim + d) * value_dim + j;
                let out = gate * value_dim + j;
                (0..key_dim).for_each(|d| s[at(d)] *= f64::from(decay[gate]));
                let recalled: f64 = (0..key_dim).map(|d| s[at(d)] * f64::from(k[key + d])).sum();
                let change = (f64::from(v[out]) - recalled) * f64::from(beta[gate]);
                (0..key_dim).for_each(|d| s[at(d)] += f64::from(k[key + d]) * change);
                y[out] = (0..key_dim).map(|d| s[at(d)] * f64::from(q[key + d])).sum();
            }
        }
    }
    (y, s)
}

/// The matrices of an expert, gate, up and down, and their biases.
pub(crate) struct Expert {
    pub(crate) weights: [OwnedMatrix; 3],
    pub(crate) biases: Option<[OwnedMatrix; 3]>,
}

impl Expert {
    pub(crate) fn view(&self) -> ExpertWeights<'_> {
        let [gate, up, down] = self.weights.each_ref().map(OwnedMatrix::view);
        let biases = self.biases.as_ref().map(|biases| {
            let [gate, up, down] = biases.each_ref().map(OwnedMatrix::view);
            ExpertBiases { gate, up, down }
        });
        ExpertWeights { gate, up, down, biases }
    }
}

/// A matrix, row by row.
type Rows = Vec<Vec<f64>>;

/// The weighted sum of what the experts that each token chose give.
pub(crate) fn experts(
    experts: &[Expert],
    x: &[f32],
    indices: &[u32],
    factors: &[f32],
    activation: Activation,
) -> Vec<f64> {
    let hidden = experts[0].weights[2].rows;
    let k = indices.len() * hidden / x.len().max(1);
    let act = |g: f64, u: f64| match activation {
        Activation::Swiglu => g * sigmoid(g) * u,
        Activation::ClampedSwiglu { alpha, limit } => {
            let (alpha, limit) = (f64::from(alpha), f64::from(limit));
            let (g, u) = (g.min(limit), u.clamp(-limit, limit));
            (u + 1.0) * g * sigmoid(alpha * g)
        }
    };
    // Decoded by the kernels, which other tests compare with decoding bit by bit.
    let rows = |w: &OwnedMatrix| -> Rows {
        let decode = |row| {
            let mut values = vec![0.0; w.cols];
            w.view().dequantize_row(row, &mut values);
            f64s(&values)
        };
        (0..w.rows).map(decode).collect()
    };
    let decoded: Vec<[(Rows, Vec<f64>); 3]> = experts
        .iter()
        .map(|Expert { weights, biases }| {
            std::array::from_fn(|part| {
                let weights = rows(&weights[part]);
                let bias = biases.as_ref().map(|biases| rows(&biases[part]).concat());
                let bias = bias.unwrap_or_else(|| vec![0.0; weights.len()]);
                (weights, bias)
            })
        })
        .collect();
    let mut y = vec![0.0; x.len()];
    for (t, x) in x.chunks(hidden).enumerate() {
        for slot in t * k..(t + 1) * k {
            let product = |part: usize, x: &[f64]| -> Vec<f64> {
                let (weights, bias) = &decoded[indices[slot] as usize][part];
                let row = |w: &Vec<f64>| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
                weights.iter().zip(bias).map(|(w, bias)| row(w) + bias).collect()
            };
            let (gate, up) = (product(0, &f64s(x)), product(1, &f64s(x)));
            let activated: Vec<f64> = gate.iter().zip(up).map(|(g, u)| act(*g, u)).collect();
            for (y, value) in y[t * hidden..].iter_mut().zip(product(2, &activated)) {
                *y += f64::from(factors[slot]) * value;
            }
        }
    }
    y
}
