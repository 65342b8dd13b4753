//! Gated attention, as Qwen3-Next has it.

use moeflux_checkpoint::{AttentionConfig, DecoderConfig, Error};
use moeflux_kernels::RopeLayout;

use super::decoder::Mixer;
use super::rope::rope_spec;
use crate::graph::{
    GraphBuilder, KvState, Linear, Loader, Norm, Rope, Tensor,
    role::{GatedAttended, Key, MixerIn, MixerOut, Query, QueryGate, Value},
};

/// Grouped-query attention whose output passes a sigmoid gate; queries and keys are normed head by head and turned on
/// the first channels of each head only.
#[derive(Debug)]
pub(super) struct GatedAttention {
    q_proj: Linear<MixerIn, QueryGate>,
    k_proj: Linear<MixerIn, Key>,
    v_proj: Linear<MixerIn, Value>,
    q_norm: Norm<Query, Query>,
    k_norm: Norm<Key, Key>,
    o_proj: Linear<GatedAttended, MixerOut>,
    rope: Rope,
    cache: KvState,
    head_dim: usize,
}

impl Mixer for GatedAttention {
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MixerIn>) -> Tensor<MixerOut> {
        let query_gate = b.linear(x, &self.q_proj);
        let (q, gate) = b.split_query_gate(query_gate, self.head_dim);
        let k = b.linear(x, &self.k_proj);
        let v = b.linear(x, &self.v_proj);
        let q = b.rms_norm(q, &self.q_norm);
        let k = b.rms_norm(k, &self.k_norm);
        let q = b.rope_query(q, self.head_dim, &self.rope);
        let k = b.rope_key(k, self.head_dim, &self.rope);
        let attended = b.attention(q, k, v, &self.cache, (self.head_dim as f32).powf(-0.5));
        let gated = b.sigmoid_gate(attended, gate);
        b.linear(gated, &self.o_proj)
    }
}

impl GatedAttention {
    /// The attention called `name`.
    pub(super) fn load(
        config: &AttentionConfig,
        decoder: &DecoderConfig,
        loader: &mut Loader<'_>,
        name: &str,
    ) -> Result<Self, Error> {
        let AttentionConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } =
            *config;
        let DecoderConfig { hidden_size, rms_norm_eps: eps, .. } = *decoder;
        Ok(GatedAttention {
            q_proj: loader.linear(&format!("{name}.q_proj"), heads * 2 * head_dim, hidden_size)?,
            k_proj: loader.linear(&format!("{name}.k_proj"), kv_heads * head_dim, hidden_size)?,
            v_proj: loader.linear(&format!("{name}.v_proj"), kv_heads * head_dim, hidden_size)?,
            q_norm: loader.norm(&format!("{name}.q_norm"), head_dim, eps)?,
            k_norm: loader.norm(&format!("{name}.k_norm"), head_dim, eps)?,
            o_proj: loader.linear(&format!("{name}.o_proj"), hidden_size, heads * head_dim)?,
            rope: loader.rope(rope_spec(&config.rope, RopeLayout::HalfSplit)),
            cache: loader.kv_state(kv_heads, head_dim),
            head_dim,
        })
    }
}
