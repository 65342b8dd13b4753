//! What the configs of the families say, what they must not say, and whose names their tensors have.

use crate::fixture::{assert_says, data, open};
use moeflux_checkpoint::{
    Checkpoint, Error, MlpType, ModelConfig, OpenOptions, RopeParameters, Yarn, config,
};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

const FAMILIES: [&str; 5] = ["glm4_moe", "mixtral", "olmoe", "qwen3_moe", "qwen3_next"];

/// The config of a family's reference checkpoint with fields changed; `null` takes one away.
fn changed(family: &str, changes: &[(&str, Value)]) -> Value {
    let text = std::fs::read_to_string(data(family).join("hf/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (field, value) in changes {
        config[field] = value.clone();
    }
    config
}

fn parse(family: &str, changes: &[(&str, Value)]) -> Result<ModelConfig, Error> {
    let config = changed(family, changes).to_string();
    let parsed = config::parse(Path::new("folder/config.json"), config.as_bytes(), &OpenOptions::default());
    parsed.map(|config| config.model)
}

fn rope(family: &str, changes: &[(&str, Value)]) -> Result<RopeParameters, Error> {
    Ok(match parse(family, changes)? {
        ModelConfig::Glm4Moe(config) => config.attention.rope,
        ModelConfig::Qwen3_5Moe(config) | ModelConfig::Qwen3Next(config) => config.attention.rope,
        ModelConfig::Qwen3Moe(config) => config.attention.rope,
        other => panic!("{other:?}"),
    })
}

/// A family's reference checkpoint with another config.
fn checkpoint(family: &str, changes: &[(&str, Value)]) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(data(family).join("hf/model.safetensors"), folder.path().join("model.safetensors"))
        .unwrap();
    std::fs::write(folder.path().join("config.json"), changed(family, changes).to_string()).unwrap();
    let checkpoint = open(folder.path()).unwrap();
    (folder, checkpoint)
}

#[test]
fn sizes() {
    for family in FAMILIES {
        let model = parse(family, &[]).unwrap();
        assert_eq!(model.model_type(), family);
        assert_eq!((model.hidden_size(), model.vocab_size()), (128, 512));
        assert_eq!(model.max_position_embeddings(), 4096);
    }
    let ModelConfig::Glm4Moe(glm) = parse("glm4_moe", &[]).unwrap() else { panic!() };
    assert_eq!((glm.attention.rope.rotary_dim, glm.n_shared_experts), (32, 1));
    assert!(glm.attention_bias && glm.use_qk_norm && glm.router.norm_topk_prob);
    assert_eq!(glm.router.routed_scaling_factor, 2.5);
    let ModelConfig::Olmoe(olmoe) = parse("olmoe", &[]).unwrap() else { panic!() };
    assert_eq!((olmoe.attention.head_dim, olmoe.moe.moe_intermediate_size), (64, 64));
    assert!(!olmoe.norm_topk_prob);
    let ModelConfig::Mixtral(mixtral) = parse("mixtral", &[]).unwrap() else { panic!() };
    assert_eq!((mixtral.moe.num_experts, mixtral.moe.num_experts_per_tok), (8, 2));
    assert_eq!(mixtral.attention.rope.theta, 1e6);
}

#[test]
fn values_that_are_not_supported() {
    for (family, field, value, expected) in [
        ("glm4_moe", "hidden_act", json!("gelu"), "\"silu\""),
        ("glm4_moe", "scoring_func", json!("softmax"), "\"sigmoid\""),
        ("glm4_moe", "topk_method", json!("greedy"), "\"noaux_tc\""),
        ("mixtral", "sliding_window", json!(4096), "null"),
        ("mixtral", "hidden_act", json!("gelu"), "\"silu\""),
        ("olmoe", "clip_qkv", json!(8.0), "null"),
        ("olmoe", "attention_bias", json!(true), "false"),
        ("qwen3_moe", "use_sliding_window", json!(true), "false"),
        ("qwen3_moe", "attention_bias", json!(true), "false"),
        ("qwen3_moe", "shared_expert_intermediate_size", json!(64), "0"),
        ("qwen3_next", "use_sliding_window", json!(true), "false"),
        ("qwen3_next", "attention_bias", json!(true), "false"),
    ] {
        let found = format!("found {value}");
        let error = parse(family, &[(field, value)]).unwrap_err();
        assert!(matches!(error, Error::Field { .. }), "{family}: {error}");
        assert_says(
            &error,
            &["config.json", &format!("field {field}"), &format!("expected {expected}"), &found],
        );
    }
}

