//! What a model is made of, in numbers: parameters, bytes, and what a token costs.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use moeflux_checkpoint::{Checkpoint, Expert, Tensor};
use serde::Serialize;

use crate::graph::{Graph, GraphError, NamedMatrix, Op, StepShape, WeightRead, WeightTable};
use crate::model::Model;
use crate::placement::weight_cost;
pub use crate::sequence::SequenceBytes;

/// What [`Model::summary`] found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// `model_type` of the family.
    pub model_type: &'static str,
    /// How the weights are stored, in words.
    pub layout: String,
    /// Decoder layers by the kind of their mixer, in order of first appearance.
    pub layers: Vec<LayerCount>,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Routed experts of a layer, and how many of them a token visits.
    pub experts: ExpertCount,
    /// Tokens with a logit.
    pub vocab_size: usize,
    /// Longest sequence in tokens.
    pub context_length: usize,
    /// Weights that the forward pass uses.
    pub parameters: Parameters,
    /// Bits in the files for each parameter, scales and biases included.
    pub bits_per_weight: f64,
    /// Bytes of weights that one decoded token reads.
    pub bytes_per_token: TokenBytes,
    /// Memory of one sequence.
    pub sequence: SequenceBytes,
    /// Where each byte of the files' tensors is, by part; parts that the files lack are left out.
    pub parts: Vec<PartSize>,
    /// The weight files.
    pub files: Vec<FileSize>,
}

/// So many layers of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerCount {
    /// The mixer, under `config.json`'s name for it.
    pub kind: &'static str,
    /// How many layers.
    pub count: usize,
}

/// Experts of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ExpertCount {
    /// Routed experts.
    pub total: usize,
    /// Of these, active for a token.
    pub active: usize,
}

/// Numbers of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// All that the forward pass can use.
    pub total: u64,
    /// Those that one token uses: its row of the embedding, its experts, and everything dense.
    pub active: u64,
}

/// Bytes of weights read for one token when it is decoded alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TokenBytes {
    /// Everything but routed experts.
    pub dense: u64,
    /// Routed experts.
    pub experts: u64,
}

/// A part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Token embedding.
    Embedding,
    /// Softmax attention.
    Attention,
    /// Gated delta nets.
    LinearAttention,
    /// Routers and the shared experts' gates.
    Router,
    /// Shared experts.
    SharedExpert,
    /// Routed experts.
    Experts,
    /// MLPs of layers without experts.
    DenseMlp,
    /// Norms.
    Norms,
    /// The output projection.
    LmHead,
    /// Multi-token prediction; recognised, not used yet.
    Mtp,
    /// Tensors that text does not need, such as a vision tower.
    Ignored,
}

/// What one part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PartSize {
    /// Which part.
    pub part: Part,
    /// Tensors in the files.
    pub tensors: usize,
    /// Bytes in the files.
    pub bytes: u64,
    /// Weights that the forward pass can use.
    pub parameters: u64,
}

/// A weight file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSize {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

impl Model {
    /// Counts what the model is made of. Reads no weights.
    pub fn summary(&self) -> Result<Summary, GraphError> {
        let table = self.weights();
        let graph = self.graph(StepShape { n_tokens: 1, n_outputs: 1 })?;
        let parts = parts(self);
        let total = parts.iter().map(|part| part.parameters).sum();
        let used_bytes: u64 = parts.iter().filter(|part| part.part.is_used()).map(|part| part.bytes).sum();
        let (active, bytes_per_token) = token_cost(&graph, table);
        Ok(Summary {
            model_type: self.config().model_type(),
            layout: self.checkpoint().layout(),
            layers: layers(&graph),
            hidden_size: self.config().hidden_size(),
            experts: expert_count(&graph, table),
            vocab_size: self.config().vocab_size(),
            context_length: self.context_length(),
            parameters: Parameters { total, active },
            bits_per_weight: 8.0 * used_bytes as f64 / total as f64,
            bytes_per_token,
            sequence: SequenceBytes::of(table.states()),
            parts,
            files: self
                .checkpoint()
                .files()
                .iter()
                .filter(|file| file.is_in_place())
                .map(|file| FileSize { path: file.path().to_owned(), bytes: file.len() })
                .collect(),
        })
    }
}

impl Part {
    /// The part that one of a checkpoint's tensors belongs to.
    pub fn of_tensor(checkpoint: &Checkpoint, tensor: &Tensor) -> Self {
        if checkpoint.is_mtp(tensor) { Part::Mtp } else { Part::of(&tensor.name) }
    }

