//! Qwen3.5 and Qwen3.6 with experts (`qwen3_5_moe`): three layers of gated delta net to one of gated attention, and a
//! mixture of experts with a shared one in every layer.
//!
//! Conventions of its checkpoints, and what [`Weights`](crate::Weights) makes of them:
//!
//! | | hub | MLX | handed out |
//! |---|---|---|---|
//! | in front of the names | `model.language_model.`, `model.` if text alone | `language_model.model.` | nothing |
//! | output projection | `lm_head` | `language_model.lm_head` | `lm_head`; the embedding if tied |
//! | norms, but for `linear_attn.norm` | `w` | `1 + w` | `1 + w` |
//! | `linear_attn.conv1d` | `[channels, 1, kernel]` | `[channels, kernel, 1]` | `[channels, kernel]`, the last tap is the present token |
//! | experts | `mlp.experts.gate_up_proj` (gate above up) and `down_proj`, or one by one | `mlp.switch_mlp`, one tensor a projection | one by one |
//!
//! The shape of `conv1d` tells the two apart, as it does in mlx-lm.

use crate::config::Fields;
use crate::error::Error;
use crate::family::{Conventions, Layout, Tensors};
use serde_json::{Value, json};
use std::path::Path;

/// What mixes tokens in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerType {
    /// Gated delta net.
    LinearAttention,
    /// Gated softmax attention.
    FullAttention,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeParameters {
    /// Base of the frequencies, `rope_theta`.
    pub theta: f64,
    /// Share of a head's channels that turn.
    pub partial_rotary_factor: f64,
    /// How many frequencies belong to time, height and width; interleaved. They add up to half the rotary channels.
    pub mrope_section: [usize; 3],
}

/// The sizes of a model; fields are called as in `config.json`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the ones that config.json has")]
pub struct Qwen3_5MoeConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    /// `num_hidden_layers` of them, at least one of them linear.
    pub layer_types: Vec<LayerType>,
    pub rms_norm_eps: f64,
    /// The context length in tokens.
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    pub num_attention_heads: usize,
    /// Divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rope: RopeParameters,
    pub linear_num_key_heads: usize,
    /// A multiple of `linear_num_key_heads`.
    pub linear_num_value_heads: usize,
    pub linear_key_head_dim: usize,
    pub linear_value_head_dim: usize,
    pub linear_conv_kernel_dim: usize,
    pub num_experts: usize,
    /// At most `num_experts`.
    pub num_experts_per_tok: usize,
    pub moe_intermediate_size: usize,
    pub shared_expert_intermediate_size: usize,
    pub mtp_num_hidden_layers: usize,
    pub mtp_use_dedicated_embeddings: bool,
}

impl Qwen3_5MoeConfig {
    /// Channels of a head, counted from the first, that turn with the position; even.
    pub fn rotary_dim(&self) -> usize {
        rotary_dim(self.head_dim, self.rope.partial_rotary_factor)
    }
}

fn rotary_dim(head_dim: usize, partial_rotary_factor: f64) -> usize {
    (head_dim as f64 * partial_rotary_factor) as usize
}

// Largest sizes accepted: far above any model, and low enough that no product of a tensor's dimensions in bytes
// overflows 64 bits.
const MAX_WIDTH: usize = 1 << 22;
const MAX_HEADS: usize = 1 << 12;
const MAX_HEAD_DIM: usize = 1 << 12;
const MAX_EXPERTS: usize = 1 << 14;
const MAX_LAYERS: usize = 1 << 12;
const MAX_CONV_KERNEL: usize = 64;
const MAX_CONTEXT: usize = 1 << 32;

/// Fields that do not change what the text model computes.
const INERT: &[&str] = &[
    // what made the file
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "model_name",
    "model_type",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_fixed_mtp",
    "unsloth_version",
    // how it is stored: the tensors say it
    "dtype",
    "torch_dtype",
    // training
    "attention_dropout",
    "initializer_range",
    "router_aux_loss_coef",
    // what transformers returns
    "id2label",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "problem_type",
    "return_dict",
    "use_cache",
    // tokens: the tokenizer and generation_config.json decide
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    // images
    "image_token_id",
    "language_model_only",
    "video_token_id",
    "vision_config",
    "vision_end_token_id",
    "vision_start_token_id",
    // dense layers: there are none
    "intermediate_size",
    "max_window_layers",
];

/// Reads the config, flat or with the text model under `text_config`.
pub(crate) fn read_config(mut top: Fields<'_>) -> Result<Qwen3_5MoeConfig, Error> {
    let tied = top.flag("tie_word_embeddings")?.unwrap_or(false);
    match top.object("text_config")? {
        None => read_text_config(top, tied),
        Some(mut text) => {
            top.inert(INERT);
            top.finish()?;
            text.only("model_type", &[json!("qwen3_5_moe_text"), json!("qwen3_5_moe")])?;
            let tied_within = text.flag("tie_word_embeddings")?.unwrap_or(false);
            read_text_config(text, tied || tied_within)
        }
    }
}

