//! OLMoE (`olmoe`): attention with queries and keys normed over their full width, and a mixture of experts in every
//! layer.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{AttentionConfig, DecoderConfig, MoeConfig, NUM_EXPERTS};
use crate::family::rope;
use serde_json::{Value, json};

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types and config.json's names say it")]
pub struct OlmoeConfig {
    pub decoder: DecoderConfig,
    pub attention: AttentionConfig,
    pub moe: MoeConfig,
    pub norm_topk_prob: bool,
}

/// Reads the config.
pub(crate) fn read_config(mut fields: Fields<'_>) -> Result<OlmoeConfig, Error> {
    fields.pass_over_ignorable()?;
    fields.only("hidden_act", &[json!("silu")])?;
    fields.only("attention_bias", &[json!(false)])?;
    fields.only("clip_qkv", &[Value::Null])?;
    let mut decoder = DecoderConfig::read(&mut fields)?;
    let attention = AttentionConfig::read(&mut fields, &mut decoder, rope::PLAIN)?;
    let moe = MoeConfig::read(&mut fields, NUM_EXPERTS, "intermediate_size")?;
    let norm_topk_prob = fields.flag("norm_topk_prob")?.unwrap_or(false);
    fields.finish()?;
    Ok(OlmoeConfig { decoder, attention, moe, norm_topk_prob })
}
