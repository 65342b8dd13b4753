//! The forward pass as data: a list of operations over tensors with roles.
//!
//! A [`Graph`] is built once for each model and [`StepShape`] and kept. What changes from step to step (tokens,
//! positions, sequences) is an argument of the run, so decode is nothing but the shape with one token.
//!
//! A tensor's type says its role: the residual stream does not fit where its norm belongs.
//!
//! ```
//! use moeflux::graph::{GraphBuilder, Linear, Norm, Tensor, role::*};
//! fn mixer(b: &mut GraphBuilder, x: Tensor<Hidden>, norm: &Norm<Hidden, MixerIn>, proj: &Linear<MixerIn, Value>) {
//!     let normed = b.rms_norm(x, norm);
//!     b.linear(normed, proj);
//! }
//! ```
//!
//! ```compile_fail
//! use moeflux::graph::{GraphBuilder, Linear, Norm, Tensor, role::*};
//! fn mixer(b: &mut GraphBuilder, x: Tensor<Hidden>, norm: &Norm<Hidden, MixerIn>, proj: &Linear<MixerIn, Value>) {
//!     let normed = b.rms_norm(x, norm);
//!     b.linear(x, proj); // the residual stream, not its norm
//! }
//! ```
//!
//! The two residual sums are told apart too: experts read the norm after the mixer, not the one before it.
//!
//! ```
//! use moeflux::graph::{GraphBuilder, Norm, Tensor, role::*};
//! fn mlp(b: &mut GraphBuilder, x: Tensor<Hidden>, mixed: Tensor<MixerOut>, norm: &Norm<Mid, MlpIn>) {
//!     let mid = b.add(x, mixed);
//!     b.rms_norm(mid, norm);
//! }
//! ```
//!
//! ```compile_fail
//! use moeflux::graph::{GraphBuilder, Norm, Tensor, role::*};
//! fn mlp(b: &mut GraphBuilder, x: Tensor<Hidden>, mixed: Tensor<MixerOut>, norm: &Norm<Mid, MlpIn>) {
//!     let mid = b.add(x, mixed);
//!     b.rms_norm(x, norm); // the stream before the mixer
//! }
//! ```
//!
//! Keys enter the cache after RoPE:
//!
//! ```compile_fail
//! use moeflux::graph::{GraphBuilder, KvState, Tensor, role::*};
//! fn attend(b: &mut GraphBuilder, q: Tensor<RopedQuery>, k: Tensor<Key>, v: Tensor<Value>, state: &KvState) {
//!     b.attention(q, k, v, state, 1.0); // a key that was not turned
//! }
//! ```
//!
//! ```
//! use moeflux::graph::{GraphBuilder, KvState, Tensor, role::*};
//! fn attend(b: &mut GraphBuilder, q: Tensor<RopedQuery>, k: Tensor<RopedKey>, v: Tensor<Value>, state: &KvState) {
//!     b.attention(q, k, v, state, 1.0);
//! }
//! ```

mod builder;
mod op;
mod pieces;
mod plan;
pub mod role;
mod weights;

use std::fmt;

pub use builder::{GraphBuilder, Tensor};
pub use op::{ExpertsId, MatrixId, Op, RopeId, StateId, TensorId, VectorId, WeightRead};
pub use pieces::NamedExperts;
pub(crate) use pieces::pieces;
pub use plan::{Plan, Slot};
pub use role::{Element, Plus, Role};
pub use weights::{
    Embedding, Experts, HeadLinear, KvState, LatentMaps, LatentState, Linear, Loader, NamedMatrix,
    NamedVector, Norm, RecurrentState, Rope, RopeSpec, StateSpec, Vector, WeightTable,
};

/// What a graph is built for: the tokens of a step and how many of them want logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepShape {
    /// Tokens of all sequences in the step together.
    pub n_tokens: usize,
    /// Tokens whose logits are asked for.
    pub n_outputs: usize,
}

/// What is known of a transient tensor before anything runs. It is a `[rows, cols]` matrix, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Where in the model it stands and what it is, such as `layers.3.mixer_out`; unique within a graph.
    pub label: String,
    /// Element type.
    pub element: Element,
    /// Tokens, or tokens with logits.
    pub rows: usize,
    /// Channels.
    pub cols: usize,
}

impl TensorInfo {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes; both element types have four.
    pub fn bytes(&self) -> usize {
        self.len() * 4
    }
}

/// Operations in the order in which they run, and the tensors between them.
#[derive(Debug)]
pub struct Graph {
    shape: StepShape,
    ops: Vec<Op>,
    tensors: Vec<TensorInfo>,
    logits: TensorId,
    kept: Option<TensorId>,
}

impl Graph {
    /// The shape it was built for.
    pub fn shape(&self) -> StepShape {
        self.shape
    }

    /// The operations in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// All tensors, indexed by [`TensorId`].
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// One tensor.
    pub fn tensor(&self, id: TensorId) -> &TensorInfo {
        &self.tensors[id.0]
    }

    /// The result, `[n_outputs, vocab_size]`.
    pub fn logits(&self) -> TensorId {
        self.logits
    }

    /// A second result, if there is one: the rows that a later step will be given, `[_, hidden_size]`: of every token, or
    /// of those whose logits are asked for.
    pub fn kept(&self) -> Option<TensorId> {
        self.kept
    }
}

impl fmt::Display for Graph {
    /// One line an operation: index, name, and what it writes with shape and bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, op) in self.ops.iter().enumerate() {
            write!(f, "{index:4}  {:<18}", op.name())?;
            for (position, id) in op.writes().into_iter().enumerate() {
                let TensorInfo { label, rows, cols, .. } = self.tensor(id);
                let separator = if position == 0 { "" } else { ", " };
                write!(f, "{separator}{label} [{rows}, {cols}] {} B", self.tensor(id).bytes())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A graph that can't be: its shapes contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// An operation was given a tensor of another width than it needs.
    #[error("{op} writing {label}: expected {expected} columns of {input}, found {found}")]
    Width {
        /// The operation.
        op: &'static str,
        /// Label of what it would write.
        label: String,
        /// Label of the tensor given.
        input: String,
        /// Columns needed.
        expected: usize,
        /// Columns it has.
        found: usize,
    },
}