fn read_text_config(mut fields: Fields<'_>, tied: bool) -> Result<Qwen3_5MoeConfig, Error> {
    fields.inert(INERT);
    fields.only("hidden_act", &[json!("silu")])?;
    fields.only("attention_bias", &[json!(false)])?;
    fields.only("attn_output_gate", &[json!(true)])?;
    fields.only("output_gate_type", &[json!("swish"), json!("silu")])?;
    fields.only("norm_topk_prob", &[json!(true)])?;
    fields.only("decoder_sparse_step", &[json!(1)])?;
    fields.only("mlp_only_layers", &[json!([])])?;
    fields.only("use_sliding_window", &[json!(false)])?;
    fields.only("sliding_window", &[Value::Null])?;
    fields.only("mamba_ssm_dtype", &[json!("float32")])?;

    let num_hidden_layers = fields.size("num_hidden_layers", MAX_LAYERS)?;
    let head_dim = fields.size("head_dim", MAX_HEAD_DIM)?;
    let config = Qwen3_5MoeConfig {
        vocab_size: fields.size("vocab_size", MAX_WIDTH)?,
        hidden_size: fields.size("hidden_size", MAX_WIDTH)?,
        num_hidden_layers,
        layer_types: read_layer_types(&mut fields, num_hidden_layers)?,
        rms_norm_eps: fields
            .positive("rms_norm_eps")?
            .ok_or_else(|| fields.wrong("rms_norm_eps", "a number above 0"))?,
        max_position_embeddings: fields.size("max_position_embeddings", MAX_CONTEXT)?,
        tie_word_embeddings: tied,
        num_attention_heads: fields.size("num_attention_heads", MAX_HEADS)?,
        num_key_value_heads: fields.size("num_key_value_heads", MAX_HEADS)?,
        head_dim,
        rope: read_rope(&mut fields, head_dim)?,
        linear_num_key_heads: fields.size("linear_num_key_heads", MAX_HEADS)?,
        linear_num_value_heads: fields.size("linear_num_value_heads", MAX_HEADS)?,
        linear_key_head_dim: fields.size("linear_key_head_dim", MAX_HEAD_DIM)?,
        linear_value_head_dim: fields.size("linear_value_head_dim", MAX_HEAD_DIM)?,
        // With one tap the shape of the convolution would not tell the layouts apart.
        linear_conv_kernel_dim: fields
            .whole("linear_conv_kernel_dim", 2, MAX_CONV_KERNEL)?
            .ok_or_else(|| fields.wrong("linear_conv_kernel_dim", "a whole number above 1"))?,
        num_experts: fields.size("num_experts", MAX_EXPERTS)?,
        num_experts_per_tok: fields.size("num_experts_per_tok", MAX_EXPERTS)?,
        moe_intermediate_size: fields.size("moe_intermediate_size", MAX_WIDTH)?,
        shared_expert_intermediate_size: fields.size("shared_expert_intermediate_size", MAX_WIDTH)?,
        mtp_num_hidden_layers: fields.whole("mtp_num_hidden_layers", 0, MAX_LAYERS)?.unwrap_or(0),
        mtp_use_dedicated_embeddings: fields.flag("mtp_use_dedicated_embeddings")?.unwrap_or(false),
    };

    let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of num_attention_heads = {heads}");
        return Err(fields.impossible("num_key_value_heads", expected, &kv_heads));
    }
    let (key_heads, value_heads) = (config.linear_num_key_heads, config.linear_num_value_heads);
    if !value_heads.is_multiple_of(key_heads) {
        let expected = format!("a multiple of linear_num_key_heads = {key_heads}");
        return Err(fields.impossible("linear_num_value_heads", expected, &value_heads));
    }
    if config.num_experts_per_tok > config.num_experts {
        let expected = format!("at most num_experts = {}", config.num_experts);
        return Err(fields.impossible("num_experts_per_tok", expected, &config.num_experts_per_tok));
    }
    fields.finish()?;
    Ok(config)
}

/// `layer_types`, or every `full_attention_interval`-th layer full; if both are there they must agree.
fn read_layer_types(fields: &mut Fields<'_>, num_hidden_layers: usize) -> Result<Vec<LayerType>, Error> {
    let interval = fields.whole("full_attention_interval", 1, MAX_LAYERS)?;
    let by_interval = |interval: usize| -> Vec<LayerType> {
        let kind = |layer: usize| match (layer + 1) % interval {
            0 => LayerType::FullAttention,
            _ => LayerType::LinearAttention,
        };
        (0..num_hidden_layers).map(kind).collect()
    };
    let expected = format!("{num_hidden_layers} times linear_attention or full_attention");
    let listed = fields.read("layer_types", &expected, |value| {
        let kinds: Option<Vec<_>> = value.as_array()?.iter().map(layer_type).collect();
        kinds.filter(|kinds| kinds.len() == num_hidden_layers)
    })?;
    let layer_types = match (listed, interval) {
        (Some(listed), Some(interval)) if listed != by_interval(interval) => {
            return Err(
                fields.wrong("layer_types", &format!("what full_attention_interval = {interval} implies"))
            );
        }
        (Some(listed), _) => listed,
        (None, interval) => by_interval(interval.unwrap_or(4)),
    };
    // The convolution of a linear layer tells how the checkpoint stores norms: see the top of this file.
    if !layer_types.contains(&LayerType::LinearAttention) {
        let expected = "at least one layer of linear_attention".to_owned();
        return Err(fields.impossible("layer_types", expected, &"none"));
    }
    Ok(layer_types)
}

