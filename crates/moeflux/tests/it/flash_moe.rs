//! flash-moe's artifacts give the logits of the MLX checkpoint that they were made from, bit for bit.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::artifacts::{write_dense, write_index, write_packed, write_tokenizer, write_vocab};
use crate::common::{data, root};
use moeflux::checkpoint::OpenOptions;
use moeflux::convert::{self, RunOptions};
use moeflux::{Engine, EngineOptions, Model, ModelOptions};
use serde_json::Value;
use tempfile::TempDir;

fn open(folder: &Path) -> Model {
    Model::open(folder, &ModelOptions::default()).unwrap()
}

fn logits(model: Model) -> Vec<u32> {
    let vocab_size = model.vocab_size() as u32;
    let tokens: Vec<u32> = (0..48).map(|i| (i * 7919 + 13) % vocab_size).collect();
    let mut engine = Engine::new(model, &EngineOptions::default()).unwrap();
    let mut sequence = engine.sequence();
    engine.eval_all(&mut sequence, &tokens).unwrap().into_iter().map(f32::to_bits).collect()
}

fn sources() -> [PathBuf; 2] {
    [data("qwen3_5_moe/mlx-q4"), root().join("models/demo")]
}

fn copy(source: &Path, target: &Path, names: &[&str]) {
    for name in names {
        fs::copy(source.join(name), target.join(name)).unwrap();
    }
}

/// Everything in one folder.
fn artifacts(source: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_dense(source, folder.path(), true);
    write_packed(&open(source), &folder.path().join("packed_experts"));
    copy(source, folder.path(), &["config.json", "tokenizer.json", "tokenizer_config.json"]);
    folder
}

#[test]
fn packed_experts_give_the_same_logits() {
    for source in sources() {
        let folder = artifacts(&source);
        let model = open(folder.path());
        assert_eq!(model.checkpoint().layout(), "flash-moe artifacts, experts packed with 4 bits");
        assert!(logits(model) == logits(open(&source)), "{}", source.display());
    }
}

#[test]
fn experts_in_place_give_the_same_logits() {
    for source in sources() {
        let folder = artifacts(&source);
        fs::remove_dir_all(folder.path().join("packed_experts")).unwrap();
        write_index(&source, folder.path());
        let model = open(folder.path());
        assert_eq!(model.checkpoint().layout(), "flash-moe artifacts, experts in place in safetensors");
        assert!(logits(model) == logits(open(&source)), "{}", source.display());
    }
}

#[test]
fn the_tree_that_the_tools_leave_is_read() {
    let source = root().join("models/demo");
    let folder = tempfile::tempdir().unwrap();
    write_dense(&source, &folder.path().join("artifacts"), false);
    write_packed(&open(&source), &folder.path().join("root/packed_experts"));
    copy(&source, folder.path(), &["tokenizer.json"]);
    // Without config.json: what model_weights.json says of the model is enough for Qwen3.5.
    assert!(logits(open(folder.path())) == logits(open(&source)));
}

#[test]
fn two_bits_are_read_where_they_are_asked_for_or_alone() {
    let source = data("qwen3_5_moe/mlx-q4");
    let folder = artifacts(&source);
    let pack = folder.path().join("pack");
    let model = open(&source);
    let plan = convert::plan(&model, &"experts=2".parse().unwrap()).unwrap();
    let options = RunOptions { threads: 2, restart: false };
    convert::run(&plan, model.checkpoint(), &pack, &options, &|_, _| {}).unwrap();
    write_packed(&open(&pack), &folder.path().join("packed_experts_2bit"));

    let expected = logits(open(&pack));
    assert!(expected != logits(open(folder.path())));
    let checkpoint = OpenOptions { packed_expert_bits: Some(2), ..OpenOptions::default() };
    let asked = Model::open(folder.path(), &ModelOptions { checkpoint, ..ModelOptions::default() }).unwrap();
    assert!(logits(asked) == expected);
    fs::remove_dir_all(folder.path().join("packed_experts")).unwrap();
    assert!(logits(open(folder.path())) == expected);
}

#[test]
fn artifacts_become_packs() {
    let source = data("qwen3_5_moe/mlx-q4");
    let folder = artifacts(&source);
    let pack = folder.path().join("pack");
    let model = open(folder.path());
    let plan = convert::plan(&model, &"".parse().unwrap()).unwrap();
    let options = RunOptions { threads: 2, restart: false };
    convert::run(&plan, model.checkpoint(), &pack, &options, &|_, _| {}).unwrap();
    assert!(logits(open(&pack)) == logits(open(&source)));
}

