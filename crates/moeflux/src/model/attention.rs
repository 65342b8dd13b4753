//! Grouped-query attention (Ainslie et al. 2023), as most families have it.

use moeflux_checkpoint::{AttentionConfig, DecoderConfig, Error};
use moeflux_kernels::RopeLayout;

use super::decoder::Mixer;
use super::rope::rope_spec;
use crate::graph::{
    GraphBuilder, KvState, Linear, Loader, Norm, Role, Rope, Tensor, Vector,
    role::{Attended, Key, MixerIn, MixerOut, Query, Value},
};

/// What differs between families; by default nothing that need not be there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AttentionVariant {
    /// Whether queries, keys and values have biases.
    pub(super) qkv_bias: bool,
    /// Whether the output has one.
    pub(super) o_bias: bool,
    pub(super) qk_norm: QkNorm,
    /// Whether each head has a score that takes weight from all others.
    pub(super) sinks: bool,
    /// How many tokens are seen, the token itself included; all if none.
    pub(super) window: Option<usize>,
}

/// How queries and keys are normed before they turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum QkNorm {
    #[default]
    None,
    /// Head by head.
    PerHead,
    /// All heads of a token together.
    FullWidth,
}

/// Attention over all earlier tokens, or the last of them.
#[derive(Debug)]
pub(super) struct Attention {
    q_proj: Linear<MixerIn, Query>,
    k_proj: Linear<MixerIn, Key>,
    v_proj: Linear<MixerIn, Value>,
    qk_norm: Option<(Norm<Query, Query>, Norm<Key, Key>)>,
    sinks: Option<Vector>,
    o_proj: Linear<Attended, MixerOut>,
    rope: Rope,
    cache: KvState,
    head_dim: usize,
}

impl Mixer for Attention {
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MixerIn>) -> Tensor<MixerOut> {
        let mut q = b.linear(x, &self.q_proj);
        let mut k = b.linear(x, &self.k_proj);
        let v = b.linear(x, &self.v_proj);
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            q = b.rms_norm(q, q_norm);
            k = b.rms_norm(k, k_norm);
        }
        let q = b.rope_query(q, self.head_dim, &self.rope);
        let k = b.rope_key(k, self.head_dim, &self.rope);
        let scale = (self.head_dim as f32).powf(-0.5);
        let attended = match &self.sinks {
            None => b.attention(q, k, v, &self.cache, scale),
            Some(sinks) => b.attention_with_sinks(q, k, v, &self.cache, sinks, scale),
        };
        b.linear(attended, &self.o_proj)
    }
}

impl Attention {
    /// The attention called `name`.
    pub(super) fn load(
        config: &AttentionConfig,
        decoder: &DecoderConfig,
        variant: AttentionVariant,
        loader: &mut Loader<'_>,
        name: &str,
    ) -> Result<Self, Error> {
        let AttentionConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } =
            *config;
        let DecoderConfig { hidden_size, rms_norm_eps: eps, .. } = *decoder;
        let (q_width, k_width) = (heads * head_dim, kv_heads * head_dim);
        let norm_dims = match variant.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead => Some((head_dim, head_dim)),
            QkNorm::FullWidth => Some((q_width, k_width)),
        };
        let adjacent = loader.row_order().rotary_pairs_adjacent;
        let layout = if adjacent { RopeLayout::Interleaved } else { RopeLayout::HalfSplit };
        let rope = match (variant.window, &config.sliding_rope) {
            (Some(_), Some(sliding)) => sliding,
            _ => &config.rope,
        };
        let (q_proj, k_proj, v_proj) =
            (format!("{name}.q_proj"), format!("{name}.k_proj"), format!("{name}.v_proj"));
        Ok(Attention {
            q_proj: projection(loader, &q_proj, q_width, hidden_size, variant.qkv_bias)?,
            k_proj: projection(loader, &k_proj, k_width, hidden_size, variant.qkv_bias)?,
            v_proj: projection(loader, &v_proj, k_width, hidden_size, variant.qkv_bias)?,
            qk_norm: norm_dims
                .map(|(q_dim, k_dim)| {
                    let q_norm = loader.norm(&format!("{name}.q_norm"), q_dim, eps)?;
                    Ok((q_norm, loader.norm(&format!("{name}.k_norm"), k_dim, eps)?))
                })
                .transpose()?,
            sinks: variant.sinks.then(|| loader.vector(&format!("{name}.sinks"), heads)).transpose()?,
            o_proj: projection(loader, &format!("{name}.o_proj"), hidden_size, q_width, variant.o_bias)?,
            rope: loader.rope(rope_spec(rope, layout)),
            cache: match variant.window {
                None => loader.kv_state(kv_heads, head_dim),
                Some(window) => loader.sliding_kv_state(kv_heads, head_dim, window),
            },
            head_dim,
        })
    }
}

fn projection<I: Role, O: Role>(
    loader: &mut Loader<'_>,
    name: &str,
    rows: usize,
    cols: usize,
    bias: bool,
) -> Result<Linear<I, O>, Error> {
    if bias { loader.linear_with_bias(name, rows, cols) } else { loader.linear(name, rows, cols) }
}
