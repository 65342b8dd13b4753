//! How a model fits into a GPU's memory: all of it, or as many experts as a budget allows.

use std::collections::HashMap;

use moeflux_gpu::matrix::DeviceEncoding;
use moeflux_gpu::{DeviceInfo, GpuExperts, GpuMatrix, Landings, Uploads};
use moeflux_kernels::KvType;

use super::PARTS;
use super::fuse::Fused;
use crate::graph::{Graph, GraphError, Op, Plan, StepShape, WeightRead};
use crate::model::Model;

/// How much of a GPU's memory the backend may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuMemory {
    /// What is free, less a twentieth of it or 256 MiB, whichever is more; three quarters of all where the driver does not
    /// tell what is free, and 4 GiB where it tells nothing.
    #[default]
    Free,
    /// So many bytes, for weights, experts, activations and states.
    Bytes(u64),
    /// So many bytes for experts, which come and go even if all of them would fit; everything else takes what it takes.
    Experts(u64),
}

/// A GPU's memory is too small for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given} bytes of GPU memory are too few: weights that every token reads take {dense}, buffers {transient}, sequences \
     {sequence}, and the experts of one token {least_experts}; allow {needed} bytes or more, shorten the prefill chunk, or \
     run on the CPU"
)]
pub struct GpuMemoryError {
    /// What was asked for, or found free.
    pub given: u64,
    /// The least that would do.
    pub needed: u64,
    /// Weights that stay.
    pub dense: u64,
    /// Tensors between operations, and what experts come through.
    pub transient: u64,
    /// States of a context of ordinary length.
    pub sequence: u64,
    /// Places for the experts that one token takes of a layer.
    pub least_experts: u64,
}

/// What goes where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GpuPlan {
    /// The most bytes that the device may be asked for.
    pub(super) limit: Option<u64>,
    /// Places for experts; none if all of them stay.
    pub(super) classes: Option<Vec<ClassPlan>>,
    /// Tokens of a prompt in one step.
    pub(super) prefill_chunk: usize,
}

/// Experts of one shape and encoding, which share places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassPlan {
    /// By index in the model's table.
    pub(super) layers: Vec<usize>,
    /// Of all these layers.
    pub(super) experts: u64,
    /// Of the layer that has most.
    pub(super) most_of_layer: u64,
    /// That one takes on a device.
    pub(super) bytes_of_one: u64,
    /// Experts of a token.
    pub(super) k: u64,
    pub(super) places: u64,
}

/// Tokens of a prompt in one step where all experts are on the device.
const RESIDENT_CHUNK: usize = 512;
/// The same where they are brought, if there is room for the buffers: a chunk wants nearly every expert.
const STREAMED_CHUNKS: [usize; 2] = [2048, 1024];
/// What a larger chunk's buffers may take of what is left for experts.
const CHUNK_SHARE: u64 = 8;

/// What a measured limit leaves to others: a part in so many, and at least so many bytes.
const RESERVE: (u64, u64) = (20, 256 << 20);
/// Where the driver tells nothing.
const UNKNOWN: u64 = 4 << 30;

/// Decides for a model and steps of `chunk` tokens of a prompt, if that is given, with states of `context` tokens.
pub(super) fn plan(
    model: &Model,
    info: &DeviceInfo,
    memory: GpuMemory,
    chunk: Option<usize>,
    context: usize,
) -> Result<GpuPlan, crate::Error> {
    let prefill_chunk = chunk.unwrap_or(RESIDENT_CHUNK);
    let mut classes = classes(model)?;
    let on_their_way = classes.iter().map(|class| landing_bytes(model, class, &classes)).sum();
    let staging = Uploads::most_bytes(group_bytes(&classes)).max(on_their_way);
    let needs = |chunk| needs(model, chunk, context, staging);
    let all: u64 = classes.iter().map(|class| class.experts * class.bytes_of_one).sum();
    let limit = match memory {
        GpuMemory::Bytes(bytes) => bytes,
        GpuMemory::Free => free(info),
        GpuMemory::Experts(budget) => {
            share(&mut classes, budget)
                .map_err(|least| GpuMemoryError::of(budget, least, all, Needs::default()))?;
            let classes = Some(classes).filter(|classes| !classes.is_empty());
            return Ok(GpuPlan { limit: None, classes, prefill_chunk });
        }
    };
    let least = needs(prefill_chunk)?;
    if least.resident() + all <= limit {
        return Ok(GpuPlan { limit: Some(limit), classes: None, prefill_chunk });
    }
    let budget = limit.saturating_sub(least.all());
    share(&mut classes, budget).map_err(|of_experts| GpuMemoryError::of(limit, of_experts, all, least))?;
    let mut found = GpuPlan { limit: Some(limit), classes: Some(classes), prefill_chunk };
    if chunk.is_none() {
        for prefill_chunk in STREAMED_CHUNKS.into_iter().filter(|&chunk| chunk <= model.context_length()) {
            let extra = needs(prefill_chunk)?.transient.saturating_sub(least.transient);
            let mut classes = found.classes.clone().unwrap_or_default();
            if extra <= budget / CHUNK_SHARE && share(&mut classes, budget - extra).is_ok() {
                found = GpuPlan { classes: Some(classes), prefill_chunk, ..found };
                break;
            }
        }
    }
    Ok(found)
}

