//! Parts of a config that families share; fields are called as in most families' `config.json`.
#![expect(missing_docs, reason = "the names are the ones that config.json has")]

use crate::config::Fields;
use crate::error::Error;
use crate::family::rope::{self, RopeDefaults, RopeParameters};
use serde_json::{Value, json};

// Largest sizes accepted: far above any model, and low enough that no product of a tensor's dimensions in bytes
// overflows 64 bits.
pub(crate) const MAX_WIDTH: usize = 1 << 22;
pub(crate) const MAX_HEADS: usize = 1 << 12;
pub(crate) const MAX_HEAD_DIM: usize = 1 << 12;
pub(crate) const MAX_EXPERTS: usize = 1 << 14;
pub(crate) const MAX_LAYERS: usize = 1 << 12;
pub(crate) const MAX_CONV_KERNEL: usize = 64;
pub(crate) const MAX_CONTEXT: usize = 1 << 32;

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

    /// Reads how many layers behind the last predict further tokens, under its old name or transformers 5's.
    pub(crate) fn read_further_layers(&mut self, fields: &mut Fields<'_>) -> Result<(), Error> {
        let (old, new) = ("num_nextn_predict_layers", "num_mtp_layers");
        let (further, renamed) = (fields.whole(old, 0, MAX_LAYERS)?, fields.whole(new, 0, MAX_LAYERS)?);
        if let (Some(further), Some(renamed)) = (further, renamed)
            && further != renamed
        {
            return Err(fields.wrong(new, &format!("{further}, as {old} says")));
        }
        self.num_nextn_predict_layers = further.or(renamed).unwrap_or(0);
        Ok(())
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
    /// RoPE of layers over a sliding window, where it differs.
    pub sliding_rope: Option<RopeParameters>,
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
        Self::read_heads(fields, decoder, defaults, heads, kv_heads)
    }

    /// The same where files may leave the number of key-value heads out: then every head has keys and values of its own.
    pub(crate) fn read_old(
        fields: &mut Fields<'_>,
        decoder: &mut DecoderConfig,
        defaults: RopeDefaults,
    ) -> Result<Self, Error> {
        let heads = fields.size("num_attention_heads", MAX_HEADS)?;
        let kv_heads = fields.whole("num_key_value_heads", 1, MAX_HEADS)?.unwrap_or(heads);
        Self::read_heads(fields, decoder, defaults, heads, kv_heads)
    }

    fn read_heads(
        fields: &mut Fields<'_>,
        decoder: &mut DecoderConfig,
        defaults: RopeDefaults,
        heads: usize,
        kv_heads: usize,
    ) -> Result<Self, Error> {
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
        let rope = rope::read(fields, head_dim, decoder.max_position_embeddings, defaults)?;
        decoder.max_position_embeddings = rope.context(decoder.max_position_embeddings);
        Ok(AttentionConfig {
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rope: rope.full,
            sliding_rope: rope.sliding,
        })
    }
}

/// Names of the number of experts, the family's own first.
pub(crate) const NUM_EXPERTS: &[&str] = &["num_experts", "num_local_experts"];
pub(crate) const NUM_LOCAL_EXPERTS: &[&str] = &["num_local_experts", "num_experts"];
pub(crate) const N_ROUTED_EXPERTS: &[&str] = &["n_routed_experts", "num_local_experts", "num_experts"];

/// Routed experts.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    pub num_experts: usize,
    /// At most `num_experts`.
    pub num_experts_per_tok: usize,
    pub moe_intermediate_size: usize,
}

impl MoeConfig {
    /// No experts.
    pub const NONE: MoeConfig =
        MoeConfig { num_experts: 0, num_experts_per_tok: 0, moe_intermediate_size: 0 };

    /// Reads it; families call the number of experts and their width differently. transformers 5 can write the number
    /// under any of `experts`, the first of which is the family's own; several must be equal.
    pub(crate) fn read(fields: &mut Fields<'_>, experts: &[&str], intermediate: &str) -> Result<Self, Error> {
        let mut found: Option<(&str, usize)> = None;
        for name in experts {
            match (found, fields.whole(name, 1, MAX_EXPERTS)?) {
                (None, Some(count)) => found = Some((name, count)),
                (Some((first, expected)), Some(count)) if count != expected => {
                    return Err(fields.wrong(name, &format!("{expected}, as {first} says")));
                }
                _ => {}
            }
        }
        let Some((experts, num_experts)) = found else {
            return Err(fields.wrong(experts[0], &format!("a whole number from 1 to {MAX_EXPERTS}")));
        };
        let config = MoeConfig {
            num_experts,
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
        fields.pass_over("no layer is dense", &["intermediate_size"]);
        types
    }
}

/// How many tokens each layer sees, the token itself included; all if none. From `layer_types` and `sliding_window`; without
/// the first, `slides` says which layers slide.
pub(crate) fn read_windows(
    fields: &mut Fields<'_>,
    layers: usize,
    slides: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, Error> {
    let expected = format!("{layers} times sliding_attention or full_attention");
    let listed = fields.read("layer_types", &expected, |value| {
        let slides = |kind: &Value| match kind.as_str()? {
            "sliding_attention" => Some(true),
            "full_attention" => Some(false),
            _ => None,
        };
        let kinds: Option<Vec<bool>> = value.as_array()?.iter().map(slides).collect();
        kinds.filter(|kinds| kinds.len() == layers)
    })?;
    let slides = listed.unwrap_or_else(|| (0..layers).map(slides).collect());
    let window = fields.whole("sliding_window", 1, MAX_CONTEXT)?;
    if window.is_none() && slides.contains(&true) {
        return Err(fields.wrong("sliding_window", "a number of tokens, since layers slide"));
    }
    Ok(slides.into_iter().map(|slides| window.filter(|_| slides)).collect())
}
