//! Qwen3-Next (`qwen3_next`): three layers of gated delta net to one of gated attention, and a mixture of experts with
//! a shared one in nearly every layer. Qwen3.5 computes the same; what its config says differently is in
//! [`qwen3_5_moe`](super::qwen3_5_moe).
//!
//! Conventions of their checkpoints, and what [`Weights`](crate::Weights) makes of them:
//!
//! | | hub | MLX | handed out |
//! |---|---|---|---|
//! | in front of the names | `model.`; Qwen3.5 with images `model.language_model.` | `model.`; Qwen3.5 `language_model.model.` | nothing |
//! | output projection | `lm_head` | `lm_head`; Qwen3.5 `language_model.lm_head` | `lm_head`; the embedding if tied |
//! | norms, but for `linear_attn.norm` | `w` | `1 + w` | `1 + w` |
//! | `linear_attn.conv1d` | `[channels, 1, kernel]` | `[channels, kernel, 1]` | `[channels, kernel]`, the last tap is the present token |
//! | projections into the delta net | `in_proj_qkvz`, `in_proj_ba`, key head by key head; Qwen3.5 `in_proj_qkv`, `_z`, `_b`, `_a` | the same | the same |
//! | experts | one by one; Qwen3.5 `mlp.experts.gate_up_proj` (gate above up) and `down_proj` | `mlp.switch_mlp`, one tensor a projection | one by one |
//!
//! The shape of `conv1d` tells hub and MLX apart, as it does in mlx-lm.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{
    AttentionConfig, DecoderConfig, MAX_CONV_KERNEL, MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, MAX_WIDTH, MlpType,
    MoeConfig, NUM_EXPERTS,
};
use crate::family::rope::{self, RopeDefaults};
use crate::family::{Conventions, Layout, RowOrder, Tensors, last_part};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::Path;

/// What mixes tokens in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerType {
    /// Gated delta net.
    LinearAttention,
    /// Gated softmax attention.
    FullAttention,
}

/// The sizes of a model; fields are called as in `config.json`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the ones that config.json has")]
pub struct Qwen3NextConfig {
    pub decoder: DecoderConfig,
    /// `num_hidden_layers` of them, at least one of them linear.
    pub layer_types: Vec<LayerType>,
    pub attention: AttentionConfig,
    pub delta_net: DeltaNetConfig,
    /// One for each layer.
    pub mlp_types: Vec<MlpType>,
    /// [`MoeConfig::NONE`] of a model without experts.
    pub moe: MoeConfig,
    pub norm_topk_prob: bool,
    pub shared_expert_intermediate_size: usize,
    pub mtp_num_hidden_layers: usize,
    pub mtp_use_dedicated_embeddings: bool,
}

/// Gated delta net.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the ones that config.json has")]
pub struct DeltaNetConfig {
    pub linear_num_key_heads: usize,
    /// A multiple of `linear_num_key_heads`.
    pub linear_num_value_heads: usize,
    pub linear_key_head_dim: usize,
    pub linear_value_head_dim: usize,
    pub linear_conv_kernel_dim: usize,
}

impl DeltaNetConfig {
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        let config = DeltaNetConfig {
            linear_num_key_heads: fields.size("linear_num_key_heads", MAX_HEADS)?,
            linear_num_value_heads: fields.size("linear_num_value_heads", MAX_HEADS)?,
            linear_key_head_dim: fields.size("linear_key_head_dim", MAX_HEAD_DIM)?,
            linear_value_head_dim: fields.size("linear_value_head_dim", MAX_HEAD_DIM)?,
            // With one tap the shape of the convolution would not tell the layouts apart.
            linear_conv_kernel_dim: fields
                .whole("linear_conv_kernel_dim", 2, MAX_CONV_KERNEL)?
                .ok_or_else(|| fields.wrong("linear_conv_kernel_dim", "a whole number above 1"))?,
        };
        let (key_heads, value_heads) = (config.linear_num_key_heads, config.linear_num_value_heads);
        if !value_heads.is_multiple_of(key_heads) {
            let expected = format!("a multiple of linear_num_key_heads = {key_heads}");
            return Err(fields.impossible("linear_num_value_heads", expected, &value_heads));
        }
        Ok(config)
    }
}

/// Reads the config.
pub(crate) fn read_config(mut fields: Fields<'_>) -> Result<Qwen3NextConfig, Error> {
    let rope = RopeDefaults { partial_rotary_factor: 0.25, ..rope::PLAIN };
    let config = read_sizes(&mut fields, rope, Mlp::Sparse)?;
    fields.finish()?;
    Ok(config)
}

/// What most layers have behind the mixer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mlp {
    /// A mixture of experts and a shared one.
    Sparse,
    /// One SwiGLU: no layer has experts.
    Dense,
}

/// Reads all that Qwen3.5 has too.
pub(super) fn read_sizes(
    fields: &mut Fields<'_>,
    rope: RopeDefaults,
    mlp: Mlp,
) -> Result<Qwen3NextConfig, Error> {
    fields.value("model_type");
    fields.pass_over_ignorable()?;
    fields.pass_over("nothing slides without use_sliding_window", &["max_window_layers"]);
    fields.only("hidden_act", &[json!("silu")])?;
    fields.only("attention_bias", &[json!(false)])?;
    fields.only("use_sliding_window", &[json!(false)])?;
    fields.only("sliding_window", &[Value::Null])?;

    let mut decoder = DecoderConfig::read(fields)?;
    let layers = decoder.num_hidden_layers;
    fields.size("head_dim", MAX_HEAD_DIM)?;
    let (mlp_types, moe, shared_expert_intermediate_size) = match mlp {
        Mlp::Sparse => (
            MlpType::read_sparse_step(fields, layers)?,
            MoeConfig::read(fields, NUM_EXPERTS, "moe_intermediate_size")?,
            fields.size("shared_expert_intermediate_size", MAX_WIDTH)?,
        ),
        Mlp::Dense => {
            let intermediate_size = fields.size("intermediate_size", MAX_WIDTH)?;
            (vec![MlpType::Dense { intermediate_size }; layers], MoeConfig::NONE, 0)
        }
    };
    Ok(Qwen3NextConfig {
        layer_types: read_layer_types(fields, layers)?,
        attention: AttentionConfig::read(fields, &mut decoder, rope)?,
        delta_net: DeltaNetConfig::read(fields)?,
        mlp_types,
        moe,
        norm_topk_prob: fields.flag("norm_topk_prob")?.unwrap_or(true),
        shared_expert_intermediate_size,
        mtp_num_hidden_layers: fields.whole("mtp_num_hidden_layers", 0, MAX_LAYERS)?.unwrap_or(0),
        mtp_use_dedicated_embeddings: fields.flag("mtp_use_dedicated_embeddings")?.unwrap_or(false),
        decoder,
    })
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

/// Where names start, and what `lm_head` is then called: conditional generation and text alone on the hub, MLX.
const PREFIXES: [(&str, &str); 3] = [
    ("model.language_model.", "lm_head"),
    ("language_model.model.", "language_model.lm_head"),
    ("model.", "lm_head"),
];

/// Which conventions the checkpoint in `folder` follows.
pub(crate) fn conventions(
    config: &Qwen3NextConfig,
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
        tied: config.decoder.tie_word_embeddings,
        rename: |name| Cow::Borrowed(name),
        is_zero_centred: |name| last_part(name).contains("norm") && !name.ends_with("linear_attn.norm"),
        is_bare: |name| matches!(last_part(name), "A_log" | "dt_bias"),
        row_order: RowOrder::default(),
    })
}
