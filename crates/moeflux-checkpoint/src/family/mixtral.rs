//! Mixtral (`mixtral`): grouped-query attention and a mixture of experts in every layer.
//!
//! Its checkpoints call the mixture `block_sparse_moe` instead of `mlp`, and the projections of an expert `w1` (gate),
//! `w3` (up) and `w2` (down).

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{AttentionConfig, DecoderConfig, MoeConfig, NUM_LOCAL_EXPERTS};
use crate::family::rope;
use serde_json::{Value, json};
use std::borrow::Cow;

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types say it")]
pub struct MixtralConfig {
    pub decoder: DecoderConfig,
    pub attention: AttentionConfig,
    pub moe: MoeConfig,
}

/// Reads the config.
pub(crate) fn read_config(mut fields: Fields<'_>) -> Result<MixtralConfig, Error> {
    fields.pass_over_ignorable()?;
    fields.only("hidden_act", &[json!("silu")])?;
    fields.only("attention_bias", &[json!(false)])?;
    fields.only("sliding_window", &[Value::Null])?;
    let mut decoder = DecoderConfig::read(&mut fields)?;
    let attention = AttentionConfig::read(&mut fields, &mut decoder, rope::PLAIN)?;
    let moe = MoeConfig::read(&mut fields, NUM_LOCAL_EXPERTS, "intermediate_size")?;
    fields.finish()?;
    Ok(MixtralConfig { decoder, attention, moe })
}

/// The files' name for a canonical one.
pub(super) fn rename(name: &str) -> Cow<'_, str> {
    if !name.contains(".mlp.") {
        return Cow::Borrowed(name);
    }
    let name = name.replace(".mlp.", ".block_sparse_moe.");
    Cow::Owned(match name.rsplit_once('.') {
        Some((expert, part)) if expert.contains(".experts.") => {
            let part = match part {
                "gate_proj" => "w1",
                "up_proj" => "w3",
                "down_proj" => "w2",
                other => other,
            };
            format!("{expert}.{part}")
        }
        _ => name,
    })
}
