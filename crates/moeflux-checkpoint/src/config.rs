//! `config.json`: which model a checkpoint holds, and the policy for fields.
//!
//! A field that a family needs is read and checked; one that is known to change nothing is passed over; one whose
//! value would change what the model computes, or that nobody here knows, is an error. Nothing is ignored in silence,
//! save what the caller lists.

mod fields;
mod ignored;
mod json;
pub(crate) mod modelopt;

pub(crate) use fields::Fields;
pub use ignored::{IGNORABLE, Ignorable, IgnoredField};
pub(crate) use json::object;

use crate::checkpoint::OpenOptions;
use crate::error::Error;
use crate::family;
pub use crate::family::ModelConfig;
use crate::family::rope::RopeParameters;
use crate::quantization::Quantization;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::path::Path;

impl ModelConfig {
    /// How positions turn queries and keys, of families that GGUF files have factors for.
    pub(crate) fn rope_mut(&mut self) -> Option<&mut RopeParameters> {
        match self {
            ModelConfig::Llama(config)
            | ModelConfig::Mistral(config)
            | ModelConfig::Qwen2(config)
            | ModelConfig::Qwen3(config) => Some(&mut config.attention.rope),
            ModelConfig::Mixtral(config) => Some(&mut config.attention.rope),
            _ => None,
        }
    }

    /// How positions turn queries and keys of layers over a sliding window, where it differs from that of the
    /// [others](Self::rope).
    pub fn sliding_rope(&self) -> Option<&RopeParameters> {
        match self {
            ModelConfig::GptOss(config) => config.attention.sliding_rope.as_ref(),
            ModelConfig::Mistral(config) | ModelConfig::Qwen2(config) | ModelConfig::Qwen3(config) => {
                config.attention.sliding_rope.as_ref()
            }
            _ => None,
        }
    }

    /// Width of the residual stream.
    pub fn hidden_size(&self) -> usize {
        self.decoder().hidden_size
    }

    /// Number of token ids that have a logit.
    pub fn vocab_size(&self) -> usize {
        self.decoder().vocab_size
    }

    /// Decoder layers, without those of a multi-token-prediction head.
    pub fn num_hidden_layers(&self) -> usize {
        self.decoder().num_hidden_layers
    }

    /// Context length in tokens.
    pub fn max_position_embeddings(&self) -> usize {
        self.decoder().max_position_embeddings
    }
}

/// What `config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The model.
    pub model: ModelConfig,
    /// How its modules are quantised; `None` for plain floats.
    pub quantization: Option<Quantization>,
    /// Fields that are there and change nothing, or are ignored because the caller asks for it.
    pub ignored: Vec<IgnoredField>,
}

/// Reads the bytes of a `config.json`; `path` names it in errors.
pub fn parse(path: &Path, bytes: &[u8], options: &OpenOptions) -> Result<Config, Error> {
    read(path, &object(path, bytes)?, options)
}

/// Reads the fields of a `config.json`, or of what stands for one in the file `path`.
pub(crate) fn read(path: &Path, map: &Map<String, Value>, options: &OpenOptions) -> Result<Config, Error> {
    let passed_over = RefCell::default();
    let mut fields = Fields::new(path, map, &options.ignored_config_fields, &passed_over);
    // An unknown family is the first thing to say: its quantisation may be unknown too.
    let read_family = family::reader(&mut fields)?;
    let quantization = Quantization::read(&mut fields)?;
    let model = read_family(fields)?;
    Ok(Config { model, quantization, ignored: passed_over.into_inner() })
}