#[test]
fn tokenizer_bin_encodes_and_decodes_as_tokenizer_json() {
    let source = data("qwen3_5_moe/mlx-q4");
    let folder = artifacts(&source);
    let expected = open(&source);
    write_tokenizer(&source, folder.path());
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let found = open(folder.path());
    let cases: Value = serde_json::from_slice(&fs::read(data("tokenizer_cases.json")).unwrap()).unwrap();
    let mut texts: Vec<String> = Vec::new();
    collect_texts(&cases, &mut texts);
    assert!(texts.len() > 20);
    for text in texts {
        let ids = expected.tokenizer().encode(&text).unwrap();
        assert_eq!(found.tokenizer().encode(&text).unwrap(), ids, "{text:?}");
        let decode = |model: &Model| model.tokenizer().decode(&ids, false).unwrap();
        assert_eq!(decode(&found), decode(&expected));
    }

    // A file for decoding alone is no tokenizer.
    fs::write(folder.path().join("tokenizer.bin"), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let error = Model::open(folder.path(), &ModelOptions::default()).unwrap_err().to_string();
    assert!(error.contains("vocab.bin is for decoding alone"), "{error}");
}

/// With `vocab.bin` alone a model runs and says what its tokens mean, and takes no text.
#[test]
fn vocab_bin_decodes_and_does_not_encode() {
    let source = data("qwen3_5_moe/mlx-q4");
    let folder = artifacts(&source);
    let expected = open(&source);
    write_vocab(expected.tokenizer(), folder.path());
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let model = open(folder.path());
    let (found, expected) = (model.tokenizer(), expected.tokenizer());
    assert_eq!(found.vocab_size(), expected.vocab_size());
    for id in 0..expected.vocab_size() as u32 {
        assert_eq!(found.decode(&[id], false).unwrap(), expected.decode(&[id], false).unwrap(), "{id}");
    }
    assert_eq!(found.token_bytes().unwrap(), expected.token_bytes().unwrap());
    let text = "naïve 日本語 🙂<|im_end|>";
    let ids = expected.encode(text).unwrap();
    let mut stream = found.stream(true);
    let streamed: String = ids.iter().map(|&id| stream.push(id).unwrap().to_owned()).collect();
    assert_eq!(streamed, "naïve 日本語 🙂");
    let error = found.encode("a").unwrap_err().to_string();
    assert!(error.contains("vocab.bin: good for decoding alone"), "{error}");

    // A pack takes it along.
    let pack = folder.path().join("pack");
    let plan = convert::plan(&model, &"".parse().unwrap()).unwrap();
    let options = RunOptions { threads: 2, restart: false };
    convert::run(&plan, model.checkpoint(), &pack, &options, &|_, _| {}).unwrap();
    assert_eq!(open(&pack).tokenizer().decode(&ids, false).unwrap(), text);

    // One text for two tokens would lose one of them.
    fs::write(folder.path().join("vocab.bin"), [2, 0, 0, 0, 1, 0, 0, 0, 1, 0, b'a', 1, 0, b'a']).unwrap();
    let error = Model::open(folder.path(), &ModelOptions::default()).unwrap_err().to_string();
    assert!(error.contains("tokens 0 and 1 are both \"a\""), "{error}");
}

/// All strings in a JSON value.
fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect_texts(value, texts)),
        Value::Object(values) => values.values().for_each(|value| collect_texts(value, texts)),
        _ => {}
    }
}

/// Damages artifacts, and expects an error that says all of `parts`.
#[track_caller]
fn assert_refused(damage: impl FnOnce(&Path), parts: &[&str]) {
    let folder = artifacts(&data("qwen3_5_moe/mlx-q4"));
    damage(folder.path());
    let error = Model::open(folder.path(), &ModelOptions::default()).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

/// Changes the index of dense tensors.
fn edit(folder: &Path, name: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(name);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn damaged_artifacts_are_refused() {
    let tensor = "model.layers.0.mlp.gate.weight";
    let weights = "model_weights.json";
    assert_refused(|folder| fs::remove_dir_all(folder.join("packed_experts")).unwrap(), &["packed_experts"]);
    assert_refused(
        |folder| fs::remove_file(folder.join("packed_experts/layer_01.bin")).unwrap(),
        &["layers.1.mlp", "missing"],
    );
    assert_refused(
        |folder| {
            let path = folder.join("packed_experts/layer_00.bin");
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        },
        &["layer_00.bin", "experts of", "cut short"],
    );
    assert_refused(
        |folder| edit(folder, weights, |json| json["tensors"][tensor]["offset"] = 3.into()),
        &[weights, tensor, "offset", "a multiple of 64"],
    );
    assert_refused(
        |folder| edit(folder, weights, |json| json["tensors"][tensor]["offset"] = (1u64 << 40).into()),
        &[weights, tensor, "offset"],
    );
    assert_refused(
        |folder| edit(folder, weights, |json| json["tensors"][tensor]["bits"] = 4.into()),
        &[weights, tensor, "codes of 4 bits"],
    );
    assert_refused(
        |folder| edit(folder, weights, |json| json["tensors"][tensor]["size"] = 64.into()),
        &[weights, tensor, "size"],
    );
    assert_refused(
        |folder| edit(folder, weights, |json| json["num_tensors"] = 3.into()),
        &[weights, "3, as num_tensors says"],
    );
    assert_refused(|folder| fs::write(folder.join(weights), "{\"tensors\"").unwrap(), &[weights, "JSON"]);
    assert_refused(|folder| fs::write(folder.join("model_weights.bin"), "").unwrap(), &[weights, "offset"]);
}

#[test]
fn an_index_that_forgot_the_header_is_refused() {
    let damage = |change: fn(&mut Value)| {
        move |folder: &Path| {
            fs::remove_dir_all(folder.join("packed_experts")).unwrap();
            write_index(&data("qwen3_5_moe/mlx-q4"), folder);
            edit(folder, "expert_index.json", change);
        }
    };
    assert_refused(
        damage(|json| {
            let offset = &mut json["expert_reads"]["2"]["up_proj.weight"]["abs_offset"];
            *offset = (offset.as_u64().unwrap() - 64).into();
        }),
        &["expert_index.json", "expert_reads.2.up_proj.weight.abs_offset", "its header counted"],
    );
    assert_refused(
        damage(|json| json["expert_reads"]["2"]["up_proj.weight"]["expert_stride"] = (1u64 << 50).into()),
        &["expert_reads.2.up_proj.weight.expert_stride"],
    );
    assert_refused(
        damage(|json| json["expert_reads"]["2"]["up_proj.weight"]["file"] = "../elsewhere".into()),
        &["expert_index.json", "elsewhere"],
    );
}
