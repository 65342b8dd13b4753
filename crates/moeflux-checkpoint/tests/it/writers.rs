//! What other tools write: fields that change nothing, names of their own, shards without an index, and the hub's cache.

use crate::fixture::{Fixture, SHARDS, assert_says, data, load, open, write_index};
use moeflux_checkpoint::config::{self, IGNORABLE};
use moeflux_checkpoint::{Checkpoint, Error, ModelConfig, OpenOptions};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::path::Path;

/// A config of each family.
const FAMILIES: &[&str] = &[
    "deepseek_v2/hf",
    "deepseek_v3/hf",
    "glm4_moe/hf",
    "gpt_oss/hf",
    "llama/hf",
    "mixtral/hf",
    "olmoe/hf",
    "qwen3/hf",
    "qwen3_5_moe/hf",
    "qwen3_moe/hf",
    "qwen3_next/hf",
];

fn config_of(folder: &str) -> Map<String, Value> {
    serde_json::from_slice(&std::fs::read(data(folder).join("config.json")).unwrap()).unwrap()
}

fn parse(config: &Map<String, Value>) -> Result<config::Config, Error> {
    let text = Value::Object(config.clone()).to_string();
    config::parse(Path::new("folder/config.json"), text.as_bytes(), &OpenOptions::default())
}

#[test]
fn fields_that_change_nothing_are_passed_over_and_named() {
    for folder in FAMILIES {
        let plain = config_of(folder);
        let expected = parse(&plain).unwrap().model;
        for group in IGNORABLE {
            for field in group.fields {
                if *field == "pretraining_tp" && plain.contains_key(*field) {
                    continue;
                }
                for value in [json!(true), json!(7), json!("x"), json!([1]), json!({"a": 1})] {
                    let mut config = plain.clone();
                    config.insert((*field).to_owned(), value);
                    let found = parse(&config).unwrap_or_else(|error| panic!("{folder}: {error}"));
                    assert_eq!(found.model, expected, "{folder}: {field}");
                    assert!(found.ignored.iter().any(|ignored| ignored.field == *field), "{folder}: {field}");
                }
            }
        }
        // Nothing is said by what is empty, under any name.
        for value in [json!(null), json!(""), json!([]), json!({})] {
            let mut config = plain.clone();
            config.insert("novelty".to_owned(), value);
            assert_eq!(parse(&config).unwrap().model, expected, "{folder}");
        }
        for (field, value) in [
            ("novelty", json!(1)),
            ("final_logit_softcapping", json!(30.0)),
            ("per_layer_config", json!([{"hidden_size": 1}])),
            ("add_cross_attention", json!(true)),
            ("is_encoder_decoder", json!(true)),
            ("use_mrope", json!(true)),
            ("logit_scale", json!(0.1)),
            ("attn_logit_softcapping", json!(5)),
            ("query_pre_attn_scalar", json!(256)),
            ("residual_multiplier", json!(0.5)),
        ] {
            let mut config = plain.clone();
            config.insert(field.to_owned(), value);
            assert_says(&parse(&config).unwrap_err(), &["config.json", field]);
        }
    }
}

#[test]
fn fields_that_are_ignored_because_someone_asks() {
    let mut config = config_of("qwen3/hf");
    config.insert("novelty".to_owned(), json!(1));
    let options = OpenOptions { ignored_config_fields: vec!["novelty".to_owned()], ..OpenOptions::default() };
    let text = Value::Object(config).to_string();
    let found = config::parse(Path::new("config.json"), text.as_bytes(), &options).unwrap();
    let novelty = found.ignored.iter().find(|ignored| ignored.field == "novelty").unwrap();
    assert_eq!(novelty.reason, "unknown, and listed to be ignored");
}

