//! Parts of a config that families share; fields are called as in most families' `config.json`.
#![expect(missing_docs, reason = "the names are the ones that config.json has")]

use crate::config::Fields;
use crate::error::Error;
use crate::family::rope::{self, RopeDefaults, RopeParameters};
use serde_json::json;

// Largest sizes accepted: far above any model, and low enough that no product of a tensor's dimensions in bytes
// overflows 64 bits.
pub(crate) const MAX_WIDTH: usize = 1 << 22;
pub(crate) const MAX_HEADS: usize = 1 << 12;
pub(crate) const MAX_HEAD_DIM: usize = 1 << 12;
pub(crate) const MAX_EXPERTS: usize = 1 << 14;
pub(crate) const MAX_LAYERS: usize = 1 << 12;
pub(crate) const MAX_CONV_KERNEL: usize = 64;
pub(crate) const MAX_CONTEXT: usize = 1 << 32;

/// Fields that do not change what a text model computes, in any family.
pub(crate) const INERT: &[&str] = &[
    // what made the file
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "auto_map",
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
    "aux_loss_alpha",
    "initializer_range",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "seq_aux",
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
];

/// What every family has.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    /// Without those of a multi-token-prediction head.
    pub num_hidden_layers: usize,
    pub rms_norm_eps: f64,
    /// The context length in tokens.
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    /// Layers behind the others that predict further tokens.
    pub num_nextn_predict_layers: usize,
}

impl DecoderConfig {
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        Ok(DecoderConfig {
            vocab_size: fields.size("vocab_size", MAX_WIDTH)?,
            hidden_size: fields.size("hidden_size", MAX_WIDTH)?,
            num_hidden_layers: fields.size("num_hidden_layers", MAX_LAYERS)?,
            rms_norm_eps: fields
                .positive("rms_norm_eps")?
                .ok_or_else(|| fields.wrong("rms_norm_eps", "a number above 0"))?,
            max_position_embeddings: fields.size("max_position_embeddings", MAX_CONTEXT)?,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
            num_nextn_predict_layers: 0,
        })
    }
}

/// Grouped-query attention.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionConfig {
    pub num_attention_heads: usize,
    /// Divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rope: RopeParameters,
}

impl AttentionConfig {
    /// Reads it; without `head_dim` the heads share the hidden size. A context that positions were stretched to counts.
    pub(crate) fn read(
        fields: &mut Fields<'_>,
        decoder: &mut DecoderConfig,
        defaults: RopeDefaults,
    ) -> Result<Self, Error> {
        let heads = fields.size("num_attention_heads", MAX_HEADS)?;
        let kv_heads = fields.size("num_key_value_heads", MAX_HEADS)?;
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {heads}");
            return Err(fields.impossible("num_key_value_heads", expected, &kv_heads));
        }
        let head_dim = match fields.whole("head_dim", 1, MAX_HEAD_DIM)? {
            Some(head_dim) => head_dim,
            None if decoder.hidden_size.is_multiple_of(heads)
                && decoder.hidden_size / heads <= MAX_HEAD_DIM =>
            {
                decoder.hidden_size / heads
            }
            None => return Err(fields.wrong("head_dim", &format!("a whole number from 1 to {MAX_HEAD_DIM}"))),
        };
        let rope = rope::read(fields, head_dim, defaults)?;
        decoder.max_position_embeddings = decoder.max_position_embeddings.max(rope.stretched_context());
        Ok(AttentionConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, rope })
    }
}

/// Routed experts.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    pub num_experts: usize,
    /// At most `num_experts`.
    pub num_experts_per_tok: usize,
    pub moe_intermediate_size: usize,
}

impl MoeConfig {
    /// Reads it; families call the number of experts and their width differently.
    pub(crate) fn read(fields: &mut Fields<'_>, experts: &str, intermediate: &str) -> Result<Self, Error> {
        let config = MoeConfig {
            num_experts: fields.size(experts, MAX_EXPERTS)?,
            num_experts_per_tok: fields.size("num_experts_per_tok", MAX_EXPERTS)?,
            moe_intermediate_size: fields.size(intermediate, MAX_WIDTH)?,
        };
        if config.num_experts_per_tok > config.num_experts {
            let expected = format!("at most {experts} = {}", config.num_experts);
            return Err(fields.impossible("num_experts_per_tok", expected, &config.num_experts_per_tok));
        }
        Ok(config)
    }
}