/// Bytes that all routed experts take on a device.
pub fn bytes_of_experts(model: &Model) -> Result<u64, GraphError> {
    Ok(classes(model)?.iter().map(|class| class.experts * class.bytes_of_one).sum())
}

/// What a device's memory leaves to the backend.
fn free(info: &DeviceInfo) -> u64 {
    let (part, least) = RESERVE;
    match (info.free, info.memory) {
        (Some(free), _) => free.saturating_sub((free / part).max(least)),
        (None, Some(memory)) => memory / 4 * 3,
        (None, None) => UNKNOWN,
    }
}

/// What a model takes besides experts, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    dense: u64,
    transient: u64,
    sequence: u64,
    /// For experts on their way; not needed where all stay.
    staging: u64,
}

impl Needs {
    fn resident(&self) -> u64 {
        self.dense.saturating_add(self.transient).saturating_add(self.sequence)
    }

    fn all(&self) -> u64 {
        self.resident().saturating_add(self.staging)
    }
}

impl GpuMemoryError {
    fn of(given: u64, least_experts: u64, all_experts: u64, needs: Needs) -> Self {
        // Where all stay, none come.
        let resident = needs.resident().saturating_add(all_experts);
        let needed = needs.all().saturating_add(least_experts).min(resident);
        let transient = needs.transient.saturating_add(needs.staging);
        GpuMemoryError {
            given,
            needed,
            dense: needs.dense,
            transient,
            sequence: needs.sequence,
            least_experts,
        }
    }
}

fn needs(model: &Model, chunk: usize, context: usize, staging: u64) -> Result<Needs, GraphError> {
    let graph = model.graph(StepShape { n_tokens: chunk, n_outputs: 1 })?;
    let (plan, table) = (Plan::new(&graph), model.weights());
    let matrices = table.matrices().iter().map(|named| &named.matrix);
    let matrices: u64 = matrices.map(|m| GpuMatrix::bytes_of(m.rows, m.cols, m.encoding)).sum();
    let vectors: u64 = table.vectors().iter().map(|named| 4 * named.values.len() as u64).sum();
    let spares: usize = Fused::new(&graph, &plan, model).spare_lens().iter().sum();
    let sequence = crate::summary::sequence_bytes(table).with(KvType::F32);
    let context = context.min(model.context_length()) as u64;
    Ok(Needs {
        dense: matrices + vectors,
        transient: (plan.bytes() + 4 * (spares + PARTS)) as u64 + choices(&graph, model),
        // A cache that grows is there twice for a moment; a step writes a second copy of recurrent states.
        sequence: 2 * (sequence.kv_per_token * context + sequence.windows + sequence.recurrent),
        staging,
    })
}

/// What the choices of a step's experts take: activations, and where each one's expert is.
fn choices(graph: &Graph, model: &Model) -> u64 {
    let tokens = graph.shape().n_tokens;
    let of_layer = |(experts, k): (usize, usize)| {
        let expert = model.weights().experts()[experts].experts.first();
        expert.map_or(0, |expert| (tokens * k * (2 * expert.gate.rows + expert.gate.cols + 16)) as u64 * 4)
    };
    let layers: Vec<(usize, usize)> = expert_reads(graph).collect();
    let largest = layers.iter().copied().map(of_layer).max().unwrap_or(0);
    // Tables are of the whole step.
    largest + layers.iter().map(|&(_, k)| (4 * 4 * tokens * k) as u64).sum::<u64>()
}

/// Layers of experts that a graph reads, with the experts of a token.
fn expert_reads(graph: &Graph) -> impl Iterator<Item = (usize, usize)> {
    graph.ops().iter().flat_map(Op::weights).filter_map(|read| match read {
        WeightRead::Experts { experts, k } => Some((experts, k)),
        _ => None,
    })
}