#[test]
fn impossible_numbers() {
    for (family, field, value, expected) in [
        ("glm4_moe", "n_group", json!(3), "16 experts in groups of two or more"),
        ("glm4_moe", "n_group", json!(16), "16 experts in groups of two or more"),
        ("glm4_moe", "topk_group", json!(2), "from 1 to 1"),
        ("glm4_moe", "num_experts_per_tok", json!(17), "at most n_routed_experts = 16"),
        ("glm4_moe", "first_k_dense_replace", json!(4), "from 0 to 3"),
        ("glm4_moe", "routed_scaling_factor", json!(0), "above 0"),
        ("glm4_moe", "partial_rotary_factor", json!(2), "a share of head_dim = 64"),
        ("mixtral", "num_key_value_heads", json!(3), "a divisor of num_attention_heads = 2"),
        ("mixtral", "num_experts_per_tok", json!(9), "at most num_local_experts = 8"),
        ("olmoe", "num_experts", json!(1u64 << 40), "from 1 to"),
        ("qwen3_moe", "mlp_only_layers", json!([4]), "a list of layers below 4"),
        ("qwen3_moe", "mlp_only_layers", json!("all"), "a list of layers"),
        ("qwen3_moe", "decoder_sparse_step", json!(0), "from 1 to"),
        ("qwen3_moe", "num_hidden_layers", json!(0), "from 1 to"),
        ("qwen3_next", "full_attention_interval", json!(1), "at least one layer of linear_attention"),
        ("qwen3_next", "linear_num_value_heads", json!(3), "a multiple of linear_num_key_heads = 2"),
    ] {
        let error = parse(family, &[(field, value)]).unwrap_err();
        assert!(matches!(error, Error::Field { .. }), "{family}: {error}");
        assert_says(&error, &["config.json", expected]);
    }
    // Two groups of eight, of which one is not enough for nine experts.
    let grouped = [("n_group", json!(2)), ("num_experts_per_tok", json!(9))];
    let error = parse("glm4_moe", &grouped).unwrap_err();
    assert_says(&error, &["field topk_group", "num_experts_per_tok = 9"]);
    // No heads of a whole size.
    let error = parse("olmoe", &[("num_attention_heads", json!(6)), ("num_key_value_heads", json!(6))]);
    assert_says(&error.unwrap_err(), &["field head_dim is missing"]);
}

#[test]
fn unknown_and_missing_fields() {
    for family in FAMILIES {
        let error = parse(family, &[("logit_softcapping", json!(0.5))]).unwrap_err();
        assert!(matches!(error, Error::UnknownField { .. }), "{family}: {error}");
        assert_says(&error, &["unknown field logit_softcapping = 0.5"]);
        for field in ["vocab_size", "hidden_size", "num_hidden_layers", "rms_norm_eps", "num_attention_heads"]
        {
            let error = parse(family, &[(field, Value::Null)]).unwrap_err();
            assert!(matches!(error, Error::MissingField { .. }), "{family}: {error}");
            assert_says(&error, &[&format!("field {field} is missing")]);
        }
    }
    for (family, field) in [
        ("glm4_moe", "n_group"),
        ("glm4_moe", "n_routed_experts"),
        ("glm4_moe", "n_shared_experts"),
        ("glm4_moe", "intermediate_size"),
        ("mixtral", "num_local_experts"),
        ("mixtral", "intermediate_size"),
        ("olmoe", "num_key_value_heads"),
        ("qwen3_moe", "moe_intermediate_size"),
        ("qwen3_moe", "intermediate_size"),
        ("qwen3_next", "head_dim"),
        ("qwen3_next", "shared_expert_intermediate_size"),
    ] {
        let error = parse(family, &[(field, Value::Null)]).unwrap_err();
        assert!(matches!(error, Error::MissingField { .. }), "{family} {field}: {error}");
        assert_says(&error, &[&format!("field {field} is missing")]);
    }
}

