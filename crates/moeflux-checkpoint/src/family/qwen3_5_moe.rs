//! Qwen3.5 and Qwen3.6 with experts (`qwen3_5_moe`): [`super::qwen3_next`] with positions for images, and
//! a config that may have the text model under `text_config`.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::INERT;
use crate::family::qwen3_next::{self, Qwen3NextConfig};
use crate::family::rope::RopeDefaults;
use serde_json::json;

/// Further fields that do not change what the text model computes.
const INERT_HERE: &[&str] = &[
    // images
    "image_token_id",
    "language_model_only",
    "video_token_id",
    "vision_config",
    "vision_end_token_id",
    "vision_start_token_id",
];

const ROPE: RopeDefaults = RopeDefaults { partial_rotary_factor: 0.25, mrope_section: Some([11, 11, 10]) };

/// Reads the config, flat or with the text model under `text_config`.
pub(crate) fn read_config(mut top: Fields<'_>) -> Result<Qwen3NextConfig, Error> {
    let tied = top.flag("tie_word_embeddings")?.unwrap_or(false);
    let mut text = match top.object("text_config")? {
        None => top,
        Some(mut text) => {
            top.inert(INERT);
            top.inert(INERT_HERE);
            top.finish()?;
            text.only("model_type", &[json!("qwen3_5_moe_text"), json!("qwen3_5_moe")])?;
            text
        }
    };
    text.inert(INERT_HERE);
    text.only("attn_output_gate", &[json!(true)])?;
    text.only("output_gate_type", &[json!("swish"), json!("silu")])?;
    text.only("norm_topk_prob", &[json!(true)])?;
    text.only("decoder_sparse_step", &[json!(1)])?;
    text.only("mlp_only_layers", &[json!([])])?;
    text.only("mamba_ssm_dtype", &[json!("float32")])?;
    let mut config = qwen3_next::read_sizes(&mut text, ROPE)?;
    config.decoder.tie_word_embeddings |= tied;
    text.finish()?;
    Ok(config)
}