#[test]
fn the_number_of_experts_under_either_name() {
    let names = ["num_experts", "num_local_experts", "n_routed_experts"];
    for folder in [
        "qwen3_moe/hf",
        "olmoe/hf",
        "mixtral/hf",
        "gpt_oss/hf",
        "glm4_moe/hf",
        "deepseek_v3/hf",
        "qwen3_next/hf",
    ] {
        let plain = config_of(folder);
        let expected = parse(&plain).unwrap().model;
        let own = names.iter().find(|name| plain.contains_key(**name)).unwrap();
        let count = plain[*own].clone();
        let mut twins = plain.clone();
        twins.insert("num_local_experts".to_owned(), count.clone());
        assert_eq!(parse(&twins).unwrap().model, expected, "{folder}");
        let mut renamed = twins.clone();
        renamed.remove(*own);
        renamed.insert("num_local_experts".to_owned(), count.clone());
        assert_eq!(parse(&renamed).unwrap().model, expected, "{folder}");
        twins.insert("num_local_experts".to_owned(), json!(count.as_u64().unwrap() + 1));
        twins.insert((*own).to_owned(), count);
        if *own != "num_local_experts" {
            assert_says(&parse(&twins).unwrap_err(), &["num_local_experts", &format!("as {own} says")]);
        }
    }
}

#[test]
fn families_under_other_names() {
    let mut kimi = config_of("deepseek_v3/hf");
    let expected = parse(&kimi).unwrap().model;
    kimi.insert("model_type".to_owned(), json!("kimi_k2"));
    assert_eq!(parse(&kimi).unwrap().model, expected);

    let mut mistral = config_of("llama/hf");
    let ModelConfig::Llama(llama) = parse(&mistral).unwrap().model else { panic!() };
    mistral.insert("model_type".to_owned(), json!("mistral"));
    assert_eq!(parse(&mistral).unwrap().model, ModelConfig::Mistral(llama.clone()));
    mistral.insert("sliding_window".to_owned(), json!(64));
    let ModelConfig::Mistral(sliding) = parse(&mistral).unwrap().model else { panic!() };
    assert_eq!(sliding.windows, [Some(64); 3]);

    // As the first Llamas have it.
    let mut old = config_of("llama/hf");
    old.remove("rope_theta");
    old.remove("num_key_value_heads");
    let ModelConfig::Llama(old) = parse(&old).unwrap().model else { panic!() };
    assert_eq!((old.attention.rope.theta, old.attention.num_key_value_heads), (10_000.0, 4));

    let mut qwen2 = config_of("qwen3/hf");
    qwen2.insert("model_type".to_owned(), json!("qwen2"));
    qwen2.remove("attention_bias");
    qwen2.remove("layer_types");
    let ModelConfig::Qwen2(plain) = parse(&qwen2).unwrap().model else { panic!() };
    assert!(plain.qkv_bias && !plain.o_bias && plain.windows == [None; 3]);
    qwen2.insert("use_sliding_window".to_owned(), json!(true));
    qwen2.insert("sliding_window".to_owned(), json!(32));
    qwen2.insert("max_window_layers".to_owned(), json!(2));
    let ModelConfig::Qwen2(sliding) = parse(&qwen2).unwrap().model else { panic!() };
    assert_eq!(sliding.windows, [None, None, Some(32)]);
}

#[test]
fn numbers_that_are_not_finite() {
    let text = Value::Object(config_of("qwen3/hf")).to_string();
    let parse =
        |text: String| config::parse(Path::new("config.json"), text.as_bytes(), &OpenOptions::default());
    assert!(parse(text.replacen('{', "{\"top_p\": Infinity, ", 1)).is_ok());
    let error = parse(text.replacen('{', "{\"time_step_limit\": [0.0, Infinity], ", 1)).unwrap_err();
    assert_says(&error, &["unknown field time_step_limit = [0.0,\"Infinity\"]"]);
    let error = parse(text.replace("1e-6", "NaN").replace("0.000001", "NaN")).unwrap_err();
    assert_says(&error, &["field rms_norm_eps", "a number above 0", "NaN"]);
}

/// Writes the fixture in two shards of this stem, without an index.
fn sharded(stem: &str) -> tempfile::TempDir {
    let folder = Fixture::hub().write_sharded();
    std::fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
    for shard in SHARDS {
        let renamed = shard.replacen("model", stem, 1);
        std::fs::rename(folder.path().join(shard), folder.path().join(renamed)).unwrap();
    }
    folder
}

