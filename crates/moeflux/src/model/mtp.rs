//! A layer for multi-token prediction, as Qwen3-Next and Qwen3.5 have it: from what the model made of a token and from the
//! token after it to the logits of the one behind that.
//!
//! After `MtpModel` of transformers: `fc([norm(embed(t[j + 1])), norm(h_j)])`, one layer of the model's own kind with full
//! attention, a norm, and the model's own head, `h_j` being what the head reads of token `j`. To guess further, the layer's
//! own normed output takes the place of `h`.

use moeflux_checkpoint::{DecoderConfig, Error};

use super::decoder::{Layer, LayerParts};
use crate::graph::{
    GraphBuilder, Linear, Loader, Norm, StateSpec, Tensor,
    role::{HeadIn, Hidden, MtpEmbedding, MtpHidden, MtpIn},
};

/// The layer; embedding and head are the model's.
#[derive(Debug)]
pub(super) struct Mtp {
    pre_fc_norm_embedding: Norm<Hidden, MtpEmbedding>,
    pre_fc_norm_hidden: Norm<HeadIn, MtpHidden>,
    fc: Linear<MtpIn, Hidden>,
    layer: Layer,
    norm: Norm<Hidden, HeadIn>,
    states: Vec<StateSpec>,
    hidden_size: usize,
}

impl Mtp {
    /// Takes the weights called `mtp`; `parts` takes those of its layer, given its name. `None` if the checkpoint has none.
    pub(super) fn load<'a>(
        config: &DecoderConfig,
        loader: &mut Loader<'a>,
        parts: impl FnOnce(&mut Loader<'a>, &str) -> Result<LayerParts, Error>,
    ) -> Result<Option<Self>, Error> {
        const LAYER: &str = "mtp.layers.0";
        // Whoever cuts the layer out of a checkpoint may leave its frame.
        if !["mtp.fc", "mtp.layers.0.self_attn.q_proj"].iter().all(|name| loader.has_linear(name)) {
            return Ok(None);
        }
        let DecoderConfig { hidden_size, rms_norm_eps: eps, .. } = *config;
        let (layer, states) =
            loader.apart(|loader| Layer::load(config, loader, LAYER, |loader| parts(loader, LAYER)))?;
        Ok(Some(Mtp {
            pre_fc_norm_embedding: loader.norm("mtp.pre_fc_norm_embedding", hidden_size, eps)?,
            pre_fc_norm_hidden: loader.norm("mtp.pre_fc_norm_hidden", hidden_size, eps)?,
            fc: loader.linear("mtp.fc", hidden_size, 2 * hidden_size)?,
            layer,
            norm: loader.norm("mtp.norm", hidden_size, eps)?,
            states,
            hidden_size,
        }))
    }

    /// What a sequence of this layer has.
    pub(super) fn states(&self) -> &[StateSpec] {
        &self.states
    }

    /// From the embeddings of the step's tokens and the rows given with it to what the head reads, of the rows whose logits are
    /// asked for.
    pub(super) fn forward(&self, b: &mut GraphBuilder, x: Tensor<Hidden>) -> Tensor<HeadIn> {
        let hidden = b.hidden_input(self.hidden_size);
        let embedding = b.rms_norm(x, &self.pre_fc_norm_embedding);
        let hidden = b.rms_norm(hidden, &self.pre_fc_norm_hidden);
        let both = b.concat(embedding, hidden);
        let x = b.linear(both, &self.fc);
        let x = b.scope("layers.0", |b| self.layer.forward_outputs(b, x));
        b.rms_norm(x, &self.norm)
    }
}
