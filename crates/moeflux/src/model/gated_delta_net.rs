//! Gated delta nets (Yang et al., "Gated Delta Networks", 2024), as Qwen3-Next has them.

use moeflux_checkpoint::{DecoderConfig, DeltaNetConfig, Error};
use moeflux_kernels::{DeltaShape, HeadOrder};

use super::decoder::Mixer;
use crate::graph::{
    GraphBuilder, Linear, Loader, Norm, RecurrentState, Tensor, Vector,
    role::{
        BetaIn, ConvIn, DecayIn, DeltaGate, DeltaOut, FusedBa, FusedQkvz, GatedDeltaOut, MixerIn, MixerOut,
    },
};

/// Linear attention: a short convolution, then a state of `[key_dim, value_dim]` a head that decays and is corrected
/// towards each new value.
#[derive(Debug)]
pub(super) struct GatedDeltaNet {
    qkvz: Qkvz,
    ba: Ba,
    conv1d: Vector,
    a_log: Vector,
    dt_bias: Vector,
    norm: Norm<DeltaOut, GatedDeltaOut>,
    out_proj: Linear<GatedDeltaOut, MixerOut>,
    conv_state: RecurrentState,
    delta_state: RecurrentState,
    shape: DeltaShape,
}

/// What queries, keys and values (`qkv`) and the output's gate (`z`) come from: two maps, or one with the rows of each
/// key head together.
#[derive(Debug)]
enum Qkvz {
    Separate { qkv: Linear<MixerIn, ConvIn>, z: Linear<MixerIn, DeltaGate> },
    Fused(Linear<MixerIn, FusedQkvz>),
}

/// What write strength (`b`) and decay (`a`) come from: two maps, or one with the rows of each key head together.
#[derive(Debug)]
enum Ba {
    Separate { b: Linear<MixerIn, BetaIn>, a: Linear<MixerIn, DecayIn> },
    Fused(Linear<MixerIn, FusedBa>),
}

impl Mixer for GatedDeltaNet {
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MixerIn>) -> Tensor<MixerOut> {
        let (qkv, z) = match &self.qkvz {
            Qkvz::Separate { qkv, z } => (b.linear(x, qkv), b.linear(x, z)),
            Qkvz::Fused(qkvz) => {
                let qkvz = b.linear(x, qkvz);
                b.split_qkvz(qkvz, &self.shape)
            }
        };
        let (beta_in, decay_in) = match &self.ba {
            Ba::Separate { b: beta, a: decay } => (b.linear(x, beta), b.linear(x, decay)),
            Ba::Fused(ba) => {
                let ba = b.linear(x, ba);
                b.split_ba(ba, &self.shape)
            }
        };
        let qkv = b.conv1d_silu(qkv, &self.conv1d, &self.conv_state);
        let (q, k, v) = b.split_delta(qkv, &self.shape);
        let key_dim = self.shape.key_dim;
        let (q, k) = b.l2_norm_query_key(q, k, key_dim, Self::L2_EPS, (key_dim as f32).powf(-0.5));
        let (decay, beta) = b.decay_beta(decay_in, beta_in, &self.a_log, &self.dt_bias);
        let out = b.gated_delta((q, k, v), (decay, beta), self.shape, &self.delta_state);
        let out = b.gated_rms_norm(out, z, &self.norm);
        b.linear(out, &self.out_proj)
    }
}

impl GatedDeltaNet {
    /// Added to the sum of squares before the root, not to their mean.
    const L2_EPS: f32 = 1e-6;

    /// The delta net called `name`.
    pub(super) fn load(
        config: &DeltaNetConfig,
        decoder: &DecoderConfig,
        loader: &mut Loader<'_>,
        name: &str,
    ) -> Result<Self, Error> {
        let DecoderConfig { hidden_size, rms_norm_eps: eps, .. } = *decoder;
        let kernel = config.linear_conv_kernel_dim;
        let shape = DeltaShape {
            key_heads: config.linear_num_key_heads,
            value_heads: config.linear_num_value_heads,
            key_dim: config.linear_key_head_dim,
            value_dim: config.linear_value_head_dim,
            order: if loader.row_order().value_heads_tiled { HeadOrder::Tiled } else { HeadOrder::Grouped },
        };
        let (keys, values) = (shape.key_heads * shape.key_dim, shape.value_heads * shape.value_dim);
        let channels = 2 * keys + values;
        let (qkvz, ba) = (format!("{name}.in_proj_qkvz"), format!("{name}.in_proj_ba"));
        Ok(GatedDeltaNet {
            qkvz: if loader.has_linear(&qkvz) {
                Qkvz::Fused(loader.linear(&qkvz, channels + values, hidden_size)?)
            } else {
                Qkvz::Separate {
                    qkv: loader.linear(&format!("{name}.in_proj_qkv"), channels, hidden_size)?,
                    z: loader.linear(&format!("{name}.in_proj_z"), values, hidden_size)?,
                }
            },
            ba: if loader.has_linear(&ba) {
                Ba::Fused(loader.linear(&ba, 2 * shape.value_heads, hidden_size)?)
            } else {
                Ba::Separate {
                    b: loader.linear(&format!("{name}.in_proj_b"), shape.value_heads, hidden_size)?,
                    a: loader.linear(&format!("{name}.in_proj_a"), shape.value_heads, hidden_size)?,
                }
            },
            conv1d: loader.conv1d(&format!("{name}.conv1d"), channels, kernel)?,
            a_log: loader.vector(&format!("{name}.A_log"), shape.value_heads)?,
            dt_bias: loader.vector(&format!("{name}.dt_bias"), shape.value_heads)?,
            norm: loader.norm(&format!("{name}.norm"), shape.value_dim, eps)?,
            out_proj: loader.linear(&format!("{name}.out_proj"), hidden_size, values)?,
            conv_state: loader.recurrent_state((kernel - 1) * channels),
            delta_state: loader.recurrent_state(shape.value_heads * shape.key_dim * shape.value_dim),
            shape,
        })
    }
}