#[test]
fn dense_layers() {
    let types = |changes: &[(&str, Value)]| match parse("qwen3_moe", changes).unwrap() {
        ModelConfig::Qwen3Moe(config) => config.mlp_types,
        other => panic!("{other:?}"),
    };
    let (dense, sparse) = (MlpType::Dense { intermediate_size: 192 }, MlpType::Sparse);
    assert_eq!(types(&[]), [sparse, sparse, dense, sparse]);
    assert_eq!(types(&[("mlp_only_layers", json!([]))]), [sparse; 4]);
    assert_eq!(types(&[("decoder_sparse_step", json!(2))]), [dense, sparse, dense, sparse]);
    // Nothing is dense, so its width may be missing.
    let changes = [("mlp_only_layers", Value::Null), ("intermediate_size", Value::Null)];
    assert_eq!(types(&changes), [sparse; 4]);
    let ModelConfig::Glm4Moe(glm) = parse("glm4_moe", &[("first_k_dense_replace", json!(2))]).unwrap() else {
        panic!()
    };
    assert_eq!(glm.mlp_types, [dense, dense, sparse]);
}

#[test]
fn yarn_in_both_forms() {
    let inner = json!({"factor": 4.0, "original_max_position_embeddings": 8192});
    let with = |fields: Value| {
        let mut rope = inner.clone();
        rope.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        rope
    };
    let expected = Yarn {
        factor: 4.0,
        original_max_position_embeddings: 8192,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale: None,
        mscale_all_dim: None,
        attention_factor: None,
        truncate: true,
    };
    for (family, rotary_dim) in [("qwen3_moe", 64), ("qwen3_next", 16), ("glm4_moe", 32)] {
        let old = rope(family, &[("rope_scaling", with(json!({"type": "yarn"})))]).unwrap();
        assert_eq!((old.yarn(), old.rotary_dim), (Some(&expected), rotary_dim));
        let new = with(json!({"rope_type": "yarn", "rope_theta": old.theta}));
        let changes = [("rope_parameters", new), ("rope_theta", Value::Null), ("rope_scaling", Value::Null)];
        assert_eq!(rope(family, &changes).unwrap(), old);
        // The context is what positions were stretched to.
        let changes = [("rope_scaling", with(json!({"type": "yarn"})))];
        assert_eq!(parse(family, &changes).unwrap().max_position_embeddings(), 32768);
    }
    let all = with(json!({
        "type": "yarn", "rope_type": "yarn", "beta_fast": 16, "beta_slow": 2, "mscale": 1, "mscale_all_dim": 0,
        "attention_factor": 1.5, "truncate": false,
    }));
    let found = rope("qwen3_moe", &[("rope_scaling", all)]).unwrap();
    let found = found.yarn().unwrap().clone();
    let attention_factor = Some(1.5);
    let (beta_fast, beta_slow, mscale, truncate) = (16.0, 2.0, Some(1.0), false);
    assert_eq!(found, Yarn { beta_fast, beta_slow, mscale, attention_factor, truncate, ..expected });
}

/// The bases of full and sliding layers of a dense model with layers of both types.
fn bases(changes: &[(&str, Value)]) -> Result<(f64, Option<f64>), Error> {
    let slides = [
        ("use_sliding_window", json!(true)),
        ("sliding_window", json!(16)),
        ("layer_types", json!(["sliding_attention", "sliding_attention", "full_attention"])),
    ];
    let model = parse("qwen3", &[&slides[..], changes].concat())?;
    Ok((model.rope().theta, model.sliding_rope().map(|rope| rope.theta)))
}

