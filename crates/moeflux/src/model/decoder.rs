//! What all families share: an embedding, layers of a mixer and an MLP on a residual stream, a norm and an output head.

use std::fmt;

use moeflux_checkpoint::{DecoderConfig, Error};

use super::mtp::Mtp;
use super::{Architecture, Pass};
use crate::graph::{
    Embedding, GraphBuilder, Linear, Loader, Norm, StateSpec, Tensor,
    role::{HeadIn, Hidden, Logits, Mid, MixerIn, MixerOut, MlpIn, MlpOut},
};

/// What lets tokens see each other.
pub(super) trait Mixer: fmt::Debug + Send + Sync {
    /// From the normed residual stream to what is added to it.
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MixerIn>) -> Tensor<MixerOut>;
}

/// What changes each token by itself.
pub(super) trait Mlp: fmt::Debug + Send + Sync {
    /// From the normed residual stream to what is added to it.
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MlpIn>) -> Tensor<MlpOut>;
}

/// A layer's two parts.
pub(super) type LayerParts = (Box<dyn Mixer>, Box<dyn Mlp>);

/// A whole model.
#[derive(Debug)]
pub(super) struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: Norm<Hidden, HeadIn>,
    lm_head: Linear<HeadIn, Logits>,
    mtp: Option<Mtp>,
}

impl Architecture for Decoder {
    fn forward(&self, b: &mut GraphBuilder, pass: Pass) -> Tensor<Logits> {
        let mut x = b.embed(&self.embed_tokens);
        if let (Pass::Mtp, Some(mtp)) = (pass, &self.mtp) {
            let x = b.scope("mtp", |b| mtp.forward(b, x));
            b.keep(x);
            return b.linear(x, &self.lm_head);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            x = b.scope(&format!("layers.{i}"), |b| layer.forward(b, x));
        }
        let x = if pass == Pass::WithHidden {
            let x = b.rms_norm(x, &self.norm);
            b.keep(x);
            b.select_outputs(x)
        } else {
            let x = b.select_outputs(x);
            b.rms_norm(x, &self.norm)
        };
        b.linear(x, &self.lm_head)
    }

    fn mtp_states(&self) -> Option<&[StateSpec]> {
        self.mtp.as_ref().map(Mtp::states)
    }
}

/// A mixer and an MLP on the residual stream.
#[derive(Debug)]
pub(super) struct Layer {
    input_layernorm: Norm<Hidden, MixerIn>,
    mixer: Box<dyn Mixer>,
    post_attention_layernorm: Norm<Mid, MlpIn>,
    mlp: Box<dyn Mlp>,
}

impl Layer {
    pub(super) fn forward(&self, b: &mut GraphBuilder, x: Tensor<Hidden>) -> Tensor<Hidden> {
        let x = self.mix(b, x);
        self.transform(b, x)
    }

    /// The same for the rows that logits are asked for: the others are there to be attended to.
    pub(super) fn forward_outputs(&self, b: &mut GraphBuilder, x: Tensor<Hidden>) -> Tensor<Hidden> {
        let x = self.mix(b, x);
        let x = b.select_outputs(x);
        self.transform(b, x)
    }

    fn mix(&self, b: &mut GraphBuilder, x: Tensor<Hidden>) -> Tensor<Mid> {
        let normed = b.rms_norm(x, &self.input_layernorm);
        let mixed = self.mixer.forward(b, normed);
        b.add(x, mixed)
    }

    fn transform(&self, b: &mut GraphBuilder, x: Tensor<Mid>) -> Tensor<Hidden> {
        let normed = b.rms_norm(x, &self.post_attention_layernorm);
        let out = self.mlp.forward(b, normed);
        b.add(x, out)
    }

    /// Takes the weights of the layer called `name`; `parts` takes those of its mixer and MLP.
    pub(super) fn load<'a>(
        config: &DecoderConfig,
        loader: &mut Loader<'a>,
        name: &str,
        parts: impl FnOnce(&mut Loader<'a>) -> Result<LayerParts, Error>,
    ) -> Result<Self, Error> {
        let DecoderConfig { hidden_size, rms_norm_eps: eps, .. } = *config;
        let input_layernorm = loader.norm(&format!("{name}.input_layernorm"), hidden_size, eps)?;
        let (mixer, mlp) = parts(loader)?;
        let post_attention_layernorm =
            loader.norm(&format!("{name}.post_attention_layernorm"), hidden_size, eps)?;
        Ok(Layer { input_layernorm, mixer, post_attention_layernorm, mlp })
    }
}

impl Decoder {
    /// Takes the weights, by their canonical names; `parts` takes those of a layer, given its index and name.
    pub(super) fn load<'a>(
        config: &DecoderConfig,
        loader: &mut Loader<'a>,
        mut parts: impl FnMut(&mut Loader<'a>, usize, &str) -> Result<LayerParts, Error>,
    ) -> Result<Self, Error> {
        let DecoderConfig { vocab_size, hidden_size, rms_norm_eps: eps, .. } = *config;
        let embed_tokens = loader.embedding("embed_tokens", vocab_size, hidden_size)?;
        let mut layer = |i: usize| {
            let name = format!("layers.{i}");
            Layer::load(config, loader, &name, |loader| parts(loader, i, &name))
        };
        let layers = (0..config.num_hidden_layers).map(&mut layer).collect::<Result<_, Error>>()?;
        Ok(Decoder {
            embed_tokens,
            layers,
            norm: loader.norm("norm", hidden_size, eps)?,
            lm_head: loader.linear("lm_head", vocab_size, hidden_size)?,
            mtp: None,
        })
    }

    /// The same with a layer that predicts further tokens.
    pub(super) fn with_mtp(self, mtp: Option<Mtp>) -> Self {
        Decoder { mtp, ..self }
    }
}
