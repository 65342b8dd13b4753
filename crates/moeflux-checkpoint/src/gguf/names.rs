//! What GGUF files call a tensor. All architectures share one list.

use crate::config::ModelConfig;
use crate::family::{Conventions, Layout, RowOrder};
use crate::files::Tensors;
use std::borrow::Cow;

/// How GGUF names and stores a family's tensors.
pub(crate) fn conventions(config: &ModelConfig, tensors: &Tensors) -> Conventions {
    // Files have the one or the other in front of a layer's feed-forward part.
    let rename =
        if tensors.contains_key("blk.0.ffn_norm.weight") { with_ffn_norm } else { with_post_attention_norm };
    Conventions {
        layout: Layout::Gguf,
        prefix: "",
        lm_head: "output",
        tied: config.decoder().tie_word_embeddings,
        rename,
        is_zero_centred: |_| false,
        is_bare: |name| BARE.iter().any(|(part, _)| name.ends_with(part)),
        row_order: RowOrder {
            value_heads_tiled: matches!(config, ModelConfig::Qwen3_5(_) | ModelConfig::Qwen3_5Moe(_)),
            rotary_pairs_adjacent: matches!(config, ModelConfig::Llama(_) | ModelConfig::Mixtral(_)),
        },
    }
}

/// Whether a tensor of this name in the files belongs to a block behind the `layers` that are run.
pub(crate) fn is_behind(name: &str, layers: usize) -> bool {
    let block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    block.and_then(|(block, _)| block.parse::<usize>().ok()).is_some_and(|block| block >= layers)
}

/// Canonical names outside the layers, and GGUF's.
const MODEL: [(&str, &str); 2] = [("embed_tokens", "token_embd"), ("norm", "output_norm")];

/// Canonical names of modules within a layer, and GGUF's within a block.
const LAYER: [(&str, &str); 38] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.sinks", "attn_sinks"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("self_attn.embed_q", "attn_k_b"),
    ("self_attn.unembed_out", "attn_v_b"),
    ("linear_attn.in_proj_qkvz", "ssm_in"),
    ("linear_attn.in_proj_qkv", "attn_qkv"),
    ("linear_attn.in_proj_z", "attn_gate"),
    ("linear_attn.in_proj_ba", "ssm_ba"),
    ("linear_attn.in_proj_b", "ssm_beta"),
    ("linear_attn.in_proj_a", "ssm_alpha"),
    ("linear_attn.conv1d", "ssm_conv1d"),
    ("linear_attn.norm", "ssm_norm"),
    ("linear_attn.out_proj", "ssm_out"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.switch_mlp.gate_proj", "ffn_gate_exps"),
    ("mlp.switch_mlp.up_proj", "ffn_up_exps"),
    ("mlp.switch_mlp.down_proj", "ffn_down_exps"),
    ("mlp.experts.gate_up_proj", "ffn_gate_up_exps"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
];

/// Canonical names of parameters within a layer that are no module's weight or bias, and GGUF's.
const BARE: [(&str, &str); 3] = [
    ("linear_attn.A_log", "ssm_a"),
    ("linear_attn.dt_bias", "ssm_dt.bias"),
    ("mlp.gate.e_score_correction_bias", "exp_probs_b.bias"),
];

fn with_ffn_norm(name: &str) -> Cow<'_, str> {
    rename(name, "ffn_norm")
}

fn with_post_attention_norm(name: &str) -> Cow<'_, str> {
    rename(name, "post_attention_norm")
}

/// GGUF's name for a module, a module's bias or a bare parameter; the name itself if there is none.
fn rename<'a>(name: &'a str, post_attention_layernorm: &str) -> Cow<'a, str> {
    let Some((layer, part)) = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else {
        return MODEL.iter().find(|known| known.0 == name).map_or(name, |known| known.1).into();
    };
    let find =
        |part: &str| LAYER.iter().chain(&BARE).find(|known| known.0 == part).map(|known| known.1.to_owned());
    let renamed = match part {
        "post_attention_layernorm" => Some(post_attention_layernorm.to_owned()),
        _ => find(part)
            .or_else(|| find(part.strip_suffix(".bias")?).map(|module| module + ".bias"))
            .or_else(|| shared_expert(part))
            .or_else(|| one_expert(part)),
    };
    renamed.map_or(name.into(), |part| format!("blk.{layer}.{part}").into())
}

/// `mlp.shared_expert.gate_proj`, or `mlp.shared_experts`.
fn shared_expert(part: &str) -> Option<String> {
    let (expert, part) = part.strip_prefix("mlp.shared_expert")?.split_once('.')?;
    let part = part.strip_suffix("_proj")?;
    matches!(expert, "" | "s").then(|| format!("ffn_{part}_shexp"))
}

/// `mlp.experts.7.gate_proj`: files of old have experts one by one.
fn one_expert(part: &str) -> Option<String> {
    let (expert, part) = part.strip_prefix("mlp.experts.")?.split_once('.')?;
    let part = part.strip_suffix("_proj")?;
    expert.parse::<usize>().ok().map(|expert| format!("ffn_{part}.{expert}"))
}
