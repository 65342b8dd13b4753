//! Every field of every family's config, changed to another value that it could have: what comes of it is refused, computes
//! something else, or is known to change nothing.

use std::path::Path;

use crate::common::data;
use moeflux::checkpoint::{OpenOptions, config};
use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision};
use serde_json::{Map, Value, json};

const FAMILIES: &[&str] = &[
    "deepseek_v2/hf",
    "deepseek_v3/fp8-block",
    "deepseek_v3/hf",
    "glm4_moe/hf",
    "gpt_oss/hf",
    "llama/hf",
    "mixtral/hf",
    "olmoe/hf",
    "qwen2/hf",
    "qwen3/hf",
    "qwen3_5/hf",
    "qwen3_5_moe/hf",
    "qwen3_5_moe/mlx-q4",
    "qwen3_moe/hf",
    "qwen3_next/hf",
];

/// Configs of families and scalings that no checkpoint of the tests has: a checkpoint, and what is put into its config.
fn variants() -> Vec<(&'static str, &'static str, Value)> {
    let scaled = |rope: Value| json!({ "rope_scaling": rope });
    vec![
        ("mistral", "llama/hf", json!({"model_type": "mistral", "sliding_window": 16})),
        ("kimi_k2", "deepseek_v3/hf", json!({"model_type": "kimi_k2"})),
        (
            "llama3",
            "llama/hf",
            scaled(json!({
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            })),
        ),
        ("linear", "qwen3/hf", scaled(json!({"rope_type": "linear", "factor": 4.0}))),
        (
            "yarn",
            "qwen3_moe/hf",
            scaled(json!({
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 1.5,
            })),
        ),
        (
            "rope by layer type",
            "qwen3/hf",
            json!({
                "rope_theta": null, "use_sliding_window": true, "sliding_window": 16,
                "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
            }),
        ),
        ("fp8 by channel", "qwen3_moe/fp8-channel", json!({})),
    ]
}

/// Fields that are read and do not show in the logits of a short text, with what they do.
const UNSEEN: &[(&str, &str)] = &[
    ("max_position_embeddings", "where a sequence ends"),
    ("rope_scaling.original_max_position_embeddings", "shows in the frequencies of long periods alone"),
    ("quantization_config", "an empty one, where blocks and scales of tensors say it"),
    ("config_groups.group_0", "an empty one, where blocks and scales of tensors say it"),
    ("config_groups.group_1", "an empty one, where blocks and scales of tensors say it"),
    ("rope_scaling.beta_fast", "the few frequencies of a small model are on the same side of it"),
    ("num_nextn_predict_layers", "layers behind the last, which predict further tokens"),
    ("num_mtp_layers", "layers behind the last, which predict further tokens"),
    ("mtp_num_hidden_layers", "layers behind the last, which predict further tokens"),
    ("mtp_use_dedicated_embeddings", "layers behind the last, which predict further tokens"),
    ("decoder_sparse_step", "as long as it divides the numbers of the same layers"),
    ("use_sliding_window", "of layers that no window is given for"),
    ("max_window_layers", "as long as the layers named in layer_types slide"),
    ("rope_parameters.mrope_section", "texts have one position"),
    ("tie_word_embeddings", "an output projection that is the same as the embedding"),
    ("model_type", "another name of the same family"),
    ("n_group", "groups that leave the choice the same"),
    ("topk_group", "groups that leave the choice the same"),
    ("swiglu_limit", "inputs of a small model do not reach it"),
    ("quantization_config.weight_block_size", "larger blocks of a smaller matrix are the same blocks"),
];

const TOKENS: [u32; 40] = [
    39, 68, 360, 51, 402, 220, 393, 277, 74, 297, 315, 86, 77, 284, 78, 87, 503, 82, 88, 351, 68, 76, 198,
    33, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 100, 200, 300, 400, 500, 1,
];

