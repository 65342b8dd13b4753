//! Qwen3 with experts (`qwen3_moe`): grouped-query attention with queries and keys normed head by head, and a mixture of
//! experts, or here and there a dense MLP.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{AttentionConfig, DecoderConfig, MlpType, MoeConfig, NUM_EXPERTS};
use crate::family::rope;
use serde_json::json;

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types and config.json's names say it")]
pub struct Qwen3MoeConfig {
    pub decoder: DecoderConfig,
    pub attention: AttentionConfig,
    /// One for each layer.
    pub mlp_types: Vec<MlpType>,
    pub moe: MoeConfig,
    pub norm_topk_prob: bool,
}

/// Reads the config.
pub(crate) fn read_config(mut fields: Fields<'_>) -> Result<Qwen3MoeConfig, Error> {
    fields.pass_over_ignorable()?;
    fields.pass_over("nothing slides without use_sliding_window", &["max_window_layers", "sliding_window"]);
    fields.only("use_sliding_window", &[json!(false)])?;
    fields.only("hidden_act", &[json!("silu")])?;
    fields.only("attention_bias", &[json!(false)])?;
    fields.only("qkv_bias", &[json!(false)])?;
    // What the family always does, as some of its files say.
    fields.only("use_qk_norm", &[json!(true)])?;
    fields.only("shared_expert_intermediate_size", &[json!(0)])?;
    let mut decoder = DecoderConfig::read(&mut fields)?;
    let attention = AttentionConfig::read(&mut fields, &mut decoder, rope::PLAIN)?;
    let mlp_types = MlpType::read_sparse_step(&mut fields, decoder.num_hidden_layers)?;
    let moe = MoeConfig::read(&mut fields, NUM_EXPERTS, "moe_intermediate_size")?;
    let norm_topk_prob = fields.flag("norm_topk_prob")?.unwrap_or(false);
    fields.finish()?;
    Ok(Qwen3MoeConfig { decoder, attention, mlp_types, moe, norm_topk_prob })
}
