//! Configs of DeepSeek and gpt-oss: what is read from them, and what is refused.

use moeflux_checkpoint::config::{self, Config};
use moeflux_checkpoint::{
    DeepseekConfig, DeepseekRouterConfig, Error, GptOssConfig, MlpType, ModelConfig, OpenOptions,
};
use serde_json::{Value, json};
use std::path::Path;

/// The config of `tests/data/{family}/hf` with fields (dotted) changed.
fn with(family: &str, changes: &[(&str, Value)]) -> Result<Config, Error> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(family).join("hf/config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (field, value) in changes {
        let mut target = &mut json;
        for part in field.split('.') {
            target = &mut target[part];
        }
        *target = value.clone();
    }
    config::parse(Path::new("folder/config.json"), json.to_string().as_bytes(), &OpenOptions::default())
}

fn deepseek(family: &str, changes: &[(&str, Value)]) -> DeepseekConfig {
    match with(family, changes).unwrap().model {
        ModelConfig::DeepseekV2(config) | ModelConfig::DeepseekV3(config) => config,
        other => panic!("{other:?}"),
    }
}

fn gpt_oss(changes: &[(&str, Value)]) -> GptOssConfig {
    match with("gpt_oss", changes).unwrap().model {
        ModelConfig::GptOss(config) => config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_configs_say_is_read() {
    let v3 =
        deepseek("deepseek_v3", &[("num_nextn_predict_layers", json!(1)), ("rope_interleave", json!(false))]);
    assert_eq!(
        (v3.attention.q_lora_rank, v3.attention.kv_lora_rank, v3.attention.v_head_dim),
        (Some(64), 64, 64)
    );
    assert_eq!((v3.decoder.num_nextn_predict_layers, v3.attention.rope_interleave), (1, false));
    assert_eq!(v3.mlp_types[..2], [MlpType::Dense { intermediate_size: 192 }, MlpType::Sparse]);
    let DeepseekRouterConfig::Sigmoid(router) = &v3.router else { panic!("{:?}", v3.router) };
    assert_eq!((router.n_group, router.topk_group, router.routed_scaling_factor), (4, 2, 2.5));

    let v2 = deepseek("deepseek_v2", &[]);
    assert_eq!((v2.attention.q_lora_rank, v2.n_shared_experts), (None, 2));
    assert_eq!(v2.router, DeepseekRouterConfig::Softmax { groups: None, routed_scaling_factor: 1.0 });
    let limited =
        [("topk_method", json!("group_limited_greedy")), ("n_group", json!(4)), ("topk_group", json!(3))];
    let DeepseekRouterConfig::Softmax { groups, .. } = deepseek("deepseek_v2", &limited).router else {
        panic!("{limited:?}")
    };
    assert_eq!(groups, Some((4, 3)));

    let oss = gpt_oss(&[]);
    assert_eq!(oss.windows, [Some(16), None, Some(16), None]);
    assert_eq!((oss.swiglu_limit, oss.swiglu_alpha), (7.0, 1.702));
    assert!(!oss.attention.rope.yarn().unwrap().truncate);
    // Every other layer slides if none is named; a window that no layer has changes nothing.
    assert_eq!(gpt_oss(&[("layer_types", json!(null))]).windows, [Some(16), None, Some(16), None]);
    let full = json!(["full_attention", "full_attention", "full_attention", "full_attention"]);
    assert_eq!(gpt_oss(&[("layer_types", full)]).windows, [None; 4]);
}

#[test]
fn what_is_impossible_or_not_supported_is_refused() {
    for (family, field, value, expected) in [
        ("deepseek_v3", "attention_bias", json!(true), "expected false"),
        ("deepseek_v3", "hidden_act", json!("gelu"), "expected \"silu\""),
        ("deepseek_v3", "moe_layer_freq", json!(2), "expected 1"),
        ("deepseek_v3", "scoring_func", json!("softmax"), "expected \"sigmoid\""),
        ("deepseek_v3", "topk_method", json!("greedy"), "expected \"noaux_tc\""),
        ("deepseek_v3", "kv_lora_rank", json!(0), "a whole number from 1"),
        ("deepseek_v3", "kv_lora_rank", json!(null), "missing"),
        ("deepseek_v3", "q_lora_rank", json!(-1), "a whole number from 1"),
        ("deepseek_v3", "qk_rope_head_dim", json!(63), "even"),
        ("deepseek_v3", "v_head_dim", json!("128"), "a whole number from 1"),
        ("deepseek_v3", "n_group", json!(3), "16 experts in groups of two or more"),
        ("deepseek_v3", "topk_group", json!(5), "a whole number from 1 to 4"),
        ("deepseek_v3", "num_experts_per_tok", json!(17), "at most n_routed_experts = 16"),
        ("deepseek_v3", "first_k_dense_replace", json!(9), "a whole number from 0 to 4"),
        ("deepseek_v3", "rope_interleave", json!(1), "true or false"),
        ("deepseek_v3", "rope_scaling.type", json!("llama4"), "expected default, linear, dynamic, yarn"),
        ("deepseek_v3", "rope_scaling.factor", json!(0), "a number above 0"),
        ("deepseek_v3", "index_topk", json!(2048), "unknown field"),
        ("deepseek_v3", "quantization_config", json!({"quant_method": "hqq"}), "quant_method"),
        ("deepseek_v2", "norm_topk_prob", json!(true), "expected false"),
        ("deepseek_v2", "mlp_bias", json!(true), "expected false"),
        ("deepseek_v2", "topk_method", json!("noaux_tc"), "greedy or group_limited_greedy"),
        ("gpt_oss", "attention_bias", json!(false), "expected true"),
        ("gpt_oss", "experts_per_token", json!(8), "expected 4"),
        ("gpt_oss", "layer_types", json!(["full_attention"]), "4 times sliding_attention or full_attention"),
        (
            "gpt_oss",
            "layer_types",
            json!(["a", "b", "c", "d"]),
            "4 times sliding_attention or full_attention",
        ),
        ("gpt_oss", "sliding_window", json!(null), "layers slide"),
        ("gpt_oss", "sliding_window", json!(0), "a whole number from 1"),
        ("gpt_oss", "swiglu_limit", json!(-7), "a number above 0"),
        ("gpt_oss", "rope_scaling", json!(null), "rope_scaling"),
        ("gpt_oss", "num_key_value_heads", json!(3), "a divisor of num_attention_heads = 4"),
        ("gpt_oss", "quantization_config.group_size", json!(32), "group_size"),
    ] {
        let message = with(family, &[(field, value.clone())]).map(|_| ()).unwrap_err().to_string();
        let name = field.rsplit('.').next().unwrap();
        for part in ["folder/config.json", name, expected] {
            assert!(message.contains(part), "{family}, {field} = {value}: {part:?} is not in: {message}");
        }
    }
    let limited =
        [("topk_method", json!("group_limited_greedy")), ("n_group", json!(8)), ("topk_group", json!(1))];
    let message = with("deepseek_v2", &limited).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("num_experts_per_tok = 4 experts or more"), "{message}");
}
