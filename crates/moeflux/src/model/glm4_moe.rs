//! GLM-4.5 and later: attention with biases, turned on half the channels of a head, and sparse MLPs with a shared expert
//! and DeepSeek-V3's router, after a few dense ones.
//!
//! After `modeling_glm4_moe.py` of transformers.

use moeflux_checkpoint::{Error, Glm4MoeConfig as Config};

use super::attention::{Attention, AttentionVariant, QkNorm};
use super::decoder::Decoder;
use super::moe::{SharedExpertSpec, SparseMlpSpec, grouped_sigmoid_routing, load_mlp};
use crate::graph::Loader;

/// Takes the family's weights, by their canonical names.
pub(super) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Decoder, Error> {
    let Config { decoder, attention, moe, .. } = config;
    let qk_norm = if config.use_qk_norm { QkNorm::PerHead } else { QkNorm::None };
    let variant = AttentionVariant { qkv_bias: config.attention_bias, qk_norm, ..Default::default() };
    let mlp = SparseMlpSpec {
        hidden_size: decoder.hidden_size,
        moe,
        routing: grouped_sigmoid_routing(moe, &config.router),
        correction_bias: true,
        shared: SharedExpertSpec::Ungated {
            intermediate_size: config.n_shared_experts * moe.moe_intermediate_size,
        },
    };
    Decoder::load(decoder, loader, |loader, i, layer| {
        let mixer = Attention::load(attention, decoder, variant, loader, &format!("{layer}.self_attn"))?;
        Ok((Box::new(mixer), load_mlp(config.mlp_types[i], &mlp, loader, &format!("{layer}.mlp"))?))
    })
}
