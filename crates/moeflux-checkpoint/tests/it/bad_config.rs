//! Configs that are impossible, or that ask for what is not supported.

use crate::damage::damage;
use crate::fixture::{Fixture, assert_says, data};
use crate::property;
use moeflux_checkpoint::{AttentionConfig, Error, ModelConfig, MoeConfig, OpenOptions, config};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

/// The error of the fixture's config with `field` (dotted) set to `value`.
fn with(field: &str, value: Value) -> Error {
    let mut config = Fixture::hub().config;
    let mut target = &mut config;
    for part in field.split('.') {
        target = &mut target[part];
    }
    *target = value;
    parse(&config.to_string()).unwrap_err()
}

fn parse(text: &str) -> Result<config::Config, Error> {
    config::parse(Path::new("folder/config.json"), text.as_bytes(), &OpenOptions::default())
}

#[test]
fn invalid_json() {
    for text in ["", "{", "[]", "3", "{\"a\": NaM}", "\u{0}", "{} x"] {
        let error = parse(text).unwrap_err();
        assert!(matches!(error, Error::Json { .. }), "{error}");
        assert_says(&error, &["folder/config.json", "invalid JSON"]);
    }
}

#[test]
fn unknown_model_type() {
    let error = with("model_type", json!("mamba"));
    assert!(matches!(error, Error::Field { .. }), "{error}");
    assert_says(&error, &["config.json", "field model_type", " qwen3_5_moe, ", "found \"mamba\""]);
    assert!(matches!(with("model_type", json!(null)), Error::MissingField { .. }));

    let mut config = json!({"model_type": "qwen3_5_moe"});
    config["text_config"] = Fixture::hub().config;
    config["text_config"]["model_type"] = json!("qwen3_next");
    let error = parse(&config.to_string()).unwrap_err();
    assert_says(&error, &["field text_config.model_type", "found \"qwen3_next\""]);
}

#[test]
fn values_that_are_not_supported() {
    for (field, value, expected) in [
        ("rope_parameters.rope_type", json!("llama4"), "default, linear, dynamic, yarn, longrope or llama3"),
        ("rope_parameters.type", json!("linear"), "default, as rope_type says"),
        ("is_encoder_decoder", json!(true), "false"),
        ("use_mrope", json!(true), "false"),
        ("rope_parameters.mrope_interleaved", json!(false), "true"),
        ("hidden_act", json!("gelu"), "\"silu\""),
        ("attention_bias", json!(true), "false"),
        ("attn_output_gate", json!(false), "true"),
        ("output_gate_type", json!("sigmoid"), "\"swish\" or \"silu\""),
        ("norm_topk_prob", json!(false), "true"),
        ("decoder_sparse_step", json!(2), "1"),
        ("mlp_only_layers", json!([0]), "[]"),
        ("use_sliding_window", json!(true), "false"),
        ("sliding_window", json!(4096), "null"),
        ("mamba_ssm_dtype", json!("bfloat16"), "\"float32\""),
    ] {
        let found = format!("found {value}");
        let error = with(field, value);
        assert!(matches!(error, Error::Field { .. }), "{error}");
        assert_says(
            &error,
            &["config.json", &format!("field {field}"), &format!("expected {expected}"), &found],
        );
    }
}

#[test]
fn unknown_fields() {
    for field in ["logit_softcapping", "rope_parameters.factor", "quarot_rotation_seed"] {
        let error = with(field, json!(0.5));
        assert!(matches!(error, Error::UnknownField { .. }), "{error}");
        assert_says(
            &error,
            &["config.json", &format!("unknown field {field} = 0.5"), "ignored_config_fields"],
        );
    }
    let mut config = json!({"model_type": "qwen3_5_moe", "text_config": Fixture::hub().config});
    config["layer_scale"] = json!("x".repeat(500));
    let error = parse(&config.to_string()).unwrap_err();
    assert_says(&error, &["unknown field layer_scale", "xxx…"]);
    config["layer_scale"] = json!(null);
    parse(&config.to_string()).unwrap();
    config["text_config"]["layer_scale"] = json!(1);
    assert_says(&parse(&config.to_string()).unwrap_err(), &["unknown field text_config.layer_scale = 1"]);
}

#[test]
fn missing_fields() {
    let sizes = [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "rms_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "linear_num_key_heads",
        "linear_num_value_heads",
        "linear_key_head_dim",
        "linear_value_head_dim",
        "linear_conv_kernel_dim",
        "num_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
        "shared_expert_intermediate_size",
        "rope_parameters",
    ];
    for field in sizes {
        let error = with(field, json!(null));
        assert!(matches!(error, Error::MissingField { .. }), "{error}");
        assert_says(&error, &["config.json", &format!("field {field} is missing"), "expected"]);
    }
}