#[test]
fn shards_without_an_index() {
    for stem in ["model", "weights-bf16"] {
        let folder = sharded(stem);
        assert!(load(&open(folder.path()).unwrap()).is_ok());
        // Copies under another name, and adapters, are no part of it.
        for other in ["consolidated.safetensors", "adapter_model.safetensors"] {
            std::fs::write(folder.path().join(other), Fixture::hub().weight_file()).unwrap();
        }
        assert!(load(&open(folder.path()).unwrap()).is_ok());
        let gone = format!("{stem}-00002-of-00002.safetensors");
        std::fs::remove_file(folder.path().join(&gone)).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::MissingFileOfSeveral { count: 2, .. }), "{error}");
        assert_says(&error, &[&gone, "download it too"]);
    }
    // Of two models nobody knows which.
    let folder = sharded("model");
    std::fs::copy(folder.path().join(SHARDS[0]), folder.path().join("other-00001-of-00002.safetensors"))
        .unwrap();
    assert!(matches!(open(folder.path()).unwrap_err(), Error::WeightFiles { .. }));
}

#[test]
fn an_index_of_a_variant() {
    let folder = Fixture::hub().write_sharded();
    let from = folder.path().join("model.safetensors.index.json");
    std::fs::rename(&from, folder.path().join("model.fp16.safetensors.index.json")).unwrap();
    assert!(load(&open(folder.path()).unwrap()).is_ok());
    write_index(folder.path(), &json!({"weight_map": {}}));
    assert!(load(&open(folder.path()).unwrap()).is_err());
}

#[test]
fn a_folder_of_the_hubs_cache() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = |name: &str| {
        let folder = cache.path().join("snapshots").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let written = Fixture::hub().write();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(written.path().join(file), folder.join(file)).unwrap();
        }
        folder
    };
    let first = snapshot("0123abcd");
    assert_eq!(open(cache.path()).unwrap().path(), first);
    let second = snapshot("4567ef");
    let error = open(cache.path()).unwrap_err();
    assert!(matches!(error, Error::Snapshots { .. }), "{error}");
    assert_says(&error, &["refs/main", "0123abcd, 4567ef"]);
    std::fs::create_dir(cache.path().join("refs")).unwrap();
    std::fs::write(cache.path().join("refs/main"), "4567ef\n").unwrap();
    assert_eq!(open(cache.path()).unwrap().path(), second);
    // A name that leads elsewhere is no commit.
    std::fs::write(cache.path().join("refs/main"), "../..").unwrap();
    assert!(matches!(open(cache.path()).unwrap_err(), Error::Snapshots { .. }));
}

#[test]
fn gguf_under_another_name() {
    let folder = tempfile::tempdir().unwrap();
    let blob = folder.path().join("sha256-0011");
    std::fs::copy(data("qwen3_moe/gguf-q8_0/model.gguf"), &blob).unwrap();
    assert!(open(&blob).unwrap().metadata().is_some());
}

#[test]
fn modelopt_says_how_it_quantised_in_a_file_of_its_own() {
    let folder = Fixture::hub().write();
    let block = json!({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}});
    std::fs::write(folder.path().join("hf_quant_config.json"), block.to_string()).unwrap();
    // Whatever is read of it, it is not passed over.
    let plain = open(Fixture::hub().write().path()).unwrap().quantization().cloned();
    match open(folder.path()) {
        Ok(checkpoint) => assert_ne!(checkpoint.quantization().cloned(), plain),
        Err(error) => assert_says(&error, &["quantization_config", "modelopt"]),
    }
}

#[test]
fn tables_and_scales_that_change_nothing() {
    let mut fixture = Fixture::hub();
    fixture.add_as("model.layers.1.self_attn.rotary_emb.inv_freq", &[4], Dtype::F32);
    fixture.add_as("model.layers.1.self_attn.k_scale", &[1], Dtype::F32);
    fixture.add_as("model.layers.1.self_attn.k_proj.k_scale", &[1], Dtype::F32);
    fixture.add_as("model.layers.1.self_attn.v_proj.output_scale", &[1], Dtype::F32);
    assert!(fixture.load().is_ok());
    fixture.add("model.layers.1.mlp.k_scale", &[1]);
    assert!(matches!(fixture.load().unwrap_err(), Error::UnexpectedTensors { count: 1, .. }));
}

