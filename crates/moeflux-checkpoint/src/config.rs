//! `config.json`: which model a checkpoint holds, and the policy for fields.
//!
//! A field that a family needs is read and checked; one that is known to change nothing is passed over; one whose
//! value would change what the model computes, or that nobody here knows, is an error. Nothing is ignored in silence,
//! save what the caller lists.

mod fields;

pub(crate) use fields::Fields;

use crate::checkpoint::OpenOptions;
use crate::error::Error;
use crate::family::qwen3_5_moe::{self, Qwen3_5MoeConfig};
use crate::quantization::Quantization;
use std::path::Path;

/// A model family and its sizes, checked: every number is possible and every product of sizes fits 64 bits.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// Qwen3.5 and Qwen3.6 with experts.
    Qwen3_5Moe(Qwen3_5MoeConfig),
}

impl ModelConfig {
    /// The family's `model_type`.
    pub fn model_type(&self) -> &'static str {
        match self {
            ModelConfig::Qwen3_5Moe(_) => "qwen3_5_moe",
        }
    }

    /// Width of the residual stream.
    pub fn hidden_size(&self) -> usize {
        match self {
            ModelConfig::Qwen3_5Moe(config) => config.hidden_size,
        }
    }

    /// Number of token ids that have a logit.
    pub fn vocab_size(&self) -> usize {
        match self {
            ModelConfig::Qwen3_5Moe(config) => config.vocab_size,
        }
    }

    /// Decoder layers, without those of a multi-token-prediction head.
    pub fn num_hidden_layers(&self) -> usize {
        match self {
            ModelConfig::Qwen3_5Moe(config) => config.num_hidden_layers,
        }
    }

    /// Context length in tokens.
    pub fn max_position_embeddings(&self) -> usize {
        match self {
            ModelConfig::Qwen3_5Moe(config) => config.max_position_embeddings,
        }
    }
}

/// What `config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The model.
    pub model: ModelConfig,
    /// How its modules are quantised; `None` for plain floats.
    pub quantization: Option<Quantization>,
}

/// Reads the bytes of a `config.json`; `path` names it in errors.
pub fn parse(path: &Path, bytes: &[u8], options: &OpenOptions) -> Result<Config, Error> {
    let map =
        serde_json::from_slice(bytes).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    let mut fields = Fields::new(path, &map, &options.ignored_config_fields);
    let quantization = Quantization::read(&mut fields)?;
    let model_type = fields.text("model_type")?;
    let model = match model_type {
        Some("qwen3_5_moe" | "qwen3_5_moe_text") => {
            ModelConfig::Qwen3_5Moe(qwen3_5_moe::read_config(fields)?)
        }
        _ => return Err(fields.wrong("model_type", "qwen3_5_moe or qwen3_5_moe_text")),
    };
    Ok(Config { model, quantization })
}
