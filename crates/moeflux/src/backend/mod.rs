//! What runs graphs. A backend implements [`Backend`]; nothing above it knows which one it is.

pub mod cpu;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
mod store;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use moeflux_experts::ExpertStore;

pub use self::error::{BackendError, MeasureError, OpenError};

pub use crate::cancel::CancelToken;
use crate::experts::DeviceTally;
use crate::graph::{Graph, Op, Plan, TensorInfo};
use crate::model::Model;
use crate::sequence::{KvType, Position, Sequence};

/// Runs a model's graphs.
pub trait Backend: Send {
    /// Its name, such as `cpu`.
    fn name(&self) -> &'static str;

    /// Runs all operations of a graph and returns the logits, `[n_outputs, vocab_size]`.
    ///
    /// Writes the sequences' next states without committing them: after an error they are as before.
    fn run(
        &mut self,
        model: &Model,
        graph: &Graph,
        plan: &Plan,
        step: &mut Step<'_, '_>,
        observer: Option<&mut dyn Observer>,
    ) -> Result<&[f32], BackendError>;

    /// What the elements of the caches are that it appends to.
    fn kv_type(&self) -> KvType;

    /// Memory held for transient tensors, in bytes.
    fn transient_bytes(&self) -> usize;

    /// What streams the experts, if they are not read in place.
    fn experts(&self) -> Option<&Arc<ExpertStore>> {
        None
    }

    /// What became of experts on a device that has not room for all of them, if it is one.
    fn device_experts(&self) -> Option<&Arc<DeviceTally>> {
        None
    }
}

/// What changes from one step to the next. Rows are the tokens of all segments, one after the other.
#[derive(Debug)]
pub struct Step<'a, 's> {
    /// `[n_tokens]`, each below the vocabulary's size.
    pub tokens: &'a [u32],
    /// `[n_tokens]`.
    pub positions: &'a [Position],
    /// Rows whose logits are asked for, `[n_outputs]`.
    pub outputs: &'a [usize],
    /// Rows for a graph that has [`Op::HiddenInput`], `[n_tokens, hidden_size]`.
    pub hidden_input: &'a [f32],
    /// Takes the rows that the graph [keeps](Graph::kept), if it keeps any.
    pub kept: Option<&'a mut Vec<f32>>,
    /// The sequences in this step, each with its rows and with room for them.
    pub segments: &'a mut [Segment<'s>],
    /// Looked at between operations.
    pub cancel: Option<&'a CancelToken>,
}

/// One sequence's part of a step.
#[derive(Debug)]
pub struct Segment<'s> {
    /// The sequence that the rows continue.
    pub sequence: &'s mut Sequence,
    /// Its rows in the step.
    pub rows: Range<usize>,
}

/// Watches a run: for tests that compare layers, and for timing operation by operation.
pub trait Observer {
    /// An operation has written a tensor.
    fn wrote(&mut self, _tensor: &TensorInfo, _data: Data<'_>) {}
    /// An operation has run.
    fn ran(&mut self, _op: &Op, _time: Duration) {}
}

/// A tensor's elements.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Indices.
    U32(&'a [u32]),
}