/// The model's experts by shape and encoding, without places.
fn classes(model: &Model) -> Result<Vec<ClassPlan>, GraphError> {
    let graph = model.graph(StepShape { n_tokens: 1, n_outputs: 1 })?;
    let ks: HashMap<usize, usize> = expert_reads(&graph).collect();
    let largest = ks.values().copied().max().unwrap_or(1);
    let table = model.weights();
    let mut found: Vec<(_, ClassPlan)> = Vec::new();
    for (layer, named) in table.experts().iter().enumerate() {
        let Some(first) = named.experts.first() else { continue };
        let key =
            [&first.gate, &first.up, &first.down].map(|m| (m.rows, m.cols, DeviceEncoding::of(m.encoding)));
        let key = (key, first.biases.is_some());
        let (k, experts) = (ks.get(&layer).copied().unwrap_or(largest) as u64, named.experts.len() as u64);
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, class)) => {
                class.layers.push(layer);
                class.experts += experts;
                class.most_of_layer = class.most_of_layer.max(experts);
                class.k = class.k.max(k);
            }
            None => {
                let bytes_of_one = GpuExperts::bytes_of_one(&table.expert(model.checkpoint(), layer, 0));
                let (layers, most_of_layer) = (vec![layer], experts);
                found.push((key, ClassPlan { layers, experts, most_of_layer, bytes_of_one, k, places: 0 }));
            }
        }
    }
    Ok(found.into_iter().map(|(_, class)| class).collect())
}

/// Bytes of experts that are brought together: at most so many, or a quarter of a layer's.
pub(super) fn group_bytes(classes: &[ClassPlan]) -> u64 {
    let of_class = |class: &ClassPlan| {
        let layer = class.experts * class.bytes_of_one / class.layers.len().max(1) as u64;
        GROUP_BYTES.min(layer / 4).max(class.bytes_of_one)
    };
    classes.iter().map(of_class).max().unwrap_or(GROUP_BYTES)
}

/// Experts of a class that are computed together without having places, where shaders read the host's memory.
pub(super) fn landings(class: &ClassPlan, classes: &[ClassPlan]) -> u64 {
    let bytes = LANDING_GROUPS * group_bytes(classes) / classes.len() as u64;
    (bytes / class.bytes_of_one.max(1)).clamp(1, class.most_of_layer)
}

fn landing_bytes(model: &Model, class: &ClassPlan, classes: &[ClassPlan]) -> u64 {
    let like = model.weights().expert(model.checkpoint(), class.layers[0], 0);
    Landings::bytes(landings(class, classes) as usize, class.most_of_layer as usize, &like)
}

/// What lands together, in groups of [`group_bytes`].
const LANDING_GROUPS: u64 = 3;

/// See [`group_bytes`].
const GROUP_BYTES: u64 = 32 << 20;

/// Gives each class the places of one token's experts, and its part of what is left of the budget by the bytes of all its
/// experts. The error is the least budget.
fn share(classes: &mut [ClassPlan], budget: u64) -> Result<(), u64> {
    let least = |class: &ClassPlan| class.k.min(class.experts);
    let needed: u64 = classes.iter().map(|class| least(class) * class.bytes_of_one).sum();
    let left = budget.checked_sub(needed).ok_or(needed)?;
    let beyond = |class: &ClassPlan| (class.experts - least(class)) * class.bytes_of_one;
    let all: u64 = classes.iter().map(beyond).sum();
    for class in classes {
        let part = u128::from(left.min(all)) * u128::from(beyond(class)) / u128::from(all.max(1));
        class.places = (least(class) + part as u64 / class.bytes_of_one).min(class.experts);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test

    use super::*;

    fn class(experts: u64, bytes_of_one: u64, k: u64) -> ClassPlan {
        ClassPlan { layers: vec![0], experts, most_of_layer: experts, bytes_of_one, k, places: 0 }
    }

    #[test]
    fn a_budget_is_shared_and_kept() {
        let classes = [class(100, 10, 4), class(50, 30, 8)];
        let (least, all) = (4 * 10 + 8 * 30, 100 * 10 + 50 * 30);
        for budget in [least, least + 100, 1000, all, 10 * all] {
            let mut classes = classes.clone();
            share(&mut classes, budget).unwrap();
            let bytes: u64 = classes.iter().map(|class| class.places * class.bytes_of_one).sum();
            assert!(bytes <= budget && classes.iter().all(|class| class.places >= class.k), "{classes:?}");
            assert_eq!(classes.iter().all(|class| class.places == class.experts), budget >= all, "{budget}");
        }
        assert_eq!(share(&mut classes.clone(), least - 1), Err(least));
    }

    #[test]
    fn what_a_device_leaves() {
        let info = |free, memory| DeviceInfo {
            name: String::new(),
            api: String::new(),
            driver: String::new(),
            is_cpu: false,
            is_integrated: false,
            memory,
            free,
            binding_limit: 0,
            reads_host: true,
            subgroup: (32, 32),
        };
        assert_eq!(free(&info(Some(100 << 30), Some(200 << 30))), 95 << 30);
        assert_eq!(free(&info(Some(1 << 30), None)), (1 << 30) - (256 << 20));
        assert_eq!(free(&info(Some(1), None)), 0);
        assert_eq!(free(&info(None, Some(8 << 30))), 6 << 30);
        assert_eq!(free(&info(None, None)), UNKNOWN);
    }
}