/// Other values that a field could have.
fn mutants(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![json!(true), json!(3), json!("x")],
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Number(number) => match number.as_u64() {
            Some(n) => vec![json!(n + 1), json!(2 * n + 2), json!(n / 2)],
            None => vec![json!(number.as_f64().unwrap() * 2.0), json!(number.as_f64().unwrap() / 3.0)],
        },
        Value::String(_) => vec![json!("other")],
        Value::Array(values) => {
            let reversed: Vec<&Value> = values.iter().rev().collect();
            vec![json!(reversed), json!(values.iter().skip(1).collect::<Vec<_>>()), json!(["other"])]
        }
        Value::Object(_) => vec![json!({}), json!("other")],
    }
}

/// The fields of an object and of those in it, with dots.
fn fields(object: &Map<String, Value>, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in object {
        let field = format!("{prefix}{name}");
        if let Value::Object(inner) = value {
            found.extend(fields(inner, &format!("{field}.")));
        }
        found.push(field);
    }
    found
}

fn at<'a>(config: &'a mut Value, field: &str) -> &'a mut Value {
    field.split('.').fold(config, |value, name| &mut value[name])
}

/// A folder with the files of another, and its own config.
fn with_config(source: &Path, config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "config.json" {
            std::fs::hard_link(entry.path(), folder.path().join(entry.file_name()))
                .or_else(|_| std::fs::copy(entry.path(), folder.path().join(entry.file_name())).map(|_| ()))
                .unwrap();
        }
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

fn logits(model: Model) -> Vec<u32> {
    let options = EngineOptions { precision: Precision::Exact, threads: 1, ..EngineOptions::default() };
    let mut engine = Engine::new(model, &options).unwrap();
    let mut sequence = engine.sequence();
    engine.eval_all(&mut sequence, &TOKENS).unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn every_field_counts_or_is_known_not_to() {
    let (mut silent, mut counted) = (Vec::new(), [0; 3]);
    let cases = FAMILIES.iter().map(|family| (*family, *family, json!({}))).chain(variants());
    for (name, family, changes) in cases {
        let source = data(family);
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(source.join("config.json")).unwrap()).unwrap();
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let plain =
            config::parse(Path::new("c"), config.to_string().as_bytes(), &OpenOptions::default()).unwrap();
        let unchanged = with_config(&source, &config);
        let expected = logits(Model::open(unchanged.path(), &ModelOptions::default()).unwrap());
        for field in fields(config.as_object().unwrap(), "") {
            let mut plain_config = config.clone();
            let value = at(&mut plain_config, &field).clone();
            for mutant in mutants(&value).into_iter().filter(|mutant| *mutant != value) {
                let mut changed = config.clone();
                *at(&mut changed, &field) = mutant.clone();
                let text = changed.to_string();
                let Ok(parsed) = config::parse(Path::new("c"), text.as_bytes(), &OpenOptions::default())
                else {
                    counted[0] += 1;
                    continue;
                };
                let is_ignored = parsed.ignored.iter().any(|ignored| {
                    ignored.field == field || field.starts_with(&format!("{}.", ignored.field))
                });
                let says_nothing = matches!(&mutant, Value::Object(object) if object.is_empty());
                let known = is_ignored
                    || UNSEEN
                        .iter()
                        .any(|(unseen, _)| field == *unseen || field.ends_with(&format!(".{unseen}")));
                if known || (says_nothing && plain.ignored.iter().any(|ignored| ignored.field == field)) {
                    counted[1] += 1;
                    continue;
                }
                let folder = with_config(&source, &changed);
                let found = Model::open(folder.path(), &ModelOptions::default()).map(logits);
                match found {
                    Err(_) => counted[0] += 1,
                    Ok(found) if found != expected => counted[2] += 1,
                    Ok(_) => silent.push(format!("{name}: {field} = {mutant}")),
                }
            }
        }
    }
    println!("refused {}, known to change nothing {}, other logits {}", counted[0], counted[1], counted[2]);
    assert!(silent.is_empty(), "neither refused nor known:\n{}", silent.join("\n"));
}
