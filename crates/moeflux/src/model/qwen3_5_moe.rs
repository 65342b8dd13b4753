//! Qwen3.5-MoE and Qwen3.6-MoE: layers of gated delta nets, every few of them gated attention instead, each followed
//! by a sparse MLP with a shared expert.
//!
//! After `modeling_qwen3_5_moe.py` of transformers. Gated delta rule: Yang et al., "Gated Delta Networks" (2024).

use moeflux_checkpoint::{Error, LayerType, Qwen3_5MoeConfig as Config};
use moeflux_kernels::{DeltaShape, RopeLayout};

use super::Architecture;
use super::ffn::SwigluFfn;
use crate::graph::{
    Embedding, Experts, GraphBuilder, KvState, Linear, Loader, Norm, RecurrentState, Rope, RopeSpec, Tensor,
    Vector,
    role::{
        BetaIn, ConvIn, DecayIn, DeltaGate, DeltaOut, GatedAttended, GatedDeltaOut, HeadIn, Hidden, Key, Logits,
        Mid, MixerIn, MixerOut, MlpIn, MlpOut, Query, QueryGate, RouterLogits, SharedGate, Value,
    },
};

/// The whole model.
#[derive(Debug)]
pub(super) struct Qwen3_5Moe {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: Norm<Hidden, HeadIn>,
    lm_head: Linear<HeadIn, Logits>,
}

impl Architecture for Qwen3_5Moe {
    fn forward(&self, b: &mut GraphBuilder) -> Tensor<Logits> {
        let mut x = b.embed(&self.embed_tokens);
        for (i, layer) in self.layers.iter().enumerate() {
            x = b.scope(&format!("layers.{i}"), |b| layer.forward(b, x));
        }
        let x = b.select_outputs(x);
        let x = b.rms_norm(x, &self.norm);
        b.linear(x, &self.lm_head)
    }
}

#[derive(Debug)]
struct Layer {
    input_layernorm: Norm<Hidden, MixerIn>,
    mixer: Mixer,
    post_attention_layernorm: Norm<Mid, MlpIn>,
    mlp: SparseMlp,
}

#[derive(Debug)]
enum Mixer {
    LinearAttention(GatedDeltaNet),
    FullAttention(GatedAttention),
}

impl Layer {
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<Hidden>) -> Tensor<Hidden> {
        let normed = b.rms_norm(x, &self.input_layernorm);
        let mixed = match &self.mixer {
            Mixer::LinearAttention(mixer) => mixer.forward(b, normed),
            Mixer::FullAttention(mixer) => mixer.forward(b, normed),
        };
        let x = b.add(x, mixed);
        let normed = b.rms_norm(x, &self.post_attention_layernorm);
        let out = self.mlp.forward(b, normed);
        b.add(x, out)
    }
}

/// Grouped-query attention whose output passes a sigmoid gate; queries and keys are normed head by head and turned on
/// the first channels of each head only.
#[derive(Debug)]
struct GatedAttention {
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

impl GatedAttention {
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
        let gated = b.gate_attention(attended, gate);
        b.linear(gated, &self.o_proj)
    }
}

/// Linear attention: a short convolution, then a state of `[key_dim, value_dim]` a head that decays and is corrected
/// towards each new value.
#[derive(Debug)]
struct GatedDeltaNet {
    in_proj_qkv: Linear<MixerIn, ConvIn>,
    in_proj_z: Linear<MixerIn, DeltaGate>,
    in_proj_b: Linear<MixerIn, BetaIn>,
    in_proj_a: Linear<MixerIn, DecayIn>,
    conv1d: Vector,
    a_log: Vector,
    dt_bias: Vector,
    norm: Norm<DeltaOut, GatedDeltaOut>,
    out_proj: Linear<GatedDeltaOut, MixerOut>,
    conv_state: RecurrentState,
    delta_state: RecurrentState,
    shape: DeltaShape,
}