#[test]
fn impossible_numbers() {
    for (field, value, expected) in [
        ("vocab_size", json!(0), "from 1 to"),
        ("hidden_size", json!(-8), "from 1 to"),
        ("hidden_size", json!(8.5), "from 1 to"),
        ("hidden_size", json!("8"), "from 1 to"),
        ("hidden_size", json!(u64::MAX), "from 1 to"),
        ("num_hidden_layers", json!(1u64 << 40), "from 1 to"),
        ("num_attention_heads", json!(0), "from 1 to"),
        ("num_key_value_heads", json!(0), "from 1 to"),
        ("num_key_value_heads", json!(3), "a divisor of num_attention_heads = 2"),
        ("linear_num_key_heads", json!(3), "a multiple of linear_num_key_heads = 3"),
        ("num_experts_per_tok", json!(3), "at most num_experts = 2"),
        ("num_experts_per_tok", json!(0), "from 1 to"),
        ("linear_conv_kernel_dim", json!(1), "from 2 to"),
        ("rms_norm_eps", json!(0), "above 0"),
        ("rms_norm_eps", json!("tiny"), "above 0"),
        ("tie_word_embeddings", json!("yes"), "true or false"),
        ("layer_types", json!(["linear_attention"]), "2 times"),
        ("layer_types", json!(["linear_attention", "mamba"]), "2 times"),
        (
            "layer_types",
            json!(["full_attention", "full_attention"]),
            "at least one layer of linear_attention",
        ),
        ("full_attention_interval", json!(0), "from 1 to"),
        ("rope_parameters", json!([1]), "an object"),
        ("rope_parameters.rope_theta", json!(-1), "above 0"),
        ("rope_parameters.partial_rotary_factor", json!(0.4), "a share of head_dim = 8 that is even"),
        ("rope_parameters.partial_rotary_factor", json!(0.01), "a share of head_dim"),
        ("rope_parameters.partial_rotary_factor", json!(1e300), "a share of head_dim"),
        ("rope_parameters.mrope_section", json!([1, 1]), "three whole numbers"),
        ("rope_parameters.mrope_section", json!([1, 1, 1]), "a sum of 2"),
        ("rope_parameters.mrope_section", json!([u64::MAX, 3, 0]), "three whole numbers"),
    ] {
        let error = with(field, value);
        assert!(matches!(error, Error::Field { .. }), "{field}: {error}");
        assert_says(&error, &["config.json", expected]);
    }
}

#[test]
fn fields_that_contradict_each_other() {
    let error = with("full_attention_interval", json!(4));
    assert!(matches!(error, Error::Field { .. }), "{error}");
    assert_says(
        &error,
        &["field layer_types", "what full_attention_interval = 4 implies", "linear_attention"],
    );

    let error = with("rope_theta", json!(10000));
    assert_says(&error, &["field rope_theta", "expected 10000000", "found 10000"]);

    let error = with("rope_scaling", json!({"rope_type": "yarn", "factor": 4}));
    assert_says(&error, &["rope_scaling"]);
}

#[test]
fn quantisation_that_is_not_supported() {
    for (value, field, says) in [
        (json!({"group_size": 64, "bits": 4, "mode": "nf4"}), "quantization.mode", "found \"nf4\""),
        (json!({"group_size": 64, "bits": 7}), "quantization.bits", "found 7"),
        (json!({"group_size": 48, "bits": 4}), "quantization.group_size", "found 48"),
        (json!({"group_size": 64, "bits": 4, "mode": "mxfp4"}), "quantization.group_size", "expected 32"),
        (
            json!({"group_size": 64, "bits": 4, "lm_head": {"bits": 1}}),
            "quantization.lm_head.bits",
            "found 1",
        ),
        (json!({"group_size": 64, "bits": 4, "lm_head": "q4"}), "quantization.lm_head", "an object"),
        (json!("q4"), "quantization", "an object"),
    ] {
        let error = with("quantization", value);
        assert!(matches!(error, Error::Field { .. }), "{error}");
        assert_says(&error, &["config.json", &format!("field {field}:"), says]);
    }
    let error = with("quantization", json!({"bits": 4, "lm_head": {"rotated": true}}));
    assert_says(&error, &["unknown field quantization.lm_head.rotated = true"]);

    for method in ["fbgemm_fp8", "hqq", "quark", "torchao"] {
        let error =
            with("quantization_config", json!({"quant_method": method, "weight_block_size": [128, 128]}));
        assert!(matches!(error, Error::Field { .. }), "{error}");
        assert_says(&error, &["field quantization_config.quant_method", "MLX", method]);
    }

    // Of a family that is not here, that is what is said.
    let mut config = Fixture::mlx().config;
    config["model_type"] = json!("minimax_m2");
    config["quantization_config"] = json!({"quant_method": "fp8", "fmt": "float8_e4m3fn"});
    assert_says(&parse(&config.to_string()).unwrap_err(), &["field model_type", "found \"minimax_m2\""]);

    let mut config = Fixture::mlx().config;
    config["quantization_config"] = json!({"group_size": 32, "bits": 4});
    let error = parse(&config.to_string()).unwrap_err();
    assert_says(&error, &["field quantization_config", "the same as quantization"]);
}

