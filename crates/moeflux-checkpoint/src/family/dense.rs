//! Dense models shaped as Llama's: grouped-query attention and one SwiGLU a layer. Llama itself (`llama`), Mistral
//! (`mistral`), Qwen2 and Qwen2.5 (`qwen2`), whose queries, keys and values have biases, and Qwen3 without experts
//! (`qwen3`), which norms queries and keys head by head.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{AttentionConfig, DecoderConfig, MAX_LAYERS, MAX_WIDTH, read_windows};
use crate::family::rope::{self, RopeDefaults};
use serde_json::json;

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types and config.json's names say it")]
pub struct DenseConfig {
    pub decoder: DecoderConfig,
    pub attention: AttentionConfig,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output has one.
    pub o_bias: bool,
    /// How many tokens each layer sees, the token itself included; all if none.
    pub windows: Vec<Option<usize>>,
    pub intermediate_size: usize,
}

/// Which of the families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

/// Reads the config.
pub(crate) fn read_config(mut fields: Fields<'_>, kind: Kind) -> Result<DenseConfig, Error> {
    fields.pass_over_ignorable()?;
    fields.only("hidden_act", &[json!("silu")])?;
    fields.only("mlp_bias", &[json!(false)])?;
    let bias = match kind {
        Kind::Qwen2 => {
            fields.only("attention_bias", &[json!(true)])?;
            fields.only("qkv_bias", &[json!(true)])?;
            (true, false)
        }
        _ => {
            let bias = fields.flag("attention_bias")?.unwrap_or(false);
            (bias, bias)
        }
    };
    let mut decoder = DecoderConfig::read(&mut fields)?;
    // Configs of the first Llamas do not say it.
    let theta = matches!(kind, Kind::Llama | Kind::Mistral).then_some(10_000.0);
    let defaults = RopeDefaults { theta, by_layer_type: kind != Kind::Llama, ..rope::PLAIN };
    let attention = match kind {
        Kind::Llama => AttentionConfig::read_old(&mut fields, &mut decoder, defaults)?,
        _ => AttentionConfig::read(&mut fields, &mut decoder, defaults)?,
    };
    for rope in [&attention.rope].into_iter().chain(&attention.sliding_rope) {
        if rope.rotary_dim != attention.head_dim {
            // Of these models transformers passes over the factor, while other programs follow it.
            let expected = "1, since these models turn whole heads".to_owned();
            let found = rope.rotary_dim as f64 / attention.head_dim as f64;
            return Err(fields.impossible("partial_rotary_factor", expected, &found));
        }
    }
    let intermediate_size = fields.size("intermediate_size", MAX_WIDTH)?;
    let windows = windows(&mut fields, kind, decoder.num_hidden_layers)?;
    fields.finish()?;
    let (qkv_bias, o_bias) = bias;
    Ok(DenseConfig { decoder, attention, qkv_bias, o_bias, windows, intermediate_size })
}

/// What each layer sees. All layers of Mistral slide if there is a window; of Qwen those from `max_window_layers` on, if
/// `use_sliding_window` says so; of Llama none.
fn windows(fields: &mut Fields<'_>, kind: Kind, layers: usize) -> Result<Vec<Option<usize>>, Error> {
    let slides = match kind {
        Kind::Llama => false,
        Kind::Mistral => fields.value("sliding_window").is_some(),
        Kind::Qwen2 | Kind::Qwen3 => fields.flag("use_sliding_window")?.unwrap_or(false),
    };
    if slides {
        let first = match kind {
            Kind::Qwen2 | Kind::Qwen3 => fields.whole("max_window_layers", 0, MAX_LAYERS)?.unwrap_or(28),
            Kind::Llama | Kind::Mistral => 0,
        };
        return read_windows(fields, layers, |layer| layer >= first);
    }
    fields.only("use_sliding_window", &[json!(false)])?;
    let reason = "nothing slides without use_sliding_window";
    match kind {
        Kind::Qwen2 | Kind::Qwen3 => fields.pass_over(reason, &["max_window_layers", "sliding_window"]),
        Kind::Llama | Kind::Mistral => {
            fields.pass_over(reason, &["max_window_layers"]);
            fields.only("sliding_window", &[json!(null)])?;
        }
    }
    fields.read("layer_types", "full_attention for every layer", |value| {
        let kinds = value.as_array().filter(|kinds| kinds.len() == layers)?;
        kinds.iter().all(|kind| kind == "full_attention").then_some(())
    })?;
    Ok(vec![None; layers])
}
