//! Needs: what a model takes of a memory, in bytes. One struct for the host and for any device; what differs by kind of
//! device are the [`Sizes`] that its backend states.

use std::collections::HashSet;

use moeflux_kernels::KvType;

use crate::experts;
use crate::graph::{Graph, GraphError, Op, Plan, StepShape, WeightRead};
use crate::model::Model;
use crate::sequence::SequenceBytes;

/// What a model needs, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Weights that every token reads; they are mapped.
    pub dense: u64,
    /// Tensors between operations, in the largest step.
    pub transient: u64,
    /// KV cache and recurrent states of a context of ordinary length.
    pub sequence: u64,
    /// Buffers that experts come through; needed only where not all of them stay.
    pub staging: u64,
    /// All routed experts.
    pub experts: u64,
    /// The smallest budget that the experts can be streamed in.
    pub least_experts: u64,
}

impl Needs {
    /// What a model takes in prefill steps of `chunk` tokens and with the states of `context` tokens.
    pub fn of(model: &Model, sizes: &dyn Sizes, chunk: usize, context: usize) -> Result<Needs, GraphError> {
        let graph = model.graph(StepShape { n_tokens: chunk, n_outputs: 1 })?;
        let context = context.min(model.context_length()) as u64;
        let (experts, least_experts) = sizes.experts(model, &graph);
        Ok(Needs {
            dense: sizes.dense(model),
            transient: sizes.transient(model, &graph),
            sequence: sizes.sequence(SequenceBytes::of(model.weights().states()), context),
            staging: sizes.staging(model, &graph),
            experts,
            least_experts,
        })
    }

    /// Everything but experts where all of these stay.
    pub fn resident(&self) -> u64 {
        self.dense.saturating_add(self.transient).saturating_add(self.sequence)
    }

    /// Everything but experts where these come and go.
    pub fn besides_experts(&self) -> u64 {
        self.resident().saturating_add(self.staging)
    }
}

/// Bytes that the parts of a model take in one kind of memory: how a backend has them there.
pub trait Sizes {
    /// Weights that every token reads.
    fn dense(&self, model: &Model) -> u64;

    /// Tensors between the operations of a step, and what kernels need beside them.
    fn transient(&self, model: &Model, graph: &Graph) -> u64;

    /// The state of a sequence of `context` tokens.
    fn sequence(&self, bytes: SequenceBytes, context: u64) -> u64;

    /// Buffers that experts come through where not all of them stay.
    fn staging(&self, _model: &Model, _graph: &Graph) -> u64 {
        0
    }

    /// All routed experts, and the least budget that a step of this graph can work with.
    fn experts(&self, model: &Model, graph: &Graph) -> (u64, u64);
}

/// How the host's memory has a model: dense weights and experts as the files have them, caches of this type.
#[derive(Clone, Copy, Debug)]
pub struct HostSizes {
    /// What keys and values are kept as.
    pub kv_type: KvType,
}

impl Sizes for HostSizes {
    fn dense(&self, model: &Model) -> u64 {
        let mut counted = HashSet::new();
        let matrices = model.weights().matrices().iter().map(|named| &named.matrix);
        // A tied embedding is the output projection too.
        let dense = matrices.filter(|matrix| counted.insert((matrix.codes, matrix.runs)));
        dense.map(moeflux_checkpoint::Matrix::bytes).sum()
    }

    fn transient(&self, model: &Model, graph: &Graph) -> u64 {
        // Floats of each choice, the codes of the quantised ones, indices and weights.
        let of_choice = |hidden: u64, inner: u64| 5 * (inner + hidden) + 32;
        let n = graph.shape().n_tokens;
        let scratch = expert_layers(model, graph).map(|(layer, k)| {
            let expert = &model.weights().experts()[layer].experts[0];
            (n * k) as u64 * of_choice(expert.gate.cols as u64, expert.gate.rows as u64)
        });
        Plan::new(graph).bytes() as u64 + scratch.max().unwrap_or(0)
    }

    fn sequence(&self, bytes: SequenceBytes, context: u64) -> u64 {
        let bytes = bytes.with(self.kv_type);
        // A step writes a second copy of recurrent states.
        bytes.kv_per_token * context + bytes.windows + 2 * bytes.recurrent
    }

    fn experts(&self, model: &Model, graph: &Graph) -> (u64, u64) {
        let least = expert_layers(model, graph).map(|(layer, k)| {
            let expert = &model.weights().experts()[layer].experts[0];
            // Each part may begin and end inside a page.
            let bytes: u64 = expert.matrices().map(|(_, matrix)| matrix.bytes() + 3 * 2 * 4096).sum();
            k as u64 * bytes
        });
        (experts::bytes(model.weights()), least.max().unwrap_or(0))
    }
}

/// Layers with experts that a graph reads, by index in the model's table, and the experts of a token in each.
pub(crate) fn expert_layers<'a>(
    model: &'a Model,
    graph: &'a Graph,
) -> impl Iterator<Item = (usize, usize)> + 'a {
    let reads = graph.ops().iter().flat_map(Op::weights).filter_map(|read| match read {
        WeightRead::Experts { experts, k } => Some((experts.0, k)),
        _ => None,
    });
    reads.filter(|&(layer, _)| !model.weights().experts()[layer].experts.is_empty())
}

/// What the model takes of the host's memory besides what the process holds already, for prefill in steps of `chunk` tokens
/// and for the state of `context` tokens, with keys and values in float32, as exact numbers have them.
pub fn needs(model: &Model, chunk: usize, context: usize) -> Result<Needs, GraphError> {
    Needs::of(model, &HostSizes { kv_type: KvType::F32 }, chunk, context)
}
