//! Decides where a model's experts live and opens what streams them.

use std::collections::HashSet;
use std::sync::Arc;

use moeflux_checkpoint::Expert;
use moeflux_experts::{ExpertStore, Io, StoreError, StoreOptions};
use moeflux_kernels::KvType;

use super::layout;
use crate::backend::cpu::kv_type;
use crate::engine::EngineOptions;
use crate::error::Error;
use crate::graph::{GraphError, Op, Plan, StepShape, WeightRead};
use crate::memory::{Machine, Needs, Residence, residence};
use crate::model::Model;

/// Tokens of a prompt in one step where nobody says how many and experts are in memory: few visit each expert, so the
/// work of reading one is shared by more of them in larger steps.
const RESIDENT_CHUNK: usize = 1024;

/// The same where experts are streamed, if there is room for the buffers: a chunk reads nearly every expert.
const STREAMED_CHUNKS: [usize; 3] = [2048, 1024, 512];
/// And if there is not.
const SMALLEST_CHUNK: usize = 256;
/// What a larger chunk's buffers may take of the experts' budget.
const CHUNK_SHARE: u64 = 8;

/// Where experts are to live, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the model needs in prefill steps of `prefill_chunk` tokens.
    pub needs: Needs,
    /// What the machine has.
    pub machine: Machine,
    /// Where the experts are to live.
    pub residence: Residence,
    /// Tokens of a prompt in one step.
    pub prefill_chunk: usize,
}

/// Decides where a model's experts are to live under the options.
pub fn decide(model: &Model, options: &EngineOptions) -> Result<Decision, Error> {
    let experts = &options.experts;
    let machine = Machine::measure();
    let kv_type = kv_type(options.numbers);
    let needs = |chunk| needs_with(model, chunk, experts.context, kv_type);
    let prefill_chunk = options.prefill_chunk.unwrap_or(RESIDENT_CHUNK.min(model.context_length()));
    let resident = needs(prefill_chunk)?;
    if resident.experts == 0
        || experts.store.io == Io::Mapped
        || residence(&experts.memory, &resident, &machine) == Ok(Residence::Mapped)
    {
        return Ok(Decision { needs: resident, machine, residence: Residence::Mapped, prefill_chunk });
    }
    let prefill_chunk = options.prefill_chunk.unwrap_or(SMALLEST_CHUNK);
    let least = needs(prefill_chunk)?;
    let residence = residence(&experts.memory, &least, &machine)?;
    let decision = Decision { needs: least, machine, residence, prefill_chunk };
    let (Residence::Streamed { budget }, None) = (residence, options.prefill_chunk) else {
        return Ok(decision);
    };
    for prefill_chunk in STREAMED_CHUNKS.into_iter().filter(|&chunk| chunk <= model.context_length()) {
        let needs = needs(prefill_chunk)?;
        let extra = needs.transient.saturating_sub(least.transient);
        if extra <= budget / CHUNK_SHARE {
            // A budget that was asked for is kept whole.
            let budget = if experts.memory.experts.is_some() { budget } else { budget - extra };
            return Ok(Decision { needs, residence: Residence::Streamed { budget }, prefill_chunk, machine });
        }
    }
    Ok(decision)
}

/// Where experts are, and the prefill chunk that suits that.
pub(crate) struct Placement {
    /// Gives them; `None` if they are read in place.
    pub(crate) store: Option<Arc<ExpertStore>>,
    /// Whether all experts are to stay in memory.
    pub(crate) resident: bool,
    /// Tokens of a prompt in one step.
    pub(crate) prefill_chunk: usize,
    /// What sequences may take before the experts make room for them, if a limit of the process is to be kept.
    pub(crate) room: Option<StateRoom>,
}

/// Memory that experts and states of sequences share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateRoom {
    /// Bytes that are the states' own.
    reserved: u64,
    /// Bytes that are the experts' unless states need more than theirs.
    budget: u64,
}

impl StateRoom {
    /// What states may take in all: beyond that experts would have less than three quarters of their budget.
    pub(crate) fn most(&self) -> u64 {
        self.reserved + self.budget / 4
    }

