//! gpt-oss (`gpt_oss`): grouped-query attention with biases and sinks, every other layer over a sliding window, and a
//! mixture of experts with biases in every layer.
//!
//! Its experts are MXFP4: see [`Weights::biased_experts`](crate::Weights::biased_experts) for how they lie.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{AttentionConfig, DecoderConfig, MoeConfig, NUM_LOCAL_EXPERTS, read_windows};
use crate::family::rope::{self, RopeDefaults};
use serde_json::json;

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types and config.json's names say it")]
pub struct GptOssConfig {
    pub decoder: DecoderConfig,
    pub attention: AttentionConfig,
    /// How many tokens each layer sees, the token itself included; all if none.
    pub windows: Vec<Option<usize>>,
    pub moe: MoeConfig,
    /// Where the inputs of the experts' activation are cut.
    pub swiglu_limit: f64,
    /// Slope inside its sigmoid.
    pub swiglu_alpha: f64,
}

/// Reads the config.
pub(crate) fn read_config(mut fields: Fields<'_>) -> Result<GptOssConfig, Error> {
    fields.pass_over_ignorable()?;
    fields.pass_over("the context before YaRN, which says it itself", &["initial_context_length"]);
    fields.only("hidden_act", &[json!("silu")])?;
    fields.only("attention_bias", &[json!(true)])?;
    // Without a word on positions transformers takes a YaRN of its own.
    if ["rope_parameters", "rope_scaling"].iter().all(|name| fields.value(name).is_none()) {
        return Err(fields.wrong("rope_scaling", "an object"));
    }
    let mut decoder = DecoderConfig::read(&mut fields)?;
    let attention = AttentionConfig::read(
        &mut fields,
        &mut decoder,
        RopeDefaults { by_layer_type: true, ..rope::PLAIN },
    )?;
    let moe = MoeConfig::read(&mut fields, NUM_LOCAL_EXPERTS, "intermediate_size")?;
    fields.only("experts_per_token", &[json!(moe.num_experts_per_tok)])?;
    let config = GptOssConfig {
        windows: read_windows(&mut fields, decoder.num_hidden_layers, |layer| layer % 2 == 0)?,
        swiglu_limit: fields.positive("swiglu_limit")?.unwrap_or(7.0),
        swiglu_alpha: fields.positive("swiglu_alpha")?.unwrap_or(1.702),
        decoder,
        attention,
        moe,
    };
    fields.finish()?;
    Ok(config)
}