    /// The part that a tensor belongs to, by its name in a file or its canonical name: the families' names
    /// for parts agree wherever they come from.
    pub fn of(tensor: &str) -> Self {
        let any = |is: &dyn Fn(&str) -> bool| tensor.split('.').any(is);
        let has = |name: &str| any(&|piece| piece == name);
        if let Some(part) = Part::of_gguf(tensor) {
            part
        } else if has("mtp") {
            Part::Mtp
        } else if any(&|piece| piece.starts_with("visual") || piece.starts_with("vision")) {
            Part::Ignored
        } else if has("embed_tokens") {
            Part::Embedding
        } else if has("lm_head") {
            Part::LmHead
        } else if any(&|piece| piece.ends_with("norm")) {
            Part::Norms
        } else if has("self_attn") {
            Part::Attention
        } else if has("linear_attn") {
            Part::LinearAttention
        } else if has("gate") || has("router") || has("shared_expert_gate") {
            Part::Router
        } else if has("shared_expert") || has("shared_experts") {
            Part::SharedExpert
        } else if has("experts") || has("switch_mlp") {
            Part::Experts
        } else if has("mlp") {
            Part::DenseMlp
        } else {
            Part::Ignored
        }
    }

    /// The part of a tensor that is named as in GGUF files.
    fn of_gguf(tensor: &str) -> Option<Self> {
        let stem = |name: &'static str| tensor.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        if stem("token_embd") {
            return Some(Part::Embedding);
        }
        if stem("output") {
            return Some(Part::LmHead);
        }
        if stem("output_norm") {
            return Some(Part::Norms);
        }
        let (_, name) = tensor.strip_prefix("blk.")?.split_once('.')?;
        let (name, suffix) = name.split_once('.').unwrap_or((name, ""));
        Some(match name {
            _ if name.ends_with("norm") => Part::Norms,
            "attn_qkv" | "attn_gate" => Part::LinearAttention,
            "ffn_gate_inp" | "ffn_gate_inp_shexp" | "exp_probs_b" => Part::Router,
            _ if name.starts_with("attn_") => Part::Attention,
            _ if name.starts_with("ssm_") => Part::LinearAttention,
            _ if name.ends_with("_shexp") => Part::SharedExpert,
            // All experts in one tensor, or each with its number.
            _ if name.ends_with("_exps") => Part::Experts,
            _ if name.starts_with("ffn_") && suffix.contains('.') => Part::Experts,
            _ if name.starts_with("ffn_") => Part::DenseMlp,
            _ => Part::Ignored,
        })
    }

    /// Whether the forward pass uses it.
    pub fn is_used(self) -> bool {
        !matches!(self, Part::Mtp | Part::Ignored)
    }
}

/// A layer is known by its mixer.
fn layers(graph: &Graph) -> Vec<LayerCount> {
    let mut layers: Vec<LayerCount> = Vec::new();
    for kind in graph.ops().iter().filter_map(mixer) {
        match layers.iter_mut().find(|known| known.kind == kind) {
            Some(known) => known.count += 1,
            None => layers.push(LayerCount { kind, count: 1 }),
        }
    }
    layers
}

/// The kind of mixer that the operation is the heart of.
fn mixer(op: &Op) -> Option<&'static str> {
    match op {
        Op::Attention { shape, .. } if shape.window.is_some() => Some("sliding_attention"),
        Op::Attention { .. } => Some("full_attention"),
        Op::MlaAttention { .. } => Some("latent_attention"),
        Op::GatedDelta { .. } => Some("linear_attention"),
        _ => None,
    }
}

/// Bytes are those of the files' tensors, parameters those of the weight table: codes, scales and biases are
/// several tensors, but one parameter a code.
fn parts(model: &Model) -> Vec<PartSize> {
    let mut parts = BTreeMap::new();
    let mut part = |part: Part, tensors: usize, bytes: u64, parameters: u64| {
        let size = parts.entry(part).or_insert(PartSize { part, tensors: 0, bytes: 0, parameters: 0 });
        size.tensors += tensors;
        size.bytes += bytes;
        size.parameters += parameters;
    };
    for tensor in model.checkpoint().tensors() {
        part(Part::of_tensor(model.checkpoint(), tensor), 1, tensor.span.len, 0);
    }
    let table = model.weights();
    let mut counted = HashSet::new();
    for NamedMatrix { name, matrix } in table.matrices() {
        // A tied embedding is the output projection too.
        if counted.insert((matrix.codes, matrix.runs)) {
            part(Part::of(name), 0, 0, matrix.parameters());
        }
    }
    for vector in table.vectors() {
        part(Part::of(&vector.name), 0, 0, vector.values.len() as u64);
    }
    for experts in table.experts() {
        let count = experts.experts.iter().map(Expert::parameters).sum();
        part(Part::of(&experts.name), 0, 0, count);
    }
    parts.into_values().collect()
}

