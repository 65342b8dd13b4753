//! FP8 modules: scales of every shape, and what contradicts itself.

use crate::fixture::{Fixture, Stored, assert_says, dequantize, load, open};
use moeflux_checkpoint::{Error, OpenOptions, config};
use moeflux_kernels::{Encoding, Float};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::path::Path;

/// A matrix of `[32, 8]`.
const MODULE: &str = "model.layers.1.self_attn.q_proj";

fn block(rows: usize, cols: usize) -> Value {
    json!({
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [rows, cols],
        "modules_to_not_convert": ["lm_head"],
    })
}

fn compressed(weights: &Value) -> Value {
    let mut all = json!({
        "num_bits": 8, "type": "float", "symmetric": true, "dynamic": false, "actorder": null, "observer": "minmax",
        "observer_kwargs": {}, "group_size": null, "block_structure": null,
    });
    for (name, value) in weights.as_object().unwrap() {
        all[name] = value.clone();
    }
    json!({
        "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
        "quantization_status": "compressed", "kv_cache_scheme": null, "global_compression_ratio": 1.5,
        "config_groups": {"group_0": {
            "targets": ["Linear"], "weights": all, "output_activations": null,
            "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": true},
        }},
    })
}

/// The hub's fixture with that config and one FP8 module, codes 0, 1, 2 and so on.
fn fixture(quantization: Value, scales: &str, shape: &[usize], dtype: Dtype) -> Fixture {
    let mut fixture = Fixture::hub();
    fixture.config["quantization_config"] = quantization;
    let codes = (0..=255).map(|code| if code & 0x7f == 0x7f { 0 } else { code });
    let codes = Stored { dtype: Dtype::F8_E4M3, shape: vec![32, 8], bytes: codes.collect() };
    fixture.tensors.insert(format!("{MODULE}.weight"), codes);
    fixture.add_as(&format!("{MODULE}.{scales}"), shape, dtype);
    fixture
}

/// E4M3 by its definition: bias 7, no infinities.
fn e4m3(code: u8) -> f32 {
    let (exponent, significand) = (i32::from(code >> 3 & 15), f32::from(code & 7) / 8.0);
    let magnitude = match exponent {
        0 => significand * 2f32.powi(-6),
        _ => (1.0 + significand) * 2f32.powi(exponent - 7),
    };
    if code < 128 { magnitude } else { -magnitude }
}

#[test]
fn scales_of_every_shape() {
    let (tensor, channel) = (json!({"strategy": "tensor"}), json!({"strategy": "channel"}));
    let group = json!({"strategy": "group", "group_size": 4});
    let blocks = json!({"strategy": "block", "block_structure": [16, 4]});
    let plain = json!({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]});
    for (quantization, scales, shape, [rows, cols]) in [
        (block(16, 4), "weight_scale_inv", &[2, 2][..], [16, 4]),
        (block(5, 3), "weight_scale_inv", &[7, 3], [5, 3]),
        (block(128, 128), "weight_scale_inv", &[1, 1], [128, 128]),
        (plain.clone(), "weight_scale", &[], [32, 8]),
        (plain, "weight_scale_inv", &[1], [32, 8]),
        (compressed(&tensor), "weight_scale", &[1], [32, 8]),
        (compressed(&channel), "weight_scale", &[32, 1], [1, 8]),
        (compressed(&channel), "weight_scale", &[32], [1, 8]),
        (compressed(&group), "weight_scale", &[32, 2], [1, 4]),
        (compressed(&blocks), "weight_scale", &[2, 2], [16, 4]),
    ] {
        for (dtype, params) in
            [(Dtype::F32, Float::F32), (Dtype::BF16, Float::Bf16), (Dtype::F16, Float::F16)]
        {
            let fixture = fixture(quantization.clone(), scales, shape, dtype);
            let folder = fixture.write();
            let checkpoint = open(folder.path()).unwrap();
            let loaded = load(&checkpoint).unwrap();
            let matrix = &loaded.matrices["layers.1.self_attn.q_proj"];
            let encoding = Encoding::Fp8 { block_rows: rows, block_cols: cols, params };
            assert_eq!(matrix.encoding, encoding, "{quantization}");
            let values = dequantize(&checkpoint, matrix);
            let name = format!("{MODULE}.{scales}");
            for (at, found) in values.into_iter().enumerate() {
                let code = fixture.tensors[&format!("{MODULE}.weight")].bytes[at];
                let scale = at / 8 / rows * 8usize.div_ceil(cols) + at % 8 / cols;
                assert_eq!(found, e4m3(code) * crate::fixture::number(&name, scale), "{quantization} {at}");
            }
            let plain = &loaded.matrices["layers.1.self_attn.k_proj"];
            assert_eq!(plain.encoding, Encoding::Float(Float::Bf16));
        }
    }
}