impl GatedDeltaNet {
    /// Added to the sum of squares before the root, not to their mean.
    const L2_EPS: f32 = 1e-6;

    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MixerIn>) -> Tensor<MixerOut> {
        let qkv = b.linear(x, &self.in_proj_qkv);
        let z = b.linear(x, &self.in_proj_z);
        let beta_in = b.linear(x, &self.in_proj_b);
        let decay_in = b.linear(x, &self.in_proj_a);

        let qkv = b.conv1d_silu(qkv, &self.conv1d, &self.conv_state);
        let (q, k, v) = b.split_delta(qkv, &self.shape);
        let key_dim = self.shape.key_dim;
        let (q, k) = b.unit_query_key(q, k, key_dim, Self::L2_EPS, (key_dim as f32).powf(-0.5));
        let (decay, beta) = b.decay_beta(decay_in, beta_in, &self.a_log, &self.dt_bias);
        let out = b.gated_delta((q, k, v), (decay, beta), self.shape, &self.delta_state);
        let out = b.gated_rms_norm(out, z, &self.norm);
        b.linear(out, &self.out_proj)
    }
}

/// The router's `num_experts_per_tok` best experts, and one that every token visits.
#[derive(Debug)]
struct SparseMlp {
    gate: Linear<MlpIn, RouterLogits>,
    experts: Experts,
    shared_expert: SwigluFfn,
    shared_expert_gate: Linear<MlpIn, SharedGate>,
    num_experts_per_tok: usize,
}

impl SparseMlp {
    /// The family always divides the chosen weights by their sum.
    const RENORMALIZE: bool = true;

    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MlpIn>) -> Tensor<MlpOut> {
        let logits = b.linear(x, &self.gate);
        let choice = b.softmax_top_k(logits, self.num_experts_per_tok, Self::RENORMALIZE);
        let shared = self.shared_expert.forward(b, x);
        let score = b.linear(x, &self.shared_expert_gate);
        let shared = b.gate_shared(shared, score);
        let routed = b.experts(x, choice, &self.experts);
        b.add(routed, shared)
    }
}

impl Qwen3_5Moe {
    /// Takes the family's weights, by their canonical names.
    pub(super) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Self, Error> {
        let hidden_size = config.hidden_size;
        Ok(Qwen3_5Moe {
            embed_tokens: loader.embedding("embed_tokens", config.vocab_size, hidden_size)?,
            layers: config
                .layer_types
                .iter()
                .enumerate()
                .map(|(i, kind)| Layer::load(config, *kind, loader, &format!("layers.{i}")))
                .collect::<Result<_, _>>()?,
            norm: loader.norm("norm", hidden_size, config.rms_norm_eps)?,
            lm_head: loader.linear("lm_head", config.vocab_size, hidden_size)?,
        })
    }
}

impl Layer {
    fn load(config: &Config, kind: LayerType, loader: &mut Loader<'_>, name: &str) -> Result<Self, Error> {
        let (hidden_size, eps) = (config.hidden_size, config.rms_norm_eps);
        Ok(Layer {
            input_layernorm: loader.norm(&format!("{name}.input_layernorm"), hidden_size, eps)?,
            mixer: match kind {
                LayerType::LinearAttention => {
                    Mixer::LinearAttention(GatedDeltaNet::load(config, loader, &format!("{name}.linear_attn"))?)
                }
                LayerType::FullAttention => {
                    Mixer::FullAttention(GatedAttention::load(config, loader, &format!("{name}.self_attn"))?)
                }
            },
            post_attention_layernorm: loader.norm(
                &format!("{name}.post_attention_layernorm"),
                hidden_size,
                eps,
            )?,
            mlp: SparseMlp::load(config, loader, &format!("{name}.mlp"))?,
        })
    }
}

