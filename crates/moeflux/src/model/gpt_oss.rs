//! gpt-oss: attention with sinks, every other layer over a sliding window, and experts with biases.
//!
//! After `modeling_gpt_oss.py` of transformers. OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card" (2025), section 2.

use moeflux_checkpoint::{Error, GptOssConfig as Config, MoeConfig};
use moeflux_kernels::{Activation, Routing, Scores, Weighting};

use super::attention::{Attention, AttentionVariant, QkNorm};
use super::decoder::{Decoder, Mlp};
use crate::graph::{
    Experts, GraphBuilder, Linear, Loader, Tensor,
    role::{MlpIn, MlpOut, RouterLogits},
};

/// Takes the weights, by their canonical names.
pub(super) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Decoder, Error> {
    Decoder::load(&config.decoder, loader, |loader, layer, name| {
        let variant = AttentionVariant {
            qkv_bias: true,
            o_bias: true,
            qk_norm: QkNorm::None,
            sinks: true,
            window: config.windows[layer],
        };
        let attention = format!("{name}.self_attn");
        Ok((
            Box::new(Attention::load(&config.attention, &config.decoder, variant, loader, &attention)?),
            Box::new(SparseMlp::load(config, loader, &format!("{name}.mlp"))?),
        ))
    })
}

/// The experts with the largest router scores, weighted by a softmax over these.
#[derive(Debug)]
struct SparseMlp {
    router: Linear<MlpIn, RouterLogits>,
    routing: Routing,
    experts: Experts<MlpOut>,
}

impl Mlp for SparseMlp {
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MlpIn>) -> Tensor<MlpOut> {
        let logits = b.linear(x, &self.router);
        let choice = b.route(logits, None, self.routing);
        b.experts(x, choice, &self.experts)
    }
}

impl SparseMlp {
    fn load(config: &Config, loader: &mut Loader<'_>, name: &str) -> Result<Self, Error> {
        let hidden_size = config.decoder.hidden_size;
        let MoeConfig { num_experts, num_experts_per_tok, moe_intermediate_size } = config.moe;
        let activation = Activation::ClampedSwiglu {
            alpha: config.swiglu_alpha as f32,
            limit: config.swiglu_limit as f32,
        };
        Ok(SparseMlp {
            router: loader.linear_with_bias(&format!("{name}.router"), num_experts, hidden_size)?,
            routing: Routing {
                scores: Scores::Logits,
                groups: None,
                num_experts_per_tok,
                weighting: Weighting::Softmax,
                scaling_factor: 1.0,
            },
            experts: loader.biased_experts(
                name,
                num_experts,
                hidden_size,
                moe_intermediate_size,
                activation,
            )?,
        })
    }
}
