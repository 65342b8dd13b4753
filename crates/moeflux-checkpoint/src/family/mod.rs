//! What differs between model families: the fields of `config.json`, and the names and conventions of tensors.
//!
//! A family is one file here, with its config and the function that reads it, and one entry of `families!`. Where the names or
//! conventions of its tensors are not the plain ones, `Conventions::of` says so.

pub mod deepseek;
pub mod dense;
pub mod glm4_moe;
pub mod gpt_oss;
pub mod mixtral;
pub mod olmoe;
pub mod parts;
pub mod qwen3_5_moe;
pub mod qwen3_moe;
pub mod qwen3_next;
pub mod rope;

use crate::config::Fields;
use crate::error::Error;
use crate::family::deepseek::DeepseekConfig;
use crate::family::dense::DenseConfig;
use crate::family::glm4_moe::Glm4MoeConfig;
use crate::family::gpt_oss::GptOssConfig;
use crate::family::mixtral::MixtralConfig;
use crate::family::olmoe::OlmoeConfig;
use crate::family::parts::DecoderConfig;
use crate::family::qwen3_moe::Qwen3MoeConfig;
use crate::family::qwen3_next::Qwen3NextConfig;
use crate::family::rope::RopeParameters;
pub(crate) use crate::files::Tensors;
use crate::gguf;
use std::borrow::Cow;
use std::path::Path;