impl GatedAttention {
    fn load(config: &Config, loader: &mut Loader<'_>, name: &str) -> Result<Self, Error> {
        let Config { hidden_size, num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } = *config;
        let eps = config.rms_norm_eps;
        Ok(GatedAttention {
            q_proj: loader.linear(&format!("{name}.q_proj"), heads * 2 * head_dim, hidden_size)?,
            k_proj: loader.linear(&format!("{name}.k_proj"), kv_heads * head_dim, hidden_size)?,
            v_proj: loader.linear(&format!("{name}.v_proj"), kv_heads * head_dim, hidden_size)?,
            q_norm: loader.norm(&format!("{name}.q_norm"), head_dim, eps)?,
            k_norm: loader.norm(&format!("{name}.k_norm"), head_dim, eps)?,
            o_proj: loader.linear(&format!("{name}.o_proj"), hidden_size, heads * head_dim)?,
            rope: loader.rope(rope(config)),
            cache: loader.kv_state(kv_heads, head_dim),
            head_dim,
        })
    }
}

/// Partial RoPE on half-split pairs. With M-RoPE the axes of time, height and width take turns over the frequencies
/// as far as each one's section reaches; what is left turns with time.
fn rope(config: &Config) -> RopeSpec {
    let rotary_dim = config.rotary_dim();
    let theta = config.rope.theta as f32;
    let sections = &config.rope.mrope_section;
    let reach = |axis: usize| 3 * sections.get(axis).copied().unwrap_or(0);
    RopeSpec {
        rotary_dim,
        inv_freq: (0..rotary_dim / 2)
            .map(|j| 1.0 / theta.powf((2 * j) as f32 / rotary_dim as f32))
            .collect(),
        layout: RopeLayout::HalfSplit,
        axes: (0..rotary_dim / 2)
            .map(|j| match j % 3 {
                axis @ (1 | 2) if j < reach(axis) => axis as u8,
                _ => 0,
            })
            .collect(),
    }
}

impl GatedDeltaNet {
    fn load(config: &Config, loader: &mut Loader<'_>, name: &str) -> Result<Self, Error> {
        let (hidden_size, kernel) = (config.hidden_size, config.linear_conv_kernel_dim);
        let shape = DeltaShape {
            key_heads: config.linear_num_key_heads,
            value_heads: config.linear_num_value_heads,
            key_dim: config.linear_key_head_dim,
            value_dim: config.linear_value_head_dim,
        };
        let (keys, values) = (shape.key_heads * shape.key_dim, shape.value_heads * shape.value_dim);
        let channels = 2 * keys + values;
        Ok(GatedDeltaNet {
            in_proj_qkv: loader.linear(&format!("{name}.in_proj_qkv"), channels, hidden_size)?,
            in_proj_z: loader.linear(&format!("{name}.in_proj_z"), values, hidden_size)?,
            in_proj_b: loader.linear(&format!("{name}.in_proj_b"), shape.value_heads, hidden_size)?,
            in_proj_a: loader.linear(&format!("{name}.in_proj_a"), shape.value_heads, hidden_size)?,
            conv1d: loader.conv1d(&format!("{name}.conv1d"), channels, kernel)?,
            a_log: loader.vector(&format!("{name}.A_log"), shape.value_heads)?,
            dt_bias: loader.vector(&format!("{name}.dt_bias"), shape.value_heads)?,
            norm: loader.norm(&format!("{name}.norm"), shape.value_dim, config.rms_norm_eps)?,
            out_proj: loader.linear(&format!("{name}.out_proj"), hidden_size, values)?,
            conv_state: loader.recurrent_state((kernel - 1) * channels),
            delta_state: loader.recurrent_state(shape.value_heads * shape.key_dim * shape.value_dim),
            shape,
        })
    }
}

impl SparseMlp {
    fn load(config: &Config, loader: &mut Loader<'_>, name: &str) -> Result<Self, Error> {
        let Config { hidden_size, num_experts, moe_intermediate_size, .. } = *config;
        Ok(SparseMlp {
            gate: loader.linear(&format!("{name}.gate"), num_experts, hidden_size)?,
            experts: loader.experts(name, num_experts, hidden_size, moe_intermediate_size)?,
            shared_expert: SwigluFfn::load(
                loader,
                &format!("{name}.shared_expert"),
                hidden_size,
                config.shared_expert_intermediate_size,
            )?,
            shared_expert_gate: loader.linear(&format!("{name}.shared_expert_gate"), 1, hidden_size)?,
            num_experts_per_tok: config.num_experts_per_tok,
        })
    }
}
