//! What `quantization_config` says of checkpoints of GPTQ, AWQ, AutoRound, llm-compressor (`compressed-tensors`) and
//! NVIDIA's modelopt.
//!
//! Which modules are quantised, their widths and their groups, the tensors themselves say. What is read here is what they
//! cannot say, and what would change the meaning of the tensors. Weights alone are quantised: inputs stay what they are.

use super::fp8;
use super::{ModuleQuantization, Quantization, SAID_BY_TENSORS, UNROUNDED};
use crate::config::Fields;
use crate::error::Error;
use serde_json::json;
use std::collections::BTreeMap;

/// `quant_method: gptq`, as GPTQModel and AutoGPTQ write it.
pub(super) fn read_gptq(mut fields: Fields<'_>) -> Result<Quantization, Error> {
    let less_one = match fields.text("checkpoint_format")? {
        None | Some("gptq") => true,
        Some("gptq_v2") => false,
        Some(_) => return Err(fields.wrong("checkpoint_format", "gptq or gptq_v2")),
    };
    fields.only("format", &[json!("gptq"), json!("gptq_v2")])?;
    fields.only("pack_dtype", &[json!("int32")])?;
    fields.only("is_marlin_format", &[json!(false)])?;
    let ordered = fields.flag("desc_act")?.unwrap_or(false);
    fields.only("rotation", &[json!({})])?;
    fields.pass_over(SAID_BY_TENSORS, &["bits", "group_size", "sym", "lm_head", "dynamic"]);
    fields.pass_over(
        HOW_IT_WAS_FOUND,
        &[
            "act_group_aware",
            "batch_size",
            "block_name_to_quantize",
            "cache_block_outputs",
            "damp_auto_increment",
            "damp_percent",
            "dataset",
            "device",
            "disable_exllama",
            "exllama_config",
            "hyb_act",
            "max_input_length",
            "meta",
            "model_file_base_name",
            "model_name_or_path",
            "model_seqlen",
            "modules_in_block_to_quantize",
            "modules_to_not_convert",
            "module_name_preceding_first_block",
            "mse",
            "offload_to_disk",
            "pad_token_id",
            "parallel_packing",
            "static_groups",
            "tokenizer",
            "true_sequential",
            "use_cuda_fp16",
            "use_exllama",
            "version",
        ],
    );
    fields.finish()?;
    Ok(of(ModuleQuantization::Gptq { less_one, ordered }))
}

/// `quant_method: awq`, as AutoAWQ writes it.
pub(super) fn read_awq(mut fields: Fields<'_>) -> Result<Quantization, Error> {
    fields.only("bits", &[json!(4)])?;
    fields.only("w_bit", &[json!(4)])?;
    fields.only("zero_point", &[json!(true)])?;
    // Other kernels have other layouts.
    fields.only("version", &[json!("gemm"), json!("GEMM")])?;
    fields.pass_over(SAID_BY_TENSORS, &["group_size", "q_group_size", "modules_to_not_convert"]);
    fields.pass_over(
        HOW_IT_WAS_FOUND,
        &["backend", "do_fuse", "exllama_config", "fuse_max_seq_len", "modules_to_fuse", "sym"],
    );
    fields.finish()?;
    Ok(of(ModuleQuantization::Awq))
}

/// `quant_method: auto-round`, of which packings as GPTQ's and AWQ's are read.
pub(super) fn read_auto_round(mut fields: Fields<'_>) -> Result<Quantization, Error> {
    let quantization = match fields.text("packing_format")? {
        Some("auto_round:auto_gptq") => ModuleQuantization::Gptq { less_one: true, ordered: false },
        Some("auto_round" | "auto_round:gptqmodel") => {
            ModuleQuantization::Gptq { less_one: false, ordered: false }
        }
        Some("auto_round:auto_awq") => ModuleQuantization::Awq,
        _ => {
            let expected = "auto_round, auto_round:auto_gptq, auto_round:gptqmodel or auto_round:auto_awq";
            return Err(fields.wrong("packing_format", expected));
        }
    };
    fields.only("data_type", &[json!("int")])?;
    // Weights that were turned are multiplied with inputs that are.
    fields.only("rotation_config", &[json!({})])?;
    fields.only("hadamard_config", &[json!({})])?;
    fields.only("transform_config", &[json!({})])?;
    let said = fields.rest().into_iter().map(|(name, _)| name);
    // It writes all of its options; more with each version.
    for name in said.filter(|name| !name.contains("rotat") && !name.contains("hadamard")) {
        fields.pass_over(HOW_IT_WAS_FOUND, &[name]);
    }
    fields.finish()?;
    Ok(of(quantization))
}

