//! DeepSeek-V2 and DeepSeek-V3: multi-head latent attention, and experts chosen group by group.
//!
//! After `modeling_deepseek_v2.py` and `modeling_deepseek_v3.py` of transformers. DeepSeek-AI, "DeepSeek-V2" (2024),
//! section 2.1; "DeepSeek-V3" (2024), section 2.1.

use moeflux_checkpoint::{
    DeepseekConfig as Config, DeepseekRouterConfig, Error, LatentAttentionConfig, LatentDims,
};
use moeflux_kernels::{ExpertGroups, GroupScore, RopeLayout, Routing};

use super::decoder::{Decoder, Mixer};
use super::moe::{SharedExpertSpec, SparseMlpSpec, grouped_sigmoid_routing, load_mlp, softmax_routing};
use super::rope::{rope_spec, softmax_scale_factor};
use crate::graph::{
    GraphBuilder, HeadLinear, LatentState, Linear, Loader, Norm, Rope, Tensor,
    role::{
        Attended, FoldedQuery, Latent, LatentIn, LatentKey, LatentSum, MixerIn, MixerOut, MlaQuery,
        NopeQuery, NormedQueryLatent, QueryLatent,
    },
};

/// Takes the weights, by their canonical names.
pub(super) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Decoder, Error> {
    let spec = SparseMlpSpec {
        hidden_size: config.decoder.hidden_size,
        moe: &config.moe,
        routing: routing(config),
        correction_bias: matches!(config.router, DeepseekRouterConfig::Sigmoid(_)),
        shared: match config.n_shared_experts {
            0 => SharedExpertSpec::None,
            n => SharedExpertSpec::Ungated { intermediate_size: n * config.moe.moe_intermediate_size },
        },
    };
    Decoder::load(&config.decoder, loader, |loader, layer, name| {
        let attention = format!("{name}.self_attn");
        Ok((
            Box::new(LatentAttention::load(config, loader, &attention)?),
            load_mlp(config.mlp_types[layer], &spec, loader, &format!("{name}.mlp"))?,
        ))
    })
}

fn routing(config: &Config) -> Routing {
    match &config.router {
        DeepseekRouterConfig::Sigmoid(router) => grouped_sigmoid_routing(&config.moe, router),
        DeepseekRouterConfig::Softmax { groups, routed_scaling_factor } => Routing {
            groups: groups.map(|(n_group, topk_group)| ExpertGroups {
                n_group,
                topk_group,
                score: GroupScore::Max,
            }),
            scaling_factor: *routed_scaling_factor as f32,
            ..softmax_routing(&config.moe, false)
        },
    }
}

/// Attention over one latent vector and one rotary key a token, which all heads share. The projections from latents to
/// keys and values are folded into queries and outputs.
#[derive(Debug)]
struct LatentAttention {
    query: QueryProjection,
    kv_a_proj_with_mqa: Linear<MixerIn, LatentKey>,
    kv_a_layernorm: Norm<LatentIn, Latent>,
    /// The halves of `kv_b_proj`.
    key_up: HeadLinear<NopeQuery, FoldedQuery>,
    value_up: HeadLinear<LatentSum, Attended>,
    o_proj: Linear<Attended, MixerOut>,
    rope: Rope,
    cache: LatentState,
    nope_dim: usize,
    rope_dim: usize,
    rank: usize,
    scale: f32,
}

/// Queries straight from the residual stream, or through a narrow layer.
#[derive(Debug)]
enum QueryProjection {
    Direct {
        q_proj: Linear<MixerIn, MlaQuery>,
    },
    LowRank {
        q_a_proj: Linear<MixerIn, QueryLatent>,
        q_a_layernorm: Norm<QueryLatent, NormedQueryLatent>,
        q_b_proj: Linear<NormedQueryLatent, MlaQuery>,
    },
}

impl QueryProjection {
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MixerIn>) -> Tensor<MlaQuery> {
        match self {
            QueryProjection::Direct { q_proj } => b.linear(x, q_proj),
            QueryProjection::LowRank { q_a_proj, q_a_layernorm, q_b_proj } => {
                let latent = b.linear(x, q_a_proj);
                let latent = b.rms_norm(latent, q_a_layernorm);
                b.linear(latent, q_b_proj)
            }
        }
    }
}

impl Mixer for LatentAttention {
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MixerIn>) -> Tensor<MixerOut> {
        let q = self.query.forward(b, x);
        let (q_nope, q_rope) = b.split_mla_query(q, self.nope_dim, self.rope_dim);
        let latent_key = b.linear(x, &self.kv_a_proj_with_mqa);
        let (latent, k_rope) = b.split_latent_key(latent_key, self.rank, self.rope_dim);
        let latent = b.rms_norm(latent, &self.kv_a_layernorm);
        let q_rope = b.rope_query(q_rope, self.rope_dim, &self.rope);
        let k_rope = b.rope_key(k_rope, self.rope_dim, &self.rope);
        let q = b.head_linear(q_nope, &self.key_up);
        let sum = b.mla_attention((q, q_rope), (latent, k_rope), &self.cache, self.scale);
        let attended = b.head_linear(sum, &self.value_up);
        b.linear(attended, &self.o_proj)
    }
}

impl LatentAttention {
    /// Of the norms inside the attention, whatever `rms_norm_eps` is.
    const LAYERNORM_EPS: f64 = 1e-6;

    fn load(config: &Config, loader: &mut Loader<'_>, name: &str) -> Result<Self, Error> {
        let hidden_size = config.decoder.hidden_size;
        let LatentAttentionConfig {
            num_attention_heads: heads,
            kv_lora_rank: rank,
            qk_nope_head_dim: nope_dim,
            qk_rope_head_dim: rope_dim,
            v_head_dim: value_dim,
            rope_interleave,
            ..
        } = config.attention;
        let layout = if rope_interleave { RopeLayout::Interleaved } else { RopeLayout::HalfSplit };
        let head_dim = nope_dim + rope_dim;
        let query = match config.attention.q_lora_rank {
            None => QueryProjection::Direct {
                q_proj: loader.linear(&format!("{name}.q_proj"), heads * head_dim, hidden_size)?,
            },
            Some(q_rank) => QueryProjection::LowRank {
                q_a_proj: loader.linear(&format!("{name}.q_a_proj"), q_rank, hidden_size)?,
                q_a_layernorm: loader.norm(&format!("{name}.q_a_layernorm"), q_rank, Self::LAYERNORM_EPS)?,
                q_b_proj: loader.linear(&format!("{name}.q_b_proj"), heads * head_dim, q_rank)?,
            },
        };
        let (key_up, value_up) =
            loader.latent_heads(name, LatentDims { heads, rank, nope_dim, value_dim })?;
        Ok(LatentAttention {
            query,
            kv_a_proj_with_mqa: loader.linear(
                &format!("{name}.kv_a_proj_with_mqa"),
                rank + rope_dim,
                hidden_size,
            )?,
            kv_a_layernorm: loader.norm(&format!("{name}.kv_a_layernorm"), rank, Self::LAYERNORM_EPS)?,
            key_up,
            value_up,
            o_proj: loader.linear(&format!("{name}.o_proj"), hidden_size, heads * value_dim)?,
            rope: loader.rope(rope_spec(&config.attention.rope, layout)),
            cache: loader.latent_state(rank, rope_dim),
            nope_dim,
            rope_dim,
            rank,
            scale: (head_dim as f32).powf(-0.5) * softmax_scale_factor(&config.attention.rope),
        })
    }
}
