//! The operations. A backend implements each of them, under the same name.

use moeflux_kernels::{AttentionShape, DeltaShape};

/// A transient tensor of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub usize);

/// One operation. Fields named `x`, `q`, … and `out` are tensors; `weight`, `state` and the like index the model's
/// [`WeightTable`](super::WeightTable). Rows are independent of each other save through states.
#[expect(missing_docs, reason = "the formula above a variant names its fields")]
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `out[t] = table[token[t]]`.
    Embed { table: usize, out: TensorId },
    /// The rows that logits are asked for.
    SelectOutputs { x: TensorId, out: TensorId },
    /// `x·rsqrt(mean(x²) + eps)·w` over groups of the weight's length (Zhang & Sennrich 2019).
    RmsNorm { x: TensorId, weight: usize, eps: f32, out: TensorId },
    /// `y = W·x`.
    Linear { x: TensorId, weight: usize, out: TensorId },
    /// `a + b`.
    Add { a: TensorId, b: TensorId, out: TensorId },
    /// Columns from `first` on.
    Columns { x: TensorId, first: usize, out: TensorId },
    /// Splits groups of `2·dim` columns into their halves.
    SplitPairs { x: TensorId, dim: usize, left: TensorId, right: TensorId },
    /// Turns pairs of channels by the token's position (Su et al. 2021).
    Rope { x: TensorId, head_dim: usize, rope: usize, out: TensorId },
    /// Appends `k` and `v` to the KV cache, then attends causally (Vaswani et al. 2017; GQA: Ainslie et al. 2023).
    Attention {
        q: TensorId,
        k: TensorId,
        v: TensorId,
        state: usize,
        shape: AttentionShape,
        scale: f32,
        out: TensorId,
    },
    /// `x·σ(gate)`.
    SigmoidGate { x: TensorId, gate: TensorId, out: TensorId },
    /// Depthwise causal convolution over tokens, then SiLU.
    Conv1dSilu { x: TensorId, weight: usize, kernel: usize, state: usize, out: TensorId },
    /// `x·rsqrt(Σx² + eps)·scale` over groups of `dim`.
    L2Norm { x: TensorId, dim: usize, eps: f32, scale: f32, out: TensorId },
    /// `decay = exp(-exp(A_log)·softplus(a + dt_bias))`, `beta = σ(b)`.
    DecayBeta { a: TensorId, b: TensorId, a_log: usize, dt_bias: usize, decay: TensorId, beta: TensorId },
    /// The gated delta rule, token by token (Yang et al. 2024).
    GatedDelta {
        q: TensorId,
        k: TensorId,
        v: TensorId,
        decay: TensorId,
        beta: TensorId,
        state: usize,
        shape: DeltaShape,
        out: TensorId,
    },
    /// `rms(x)·w·silu(gate)` over groups of the weight's length.
    GatedRmsNorm { x: TensorId, gate: TensorId, weight: usize, eps: f32, out: TensorId },
    /// Softmax over all experts, then the `k` largest, their weights divided by their sum if `renormalize`.
    SoftmaxTopK { logits: TensorId, k: usize, renormalize: bool, ids: TensorId, weights: TensorId },
    /// `Σ w·down(silu(gate·x) ⊙ up·x)` over the token's `k` experts, in ascending expert order.
    Experts { x: TensorId, ids: TensorId, weights: TensorId, experts: usize, k: usize, out: TensorId },
    /// `silu(gate)·up`.
    Swiglu { gate: TensorId, up: TensorId, out: TensorId },
    /// `x[t]·σ(score[t])`.
    ScaleBySigmoid { x: TensorId, score: TensorId, out: TensorId },
}

/// Weights that an operation reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightRead {
    /// A whole matrix.
    Matrix(usize),
    /// One row of a matrix for each token.
    Row(usize),
    /// A whole vector.
    Vector(usize),
    /// `k` experts of a layer for each token.
    Experts {
        /// The layer's entry in the table.
        experts: usize,
        /// Experts for each token.
        k: usize,
    },
}