/// `quant_method: compressed-tensors`: FP8, or integers and 4-bit floats that are packed.
pub(super) fn read_compressed_tensors(mut fields: Fields<'_>) -> Result<Quantization, Error> {
    if let None | Some("float-quantized" | "naive-quantized") = fields.text("format")? {
        return fp8::read_compressed_tensors(fields);
    }
    fields.only("format", &FORMATS.map(|format| json!(format)))?;
    fields.only("quantization_status", &[json!("compressed"), json!("frozen")])?;
    // Weights that were sparse, or turned, are something else.
    fields.only("sparsity_config", &[json!({})])?;
    fields.only("transform_config", &[json!({})])?;
    fields.pass_over(SAID_BY_TENSORS, &["global_compression_ratio", "ignore", "version"]);
    fields.pass_over(UNROUNDED, &["kv_cache_scheme"]);
    let groups = fields.object("config_groups")?;
    let mut groups = groups.ok_or_else(|| fields.wrong("config_groups", "an object"))?;
    if groups.rest().is_empty() {
        return Err(fields.wrong("config_groups", "at least one group"));
    }
    for (name, _) in groups.rest() {
        let Some(mut group) = groups.object(name)? else { continue };
        group.only("format", &FORMATS.map(|format| json!(format)))?;
        group.pass_over(SAID_BY_TENSORS, &["targets"]);
        group.pass_over(UNROUNDED, &["input_activations", "output_activations"]);
        let weights = group.object("weights")?;
        let mut weights = weights.ok_or_else(|| group.wrong("weights", "an object"))?;
        weights.only("type", &[json!("int"), json!("float")])?;
        weights.only("dynamic", &[json!(false)])?;
        // Other orders than of groups do not show in the file; that one has its own tensor, which is looked at.
        weights.only("actorder", &["static", "weight", "group", "dynamic"].map(|order| json!(order)))?;
        weights.pass_over(
            SAID_BY_TENSORS,
            &[
                "block_structure",
                "group_size",
                "num_bits",
                "scale_dtype",
                "strategy",
                "symmetric",
                "zp_dtype",
            ],
        );
        weights.pass_over(HOW_IT_WAS_FOUND, &["observer", "observer_kwargs"]);
        weights.finish()?;
        group.finish()?;
    }
    groups.finish()?;
    fields.finish()?;
    Ok(of(ModuleQuantization::CompressedTensors))
}

/// Formats of `compressed-tensors` whose tensors say what they are.
const FORMATS: [&str; 9] = [
    "pack-quantized",
    "int-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "mixed-precision",
    "float-quantized",
    "naive-quantized",
    "dense",
];

/// `quant_method: modelopt`, whether it comes from `config.json` or from `hf_quant_config.json`.
pub(super) fn read_modelopt(mut fields: Fields<'_>) -> Result<Quantization, Error> {
    let algorithms = ["FP8", "NVFP4", "MXFP8", "MIXED_PRECISION"].map(|algorithm| json!(algorithm));
    fields.only("quant_algo", &algorithms)?;
    fields.only("has_zero_point", &[json!(false)])?;
    // Scales that inputs are multiplied with are something else.
    fields.only("pre_quant_scale", &[json!(false)])?;
    fields.pass_over(
        SAID_BY_TENSORS,
        &["config_groups", "exclude_modules", "group_size", "ignore", "quantized_layers"],
    );
    fields.pass_over(UNROUNDED, &["kv_cache_quant_algo", "kv_cache_scheme"]);
    fields.pass_over(HOW_IT_WAS_FOUND, &["producer"]);
    fields.finish()?;
    Ok(of(ModuleQuantization::Modelopt))
}

/// `quant_method: bitsandbytes`, of which the two formats of 4 bits are read.
pub(super) fn read_bitsandbytes(mut fields: Fields<'_>) -> Result<Quantization, Error> {
    // Products in 8 bits leave out columns of inputs, as the inputs are.
    fields.only("load_in_8bit", &[json!(false)])?;
    fields.only("_load_in_8bit", &[json!(false)])?;
    fields.only("bnb_4bit_quant_storage", &[json!("uint8")])?;
    fields.only("bnb_4bit_quant_type", &[json!("nf4"), json!("fp4")])?;
    fields.pass_over(
        SAID_BY_TENSORS,
        &["_load_in_4bit", "bnb_4bit_use_double_quant", "llm_int8_skip_modules", "load_in_4bit"],
    );
    fields.pass_over(UNROUNDED, &["bnb_4bit_compute_dtype"]);
    fields.pass_over(
        "of weights in 8 bits",
        &["llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight", "llm_int8_threshold"],
    );
    fields.finish()?;
    Ok(of(ModuleQuantization::Bitsandbytes))
}

const HOW_IT_WAS_FOUND: &str = "says how the weights were found, or what runs them";

fn of(default: ModuleQuantization) -> Quantization {
    Quantization { default, modules: BTreeMap::new() }
}
