//! DeepSeek-V2 (`deepseek_v2`) and DeepSeek-V3 (`deepseek_v3`, and what was trained from it, such as Cogito v2):
//! multi-head latent attention, and a mixture of experts with shared ones after the first, dense layers. The two differ
//! in their router.
//!
//! Checkpoints of the hub hold `self_attn.kv_b_proj`; MLX's of `deepseek_v3` have it taken apart into `embed_q` and
//! `unembed_out`: see [`Weights::latent_heads`](crate::Weights::latent_heads). Layers behind the last predict further
//! tokens.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{
    DecoderConfig, GroupedRouterConfig, MAX_EXPERTS, MAX_HEAD_DIM, MAX_HEADS, MAX_WIDTH, MlpType, MoeConfig,
    N_ROUTED_EXPERTS,
};
use crate::family::rope::{self, RopeParameters};
use serde_json::json;

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types and config.json's names say it")]
pub struct DeepseekConfig {
    pub decoder: DecoderConfig,
    pub attention: LatentAttentionConfig,
    /// One for each layer.
    pub mlp_types: Vec<MlpType>,
    pub moe: MoeConfig,
    pub router: DeepseekRouterConfig,
    /// As wide together as so many routed ones; 0 if there are none.
    pub n_shared_experts: usize,
}

/// Multi-head latent attention.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the ones that config.json has")]
pub struct LatentAttentionConfig {
    pub num_attention_heads: usize,
    /// Queries pass through so many channels first; not if none.
    pub q_lora_rank: Option<usize>,
    pub kv_lora_rank: usize,
    pub qk_nope_head_dim: usize,
    pub qk_rope_head_dim: usize,
    pub v_head_dim: usize,
    pub rope: RopeParameters,
    /// Whether neighbouring channels turn together, instead of channels half a head apart.
    pub rope_interleave: bool,
}

/// How experts are chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum DeepseekRouterConfig {
    /// DeepSeek-V2: softmax over all experts, weights as they are, times a factor.
    Softmax {
        /// `n_group` and `topk_group` if only experts of the best groups are chosen, ranked by their best expert.
        groups: Option<(usize, usize)>,
        /// Multiplies the weights.
        routed_scaling_factor: f64,
    },
    /// DeepSeek-V3: sigmoids, with a correction for each expert in the choice alone.
    Sigmoid(GroupedRouterConfig),
}

/// Which of the two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V2,
    V3,
}

/// Reads the config.
pub(crate) fn read_config(mut fields: Fields<'_>, version: Version) -> Result<DeepseekConfig, Error> {
    fields.only("mlp_bias", &[json!(false)])?;
    fields.pass_over_ignorable()?;
    fields.pass_over(
        "follows from the sizes of latent attention",
        &["head_dim", "num_key_value_heads", "qk_head_dim"],
    );
    fields.only("hidden_act", &[json!("silu")])?;
    fields.only("attention_bias", &[json!(false)])?;
    fields.only("moe_layer_freq", &[json!(1)])?;
    let mut decoder = DecoderConfig::read(&mut fields)?;
    decoder.read_further_layers(&mut fields)?;
    let context = decoder.max_position_embeddings;
    let attention = LatentAttentionConfig::read(&mut fields, version, context)?;
    decoder.max_position_embeddings = attention.rope.context(context);
    let moe = MoeConfig::read(&mut fields, N_ROUTED_EXPERTS, "moe_intermediate_size")?;
    let config = DeepseekConfig {
        mlp_types: MlpType::read_first_dense(&mut fields, decoder.num_hidden_layers)?,
        router: DeepseekRouterConfig::read(&mut fields, version, &moe)?,
        n_shared_experts: fields.whole("n_shared_experts", 0, MAX_EXPERTS)?.unwrap_or(0),
        decoder,
        attention,
        moe,
    };
    fields.finish()?;
    Ok(config)
}

impl LatentAttentionConfig {
    fn read(fields: &mut Fields<'_>, version: Version, context: usize) -> Result<Self, Error> {
        let qk_rope_head_dim = fields.size("qk_rope_head_dim", MAX_HEAD_DIM)?;
        if !qk_rope_head_dim.is_multiple_of(2) {
            return Err(fields.wrong("qk_rope_head_dim", "an even number, since channels turn in pairs"));
        }
        Ok(LatentAttentionConfig {
            num_attention_heads: fields.size("num_attention_heads", MAX_HEADS)?,
            q_lora_rank: fields.whole("q_lora_rank", 1, MAX_WIDTH)?,
            kv_lora_rank: fields.size("kv_lora_rank", MAX_WIDTH)?,
            qk_nope_head_dim: fields.size("qk_nope_head_dim", MAX_HEAD_DIM)?,
            qk_rope_head_dim,
            v_head_dim: fields.size("v_head_dim", MAX_HEAD_DIM)?,
            rope: rope::read(fields, qk_rope_head_dim, context, rope::PLAIN)?.full,
            rope_interleave: match version {
                Version::V2 => true,
                Version::V3 => fields.flag("rope_interleave")?.unwrap_or(true),
            },
        })
    }
}

impl DeepseekRouterConfig {
    fn read(fields: &mut Fields<'_>, version: Version, moe: &MoeConfig) -> Result<Self, Error> {
        if version == Version::V3 {
            return Ok(DeepseekRouterConfig::Sigmoid(GroupedRouterConfig::read(fields, moe)?));
        }
        fields.only("scoring_func", &[json!("softmax")])?;
        fields.only("norm_topk_prob", &[json!(false)])?;
        let groups = match fields.text("topk_method")? {
            None | Some("greedy") => {
                fields.pass_over("topk_method is greedy", &["n_group", "topk_group"]);
                None
            }
            Some("group_limited_greedy") => Some(read_groups(fields, moe)?),
            Some(_) => return Err(fields.wrong("topk_method", "greedy or group_limited_greedy")),
        };
        let routed_scaling_factor = fields.positive("routed_scaling_factor")?.unwrap_or(1.0);
        Ok(DeepseekRouterConfig::Softmax { groups, routed_scaling_factor })
    }
}

/// Groups of equal size, of which enough take part for the experts of a token.
fn read_groups(fields: &mut Fields<'_>, moe: &MoeConfig) -> Result<(usize, usize), Error> {
    let MoeConfig { num_experts, num_experts_per_tok, .. } = *moe;
    let n_group = fields.size("n_group", MAX_EXPERTS)?;
    let topk_group = fields.size("topk_group", n_group)?;
    if !num_experts.is_multiple_of(n_group) {
        return Err(fields.impossible("n_group", format!("a divisor of {num_experts} experts"), &n_group));
    }
    if num_experts / n_group * topk_group < num_experts_per_tok {
        let expected = format!("groups with num_experts_per_tok = {num_experts_per_tok} experts or more");
        return Err(fields.impossible("topk_group", expected, &topk_group));
    }
    Ok((n_group, topk_group))
}
