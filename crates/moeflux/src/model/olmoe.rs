//! OLMoE (Muennighoff et al. 2024): attention with queries and keys normed over their full width, and a sparse MLP whose
//! weights are not divided by their sum.
//!
//! After `modeling_olmoe.py` of transformers.

use moeflux_checkpoint::{Error, MlpType, OlmoeConfig as Config};

use super::attention::{Attention, AttentionVariant, QkNorm};
use super::decoder::Decoder;
use super::moe::{SharedExpertSpec, SparseMlpSpec, load_mlp, softmax_routing};
use crate::graph::Loader;

/// Takes the family's weights, by their canonical names.
pub(super) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Decoder, Error> {
    let Config { decoder, attention, moe, .. } = config;
    let variant = AttentionVariant { qk_norm: QkNorm::FullWidth, ..Default::default() };
    let mlp = SparseMlpSpec {
        hidden_size: decoder.hidden_size,
        moe,
        routing: softmax_routing(moe, config.norm_topk_prob),
        correction_bias: false,
        shared: SharedExpertSpec::None,
    };
    Decoder::load(decoder, loader, |loader, _, layer| {
        let mixer = Attention::load(attention, decoder, variant, loader, &format!("{layer}.self_attn"))?;
        Ok((Box::new(mixer), load_mlp(MlpType::Sparse, &mlp, loader, &format!("{layer}.mlp"))?))
    })
}