#[test]
fn ropes_of_layer_types() {
    let types = |full: Value, sliding: Value| {
        ("rope_parameters", json!({"full_attention": full, "sliding_attention": sliding}))
    };
    let theta = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
    let no_theta = ("rope_theta", Value::Null);
    assert_eq!(bases(&[]).unwrap(), (1e6, None));
    assert_eq!(bases(&[types(theta(1e6), theta(1e4)), no_theta.clone()]).unwrap(), (1e6, Some(1e4)));
    assert_eq!(bases(&[types(theta(1e4), theta(1e4)), no_theta.clone()]).unwrap(), (1e4, None));
    // What stands beside them is for both.
    assert_eq!(bases(&[types(theta(1e6), json!({"rope_type": "default"}))]).unwrap(), (1e6, None));
    let local = ("rope_local_base_freq", json!(5e3));
    assert_eq!(bases(std::slice::from_ref(&local)).unwrap(), (1e6, Some(5e3)));
    // The scaling of older files is of full layers alone.
    let scaling = ("rope_scaling", json!({"rope_type": "linear", "factor": 8.0}));
    assert_eq!(bases(&[local.clone(), scaling]).unwrap(), (1e6, Some(5e3)));
    assert_eq!(bases(&[types(theta(1e6), theta(5e3)), local.clone()]).unwrap(), (1e6, Some(5e3)));

    let dynamic = json!({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4});
    let yarn = json!({
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 1e4,
    });
    let slides = ("use_sliding_window", json!(false));
    for (full, sliding, context) in
        [(yarn.clone(), theta(1e4), 1024), (theta(1e4), yarn.clone(), 256), (yarn, dynamic, 256)]
    {
        let changes = [types(full, sliding), no_theta.clone(), slides.clone()];
        assert_eq!(parse("qwen3", &changes).unwrap().max_position_embeddings(), context);
    }

    for (changes, says) in [
        (
            vec![types(theta(1e6), json!({"rope_type": "default"})), no_theta.clone()],
            "sliding_attention.rope_theta is missing",
        ),
        (
            vec![types(theta(1e6), theta(1e4)), no_theta.clone(), local.clone()],
            "10000, as rope_parameters.sliding_attention says",
        ),
        (
            vec![types(theta(1e6), json!({"rope_type": "other", "rope_theta": 1e4}))],
            "sliding_attention.rope_type",
        ),
        (vec![types(theta(1e6), json!({"rope_theta": 1e4, "novelty": 1}))], "sliding_attention.novelty"),
        (
            vec![types(theta(1e6), json!({"rope_theta": 1e4, "partial_rotary_factor": 0.5}))],
            "1, since these models turn whole heads",
        ),
    ] {
        assert_says(&bases(&changes).unwrap_err(), &["config.json", says]);
    }
    // Of a family whose layers all see everything.
    let changes = [types(theta(5e5), theta(1e4))];
    assert_says(&parse("llama", &changes).unwrap_err(), &["sliding_attention: expected the same"]);
    assert_says(&parse("llama", &[local]).unwrap_err(), &["unknown field rope_local_base_freq"]);
}

