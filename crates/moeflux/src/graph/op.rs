//! The operations. A backend implements each of them, under the same name.

use std::fmt;
use std::ops::Range;

use moeflux_kernels::{Activation, AttentionShape, DeltaShape, MlaShape, Routing};

/// A transient tensor of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub usize);

/// Defines the ids of a [`WeightTable`](super::WeightTable), one type for each of its lists.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub usize);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// A matrix of the model.
    MatrixId;
    /// A vector of the model.
    VectorId;
    /// The routed experts of a layer; the number is that of the layer in the expert store.
    ExpertsId;
    /// A rotary embedding of the model.
    RopeId;
    /// A state of each sequence of the model.
    StateId;
}

/// One operation. Fields named `x`, `q`, … and `out` are tensors; `weight`, `state` and the like index the model's
/// [`WeightTable`](super::WeightTable). Rows are independent of each other save through states.
#[expect(missing_docs, reason = "the formula above a variant names its fields")]
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `out[t] = table[token[t]]`.
    Embed { table: MatrixId, out: TensorId },
    /// The rows given with the step ([`Step::hidden_input`](crate::backend::Step::hidden_input)).
    HiddenInput { out: TensorId },
    /// The rows that logits are asked for.
    SelectOutputs { x: TensorId, out: TensorId },
    /// `x·rsqrt(mean(x²) + eps)·w` over groups of the weight's length (Zhang & Sennrich 2019).
    RmsNorm { x: TensorId, weight: VectorId, eps: f32, out: TensorId },
    /// `y = W·x`, plus the bias if there is one.
    Linear { x: TensorId, weight: MatrixId, bias: Option<VectorId>, out: TensorId },
    /// `a + b`.
    Add { a: TensorId, b: TensorId, out: TensorId },
    /// The columns of `a`, then those of `b`.
    Concat { a: TensorId, b: TensorId, out: TensorId },
    /// Of columns in groups of `group`: part by part the part's columns of every group.
    Columns { x: TensorId, group: usize, parts: Vec<Range<usize>>, out: TensorId },
    /// Turns pairs of channels by the token's position (Su et al. 2021).
    Rope { x: TensorId, head_dim: usize, rope: RopeId, out: TensorId },
    /// `W_h·x_h` for each head `h`, or `W_hᵀ·x_h`; the weight has the heads' matrices one after the other.
    HeadLinear { x: TensorId, weight: MatrixId, heads: usize, transposed: bool, out: TensorId },
    /// Appends `k` and `v` to the KV cache, then attends causally (Vaswani et al. 2017; GQA: Ainslie et al. 2023). Sinks,
    /// one a head, are scores without a value.
    Attention {
        q: TensorId,
        k: TensorId,
        v: TensorId,
        state: StateId,
        shape: AttentionShape,
        sinks: Option<VectorId>,
        scale: f32,
        out: TensorId,
    },
    /// Appends latents and rotary keys to the cache, then attends to them causally in the space of latents (DeepSeek-V2,
    /// 2024, with the up-projections folded into queries and outputs).
    MlaAttention {
        q: TensorId,
        q_rope: TensorId,
        latent: TensorId,
        k_rope: TensorId,
        state: StateId,
        shape: MlaShape,
        scale: f32,
        out: TensorId,
    },
    /// `x·σ(gate)`.
    SigmoidGate { x: TensorId, gate: TensorId, out: TensorId },
    /// Depthwise causal convolution over tokens, then SiLU.
    Conv1dSilu { x: TensorId, weight: VectorId, kernel: usize, state: StateId, out: TensorId },
    /// `x·rsqrt(Σx² + eps)·scale` over groups of `dim`.
    L2Norm { x: TensorId, dim: usize, eps: f32, scale: f32, out: TensorId },
    /// `decay = exp(-exp(A_log)·softplus(a + dt_bias))`, `beta = σ(b)`.
    DecayBeta {
        a: TensorId,
        b: TensorId,
        a_log: VectorId,
        dt_bias: VectorId,
        decay: TensorId,
        beta: TensorId,
    },
    /// The gated delta rule, token by token (Yang et al. 2024).
    GatedDelta {
        q: TensorId,
        k: TensorId,
        v: TensorId,
        decay: TensorId,
        beta: TensorId,
        state: StateId,
        shape: DeltaShape,
        out: TensorId,
    },
    /// `rms(x)·w·silu(gate)` over groups of the weight's length.
    GatedRmsNorm { x: TensorId, gate: TensorId, weight: VectorId, eps: f32, out: TensorId },
    /// Each token's experts and their weights. The bias takes part in the choice only.
    Route {
        logits: TensorId,
        correction_bias: Option<VectorId>,
        routing: Routing,
        ids: TensorId,
        weights: TensorId,
    },
    /// `Σ w·down(act(gate·x, up·x))` over the token's `k` experts, in ascending expert order.
    Experts {
        x: TensorId,
        ids: TensorId,
        weights: TensorId,
        experts: ExpertsId,
        activation: Activation,
        k: usize,
        out: TensorId,
    },
    /// `silu(gate)·up`.
    Swiglu { gate: TensorId, up: TensorId, out: TensorId },
    /// `x[t]·σ(score[t])`.
    ScaleBySigmoid { x: TensorId, score: TensorId, out: TensorId },
}

