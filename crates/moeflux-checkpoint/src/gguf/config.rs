//! From a GGUF file's metadata to the fields of `config.json`, which a family then reads as it reads any config.
//!
//! What an architecture's metadata leaves out because the architecture implies it is filled in here. A key of the
//! architecture that nobody here knows is an error, as an unknown field of `config.json` is.

mod fields;

use self::fields::Fields;
use super::metadata::{Metadata, Value};
use crate::checkpoint::OpenOptions;
use crate::config::Config;
use crate::error::Error;
use crate::files::Tensors;
use serde_json::{Value as Json, json};

/// Reads the config of the model that the metadata describes.
pub(crate) fn read(metadata: &Metadata, tensors: &Tensors, options: &OpenOptions) -> Result<Config, Error> {
    let architecture = metadata.text(ARCHITECTURE)?.ok_or_else(|| metadata.wrong(ARCHITECTURE, SUPPORTED))?;
    let mut fields = Fields::new(metadata, tensors, architecture);
    match architecture {
        "qwen35" => qwen35(&mut fields)?,
        "qwen35moe" => qwen35moe(&mut fields)?,
        "qwen2" => qwen2(&mut fields)?,
        "qwen3" => qwen3(&mut fields)?,
        "qwen3next" => qwen3next(&mut fields)?,
        "qwen3moe" => qwen3moe(&mut fields)?,
        "deepseek2" => deepseek2(&mut fields)?,
        "glm4moe" => glm4moe(&mut fields)?,
        "gpt-oss" => gpt_oss(&mut fields)?,
        "llama" => llama(&mut fields)?,
        "olmoe" => olmoe(&mut fields)?,
        _ => return Err(metadata.wrong(ARCHITECTURE, SUPPORTED)),
    }
    fields.finish(options)
}

const ARCHITECTURE: &str = "general.architecture";
const SUPPORTED: &str =
    "qwen2, qwen3, qwen3moe, qwen3next, qwen35, qwen35moe, deepseek2, glm4moe, gpt-oss, llama or olmoe";

fn qwen35moe(fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.set("model_type", json!("qwen3_5_moe_text"));
    fields.common(Some("num_experts"))?;
    fields.copy("expert_feed_forward_length", "moe_intermediate_size")?;
    fields.copy("expert_shared_feed_forward_length", "shared_expert_intermediate_size")?;
    fields.qwen35()
}

fn qwen35(fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.set("model_type", json!("qwen3_5_text"));
    fields.common(None)?;
    fields.qwen35()
}

fn qwen2(fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.set("model_type", json!("qwen2"));
    fields.common(None)?;
    fields.full_rotary("attention.key_length")
}

fn qwen3(fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.set("model_type", json!("qwen3"));
    fields.common(None)?;
    fields.full_rotary("attention.key_length")
}

fn qwen3next(fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.set("model_type", json!("qwen3_next"));
    fields.common(Some("num_experts"))?;
    fields.passed_over("nextn_predict_layers");
    fields.copy("expert_feed_forward_length", "moe_intermediate_size")?;
    fields.copy("expert_shared_feed_forward_length", "shared_expert_intermediate_size")?;
    fields.set("norm_topk_prob", json!(true));
    fields.delta_net()?;
    fields.partial_rotary()?;
    fields.dense_layers();
    Ok(())
}

fn qwen3moe(fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.set("model_type", json!("qwen3_moe"));
    fields.common(Some("num_experts"))?;
    fields.copy("expert_feed_forward_length", "moe_intermediate_size")?;
    // Of what the original's config says to have none of.
    fields.constant("expert_shared_feed_forward_length", &Value::Integer(0))?;
    fields.constant("expert_shared_count", &Value::Integer(0))?;
    fields.set("norm_topk_prob", json!(true));
    fields.dense_layers();
    Ok(())
}

fn olmoe(fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.set("model_type", json!("olmoe"));
    fields.common(Some("num_experts"))?;
    // The width of an expert, which is also the only feed-forward width.
    fields.only("expert_feed_forward_length", "feed_forward_length")?;
    fields.set("norm_topk_prob", json!(false));
    Ok(())
}

/// Llama, with experts Mixtral.
fn llama(fields: &mut Fields<'_>) -> Result<(), Error> {
    // Whose checkpoint it was made of; the converter has put its rows in order.
    fields.passed_over("tensor_data_layout");
    if fields.get("expert_count").is_none_or(|count| *count == Value::Integer(0)) {
        fields.set("model_type", json!("llama"));
        fields.constant("expert_used_count", &Value::Integer(0))?;
        fields.common(None)?;
        let has_bias = fields.tensors.contains_key("blk.0.attn_q.bias");
        fields.set("attention_bias", json!(has_bias));
        return fields.full_rotary("attention.key_length");
    }
    fields.set("model_type", json!("mixtral"));
    fields.common(Some("num_local_experts"))?;
    fields.only("expert_feed_forward_length", "feed_forward_length")?;
    fields.full_rotary("attention.key_length")
}

