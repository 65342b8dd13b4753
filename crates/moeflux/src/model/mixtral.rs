//! Mixtral (Jiang et al. 2024): plain grouped-query attention and a sparse MLP.
//!
//! After `modeling_mixtral.py` of transformers.

use moeflux_checkpoint::{Error, MixtralConfig as Config, MlpType};

use super::attention::{Attention, AttentionVariant};
use super::decoder::Decoder;
use super::moe::{SharedExpertSpec, SparseMlpSpec, load_mlp, softmax_routing};
use crate::graph::Loader;

/// Takes the family's weights, by their canonical names.
pub(super) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Decoder, Error> {
    let Config { decoder, attention, moe } = config;
    let variant = AttentionVariant::default();
    let mlp = SparseMlpSpec {
        hidden_size: decoder.hidden_size,
        moe,
        routing: softmax_routing(moe, true),
        correction_bias: false,
        shared: SharedExpertSpec::None,
    };
    Decoder::load(decoder, loader, |loader, _, layer| {
        let mixer = Attention::load(attention, decoder, variant, loader, &format!("{layer}.self_attn"))?;
        Ok((Box::new(mixer), load_mlp(MlpType::Sparse, &mlp, loader, &format!("{layer}.mlp"))?))
    })
}