fn layer_type(value: &Value) -> Option<LayerType> {
    match value.as_str()? {
        "linear_attention" => Some(LayerType::LinearAttention),
        "full_attention" => Some(LayerType::FullAttention),
        _ => None,
    }
}

/// `rope_parameters` (or `rope_scaling`, its older name), and the older fields beside it.
fn read_rope(fields: &mut Fields<'_>, head_dim: usize) -> Result<RopeParameters, Error> {
    let name = if fields.value("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
    let mut rope = fields.object(name)?;
    if let Some(rope) = &mut rope {
        rope.only("rope_type", &[json!("default")])?;
        rope.only("type", &[json!("default")])?;
        rope.only("mrope_interleaved", &[json!(true)])?;
    }
    let mut both_places = |name: &str| {
        let inner = rope.as_mut().map_or(Ok(None), |rope| rope.positive(name))?;
        let outer = fields.positive(name)?;
        match (inner, outer) {
            (Some(inner), Some(outer)) if inner != outer => {
                Err(fields.wrong(name, &format!("{inner}, as in rope_parameters")))
            }
            _ => Ok(inner.or(outer)),
        }
    };
    let theta = both_places("rope_theta")?;
    let partial_rotary_factor = both_places("partial_rotary_factor")?.unwrap_or(0.25);
    let mrope_section = match &mut rope {
        Some(rope) => rope.read("mrope_section", "three whole numbers", |value| {
            let section: Option<Vec<usize>> = value
                .as_array()?
                .iter()
                .map(|n| n.as_u64().map(|n| n as usize).filter(|&n| n <= MAX_HEAD_DIM))
                .collect();
            section?.try_into().ok()
        })?,
        None => None,
    };
    if let Some(rope) = rope {
        rope.finish()?;
    }

    let theta = theta.ok_or_else(|| fields.wrong("rope_parameters", "an object with rope_theta"))?;
    let rotary_dim = rotary_dim(head_dim, partial_rotary_factor);
    if rotary_dim == 0 || rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
        let expected = format!("a share of head_dim = {head_dim} that is even and not 0");
        return Err(fields.impossible("partial_rotary_factor", expected, &partial_rotary_factor));
    }
    let mrope_section = mrope_section.unwrap_or([11, 11, 10]);
    if mrope_section.iter().sum::<usize>() != rotary_dim / 2 {
        let expected = format!("a sum of {}, half the rotary channels", rotary_dim / 2);
        let (field, found) = (format!("{name}.mrope_section"), format!("{mrope_section:?}"));
        return Err(fields.impossible(&field, expected, &found));
    }
    Ok(RopeParameters { theta, partial_rotary_factor, mrope_section })
}

/// Where names start, and what `lm_head` is then called: conditional generation and text alone on the hub, MLX.
const PREFIXES: [(&str, &str); 3] = [
    ("model.language_model.", "lm_head"),
    ("language_model.model.", "language_model.lm_head"),
    ("model.", "lm_head"),
];

/// Which conventions the checkpoint in `folder` follows.
pub(crate) fn conventions(
    config: &Qwen3_5MoeConfig,
    tensors: &Tensors,
    folder: &Path,
) -> Result<Conventions, Error> {
    let missing = |tensor| Error::MissingTensor { path: folder.to_owned(), tensor };
    let embedding = |prefix: &str| format!("{prefix}embed_tokens.weight");
    let (prefix, lm_head) = PREFIXES
        .into_iter()
        .find(|(prefix, _)| tensors.contains_key(&embedding(prefix)))
        .ok_or_else(|| missing(embedding(PREFIXES[0].0)))?;

    let linear = config.layer_types.iter().position(|kind| *kind == LayerType::LinearAttention).unwrap_or(0);
    let name = format!("{prefix}layers.{linear}.linear_attn.conv1d.weight");
    let conv1d = tensors.get(&name).ok_or_else(|| missing(name))?;
    let layout = if conv1d.shape.last() == Some(&1) { Layout::Mlx } else { Layout::HuggingFace };

    Ok(Conventions {
        layout,
        prefix,
        lm_head,
        tied: config.tie_word_embeddings,
        is_zero_centred: |name| {
            let last = name.rsplit('.').next().unwrap_or(name);
            last.contains("norm") && !name.ends_with("linear_attn.norm")
        },
        is_bare: |name| name.ends_with(".A_log") || name.ends_with(".dt_bias"),
    })
}