    /// Has a store keep to what is left beside states of so many bytes.
    pub(crate) fn share(&self, store: &ExpertStore, states: u64) -> Result<(), StoreError> {
        store.resize(self.budget.saturating_sub(states.saturating_sub(self.reserved)))
    }
}

/// Decides, and opens the store if there is to be one: for streamed experts, and to record what is routed where.
pub(crate) fn place(model: &Model, options: &EngineOptions) -> Result<Placement, Error> {
    let Decision { residence, prefill_chunk, needs, .. } = decide(model, options)?;
    let room = match residence {
        Residence::Streamed { budget } if options.experts.memory.experts.is_none() => {
            Some(StateRoom { reserved: needs.sequence, budget })
        }
        _ => None,
    };
    let store = &options.experts.store;
    // Where mapping was asked for, the system decides what stays.
    let resident = residence == Residence::Mapped && store.io != Io::Mapped;
    let store = match residence {
        Residence::Streamed { budget } => Some(StoreOptions { budget, ..store.clone() }),
        Residence::Mapped if store.trace.is_some() => Some(StoreOptions { io: Io::Mapped, ..store.clone() }),
        Residence::Mapped => None,
    };
    if let Some(StoreOptions { budget, io, .. }) = &store {
        tracing::info!(budget, prefill_chunk, ?io, "experts come from a store");
    }
    if store.is_some() {
        check_in_place(model)?;
    }
    let store = store.map(|options| ExpertStore::open(layout::layout(model), &options)).transpose()?;
    Ok(Placement { store: store.map(Arc::new), resident, prefill_chunk, room })
}

/// Refuses to read experts from a file that does not hold them as they are computed with.
pub(crate) fn check_in_place(model: &Model) -> Result<(), Error> {
    let checkpoint = model.checkpoint();
    let experts = model.weights().experts().iter().flat_map(|layer| &layer.experts);
    let mut spans = experts.flat_map(Expert::matrices).flat_map(|(_, matrix)| matrix.spans());
    match spans.find(|span| !checkpoint.is_in_place(*span)) {
        Some(span) => {
            let path = checkpoint.files()[span.file as usize].path().to_owned();
            Err(moeflux_checkpoint::Error::Transposed { path }.into())
        }
        None => Ok(()),
    }
}

/// What the model takes besides what the process holds already, for prefill in steps of `chunk` tokens and for the state
/// of `context` tokens, with keys and values in float32, as exact numbers have them.
pub fn needs(model: &Model, chunk: usize, context: usize) -> Result<Needs, GraphError> {
    needs_with(model, chunk, context, KvType::F32)
}

fn needs_with(model: &Model, chunk: usize, context: usize, kv_type: KvType) -> Result<Needs, GraphError> {
    let graph = model.graph(StepShape { n_tokens: chunk, n_outputs: 1 })?;
    let table = model.weights();
    let mut scratch = 0;
    let mut least_experts = 0;
    for read in graph.ops().iter().flat_map(Op::weights) {
        let WeightRead::Experts { experts, k } = read else { continue };
        let Some(expert) = table.experts()[experts].experts.first() else { continue };
        let (inner, hidden) = (expert.gate.rows as u64, expert.gate.cols as u64);
        // Floats of each choice, the codes of the quantised ones, indices and weights.
        scratch = scratch.max((chunk * k) as u64 * (5 * (inner + hidden) + 32));
        // Each part may begin and end inside a page.
        let bytes: u64 = expert.matrices().map(|(_, matrix)| matrix.bytes() + 3 * 2 * 4096).sum();
        least_experts = least_experts.max(k as u64 * bytes);
    }
    let mut counted = HashSet::new();
    let matrices = table.matrices().iter().map(|named| &named.matrix);
    // A tied embedding is the output projection too.
    let dense = matrices.filter(|matrix| counted.insert((matrix.codes, matrix.runs)));
    let sequence = crate::summary::sequence_bytes(table).with(kv_type);
    let context = context.min(model.context_length()) as u64;
    Ok(Needs {
        dense: dense.map(moeflux_checkpoint::Matrix::bytes).sum(),
        transient: Plan::new(&graph).bytes() as u64 + scratch,
        // A step writes a second copy of recurrent states.
        sequence: sequence.kv_per_token * context + sequence.windows + 2 * sequence.recurrent,
        experts: layout::bytes(table),
        least_experts,
    })
}