/// Parameters and bytes that the graph of one token reads. Vectors are held as float32.
fn token_cost(graph: &Graph, table: &WeightTable) -> (u64, TokenBytes) {
    let (mut active, mut bytes) = (0, TokenBytes { dense: 0, experts: 0 });
    for read in graph.ops().iter().flat_map(Op::weights) {
        let visited = match read {
            WeightRead::Experts { k, .. } => k as u64,
            _ => 0,
        };
        let cost = weight_cost(&read, table, 1, visited);
        active += cost.parameters;
        match read {
            WeightRead::Experts { .. } => bytes.experts += cost.bytes,
            _ => bytes.dense += cost.bytes,
        }
    }
    (active, bytes)
}

fn expert_count(graph: &Graph, table: &WeightTable) -> ExpertCount {
    graph
        .ops()
        .iter()
        .flat_map(Op::weights)
        .find_map(|read| match read {
            WeightRead::Experts { experts, k } => {
                Some(ExpertCount { total: table.experts_of(experts).experts.len(), active: k })
            }
            _ => None,
        })
        .unwrap_or(ExpertCount { total: 0, active: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_by_names_of_any_format() {
        for (name, part) in [
            ("language_model.model.embed_tokens.scales", Part::Embedding),
            ("lm_head.weight", Part::LmHead),
            ("model.language_model.layers.3.self_attn.q_proj.weight", Part::Attention),
            ("model.layers.3.self_attn.q_norm.weight", Part::Norms),
            ("layers.0.linear_attn.conv1d", Part::LinearAttention),
            ("language_model.model.layers.0.mlp.gate.biases", Part::Router),
            ("model.layers.0.mlp.shared_expert_gate.weight", Part::Router),
            ("model.layers.0.mlp.shared_expert.gate_proj.weight", Part::SharedExpert),
            ("model.layers.0.mlp.experts.gate_up_proj", Part::Experts),
            ("model.layers.0.mlp.experts.7.gate_proj.weight", Part::Experts),
            ("language_model.model.layers.0.mlp.switch_mlp.gate_proj.weight", Part::Experts),
            ("layers.0.mlp.gate", Part::Router),
            ("model.layers.0.mlp.gate_proj.weight", Part::DenseMlp),
            ("model.layers.1.mlp.shared_experts.gate_proj.weight", Part::SharedExpert),
            ("model.layers.1.mlp.gate.e_score_correction_bias", Part::Router),
            ("model.layers.1.self_attn.q_proj.bias", Part::Attention),
            ("model.layers.0.block_sparse_moe.gate.weight", Part::Router),
            ("model.layers.0.block_sparse_moe.experts.0.w1.weight", Part::Experts),
            ("mtp.layers.0.mlp.gate.weight", Part::Mtp),
            ("model.visual.blocks.0.norm1.weight", Part::Ignored),
            ("token_embd.weight", Part::Embedding),
            ("output.weight", Part::LmHead),
            ("output_norm.weight", Part::Norms),
            ("blk.3.attn_q_norm.weight", Part::Norms),
            ("blk.3.attn_k_b.weight", Part::Attention),
            ("blk.0.attn_gate.weight", Part::LinearAttention),
            ("blk.0.ssm_a", Part::LinearAttention),
            ("blk.0.exp_probs_b.bias", Part::Router),
            ("blk.0.ffn_gate_inp.weight", Part::Router),
            ("blk.0.ffn_gate_inp_shexp.weight", Part::Router),
            ("blk.0.ffn_gate_shexp.weight", Part::SharedExpert),
            ("blk.0.ffn_gate_exps.weight", Part::Experts),
            ("blk.0.ffn_gate_exps.bias", Part::Experts),
            ("blk.0.ffn_gate.7.weight", Part::Experts),
            ("blk.0.ffn_gate.weight", Part::DenseMlp),
            ("blk.4.nextn.eh_proj.weight", Part::Ignored),
        ] {
            assert_eq!(Part::of(name), part, "{name}");
        }
    }
}