impl Op {
    /// The operation's name, the same in every backend.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::SelectOutputs { .. } => "select_outputs",
            Op::RmsNorm { .. } => "rms_norm",
            Op::Linear { .. } => "linear",
            Op::Add { .. } => "add",
            Op::Columns { .. } => "columns",
            Op::SplitPairs { .. } => "split_pairs",
            Op::Rope { .. } => "rope",
            Op::Attention { .. } => "attention",
            Op::SigmoidGate { .. } => "sigmoid_gate",
            Op::Conv1dSilu { .. } => "conv1d_silu",
            Op::L2Norm { .. } => "l2_norm",
            Op::DecayBeta { .. } => "decay_beta",
            Op::GatedDelta { .. } => "gated_delta",
            Op::GatedRmsNorm { .. } => "gated_rms_norm",
            Op::SoftmaxTopK { .. } => "softmax_top_k",
            Op::Experts { .. } => "experts",
            Op::Swiglu { .. } => "swiglu",
            Op::ScaleBySigmoid { .. } => "scale_by_sigmoid",
        }
    }

    /// The tensors it reads.
    pub fn reads(&self) -> Vec<TensorId> {
        match *self {
            Op::Embed { .. } => vec![],
            Op::SelectOutputs { x, .. }
            | Op::RmsNorm { x, .. }
            | Op::Linear { x, .. }
            | Op::Columns { x, .. }
            | Op::SplitPairs { x, .. }
            | Op::Rope { x, .. }
            | Op::Conv1dSilu { x, .. }
            | Op::L2Norm { x, .. } => vec![x],
            Op::Add { a, b, .. } | Op::DecayBeta { a, b, .. } => vec![a, b],
            Op::Attention { q, k, v, .. } => vec![q, k, v],
            Op::SigmoidGate { x, gate, .. } | Op::GatedRmsNorm { x, gate, .. } => vec![x, gate],
            Op::GatedDelta { q, k, v, decay, beta, .. } => vec![q, k, v, decay, beta],
            Op::SoftmaxTopK { logits, .. } => vec![logits],
            Op::Experts { x, ids, weights, .. } => vec![x, ids, weights],
            Op::Swiglu { gate, up, .. } => vec![gate, up],
            Op::ScaleBySigmoid { x, score, .. } => vec![x, score],
        }
    }

    /// The tensors it writes, whole.
    pub fn writes(&self) -> Vec<TensorId> {
        match *self {
            Op::Embed { out, .. }
            | Op::SelectOutputs { out, .. }
            | Op::RmsNorm { out, .. }
            | Op::Linear { out, .. }
            | Op::Add { out, .. }
            | Op::Columns { out, .. }
            | Op::Rope { out, .. }
            | Op::Attention { out, .. }
            | Op::SigmoidGate { out, .. }
            | Op::Conv1dSilu { out, .. }
            | Op::L2Norm { out, .. }
            | Op::GatedDelta { out, .. }
            | Op::GatedRmsNorm { out, .. }
            | Op::Experts { out, .. }
            | Op::Swiglu { out, .. }
            | Op::ScaleBySigmoid { out, .. } => vec![out],
            Op::SplitPairs { left, right, .. } => vec![left, right],
            Op::DecayBeta { decay, beta, .. } => vec![decay, beta],
            Op::SoftmaxTopK { ids, weights, .. } => vec![ids, weights],
        }
    }

    /// The weights it reads.
    pub fn weights(&self) -> Vec<WeightRead> {
        match *self {
            Op::Embed { table, .. } => vec![WeightRead::Row(table)],
            Op::Linear { weight, .. } => vec![WeightRead::Matrix(weight)],
            Op::RmsNorm { weight, .. } | Op::GatedRmsNorm { weight, .. } | Op::Conv1dSilu { weight, .. } => {
                vec![WeightRead::Vector(weight)]
            }
            Op::DecayBeta { a_log, dt_bias, .. } => {
                vec![WeightRead::Vector(a_log), WeightRead::Vector(dt_bias)]
            }
            Op::Experts { experts, k, .. } => vec![WeightRead::Experts { experts, k }],
            _ => vec![],
        }
    }
}
