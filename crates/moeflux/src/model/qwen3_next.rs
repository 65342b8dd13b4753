//! Qwen3-Next, and Qwen3.5 and Qwen3.6 with experts or without: layers of gated delta nets, every few of them gated attention
//! instead, each followed by a sparse MLP with a gated shared expert, or now and then by a dense one.
//!
//! After `modeling_qwen3_next.py` and `modeling_qwen3_5_moe.py` of transformers.

use moeflux_checkpoint::{Error, LayerType, MlpType, Qwen3NextConfig as Config};

use super::decoder::{Decoder, LayerParts, Mixer};
use super::gated_attention::GatedAttention;
use super::gated_delta_net::GatedDeltaNet;
use super::moe::{SharedExpertSpec, SparseMlpSpec, load_mlp, softmax_routing};
use super::mtp::Mtp;
use crate::graph::Loader;

/// Takes the family's weights, by their canonical names; those of the layer for further tokens if `mtp` asks for it and it
/// is there.
pub(super) fn load(config: &Config, mtp: bool, loader: &mut Loader<'_>) -> Result<Decoder, Error> {
    let Config { decoder, attention, delta_net, moe, .. } = config;
    let spec = SparseMlpSpec {
        hidden_size: decoder.hidden_size,
        moe,
        routing: softmax_routing(moe, config.norm_topk_prob),
        correction_bias: false,
        shared: SharedExpertSpec::Gated { intermediate_size: config.shared_expert_intermediate_size },
    };
    let parts = |loader: &mut Loader<'_>, layer_type, mlp_type, layer: &str| -> Result<LayerParts, Error> {
        let mixer: Box<dyn Mixer> = match layer_type {
            LayerType::LinearAttention => {
                Box::new(GatedDeltaNet::load(delta_net, decoder, loader, &format!("{layer}.linear_attn"))?)
            }
            LayerType::FullAttention => {
                Box::new(GatedAttention::load(attention, decoder, loader, &format!("{layer}.self_attn"))?)
            }
        };
        Ok((mixer, load_mlp(mlp_type, &spec, loader, &format!("{layer}.mlp"))?))
    };
    let model = Decoder::load(decoder, loader, |loader, i, layer| {
        parts(loader, config.layer_types[i], config.mlp_types[i], layer)
    })?;
    let mtp = if mtp && !config.mtp_use_dedicated_embeddings {
        Mtp::load(decoder, loader, |loader, layer| {
            // Without experts it has none either.
            let dense = config.mlp_types.last().copied().filter(|_| moe.num_experts == 0);
            parts(loader, LayerType::FullAttention, dense.unwrap_or(MlpType::Sparse), layer)
        })?
    } else {
        None
    };
    Ok(model.with_mtp(mtp))
}