/// Weights that an operation reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightRead {
    /// A whole matrix.
    Matrix(MatrixId),
    /// One row of a matrix for each token.
    Row(MatrixId),
    /// A whole vector.
    Vector(VectorId),
    /// `k` experts of a layer for each token.
    Experts {
        /// The layer's entry in the table.
        experts: ExpertsId,
        /// Experts for each token.
        k: usize,
    },
}

impl Op {
    /// The operation's name, the same in every backend.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::HiddenInput { .. } => "hidden_input",
            Op::SelectOutputs { .. } => "select_outputs",
            Op::RmsNorm { .. } => "rms_norm",
            Op::Linear { .. } => "linear",
            Op::Add { .. } => "add",
            Op::Concat { .. } => "concat",
            Op::Columns { .. } => "columns",
            Op::Rope { .. } => "rope",
            Op::HeadLinear { .. } => "head_linear",
            Op::Attention { .. } => "attention",
            Op::MlaAttention { .. } => "mla_attention",
            Op::SigmoidGate { .. } => "sigmoid_gate",
            Op::Conv1dSilu { .. } => "conv1d_silu",
            Op::L2Norm { .. } => "l2_norm",
            Op::DecayBeta { .. } => "decay_beta",
            Op::GatedDelta { .. } => "gated_delta",
            Op::GatedRmsNorm { .. } => "gated_rms_norm",
            Op::Route { .. } => "route",
            Op::Experts { .. } => "experts",
            Op::Swiglu { .. } => "swiglu",
            Op::ScaleBySigmoid { .. } => "scale_by_sigmoid",
        }
    }

    /// The tensors it reads.
    pub fn reads(&self) -> Vec<TensorId> {
        match *self {
            Op::Embed { .. } | Op::HiddenInput { .. } => vec![],
            Op::SelectOutputs { x, .. }
            | Op::RmsNorm { x, .. }
            | Op::Linear { x, .. }
            | Op::Columns { x, .. }
            | Op::Rope { x, .. }
            | Op::HeadLinear { x, .. }
            | Op::Conv1dSilu { x, .. }
            | Op::L2Norm { x, .. } => vec![x],
            Op::Add { a, b, .. } | Op::Concat { a, b, .. } | Op::DecayBeta { a, b, .. } => vec![a, b],
            Op::Attention { q, k, v, .. } => vec![q, k, v],
            Op::MlaAttention { q, q_rope, latent, k_rope, .. } => vec![q, q_rope, latent, k_rope],
            Op::SigmoidGate { x, gate, .. } | Op::GatedRmsNorm { x, gate, .. } => vec![x, gate],
            Op::GatedDelta { q, k, v, decay, beta, .. } => vec![q, k, v, decay, beta],
            Op::Route { logits, .. } => vec![logits],
            Op::Experts { x, ids, weights, .. } => vec![x, ids, weights],
            Op::Swiglu { gate, up, .. } => vec![gate, up],
            Op::ScaleBySigmoid { x, score, .. } => vec![x, score],
        }
    }

    /// The tensors it writes, whole.
    pub fn writes(&self) -> Vec<TensorId> {
        match *self {
            Op::Embed { out, .. }
            | Op::HiddenInput { out }
            | Op::SelectOutputs { out, .. }
            | Op::RmsNorm { out, .. }
            | Op::Linear { out, .. }
            | Op::Add { out, .. }
            | Op::Concat { out, .. }
            | Op::Columns { out, .. }
            | Op::Rope { out, .. }
            | Op::HeadLinear { out, .. }
            | Op::Attention { out, .. }
            | Op::MlaAttention { out, .. }
            | Op::SigmoidGate { out, .. }
            | Op::Conv1dSilu { out, .. }
            | Op::L2Norm { out, .. }
            | Op::GatedDelta { out, .. }
            | Op::GatedRmsNorm { out, .. }
            | Op::Experts { out, .. }
            | Op::Swiglu { out, .. }
            | Op::ScaleBySigmoid { out, .. } => vec![out],
            Op::DecayBeta { decay, beta, .. } => vec![decay, beta],
            Op::Route { ids, weights, .. } => vec![ids, weights],
        }
    }

    /// The weights it reads.
    pub fn weights(&self) -> Vec<WeightRead> {
        match *self {
            Op::Embed { table, .. } => vec![WeightRead::Row(table)],
            Op::Linear { weight, bias, .. } => {
                [Some(WeightRead::Matrix(weight)), bias.map(WeightRead::Vector)]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Op::HeadLinear { weight, .. } => vec![WeightRead::Matrix(weight)],
            Op::Attention { sinks, .. } => sinks.into_iter().map(WeightRead::Vector).collect(),
            Op::Route { correction_bias, .. } => {
                correction_bias.into_iter().map(WeightRead::Vector).collect()
            }
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
