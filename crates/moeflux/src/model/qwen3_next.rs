//! Qwen3-Next, and Qwen3.5 and Qwen3.6 with experts: layers of gated delta nets, every few of them gated attention
//! instead, each followed by a sparse MLP with a gated shared expert, or now and then by a dense one.
//!
//! After `modeling_qwen3_next.py` and `modeling_qwen3_5_moe.py` of transformers.

use moeflux_checkpoint::{Error, LayerType, Qwen3NextConfig as Config};

use super::decoder::{Decoder, Mixer};
use super::gated_attention::GatedAttention;
use super::gated_delta_net::GatedDeltaNet;
use super::moe::{SharedExpertSpec, SparseMlpSpec, load_mlp, softmax_routing};
use crate::graph::Loader;

/// Takes the family's weights, by their canonical names.
pub(super) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Decoder, Error> {
    let Config { decoder, attention, delta_net, moe, .. } = config;
    let mlp = SparseMlpSpec {
        hidden_size: decoder.hidden_size,
        moe,
        routing: softmax_routing(moe, config.norm_topk_prob),
        correction_bias: false,
        shared: SharedExpertSpec::Gated { intermediate_size: config.shared_expert_intermediate_size },
    };
    Decoder::load(decoder, loader, |loader, i, layer| {
        let mixer: Box<dyn Mixer> = match config.layer_types[i] {
            LayerType::LinearAttention => {
                Box::new(GatedDeltaNet::load(delta_net, decoder, loader, &format!("{layer}.linear_attn"))?)
            }
            LayerType::FullAttention => {
                Box::new(GatedAttention::load(attention, decoder, loader, &format!("{layer}.self_attn"))?)
            }
        };
        Ok((mixer, load_mlp(config.mlp_types[i], &mlp, loader, &format!("{layer}.mlp"))?))
    })
}
