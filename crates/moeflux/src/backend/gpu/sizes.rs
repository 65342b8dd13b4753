//! Bytes that a model's parts take on a GPU, for its [placement](crate::placement).

use std::collections::HashMap;

use moeflux_kernels::KvType;
use moeflux_wgpu::matrix::DeviceEncoding;
use moeflux_wgpu::{DeviceInfo, GpuExperts, GpuMatrix, HostExperts, Landings, Uploads};

use super::PARTS;
use super::fuse::Fused;
use crate::graph::{ExpertsId, Graph, GraphError, Plan, StepShape};
use crate::model::Model;
use crate::placement::{DeviceFacts, DeviceSizes, ExpertClass, Sizes, expert_layers};
use crate::sequence::SequenceBytes;

/// How this backend has a model on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct GpuSizes;

impl Sizes for GpuSizes {
    fn dense(&self, model: &Model) -> u64 {
        let table = model.weights();
        let matrices = table.matrices().iter().map(|named| &named.matrix);
        let matrices: u64 = matrices.map(|m| GpuMatrix::bytes_of(m.rows, m.cols, m.encoding)).sum();
        let vectors: u64 = table.vectors().iter().map(|named| 4 * named.values.len() as u64).sum();
        matrices + vectors
    }

    fn transient(&self, model: &Model, graph: &Graph) -> u64 {
        let plan = Plan::new(graph);
        let spares: usize = Fused::new(graph, &plan, model).spare_lens().iter().sum();
        (plan.bytes() + 4 * (spares + PARTS)) as u64 + choices(graph, model)
    }

    fn sequence(&self, bytes: SequenceBytes, context: u64) -> u64 {
        let bytes = bytes.with(KvType::F32);
        // A cache that grows is there twice for a moment; a step writes a second copy of recurrent states.
        2 * (bytes.kv_per_token * context + bytes.windows + bytes.recurrent)
    }

    fn staging(&self, model: &Model, graph: &Graph) -> u64 {
        let classes = self.classes(model, graph);
        let on_their_way = classes.iter().map(|class| landing_bytes(model, class, &classes)).sum();
        Uploads::most_bytes(group_bytes(&classes)).max(on_their_way)
    }

    fn experts(&self, model: &Model, graph: &Graph) -> (u64, u64) {
        let classes = self.classes(model, graph);
        let all = classes.iter().map(|class| class.experts * class.bytes_of_one).sum();
        (all, classes.iter().map(|class| class.k.min(class.experts) * class.bytes_of_one).sum())
    }
}

impl DeviceSizes for GpuSizes {
    fn classes(&self, model: &Model, graph: &Graph) -> Vec<ExpertClass> {
        let ks: HashMap<usize, usize> = expert_layers(model, graph).collect();
        let largest = ks.values().copied().max().unwrap_or(1);
        let table = model.weights();
        let mut found: Vec<(_, ExpertClass)> = Vec::new();
        for (layer, named) in table.experts().iter().enumerate() {
            let Some(first) = named.experts.first() else { continue };
            let key = [&first.gate, &first.up, &first.down]
                .map(|m| (m.rows, m.cols, DeviceEncoding::of(m.encoding)));
            let key = (key, first.biases.is_some());
            let (k, experts) =
                (ks.get(&layer).copied().unwrap_or(largest) as u64, named.experts.len() as u64);
            match found.iter_mut().find(|(known, _)| *known == key) {
                Some((_, class)) => {
                    class.layers.push(layer);
                    class.experts += experts;
                    class.most_of_layer = class.most_of_layer.max(experts);
                    class.k = class.k.max(k);
                }
                None => {
                    let bytes_of_one =
                        GpuExperts::bytes_of_one(&table.expert(model.checkpoint(), ExpertsId(layer), 0));
                    let (layers, most_of_layer) = (vec![layer], experts);
                    found.push((
                        key,
                        ExpertClass { layers, experts, most_of_layer, bytes_of_one, k, places: 0 },
                    ));
                }
            }
        }
        found.into_iter().map(|(_, class)| class).collect()
    }

    fn host_copy(&self, model: &Model) -> u64 {
        let table = model.weights();
        let of_layer = |layer: usize| match table.experts()[layer].experts.len() {
            0 => 0,
            count => {
                count as u64
                    * HostExperts::bytes_of_one(&table.expert(model.checkpoint(), ExpertsId(layer), 0))
            }
        };
        (0..table.experts().len()).map(of_layer).sum()
    }
}

/// Bytes that all routed experts take on a device.
pub fn bytes_of_experts(model: &Model) -> Result<u64, GraphError> {
    Ok(GpuSizes.experts(model, &model.graph(StepShape { n_tokens: 1, n_outputs: 1 })?).0)
}

/// What a placement asks of a device.
pub(super) fn facts(info: &DeviceInfo) -> DeviceFacts {
    let DeviceInfo { name, memory, free, reads_host, .. } = info.clone();
    DeviceFacts { name, memory, free, reads_host }
}

/// What the choices of a step's experts take: activations, and where each one's expert is.
fn choices(graph: &Graph, model: &Model) -> u64 {
    let tokens = graph.shape().n_tokens;
    let of_layer = |(experts, k): (usize, usize)| {
        let expert = model.weights().experts()[experts].experts.first();
        expert.map_or(0, |expert| (tokens * k * (2 * expert.gate.rows + expert.gate.cols + 16)) as u64 * 4)
    };
    let layers: Vec<(usize, usize)> = expert_layers(model, graph).collect();
    let largest = layers.iter().copied().map(of_layer).max().unwrap_or(0);
    // Tables are of the whole step.
    largest + layers.iter().map(|&(_, k)| (4 * 4 * tokens * k) as u64).sum::<u64>()
}

/// Bytes of experts that are brought together: at most so many, or a quarter of a layer's.
pub(super) fn group_bytes(classes: &[ExpertClass]) -> u64 {
    let of_class = |class: &ExpertClass| {
        let layer = class.experts * class.bytes_of_one / class.layers.len().max(1) as u64;
        GROUP_BYTES.min(layer / 4).max(class.bytes_of_one)
    };
    classes.iter().map(of_class).max().unwrap_or(GROUP_BYTES)
}

/// Experts of a class that are computed together without having places, where shaders read the host's memory.
pub(super) fn landings(class: &ExpertClass, classes: &[ExpertClass]) -> u64 {
    let bytes = LANDING_GROUPS * group_bytes(classes) / classes.len() as u64;
    (bytes / class.bytes_of_one.max(1)).clamp(1, class.most_of_layer)
}

fn landing_bytes(model: &Model, class: &ExpertClass, classes: &[ExpertClass]) -> u64 {
    let like = model.weights().expert(model.checkpoint(), ExpertsId(class.layers[0]), 0);
    Landings::bytes(landings(class, classes) as usize, class.most_of_layer as usize, &like)
}

/// What lands together, in groups of [`group_bytes`].
const LANDING_GROUPS: u64 = 3;

/// See [`group_bytes`].
const GROUP_BYTES: u64 = 32 << 20;