#[test]
fn a_scale_of_inputs_is_passed_over() {
    let mut fixture = fixture(block(16, 4), "weight_scale_inv", &[2, 2], Dtype::F32);
    fixture.add_as(&format!("{MODULE}.input_scale"), &[1], Dtype::F32);
    fixture.load().unwrap();
    // But not where there is nothing that it could be for.
    fixture.add_as("model.layers.1.self_attn.k_proj.input_scale", &[1], Dtype::F32);
    assert_says(&fixture.load().unwrap_err(), &["found 1: model.layers.1.self_attn.k_proj.input_scale"]);
}

#[test]
fn modules_that_contradict_themselves() {
    let refused = |change: &dyn Fn(&mut Fixture), says: &[&str]| {
        let mut fixture = fixture(block(16, 4), "weight_scale_inv", &[2, 2], Dtype::F32);
        change(&mut fixture);
        assert_says(&fixture.load().unwrap_err(), &[&[MODULE], says].concat());
    };
    let scales = format!("{MODULE}.weight_scale_inv");
    refused(&|fixture| drop(fixture.remove(&scales)), &["weight_scale_inv", "is missing"]);
    refused(
        &|fixture| fixture.add_as(&scales, &[2, 1], Dtype::F32),
        &["expected shape [2, 2]", "found [2, 1]"],
    );
    refused(
        &|fixture| fixture.add_as(&scales, &[2, 2], Dtype::U8),
        &["expected dtype F32, F16 or BF16", "U8"],
    );
    refused(&|fixture| fixture.add(&format!("{MODULE}.weight"), &[32, 8]), &["found 1:", "weight_scale_inv"]);
    refused(
        &|fixture| fixture.add_as(&format!("{MODULE}.weight"), &[8, 32], Dtype::F8_E4M3),
        &["expected shape [32, 8]", "found [8, 32]"],
    );
    refused(
        &|fixture| drop(fixture.config.as_object_mut().unwrap().remove("quantization_config")),
        &["expected dtype F32, F16 or BF16", "found F8_E4M3"],
    );
    refused(
        &|fixture| fixture.add_as(&format!("{MODULE}.weight"), &[32, 8], Dtype::F8_E5M2),
        &["found F8_E5M2"],
    );
}

#[test]
fn configs_that_are_refused() {
    let mut cases = Vec::new();
    let with = |mut quantization: Value, field: &str, value: Value| {
        quantization[field] = value;
        quantization
    };
    for (field, value) in [
        ("fmt", json!("e5m2")),
        ("weight_block_size", json!([128])),
        ("weight_block_size", json!([0, 128])),
        ("weight_block_size", json!(128)),
        ("activation_scheme", json!("sometimes")),
        ("rotation", json!("hadamard")),
    ] {
        cases.push((with(block(16, 4), field, value), field));
    }
    let channel = json!({"strategy": "channel"});
    for (field, value) in [
        ("format", json!("marlin-24")),
        ("quantization_status", json!("calibration")),
        ("kv_cache_scheme", json!({"num_bits": 8})),
        ("transform_config", json!({"config_groups": {}})),
        ("sparsity_config", json!({"format": "sparse-24-bitmask"})),
        ("config_groups", json!({})),
    ] {
        cases.push((with(compressed(&channel), field, value), field));
    }
    for (weights, field) in [
        (json!({"strategy": "channel", "num_bits": 4}), "config_groups.group_0.weights.num_bits"),
        (json!({"strategy": "channel", "type": "int"}), "config_groups.group_0.weights.type"),
        (json!({"strategy": "channel", "symmetric": false}), "config_groups.group_0.weights.symmetric"),
        (json!({"strategy": "channel", "actorder": "group"}), "config_groups.group_0.weights.actorder"),
        (json!({"strategy": "block"}), "config_groups.group_0.weights.strategy"),
        (json!({"strategy": "group"}), "config_groups.group_0.weights.strategy"),
        (json!({}), "config_groups.group_0.weights.strategy"),
    ] {
        cases.push((compressed(&weights), field));
    }
    let mut two = compressed(&channel);
    two["config_groups"]["group_1"] =
        compressed(&json!({"strategy": "group", "group_size": 8}))["config_groups"]["group_0"].clone();
    cases.push((two, "config_groups.group_1"));
    for (quantization, field) in cases {
        let mut config = Fixture::hub().config;
        config["quantization_config"] = quantization;
        let path = Path::new("folder/config.json");
        let error = config::parse(path, config.to_string().as_bytes(), &OpenOptions::default()).unwrap_err();
        let known =
            matches!(error, Error::Field { .. } | Error::MissingField { .. } | Error::UnknownField { .. });
        assert!(known, "{error}");
        assert_says(&error, &["folder/config.json", &format!("quantization_config.{field}")]);
    }
}
