//! GLM-4.5 and later (`glm4_moe`): grouped-query attention with biases, and a mixture of experts with shared ones after
//! the first, dense layers. The layer behind the last predicts further tokens.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{
    AttentionConfig, DecoderConfig, GroupedRouterConfig, MAX_EXPERTS, MlpType, MoeConfig, N_ROUTED_EXPERTS,
};
use crate::family::rope::{self, RopeDefaults};
use serde_json::json;

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types and config.json's names say it")]
pub struct Glm4MoeConfig {
    pub decoder: DecoderConfig,
    pub attention: AttentionConfig,
    /// Whether queries, keys and values have biases.
    pub attention_bias: bool,
    /// Whether queries and keys are normed head by head.
    pub use_qk_norm: bool,
    /// One for each layer.
    pub mlp_types: Vec<MlpType>,
    pub moe: MoeConfig,
    pub router: GroupedRouterConfig,
    /// As wide together as so many routed ones.
    pub n_shared_experts: usize,
}

/// Reads the config.
pub(crate) fn read_config(mut fields: Fields<'_>) -> Result<Glm4MoeConfig, Error> {
    fields.pass_over_ignorable()?;
    fields.only("hidden_act", &[json!("silu")])?;
    let mut decoder = DecoderConfig::read(&mut fields)?;
    decoder.read_further_layers(&mut fields)?;
    let half = RopeDefaults { partial_rotary_factor: 0.5, ..rope::PLAIN };
    let attention = AttentionConfig::read(&mut fields, &mut decoder, half)?;
    let moe = MoeConfig::read(&mut fields, N_ROUTED_EXPERTS, "moe_intermediate_size")?;
    let config = Glm4MoeConfig {
        attention_bias: fields.flag("attention_bias")?.unwrap_or(false),
        use_qk_norm: fields.flag("use_qk_norm")?.unwrap_or(false),
        mlp_types: MlpType::read_first_dense(&mut fields, decoder.num_hidden_layers)?,
        router: GroupedRouterConfig::read(&mut fields, &moe)?,
        n_shared_experts: fields.size("n_shared_experts", MAX_EXPERTS)?,
        decoder,
        attention,
        moe,
    };
    fields.finish()?;
    Ok(config)
}