/// Defines [`ModelConfig`] from the table of families. An entry has the variant and its config, the `model_type` and others that
/// mean the same, and the module whose `read_config` reads the fields, with the argument that it takes besides them.
macro_rules! families {
    ($(
        $(#[$doc:meta])*
        $variant:ident($config:ty): $model_type:literal $(| $alias:literal)* => $module:ident $(($argument:expr))?;
    )*) => {
        /// A model family and its sizes, checked: every number is possible and every product of sizes fits 64 bits.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ModelConfig {
            $($(#[$doc])* $variant($config),)*
        }

        impl ModelConfig {
            /// The family's `model_type`.
            pub fn model_type(&self) -> &'static str {
                match self {
                    $(ModelConfig::$variant(_) => $model_type,)*
                }
            }

            /// Fields that every family has.
            pub fn decoder(&self) -> &DecoderConfig {
                match self {
                    $(ModelConfig::$variant(config) => &config.decoder,)*
                }
            }

            /// How positions turn queries and keys.
            pub fn rope(&self) -> &RopeParameters {
                match self {
                    $(ModelConfig::$variant(config) => &config.attention.rope,)*
                }
            }
        }

        /// Each `model_type` that [`reader`] knows.
        const MODEL_TYPES: &[&str] = &[$($model_type, $($alias,)*)*];

        /// The reader of the family that the `model_type` of a `config.json` names.
        pub(crate) fn reader(fields: &mut Fields<'_>) -> Result<Reader, Error> {
            let reader: Reader = match fields.text("model_type")? {
                $(Some($model_type $(| $alias)*) => {
                    |fields| Ok(ModelConfig::$variant($module::read_config(fields $(, $argument)?)?))
                })*
                _ => return Err(fields.wrong("model_type", &model_types())),
            };
            Ok(reader)
        }
    };
}

families! {
    /// DeepSeek-V2.
    DeepseekV2(DeepseekConfig): "deepseek_v2" => deepseek(deepseek::Version::V2);
    /// DeepSeek-V3 and what is built like it, such as Kimi-K2 and Cogito v2.
    DeepseekV3(DeepseekConfig): "deepseek_v3" | "kimi_k2" => deepseek(deepseek::Version::V3);
    /// GLM-4.5 and later.
    Glm4Moe(Glm4MoeConfig): "glm4_moe" => glm4_moe;
    /// gpt-oss.
    GptOss(GptOssConfig): "gpt_oss" => gpt_oss;
    /// Dense models shaped as Llama's.
    Llama(DenseConfig): "llama" => dense(dense::Kind::Llama);
    /// Mixtral.
    Mixtral(MixtralConfig): "mixtral" => mixtral;
    /// Mistral, dense.
    Mistral(DenseConfig): "mistral" => dense(dense::Kind::Mistral);
    /// OLMoE.
    Olmoe(OlmoeConfig): "olmoe" => olmoe;
    /// Qwen2 and Qwen2.5, dense.
    Qwen2(DenseConfig): "qwen2" => dense(dense::Kind::Qwen2);
    /// Qwen3, dense.
    Qwen3(DenseConfig): "qwen3" => dense(dense::Kind::Qwen3);
    /// Qwen3.5 and Qwen3.6, dense.
    Qwen3_5(Qwen3NextConfig): "qwen3_5" | "qwen3_5_text" => qwen3_5_moe(qwen3_next::Mlp::Dense);
    /// Qwen3.5 and Qwen3.6 with experts.
    Qwen3_5Moe(Qwen3NextConfig): "qwen3_5_moe" | "qwen3_5_moe_text" => qwen3_5_moe(qwen3_next::Mlp::Sparse);
    /// Qwen3 with experts.
    Qwen3Moe(Qwen3MoeConfig): "qwen3_moe" => qwen3_moe;
    /// Qwen3-Next.
    Qwen3Next(Qwen3NextConfig): "qwen3_next" => qwen3_next;
}

/// Reads the fields of a `config.json` as a family has them.
pub(crate) type Reader = fn(Fields<'_>) -> Result<ModelConfig, Error>;

/// The known values of `model_type` as a list for people, without those of the text part of a model with images.
fn model_types() -> String {
    let mut names: Vec<&str> = MODEL_TYPES.iter().copied().filter(|name| !name.ends_with("_text")).collect();
    names.sort_unstable();
    match names.split_last() {
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// Whose tool wrote a checkpoint: they differ in how they store some tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As trained and published: convolutions `[channels, 1, kernel]`, zero-centred norms as `w`.
    HuggingFace,
    /// As `mlx_lm.convert` writes it: convolutions `[channels, kernel, 1]`, zero-centred norms as `1 + w`.
    Mlx,
    /// As llama.cpp's converter writes it: convolutions `[channels, kernel]`, zero-centred norms as `1 + w`, and
    /// `-exp(A_log)` for `A_log`.
    Gguf,
}

impl Layout {
    /// What the names of tensors with all experts of a layer end in, gate and up in one.
    pub(crate) fn fused_suffix(self) -> &'static str {
        if self == Layout::Gguf { ".weight" } else { "" }
    }
}

/// In which order a checkpoint has rows that some writers reorder, to suit the operations that read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowOrder {
    /// Value head `j` of a gated delta net goes with key head `j mod key_heads`, instead of
    /// `j / (value_heads / key_heads)`.
    pub value_heads_tiled: bool,
    /// The two channels that RoPE turns together lie side by side, instead of half the rotary channels apart.
    pub rotary_pairs_adjacent: bool,
}

/// How a checkpoint names and stores a family's tensors. Canonical names are those of the hub without what stands in
/// front of them: `embed_tokens`, `norm`, `lm_head`, `layers.3.self_attn.q_proj`, `mtp.fc`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conventions {
    pub(crate) layout: Layout,
    /// What stands in front of `embed_tokens`, `norm` and `layers` in the files.
    pub(crate) prefix: &'static str,
    /// What `lm_head` is called in the files.
    pub(crate) lm_head: &'static str,
    /// Whether `lm_head` is the embedding instead.
    pub(crate) tied: bool,
    /// What the files call the tensor or module of a canonical name, prefix apart.
    pub(crate) rename: fn(&str) -> Cow<'_, str>,
    /// Whether the norm of this canonical name multiplies by `1 + w`.
    pub(crate) is_zero_centred: fn(&str) -> bool,
    /// Whether the tensor of this canonical name is a parameter of its own, without `.weight` behind it.
    pub(crate) is_bare: fn(&str) -> bool,
    pub(crate) row_order: RowOrder,
}