fn glm4moe(fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.set("model_type", json!("glm4_moe"));
    fields.common(Some("n_routed_experts"))?;
    fields.copy("nextn_predict_layers", "num_nextn_predict_layers")?;
    fields.copy("expert_feed_forward_length", "moe_intermediate_size")?;
    fields.copy("leading_dense_block_count", "first_k_dense_replace")?;
    fields.partial_rotary()?;
    fields.grouped_router()?;
    fields.constant("expert_gating_func", &Value::Integer(SIGMOID))?;
    fields.set("attention_bias", json!(true));
    let use_qk_norm = fields.tensors.contains_key("blk.0.attn_q_norm.weight");
    fields.set("use_qk_norm", json!(use_qk_norm));
    Ok(())
}

/// `expert_gating_func`.
const SOFTMAX: i64 = 1;
const SIGMOID: i64 = 2;

/// DeepSeek V2 and V3, which the router's function tells apart.
fn deepseek2(fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.common(Some("n_routed_experts"))?;
    fields.copy("nextn_predict_layers", "num_nextn_predict_layers")?;
    fields.copy("expert_feed_forward_length", "moe_intermediate_size")?;
    fields.copy("leading_dense_block_count", "first_k_dense_replace")?;
    fields.grouped_router()?;
    match fields.get("expert_gating_func") {
        Some(Value::Integer(SIGMOID)) => {
            fields.set("model_type", json!("deepseek_v3"));
            fields.set("scoring_func", json!("sigmoid"));
            fields.set("topk_method", json!("noaux_tc"));
        }
        // Files made before V3 do not say it.
        None | Some(Value::Integer(SOFTMAX)) => {
            fields.set("model_type", json!("deepseek_v2"));
            fields.set("scoring_func", json!("softmax"));
            let groups = fields.json.get("n_group").and_then(Json::as_u64).unwrap_or(1);
            fields.set("topk_method", json!(if groups > 1 { "group_limited_greedy" } else { "greedy" }));
        }
        Some(_) => return Err(fields.wrong("expert_gating_func", "1 (softmax) or 2 (sigmoid)")),
    }

    // Latent attention: heads share one key and value head, of which the file gives the sizes; the heads' own sizes
    // have names of their own.
    fields.copy("attention.q_lora_rank", "q_lora_rank")?;
    fields.copy("attention.kv_lora_rank", "kv_lora_rank")?;
    fields.copy("attention.value_length_mla", "v_head_dim")?;
    fields.copy("rope.dimension_count", "qk_rope_head_dim")?;
    let heads = fields.json.get("num_attention_heads").cloned().unwrap_or_default();
    fields.set("num_key_value_heads", heads);
    fields.json.remove("head_dim");
    let (Some(key), Some(rope)) =
        (fields.whole("attention.key_length_mla")?, fields.whole("rope.dimension_count")?)
    else {
        let expected = "the length of a head's keys (a file made before latent attention was supported; convert it again)";
        return Err(fields.wrong("attention.key_length_mla", expected));
    };
    match key.checked_sub(rope) {
        Some(nope) => fields.set("qk_nope_head_dim", json!(nope)),
        None => {
            return Err(
                fields.wrong("attention.key_length_mla", &format!("at least rope.dimension_count = {rope}"))
            );
        }
    }
    // A tenth of `mscale_all_dim`. `mscale`, which the file does not have, is taken for equal, as it is in all models.
    if let Some(multiplier) = fields.number("rope.scaling.yarn_log_multiplier")? {
        let mscale = (multiplier * 1e4).round() / 1e3;
        for name in ["mscale", "mscale_all_dim"] {
            fields.rope().insert(name.to_owned(), json!(mscale));
        }
    }
    Ok(())
}

fn gpt_oss(fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.set("model_type", json!("gpt_oss"));
    fields.common(Some("num_local_experts"))?;
    fields.only("expert_feed_forward_length", "feed_forward_length")?;
    fields.copy("attention.sliding_window", "sliding_window")?;
    fields.full_rotary("attention.key_length")?;
    let layers = fields.json.get("num_hidden_layers").and_then(Json::as_u64).unwrap_or(0);
    let kind = |layer| if layer % 2 == 0 { "sliding_attention" } else { "full_attention" };
    let kinds: Vec<&str> = (0..layers).map(kind).collect();
    fields.set("layer_types", json!(kinds));
    fields.set("swiglu_limit", json!(7.0));
    fields.set("attention_bias", json!(true));
    // The family's frequencies are not rounded to whole ones.
    fields.rope().insert("truncate".to_owned(), json!(false));
    Ok(())
}