/// A router that scores by sigmoid and may choose within the best groups of experts only.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedRouterConfig {
    /// Divides the number of experts into groups of at least two.
    pub n_group: usize,
    /// Enough groups for the experts of a token.
    pub topk_group: usize,
    pub norm_topk_prob: bool,
    pub routed_scaling_factor: f64,
}

impl GroupedRouterConfig {
    /// Reads it, of a router over the experts of `moe`. The router of the experts is always the one without auxiliary
    /// loss.
    pub(crate) fn read(fields: &mut Fields<'_>, moe: &MoeConfig) -> Result<Self, Error> {
        fields.only("scoring_func", &[json!("sigmoid")])?;
        fields.only("topk_method", &[json!("noaux_tc")])?;
        let MoeConfig { num_experts, num_experts_per_tok, .. } = *moe;
        let n_group = fields.size("n_group", MAX_EXPERTS)?;
        let topk_group = fields.size("topk_group", n_group)?;
        if !num_experts.is_multiple_of(n_group) || num_experts / n_group < 2 {
            let expected = format!("{num_experts} experts in groups of two or more");
            return Err(fields.impossible("n_group", expected, &n_group));
        }
        if num_experts / n_group * topk_group < num_experts_per_tok {
            let expected = format!("groups with num_experts_per_tok = {num_experts_per_tok} experts or more");
            return Err(fields.impossible("topk_group", expected, &topk_group));
        }
        Ok(GroupedRouterConfig {
            n_group,
            topk_group,
            norm_topk_prob: fields.flag("norm_topk_prob")?.unwrap_or(true),
            routed_scaling_factor: fields.positive("routed_scaling_factor")?.unwrap_or(1.0),
        })
    }
}

/// What follows the mixer in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlpType {
    /// One SwiGLU.
    Dense { intermediate_size: usize },
    /// A mixture of experts.
    Sparse,
}

impl MlpType {
    /// Dense in the first `first_k_dense_replace` layers.
    pub(crate) fn read_first_dense(fields: &mut Fields<'_>, layers: usize) -> Result<Vec<Self>, Error> {
        let dense = fields.whole("first_k_dense_replace", 0, layers)?.unwrap_or(0);
        Self::of_layers(fields, layers, |layer| layer < dense)
    }

    /// Dense in `mlp_only_layers`, and wherever `decoder_sparse_step` does not divide the layer's number counted from 1.
    pub(crate) fn read_sparse_step(fields: &mut Fields<'_>, layers: usize) -> Result<Vec<Self>, Error> {
        let step = fields.whole("decoder_sparse_step", 1, MAX_LAYERS)?.unwrap_or(1);
        let expected = format!("a list of layers below {layers}");
        let listed = fields.read("mlp_only_layers", &expected, |value| {
            let layer = |value: &serde_json::Value| {
                value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n < layers)
            };
            value.as_array()?.iter().map(layer).collect::<Option<Vec<usize>>>()
        })?;
        let listed = listed.unwrap_or_default();
        Self::of_layers(fields, layers, |layer| listed.contains(&layer) || !(layer + 1).is_multiple_of(step))
    }

    /// `intermediate_size` is needed where a layer is dense.
    fn of_layers(
        fields: &mut Fields<'_>,
        layers: usize,
        is_dense: impl Fn(usize) -> bool,
    ) -> Result<Vec<Self>, Error> {
        let of_layer = |layer: usize| {
            Ok(if is_dense(layer) {
                MlpType::Dense { intermediate_size: fields.size("intermediate_size", MAX_WIDTH)? }
            } else {
                MlpType::Sparse
            })
        };
        let types = (0..layers).map(of_layer).collect();
        fields.inert(&["intermediate_size"]);
        types
    }
}