/// A config of each family, and one with quantisation.
const CONFIGS: &[&str] = &[
    "deepseek_v2/hf",
    "deepseek_v3/hf",
    "deepseek_v3/fp8-block",
    "qwen3_moe/fp8-channel",
    "glm4_moe/hf",
    "gpt_oss/hf",
    "llama/hf",
    "mixtral/hf",
    "olmoe/hf",
    "qwen3/hf",
    "qwen3_5_moe/hf",
    "qwen3_5_moe/mlx-mixed",
    "qwen3_moe/hf",
    "qwen3_next/hf",
];

/// Values that a field of a config may have by mistake: of its own type or of another.
fn values() -> impl Strategy<Value = Value> {
    let numbers = prop::sample::select(vec![
        0_i64,
        1,
        2,
        3,
        4,
        5,
        7,
        8,
        16,
        31,
        64,
        100,
        -1,
        1 << 20,
        1 << 32,
        i64::MAX,
    ]);
    prop_oneof![
        8 => numbers.prop_map(Value::from),
        2 => prop::sample::select(vec![0.0, 0.5, -1.5, 1e30, 1e-30]).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(json!("other")),
        1 => Just(json!([])),
        1 => prop::collection::vec(0..9_i64, 1..4).prop_map(Value::from),
        1 => Just(json!({})),
    ]
}

/// The places of all values that hold no others.
fn leaves(value: &Value, here: &str) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, value)| leaves(value, &format!("{here}/{name}"))).collect()
        }
        Value::Array(values) if !values.is_empty() => {
            let values = values.iter().enumerate();
            values.flat_map(|(index, value)| leaves(value, &format!("{here}/{index}"))).collect()
        }
        _ => vec![here.to_owned()],
    }
}

/// No panic, and numbers that fit together.
fn is_refused_or_fits(bytes: &[u8]) {
    let config = config::parse(Path::new("config.json"), bytes, &OpenOptions::default());
    let Ok(config::Config { model, .. }) = config else { return };
    let layers = model.num_hidden_layers();
    let attention = |attention: &AttentionConfig| {
        attention.num_attention_heads.is_multiple_of(attention.num_key_value_heads)
            && attention.rope.rotary_dim <= attention.head_dim
    };
    let moe = |moe: &MoeConfig| moe.num_experts_per_tok <= moe.num_experts;
    match &model {
        ModelConfig::Glm4Moe(model) => {
            assert!(attention(&model.attention) && moe(&model.moe));
            assert_eq!(model.mlp_types.len(), layers);
            assert_eq!(model.moe.num_experts % model.router.n_group, 0);
        }
        ModelConfig::Llama(model) | ModelConfig::Qwen3(model) => assert!(attention(&model.attention)),
        ModelConfig::Mixtral(model) => assert!(attention(&model.attention) && moe(&model.moe)),
        ModelConfig::Olmoe(model) => assert!(attention(&model.attention) && moe(&model.moe)),
        ModelConfig::Qwen3Moe(model) => {
            assert!(attention(&model.attention) && moe(&model.moe));
            assert_eq!(model.mlp_types.len(), layers);
        }
        ModelConfig::Qwen3_5Moe(model) | ModelConfig::Qwen3Next(model) => {
            assert!(attention(&model.attention) && moe(&model.moe));
            assert_eq!((model.layer_types.len(), model.mlp_types.len()), (layers, layers));
            let rope = &model.attention.rope;
            let sections = rope.mrope_section.iter().sum::<usize>();
            assert!(sections == 0 || sections * 2 == rope.rotary_dim);
        }
        _ => {}
    }
}

fn read(folder: &str) -> Vec<u8> {
    std::fs::read(data(folder).join("config.json")).unwrap()
}

proptest! {
    #![proptest_config(property::config(2000))]

    #[test]
    fn damaged_configs(damage in damage(), folder in prop::sample::select(CONFIGS)) {
        let mut bytes = read(folder);
        for damage in damage {
            damage.apply(&mut bytes);
        }
        is_refused_or_fits(&bytes);
    }

}

proptest! {
    #![proptest_config(property::config(6000))]

    /// Damage to bytes mostly leaves no JSON; here one or two fields have other values.
    #[test]
    fn changed_configs(
        changes in prop::collection::vec((any::<prop::sample::Index>(), values()), 1..3),
        folder in prop::sample::select(CONFIGS),
    ) {
        let mut config: Value = serde_json::from_slice(&read(folder)).unwrap();
        for (place, value) in changes {
            let leaves = leaves(&config, "");
            *config.pointer_mut(&leaves[place.index(leaves.len())]).unwrap() = value;
        }
        is_refused_or_fits(config.to_string().as_bytes());
    }
}
