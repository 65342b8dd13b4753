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
use crate::family::deepseek::{self, DeepseekConfig};
use crate::family::dense::{self, DenseConfig};
use crate::family::glm4_moe::{self, Glm4MoeConfig};
use crate::family::gpt_oss::{self, GptOssConfig};
use crate::family::mixtral::{self, MixtralConfig};
use crate::family::olmoe::{self, OlmoeConfig};
use crate::family::parts::DecoderConfig;
use crate::family::qwen3_5_moe;
use crate::family::qwen3_moe::{self, Qwen3MoeConfig};
use crate::family::qwen3_next::{self, Qwen3NextConfig};
use crate::family::rope::RopeParameters;
use crate::quantization::Quantization;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::path::Path;

/// A model family and its sizes, checked: every number is possible and every product of sizes fits 64 bits.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// DeepSeek-V2.
    DeepseekV2(DeepseekConfig),
    /// DeepSeek-V3 and what is built like it, such as Kimi-K2 and Cogito v2.
    DeepseekV3(DeepseekConfig),
    /// GLM-4.5 and later.
    Glm4Moe(Glm4MoeConfig),
    /// gpt-oss.
    GptOss(GptOssConfig),
    /// Dense models shaped as Llama's.
    Llama(DenseConfig),
    /// Mixtral.
    Mixtral(MixtralConfig),
    /// Mistral, dense.
    Mistral(DenseConfig),
    /// OLMoE.
    Olmoe(OlmoeConfig),
    /// Qwen2 and Qwen2.5, dense.
    Qwen2(DenseConfig),
    /// Qwen3, dense.
    Qwen3(DenseConfig),
    /// Qwen3.5 and Qwen3.6, dense.
    Qwen3_5(Qwen3NextConfig),
    /// Qwen3.5 and Qwen3.6 with experts.
    Qwen3_5Moe(Qwen3NextConfig),
    /// Qwen3 with experts.
    Qwen3Moe(Qwen3MoeConfig),
    /// Qwen3-Next.
    Qwen3Next(Qwen3NextConfig),
}