impl Conventions {
    /// Looks at the tensors of the checkpoint in `folder`.
    pub(crate) fn of(config: &ModelConfig, tensors: &Tensors, folder: &Path) -> Result<Self, Error> {
        match config {
            ModelConfig::Qwen3_5(config)
            | ModelConfig::Qwen3_5Moe(config)
            | ModelConfig::Qwen3Next(config) => qwen3_next::conventions(config, tensors, folder),
            ModelConfig::Mixtral(_) => Ok(Conventions { rename: mixtral::rename, ..Self::plain(config) }),
            _ => Ok(Self::plain(config)),
        }
    }

    /// Names as in most families, tensors as they multiply: nothing differs between the hub and MLX but experts.
    fn plain(config: &ModelConfig) -> Self {
        Conventions {
            layout: Layout::HuggingFace,
            prefix: "model.",
            lm_head: "lm_head",
            tied: config.decoder().tie_word_embeddings,
            rename: |name| Cow::Borrowed(name),
            is_zero_centred: |_| false,
            is_bare: |name| matches!(last_part(name), "e_score_correction_bias" | "sinks"),
            row_order: RowOrder::default(),
        }
    }

    /// The module of a canonical name, as the files call it.
    pub(crate) fn module(&self, name: &str) -> String {
        match name {
            "lm_head" if self.tied => self.module("embed_tokens"),
            "lm_head" => self.lm_head.to_owned(),
            _ if name.starts_with("mtp.") => name.to_owned(),
            _ => format!("{}{}", self.prefix, (self.rename)(name)),
        }
    }

    /// The tensor of a canonical name that is not a linear map, as the files call it.
    pub(crate) fn tensor(&self, name: &str) -> String {
        let suffix = if last_part(name) == "bias" || (self.is_bare)(name) { "" } else { ".weight" };
        self.module(name) + suffix
    }

    /// Whether 1 has to be added to the stored norm of this canonical name.
    pub(crate) fn adds_one(&self, name: &str) -> bool {
        self.layout == Layout::HuggingFace && (self.is_zero_centred)(name)
    }
}

/// A name without what contains it.
pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Whether a tensor of this name in the files belongs to a vision tower, which text does not need.
pub(crate) fn is_vision(name: &str) -> bool {
    ["model.visual.", "visual.", "vision_tower.", "model.vision_tower."]
        .iter()
        .any(|tower| name.starts_with(tower))
}

/// Whether a tensor of this name in the files changes nothing: a table that follows from the config, which old versions of
/// transformers saved, or a scale that keys, values or queries are rounded with where a cache or an attention is of FP8.
pub(crate) fn is_buffer(name: &str) -> bool {
    const TABLES: [&str; 3] = ["inv_freq", "cos_cached", "sin_cached"];
    const SCALES: [&str; 6] = ["k_scale", "v_scale", "q_scale", "kv_scale", "prob_scale", "k_zero_point"];
    let last = last_part(name);
    let is_table = TABLES.contains(&last) && name.contains("rotary_emb.");
    // Of a projection's output in some files.
    let is_scale = SCALES.contains(&last) || matches!(last, "output_scale" | "v_zero_point");
    is_table || (is_scale && name.contains(".self_attn."))
}

/// Whether a tensor of this name in the files belongs to a multi-token-prediction head: a module of its own, or layers
/// behind the last.
pub(crate) fn is_mtp(name: &str, decoder: &DecoderConfig) -> bool {
    let layer = name
        .strip_prefix("model.layers.")
        .and_then(|rest| rest.split('.').next())
        .and_then(|layer| layer.parse::<usize>().ok());
    let further = decoder.num_hidden_layers..decoder.num_hidden_layers + decoder.num_nextn_predict_layers;
    layer.is_some_and(|layer| further.contains(&layer))
        || gguf::is_behind(name, decoder.num_hidden_layers)
        || ["mtp.", "model.mtp.", "language_model.mtp."].iter().any(|head| name.starts_with(head))
}
