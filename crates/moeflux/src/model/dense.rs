//! Dense models shaped as Llama's.
//!
//! After `modeling_llama.py`, `modeling_mistral.py`, `modeling_qwen2.py` and `modeling_qwen3.py` of transformers.

use moeflux_checkpoint::{DenseConfig as Config, Error};

use super::attention::{Attention, AttentionVariant, QkNorm};
use super::decoder::Decoder;
use super::ffn::SwigluFfn;
use crate::graph::{Loader, role::MlpOut};

/// Takes the weights, by their canonical names; families differ in how queries and keys are normed.
pub(super) fn load(config: &Config, qk_norm: QkNorm, loader: &mut Loader<'_>) -> Result<Decoder, Error> {
    let Config { decoder, attention, intermediate_size, qkv_bias, o_bias, .. } = config;
    Decoder::load(decoder, loader, |loader, i, layer| {
        let variant = AttentionVariant {
            qkv_bias: *qkv_bias,
            o_bias: *o_bias,
            qk_norm,
            window: config.windows[i],
            ..Default::default()
        };
        let mixer = Attention::load(attention, decoder, variant, loader, &format!("{layer}.self_attn"))?;
        let (name, hidden_size) = (format!("{layer}.mlp"), decoder.hidden_size);
        let mlp = SwigluFfn::<MlpOut>::load(loader, &name, hidden_size, *intermediate_size)?;
        Ok((Box::new(mixer), Box::new(mlp)))
    })
}