#[test]
fn ropes_that_are_not_supported() {
    for (value, says) in [
        (json!({"rope_type": "llama4", "factor": 8}), "field rope_scaling.rope_type"),
        (json!({"type": "ntk", "factor": 8}), "field rope_scaling.type"),
        (json!({"type": "dynamic"}), "field rope_scaling.factor is missing"),
        (json!({"type": "dynamic", "factor": 8, "original_max_position_embeddings": 7}), "found 7"),
        (json!({"type": "linear", "factor": 8, "truncate": true}), "unknown field rope_scaling.truncate"),
        (json!({"type": "llama3", "factor": 8}), "field rope_scaling.low_freq_factor is missing"),
        (
            json!({"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}),
            "a number above low_freq_factor = 4",
        ),
        (
            json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
            "field rope_scaling.short_factor: expected 32 numbers above 0",
        ),
        (
            json!({"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "linear"}}),
            "field rope_scaling.sliding_attention: expected the same as full_attention",
        ),
        (json!({"type": "linear", "rope_type": "yarn"}), "field rope_scaling.type"),
        (json!({"type": "default", "rope_type": "yarn"}), "expected yarn, as rope_type says"),
        (
            json!({"type": "yarn", "original_max_position_embeddings": 64}),
            "field rope_scaling.factor is missing",
        ),
        (json!({"type": "yarn", "factor": 0, "original_max_position_embeddings": 64}), "above 0"),
        (
            json!({"type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "mscale": -1}),
            "a number from 0 up",
        ),
        (
            json!({"type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "short_factor": [1]}),
            "unknown field rope_scaling.short_factor",
        ),
        (json!({"type": "default", "factor": 4}), "unknown field rope_scaling.factor"),
        (json!({"mrope_section": [1, 1, 0]}), "unknown field rope_scaling.mrope_section"),
        (json!({"rope_theta": 5}), "field rope_theta: expected 5, found 1000000"),
        (json!("yarn"), "an object"),
    ] {
        let error = parse("qwen3_moe", &[("rope_scaling", value)]).unwrap_err();
        assert_says(&error, &["config.json", says]);
    }
}

#[test]
fn mixtral_has_names_of_its_own() {
    let (_folder, checkpoint) = checkpoint("mixtral", &[]);
    let weights = checkpoint.weights().unwrap();
    let gate = weights.matrix("layers.1.mlp.gate", 8, 128).unwrap();
    assert_eq!(gate.name, "model.layers.1.block_sparse_moe.gate.weight");
    let experts = weights.experts("layers.1.mlp", 8, 128, 64).unwrap();
    let expert = "model.layers.1.block_sparse_moe.experts.7";
    assert_eq!(experts[7].gate.name, format!("{expert}.w1.weight"));
    assert_eq!(experts[7].up.name, format!("{expert}.w3.weight"));
    assert_eq!(experts[7].down.name, format!("{expert}.w2.weight"));
    let error = weights.experts("layers.1.mlp", 9, 128, 64).unwrap_err();
    assert_says(&error, &["tensor model.layers.1.block_sparse_moe.experts.8.w1.weight is missing"]);
}

#[test]
fn biases_and_bare_parameters() {
    let (_folder, checkpoint) = checkpoint("glm4_moe", &[]);
    let weights = checkpoint.weights().unwrap();
    assert_eq!(weights.vector("layers.1.self_attn.q_proj.bias", 256).unwrap().len(), 256);
    let error = weights.vector("layers.1.self_attn.q_proj.bias", 255).unwrap_err();
    assert_says(&error, &["model.layers.1.self_attn.q_proj.bias", "expected shape [255], found [256]"]);
    let error = weights.vector("layers.1.self_attn.o_proj.bias", 128).unwrap_err();
    assert_says(&error, &["tensor model.layers.1.self_attn.o_proj.bias is missing"]);
    assert_eq!(weights.vector("layers.1.mlp.gate.e_score_correction_bias", 16).unwrap().len(), 16);
    let error = weights.vector("layers.0.mlp.gate.e_score_correction_bias", 16).unwrap_err();
    assert_says(&error, &["tensor model.layers.0.mlp.gate.e_score_correction_bias is missing"]);
}

#[test]
fn layers_behind_the_last_are_a_prediction_head() {
    let layers = [("num_hidden_layers", json!(2)), ("num_nextn_predict_layers", json!(1))];
    let (_folder, glm) = checkpoint("glm4_moe", &layers);
    assert!(glm.mtp_tensors().count() > 50);
    assert!(glm.mtp_tensors().all(|tensor| tensor.name.starts_with("model.layers.2.")));
    // Two layers behind the last, but one announced: the second is unexpected.
    let (_folder, glm) =
        checkpoint("glm4_moe", &[("num_hidden_layers", json!(1)), ("num_nextn_predict_layers", json!(1))]);
    assert!(glm.mtp_tensors().all(|tensor| tensor.name.starts_with("model.layers.1.")));
    let error = glm.weights().unwrap().finish().unwrap_err();
    assert!(matches!(error, Error::UnexpectedTensors { .. }), "{error}");
}

#[test]
fn fused_projections_of_delta_nets() {
    let (_folder, next) = checkpoint("qwen3_next", &[]);
    let weights = next.weights().unwrap();
    assert!(weights.has_matrix("layers.0.linear_attn.in_proj_qkvz"));
    assert!(!weights.has_matrix("layers.0.linear_attn.in_proj_qkv"));
    assert!(!weights.has_matrix("layers.1.linear_attn.in_proj_qkvz"));
    // Norms are stored around zero, but for the delta net's own.
    let stored = |name: &str| {
        let tensor = next.tensor(name).unwrap();
        let bytes = next.bytes(tensor.span);
        f32::from_bits(u32::from(bytes[1]) << 24 | u32::from(bytes[0]) << 16)
    };
    let norm = weights.vector("layers.0.input_layernorm", 128).unwrap();
    assert_eq!(norm[0], 1.0 + stored("model.layers.0.input_layernorm.weight"));
    let norm = weights.vector("layers.0.linear_attn.norm", 128).unwrap();
    assert_eq!(norm[0], stored("model.layers.0.linear_attn.norm.weight"));
}