#[test]
fn a_tied_head_that_is_stored_too() {
    let mut fixture = Fixture::hub();
    fixture.config["tie_word_embeddings"] = json!(true);
    let embedding = fixture.tensors["model.embed_tokens.weight"].clone();
    fixture.tensors.insert("lm_head.weight".to_owned(), embedding.clone());
    let loaded = fixture.load().unwrap();
    assert_eq!(loaded.matrices["lm_head"].name, "model.embed_tokens.weight");
    let mut other = embedding;
    other.bytes[17] ^= 1;
    fixture.tensors.insert("lm_head.weight".to_owned(), other);
    assert!(matches!(fixture.load().unwrap_err(), Error::Untied { .. }));
}

/// The scales of one expert's projections as one tensor of all of a layer.
#[test]
fn fp8_experts_whose_scales_are_fused() {
    let folder = tempfile::tempdir().unwrap();
    let source = data("deepseek_v3/fp8-block");
    let bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut fixture = Fixture {
        config: json!(config_of("deepseek_v3/fp8-block")),
        tensors: std::collections::BTreeMap::default(),
    };
    let mut fused: std::collections::BTreeMap<String, (Vec<usize>, Vec<u8>, usize)> =
        std::collections::BTreeMap::default();
    let stored = |view: &safetensors::tensor::TensorView<'_>| crate::fixture::Stored {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    let mut names: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
    // Expert by expert, of each the gate's scales before the up-projection's.
    let key = |name: &String| {
        let number =
            name.split(".experts.").nth(1).and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        (
            name.split(".experts.").next().unwrap_or_default().to_owned(),
            number,
            name.contains("up_proj"),
            name.clone(),
        )
    };
    names.sort_by_key(key);
    for name in names {
        let view = tensors.tensor(&name).unwrap();
        let Some((layer, rest)) = name.split_once(".experts.").filter(|_| name.ends_with("weight_scale_inv"))
        else {
            fixture.tensors.insert(name.clone(), stored(&view));
            continue;
        };
        let part = if rest.contains("down_proj") { "down_proj" } else { "gate_up_proj" };
        let (shape, bytes, count) = fused.entry(format!("{layer}.experts.{part}_scale_inv")).or_default();
        *shape = view.shape().to_vec();
        bytes.extend(view.data());
        *count += 1;
    }
    assert!(!fused.is_empty());
    for (name, (shape, bytes, count)) in fused {
        let parts = if name.contains("down_proj") { 1 } else { 2 };
        let shape = vec![count / parts, parts * shape[0], shape[1]];
        fixture.tensors.insert(name, crate::fixture::Stored { dtype: Dtype::F32, shape, bytes });
    }
    std::fs::write(folder.path().join("config.json"), fixture.config.to_string()).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), fixture.weight_file()).unwrap();
    let (ours, theirs) = (open(folder.path()).unwrap(), open(&source).unwrap());
    let experts = |checkpoint: &Checkpoint| {
        let ModelConfig::DeepseekV3(config) = checkpoint.config() else { panic!() };
        let (hidden, moe) = (config.decoder.hidden_size, config.moe.clone());
        let weights = checkpoint.weights().unwrap();
        let layer = config.decoder.num_hidden_layers - 1;
        let experts = weights.experts(
            &format!("layers.{layer}.mlp"),
            moe.num_experts,
            hidden,
            moe.moe_intermediate_size,
        );
        let mut floats = Vec::new();
        for expert in experts.unwrap() {
            for (_, matrix) in expert.matrices() {
                let view = checkpoint.view(matrix);
                let mut row = vec![0.0; matrix.cols];
                for index in 0..matrix.rows {
                    view.dequantize_row(index, &mut row);
                    floats.extend(row.iter().map(|x| x.to_bits()));
                }
            }
        }
        floats
    };
    assert_eq!(experts(&ours), experts(&theirs));
}
