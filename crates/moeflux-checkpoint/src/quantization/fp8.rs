//! What `quantization_config` says of FP8 checkpoints: `fp8`, as DeepSeek-V3 has it, and llm-compressor's
//! `compressed-tensors`.
//!
//! Which modules are quantised, and whether a scale is a row's or a tensor's, their tensors say themselves; so lists of
//! modules that are not are passed over. Weights alone are quantised here: inputs stay what they are, whether or not
//! those who wrote the checkpoint round them too (`activation_scheme`, `input_activations`).

use super::{LOADS, ModuleQuantization, Quantization, SAID_BY_TENSORS, UNROUNDED};
use crate::config::Fields;
use crate::error::Error;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Longest side of a block.
const MAX_BLOCK: usize = 1 << 20;

/// `quant_method: fp8`.
pub(super) fn read(mut fields: Fields<'_>) -> Result<Quantization, Error> {
    fields.only("fmt", &[json!("e4m3")])?;
    // Of scales that are stored as floats, all the same: that they are powers of two.
    fields.only("scale_fmt", &[json!("ue8m0"), json!("float")])?;
    fields.only("activation_scheme", &[json!("dynamic"), json!("static")])?;
    fields.pass_over(SAID_BY_TENSORS, &["modules_to_not_convert", "ignored_layers"]);
    // What transformers 5 writes: that weights are not to be widened when they are loaded, and what experts are.
    fields.pass_over(LOADS, &["dequantize"]);
    fields.only("expert_dtype", &[json!("fp8")])?;
    let block = read_block(&mut fields, "weight_block_size")?;
    fields.finish()?;
    Ok(by_default(block))
}

/// `quant_method: compressed-tensors`, of which formats of 8-bit floats are read.
pub(super) fn read_compressed_tensors(mut fields: Fields<'_>) -> Result<Quantization, Error> {
    fields.only("format", &[json!("float-quantized"), json!("naive-quantized")])?;
    fields.only("quantization_status", &[json!("compressed"), json!("frozen")])?;
    // Weights that were sparse, or turned, and caches that are rounded, are something else.
    fields.only("sparsity_config", &[json!({})])?;
    fields.only("transform_config", &[json!({})])?;
    fields.pass_over(SAID_BY_TENSORS, &["global_compression_ratio", "ignore", "version"]);

    let groups = fields.object("config_groups")?;
    let mut groups = groups.ok_or_else(|| fields.wrong("config_groups", "an object"))?;
    let mut found: Option<Option<[usize; 2]>> = None;
    for (name, _) in groups.rest() {
        let Some(mut group) = groups.object(name)? else { continue };
        let block = read_weights(&mut group)?;
        if found.is_some_and(|found| found != block) {
            return Err(groups.wrong(name, "the same blocks in all groups"));
        }
        found = Some(block);
        group.only("format", &[json!("float-quantized"), json!("naive-quantized")])?;
        group.pass_over(UNROUNDED, &["input_activations"]);
        group.pass_over(SAID_BY_TENSORS, &["targets"]);
        group.finish()?;
    }
    groups.finish()?;
    let block = found.ok_or_else(|| fields.wrong("config_groups", "at least one group"))?;
    fields.finish()?;
    Ok(by_default(block))
}

/// The blocks of a group's weights, which must be 8-bit floats.
fn read_weights(group: &mut Fields<'_>) -> Result<Option<[usize; 2]>, Error> {
    let weights = group.object("weights")?;
    let mut weights = weights.ok_or_else(|| group.wrong("weights", "an object"))?;
    let required = |weights: &mut Fields<'_>, name: &str, value: Value| match weights.value(name) {
        Some(found) if *found == value => Ok(()),
        _ => Err(weights.wrong(name, &value.to_string())),
    };
    required(&mut weights, "type", json!("float"))?;
    required(&mut weights, "num_bits", json!(8))?;
    weights.only("symmetric", &[json!(true)])?;
    weights.only("dynamic", &[json!(false)])?;
    weights.only("actorder", &[json!(false)])?;
    weights.pass_over("says how scales were found", &["observer", "observer_kwargs"]);
    weights.pass_over(SAID_BY_TENSORS, &["scale_dtype", "zp_dtype"]);
    let block = read_block(&mut weights, "block_structure")?;
    let group_size = weights.whole("group_size", 1, MAX_BLOCK)?;
    let block = match (weights.text("strategy")?, block, group_size) {
        (Some("tensor" | "channel"), None, None) => None,
        (Some("block"), Some(block), None) => Some(block),
        (Some("group"), None, Some(columns)) => Some([1, columns]),
        _ => {
            let expected = "tensor, channel, block with block_structure, or group with group_size";
            return Err(weights.wrong("strategy", expected));
        }
    };
    weights.finish()?;
    Ok(block)
}

/// Rows and columns of a block.
fn read_block(fields: &mut Fields<'_>, name: &str) -> Result<Option<[usize; 2]>, Error> {
    let expected = format!("rows and columns of a block, each from 1 to {MAX_BLOCK}");
    fields.read(name, &expected, |value| {
        let side = |value: &Value| {
            let side = usize::try_from(value.as_u64()?).ok()?;
            (1..=MAX_BLOCK).contains(&side).then_some(side)
        };
        match value.as_array()?.as_slice() {
            [rows, cols] => Some([side(rows)?, side(cols)?]),
            _ => None,
        }
    })
}

fn by_default(block: Option<[usize; 2]>) -> Quantization {
    Quantization { default: ModuleQuantization::Fp8 { block }, modules: BTreeMap::new() }
}
