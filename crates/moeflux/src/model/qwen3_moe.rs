//! Qwen3 with experts: attention with queries and keys normed head by head, and sparse MLPs, or here and there dense
//! ones.
//!
//! After `modeling_qwen3_moe.py` of transformers.

use moeflux_checkpoint::{Error, Qwen3MoeConfig as Config};

use super::attention::{Attention, AttentionVariant, QkNorm};
use super::decoder::Decoder;
use super::moe::{SharedExpertSpec, SparseMlpSpec, load_mlp, softmax_routing};
use crate::graph::Loader;

/// Takes the family's weights, by their canonical names.
pub(super) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Decoder, Error> {
    let Config { decoder, attention, moe, .. } = config;
    let variant = AttentionVariant { qk_norm: QkNorm::PerHead, ..Default::default() };
    let mlp = SparseMlpSpec {
        hidden_size: decoder.hidden_size,
        moe,
        routing: softmax_routing(moe, config.norm_topk_prob),
        correction_bias: false,
        shared: SharedExpertSpec::None,
    };
    Decoder::load(decoder, loader, |loader, i, layer| {
        let mixer = Attention::load(attention, decoder, variant, loader, &format!("{layer}.self_attn"))?;
        Ok((Box::new(mixer), load_mlp(config.mlp_types[i], &mlp, loader, &format!("{layer}.mlp"))?))
    })
}