impl ModelConfig {
    /// The family's `model_type`.
    pub fn model_type(&self) -> &'static str {
        match self {
            ModelConfig::DeepseekV2(_) => "deepseek_v2",
            ModelConfig::DeepseekV3(_) => "deepseek_v3",
            ModelConfig::Glm4Moe(_) => "glm4_moe",
            ModelConfig::GptOss(_) => "gpt_oss",
            ModelConfig::Llama(_) => "llama",
            ModelConfig::Mistral(_) => "mistral",
            ModelConfig::Mixtral(_) => "mixtral",
            ModelConfig::Olmoe(_) => "olmoe",
            ModelConfig::Qwen2(_) => "qwen2",
            ModelConfig::Qwen3(_) => "qwen3",
            ModelConfig::Qwen3_5(_) => "qwen3_5",
            ModelConfig::Qwen3_5Moe(_) => "qwen3_5_moe",
            ModelConfig::Qwen3Moe(_) => "qwen3_moe",
            ModelConfig::Qwen3Next(_) => "qwen3_next",
        }
    }

    /// What every family has.
    pub fn decoder(&self) -> &DecoderConfig {
        match self {
            ModelConfig::DeepseekV2(config) | ModelConfig::DeepseekV3(config) => &config.decoder,
            ModelConfig::Glm4Moe(config) => &config.decoder,
            ModelConfig::GptOss(config) => &config.decoder,
            ModelConfig::Llama(config)
            | ModelConfig::Mistral(config)
            | ModelConfig::Qwen2(config)
            | ModelConfig::Qwen3(config) => &config.decoder,
            ModelConfig::Mixtral(config) => &config.decoder,
            ModelConfig::Olmoe(config) => &config.decoder,
            ModelConfig::Qwen3_5(config)
            | ModelConfig::Qwen3_5Moe(config)
            | ModelConfig::Qwen3Next(config) => &config.decoder,
            ModelConfig::Qwen3Moe(config) => &config.decoder,
        }
    }

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

    /// How positions turn queries and keys.
    pub fn rope(&self) -> &RopeParameters {
        match self {
            ModelConfig::DeepseekV2(config) | ModelConfig::DeepseekV3(config) => &config.attention.rope,
            ModelConfig::Glm4Moe(config) => &config.attention.rope,
            ModelConfig::GptOss(config) => &config.attention.rope,
            ModelConfig::Llama(config)
            | ModelConfig::Mistral(config)
            | ModelConfig::Qwen2(config)
            | ModelConfig::Qwen3(config) => &config.attention.rope,
            ModelConfig::Mixtral(config) => &config.attention.rope,
            ModelConfig::Olmoe(config) => &config.attention.rope,
            ModelConfig::Qwen3_5(config)
            | ModelConfig::Qwen3_5Moe(config)
            | ModelConfig::Qwen3Next(config) => &config.attention.rope,
            ModelConfig::Qwen3Moe(config) => &config.attention.rope,
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

/// What [`parse`] reads.
const MODEL_TYPES: &str = "deepseek_v2, deepseek_v3, glm4_moe, gpt_oss, kimi_k2, llama, mistral, mixtral, olmoe, qwen2, \
    qwen3, qwen3_5, qwen3_5_moe, qwen3_moe or qwen3_next";

/// Reads the bytes of a `config.json`; `path` names it in errors.
pub fn parse(path: &Path, bytes: &[u8], options: &OpenOptions) -> Result<Config, Error> {
    read(path, &object(path, bytes)?, options)
}

/// Reads the fields of a `config.json`, or of what stands for one in the file `path`.
pub(crate) fn read(path: &Path, map: &Map<String, Value>, options: &OpenOptions) -> Result<Config, Error> {
    let passed_over = RefCell::default();
    let mut fields = Fields::new(path, map, &options.ignored_config_fields, &passed_over);
    let quantization = Quantization::read(&mut fields)?;
    let model_type = fields.text("model_type")?;
    let model = match model_type {
        Some("deepseek_v2") => ModelConfig::DeepseekV2(deepseek::read_config(fields, deepseek::Version::V2)?),
        Some("deepseek_v3" | "kimi_k2") => {
            ModelConfig::DeepseekV3(deepseek::read_config(fields, deepseek::Version::V3)?)
        }
        Some("glm4_moe") => ModelConfig::Glm4Moe(glm4_moe::read_config(fields)?),
        Some("gpt_oss") => ModelConfig::GptOss(gpt_oss::read_config(fields)?),
        Some("llama") => ModelConfig::Llama(dense::read_config(fields, dense::Kind::Llama)?),
        Some("mistral") => ModelConfig::Mistral(dense::read_config(fields, dense::Kind::Mistral)?),
        Some("mixtral") => ModelConfig::Mixtral(mixtral::read_config(fields)?),
        Some("olmoe") => ModelConfig::Olmoe(olmoe::read_config(fields)?),
        Some("qwen2") => ModelConfig::Qwen2(dense::read_config(fields, dense::Kind::Qwen2)?),
        Some("qwen3") => ModelConfig::Qwen3(dense::read_config(fields, dense::Kind::Qwen3)?),
        Some("qwen3_5" | "qwen3_5_text") => {
            ModelConfig::Qwen3_5(qwen3_5_moe::read_config(fields, qwen3_next::Mlp::Dense)?)
        }
        Some("qwen3_5_moe" | "qwen3_5_moe_text") => {
            ModelConfig::Qwen3_5Moe(qwen3_5_moe::read_config(fields, qwen3_next::Mlp::Sparse)?)
        }
        Some("qwen3_moe") => ModelConfig::Qwen3Moe(qwen3_moe::read_config(fields)?),
        Some("qwen3_next") => ModelConfig::Qwen3Next(qwen3_next::read_config(fields)?),
        _ => return Err(fields.wrong("model_type", MODEL_TYPES)),
    };
    Ok(Config { model, quantization, ignored: passed_over.into_inner() })
}
