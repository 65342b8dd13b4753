//! Qwen3.5 and Qwen3.6 with experts (`qwen3_5_moe`) and without (`qwen3_5`): [`super::qwen3_next`] with positions for
//! images, and a config that may have the text model under `text_config`.

use crate::config::Fields;
use crate::error::Error;
use crate::family::qwen3_next::{self, Mlp, Qwen3NextConfig};
use crate::family::rope::{self, RopeDefaults};
use serde_json::json;

/// Fields about images.
const IMAGES: &[&str] = &[
    "image_token_index",
    "processor_config",
    "skip_vision",
    "video_token_index",
    "image_token_id",
    "language_model_only",
    "video_token_id",
    "vision_config",
    "vision_end_token_id",
    "vision_start_token_id",
];

impl Mlp {
    /// What a config calls itself.
    fn model_types(self) -> [&'static str; 2] {
        match self {
            Mlp::Sparse => ["qwen3_5_moe_text", "qwen3_5_moe"],
            Mlp::Dense => ["qwen3_5_text", "qwen3_5"],
        }
    }
}

const ROPE: RopeDefaults =
    RopeDefaults { partial_rotary_factor: 0.25, mrope_section: Some([11, 11, 10]), ..rope::PLAIN };

/// Reads the config, flat or with the text model under `text_config`; `mlp` says what its layers have.
pub(crate) fn read_config(mut top: Fields<'_>, mlp: Mlp) -> Result<Qwen3NextConfig, Error> {
    const REASON: &str = "belongs to images, which are not read";
    let tied = top.flag("tie_word_embeddings")?.unwrap_or(false);
    let mut text = match top.object("text_config")? {
        None => top,
        Some(mut text) => {
            top.pass_over_ignorable()?;
            top.pass_over(REASON, IMAGES);
            top.value("model_type");
            top.finish()?;
            text.only("model_type", &mlp.model_types().map(|name| json!(name)))?;
            text
        }
    };
    text.value("model_type");
    text.pass_over(REASON, IMAGES);
    text.only("attn_output_gate", &[json!(true)])?;
    text.only("output_gate_type", &[json!("swish"), json!("silu")])?;
    text.only("norm_topk_prob", &[json!(true)])?;
    text.only("decoder_sparse_step", &[json!(1)])?;
    text.only("mlp_only_layers", &[json!([])])?;
    text.only("mamba_ssm_dtype", &[json!("float32")])?;
    let mut config = qwen3_next::read_sizes(&mut text, ROPE, mlp)?;
    config.decoder.tie_word_embeddings |= tied;
    text.finish()?;
    Ok(config)
}
