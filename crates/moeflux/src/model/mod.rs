//! A model: its weights in place, and how a family composes them.

mod attention;
mod decoder;
mod deepseek;
mod dense;
mod error;
mod ffn;
mod fingerprint;
mod gated_attention;
mod gated_delta_net;
mod glm4_moe;
mod gpt_oss;
mod mixtral;
mod moe;
mod mtp;
mod olmoe;
mod qwen3_moe;
mod qwen3_next;
mod rope;

use std::fmt;
use std::path::Path;

use moeflux_checkpoint::{Checkpoint, ModelConfig, OpenOptions};

pub use self::error::ModelError;

use self::attention::QkNorm;
use crate::graph::role::Logits;
use crate::graph::{Graph, GraphBuilder, GraphError, Loader, StateSpec, StepShape, Tensor, WeightTable};
pub use crate::sequence::Fingerprint;
use crate::sequence::{KvType, ModelId, Sequence};
use crate::text::Tokenizer;

/// What a family's file provides: the forward pass as a graph.
trait Architecture: fmt::Debug + Send + Sync {
    /// From the step's tokens to its logits.
    fn forward(&self, b: &mut GraphBuilder, pass: Pass) -> Tensor<Logits>;

    /// The states of its layer for further tokens, if it has one.
    fn mtp_states(&self) -> Option<&[StateSpec]>;
}

/// What a graph computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The logits of the token after each.
    Tokens,
    /// The same, and the graph [keeps](Graph::kept) the rows that the output head reads.
    WithHidden,
    /// From such rows and the tokens after them to the logits of the tokens behind those, by the model's layer for
    /// multi-token prediction; on a [sequence of its own](Model::mtp_sequence). It keeps its own rows, which stand
    /// for the next token's to guess further still.
    Mtp,
}

/// How to open a model.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// How to read the checkpoint.
    pub checkpoint: OpenOptions,
    /// Whether to load the layer for multi-token prediction, if the checkpoint has one that is known how to run:
    /// speculation can then guess by it.
    pub mtp: bool,
}

/// A checkpoint that has been found whole and understood: every weight that its family needs is there with the shape
/// that its config implies.
#[derive(Debug)]
pub struct Model {
    id: ModelId,
    checkpoint: Checkpoint,
    weights: WeightTable,
    architecture: Box<dyn Architecture>,
    tokenizer: Tokenizer,
}

impl Model {
    /// Opens a checkpoint, a folder or a GGUF file: reads config and tokenizer, maps the weights, checks names and
    /// shapes.
    pub fn open(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Self, ModelError> {
        let checkpoint = Checkpoint::open(path, &options.checkpoint)?;
        let mut loader = Loader::new(checkpoint.weights()?);
        let architecture: Box<dyn Architecture> = match checkpoint.config() {
            ModelConfig::DeepseekV2(config) | ModelConfig::DeepseekV3(config) => {
                Box::new(deepseek::load(config, &mut loader)?)
            }
            ModelConfig::Glm4Moe(config) => Box::new(glm4_moe::load(config, &mut loader)?),
            ModelConfig::GptOss(config) => Box::new(gpt_oss::load(config, &mut loader)?),
            ModelConfig::Llama(config) | ModelConfig::Mistral(config) | ModelConfig::Qwen2(config) => {
                Box::new(dense::load(config, QkNorm::None, &mut loader)?)
            }
            ModelConfig::Mixtral(config) => Box::new(mixtral::load(config, &mut loader)?),
            ModelConfig::Olmoe(config) => Box::new(olmoe::load(config, &mut loader)?),
            ModelConfig::Qwen3(config) => Box::new(dense::load(config, QkNorm::PerHead, &mut loader)?),
            ModelConfig::Qwen3Moe(config) => Box::new(qwen3_moe::load(config, &mut loader)?),
            ModelConfig::Qwen3_5(config)
            | ModelConfig::Qwen3_5Moe(config)
            | ModelConfig::Qwen3Next(config) => Box::new(qwen3_next::load(config, options.mtp, &mut loader)?),
        };
        let weights = loader.finish()?;
        let tokenizer = Tokenizer::of(&checkpoint)?;
        let model = Model { id: ModelId::unique(), checkpoint, weights, architecture, tokenizer };
        // A contradiction between shapes shows here rather than in the first step.
        let shape = StepShape { n_tokens: 1, n_outputs: 1 };
        model.graph(shape)?;
        if model.has_mtp() {
            model.graph_of(Pass::Mtp, shape)?;
        }
        Ok(model)
    }

    /// The graph for steps of this shape.
    pub fn graph(&self, shape: StepShape) -> Result<Graph, GraphError> {
        self.graph_of(Pass::Tokens, shape)
    }

    /// The graph of a pass for steps of this shape; [`Pass::Mtp`] only if there is such a
    /// [sequence](Self::mtp_sequence).
    pub fn graph_of(&self, pass: Pass, shape: StepShape) -> Result<Graph, GraphError> {
        let mut builder = GraphBuilder::new(shape);
        let logits = self.architecture.forward(&mut builder, pass);
        builder.finish(logits)
    }

    /// An empty sequence for backends whose caches have elements of this type.
    pub fn sequence(&self, kv_type: KvType) -> Sequence {
        Sequence::new(self.id, self.weights.states(), kv_type)
    }

    /// Whether a layer for multi-token prediction was loaded.
    pub fn has_mtp(&self) -> bool {
        self.architecture.mtp_states().is_some()
    }

    /// An empty sequence for [`Pass::Mtp`]; `None` if no layer for it was loaded.
    pub fn mtp_sequence(&self, kv_type: KvType) -> Option<Sequence> {
        Some(Sequence::new(self.id, self.architecture.mtp_states()?, kv_type))
    }

    /// Tells this model's sequences from another's.
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// The files behind it.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What `config.json` says.
    pub fn config(&self) -> &ModelConfig {
        self.checkpoint.config()
    }

    /// Every weight that its graphs read.
    pub fn weights(&self) -> &WeightTable {
        &self.weights
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Number of tokens that the model knows, and of logits that it gives.
    pub fn vocab_size(&self) -> usize {
        self.config().vocab_size()
    }

    /// The longest sequence it was made for, in tokens.
    pub fn context_length(&self) -> usize {
        self.config().max_position_embeddings()
    }
}
