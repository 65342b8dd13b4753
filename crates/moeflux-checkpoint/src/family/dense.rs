//! Dense models shaped as Llama's: grouped-query attention and one SwiGLU a layer. Llama itself (`llama`), and Qwen3
//! without experts (`qwen3`), which norms queries and keys head by head.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{AttentionConfig, DecoderConfig, INERT, MAX_WIDTH};
use crate::family::rope;
use serde_json::{Value, json};

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types and config.json's names say it")]
pub struct DenseConfig {
    pub decoder: DecoderConfig,
    pub attention: AttentionConfig,
    pub intermediate_size: usize,
}

/// Reads the config.
pub(crate) fn read_config(mut fields: Fields<'_>) -> Result<DenseConfig, Error> {
    fields.inert(INERT);
    // Without `use_sliding_window` they mean nothing; how training was spread over devices never does.
    fields.inert(&["max_window_layers", "pretraining_tp"]);
    fields.only("use_sliding_window", &[json!(false)])?;
    fields.only("sliding_window", &[json!(null)])?;
    fields.read("layer_types", "full_attention for every layer", |value: &Value| {
        value.as_array()?.iter().all(|kind| kind == "full_attention").then_some(())
    })?;
    fields.only("hidden_act", &[json!("silu")])?;
    fields.only("attention_bias", &[json!(false)])?;
    fields.only("mlp_bias", &[json!(false)])?;
    let mut decoder = DecoderConfig::read(&mut fields)?;
    let attention = AttentionConfig::read(&mut fields, &mut decoder, rope::PLAIN)?;
    let intermediate_size = fields.size("intermediate_size", MAX_WIDTH)?;
    fields.finish()?;
    Ok(DenseConfig { decoder, attention, intermediate_size })
}
