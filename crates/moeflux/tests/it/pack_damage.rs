//! Packs that are not what they should be: an error that names the file, what was expected and what was found.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::data;
use moeflux::convert::{self, Damage, RunOptions};
use moeflux::{Model, ModelOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

const LAYER: &str = "experts/layer_01.bin";

/// A small pack.
fn pack() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("pack");
    let model = Model::open(data("qwen3_5_moe/mlx-q4"), &ModelOptions::default()).unwrap();
    let plan = convert::plan(&model, &"".parse().unwrap()).unwrap();
    let options = RunOptions { threads: 2, restart: false };
    convert::run(&plan, model.checkpoint(), &target, &options, &|_, _| {}).unwrap();
    (folder, target)
}

/// Damages a pack, and expects that it does not open, with an error that says all of `parts`.
#[track_caller]
fn assert_refused(damage: impl FnOnce(&Path), parts: &[&str]) {
    let (_folder, pack) = pack();
    damage(&pack);
    let error = Model::open(&pack, &ModelOptions::default()).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

/// Changes the manifest.
fn edit(change: impl FnOnce(&mut Value)) -> impl FnOnce(&Path) {
    |pack| {
        let path = pack.join("moeflux.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        fs::write(path, json.to_string()).unwrap();
    }
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}

fn cut_in_half(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn files_that_are_missing_or_have_another_length() {
    assert_refused(
        |pack| fs::remove_file(pack.join(LAYER)).unwrap(),
        &[LAYER, "not found", "moeflux.json names it"],
    );
    assert_refused(|pack| truncate(&pack.join(LAYER)), &[LAYER, "expected", "bytes", "found"]);
    assert_refused(|pack| truncate(&pack.join("dense.bin")), &["dense.bin", "bytes"]);
    assert_refused(|pack| fs::remove_file(pack.join("config.json")).unwrap(), &["config.json"]);
    assert_refused(
        |pack| {
            let path = pack.join(LAYER);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, [bytes.as_slice(), &[0; 4096]].concat()).unwrap();
        },
        &[LAYER, "bytes"],
    );
}

#[test]
fn manifests_that_are_cut_or_of_another_kind() {
    assert_refused(|pack| cut_in_half(&pack.join("moeflux.json")), &["moeflux.json", "JSON"]);
    assert_refused(
        edit(|json| json["version"] = 2.into()),
        &["moeflux.json", "version", "expected 1", "found 2"],
    );
    assert_refused(edit(|json| json["format"] = "other".into()), &["format", "moeflux-pack", "other"]);
    assert_refused(edit(|json| json["novelty"] = 1.into()), &["moeflux.json", "novelty"]);
}

#[test]
fn manifests_that_do_not_fit_together() {
    let experts = "experts.language_model.model.layers.0.mlp.experts";
    let first = |json: &mut Value| json["dense"]["tensors"][1]["name"].as_str().unwrap().to_owned();
    assert_refused(
        edit(|json| json["dense"]["tensors"][1]["offset"] = 0.into()),
        &["dense.tensors", "offset", "where the tensor before it ends"],
    );
    assert_refused(
        edit(|json| json["dense"]["tensors"][1]["shape"] = json!([1u64 << 40, 1u64 << 40])),
        &["shape", "a whole number of bytes"],
    );
    assert_refused(
        edit(|json| {
            let name = first(json);
            json["dense"]["tensors"][2]["name"] = name.into();
        }),
        &["name", "it twice"],
    );
    assert_refused(edit(|json| json["dense"]["tensors"][1]["dtype"] = "F7".into()), &["dtype", "F7"]);
    assert_refused(edit(|json| json["dense"]["bytes"] = 64.into()), &["dense", "64"]);
    assert_refused(
        edit(|json| json["experts"][0]["stride"] = 100.into()),
        &[experts, "stride", "a multiple of 4096"],
    );
    assert_refused(edit(|json| json["experts"][0]["stride"] = (1u64 << 62).into()), &[experts, "checksums"]);
    assert_refused(
        edit(|json| json["experts"][0]["matrices"][0]["encoding"] = "affine9g64-bf16".into()),
        &[experts, "affine9g64-bf16"],
    );
    assert_refused(
        edit(|json| json["experts"][0]["matrices"][2]["rows"] = 7.into()),
        &[experts, "shapes that fit together"],
    );
    assert_refused(
        edit(|json| {
            json["experts"][0]["checksums"].as_array_mut().unwrap().pop();
        }),
        &["layer_00.bin", "bytes"],
    );
    assert_refused(edit(|json| json["experts"][0]["checksums"][0] = "12".into()), &["16 hexadecimal digits"]);
    assert_refused(edit(|json| json["experts"][0]["file"] = "../layer.bin".into()), &["inside the pack"]);
    assert_refused(edit(|json| json["experts"][0]["file"] = "/layer.bin".into()), &["inside the pack"]);
    assert_refused(
        edit(|json| json["experts"][0]["file"] = json["experts"][1]["file"].clone()),
        &["named once"],
    );
    assert_refused(
        edit(|json| {
            let module = json["modules"].as_object_mut().unwrap();
            *module.values_mut().next().unwrap() = "affine2g64".into();
        }),
        &["shape"],
    );
    // Experts of other sizes than the model has.
    assert_refused(
        edit(|json| {
            json["experts"].as_array_mut().unwrap().remove(0);
        }),
        &["layers.0.mlp", "missing"],
    );
}

fn damage_of(pack: &Path) -> Vec<Damage> {
    convert::verify(pack, 2, &|_, _| {}).unwrap()
}

/// Changes one bit.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn one_wrong_bit_is_found_and_placed() {
    let (_folder, pack) = pack();
    assert_eq!(damage_of(&pack), []);
    let manifest: Value = serde_json::from_slice(&fs::read(pack.join("moeflux.json")).unwrap()).unwrap();
    let stride = manifest["experts"][1]["stride"].as_u64().unwrap();
    let tensor = &manifest["dense"]["tensors"][5];

    flip(&pack.join(LAYER), 2 * stride as usize + 77);
    flip(&pack.join("dense.bin"), tensor["offset"].as_u64().unwrap() as usize);
    flip(&pack.join("tokenizer.json"), 10);
    let found = damage_of(&pack);
    let places: Vec<(String, u64)> =
        found.iter().map(|damage| (damage.part.clone(), damage.offset)).collect();
    let expert = format!("{} expert 2", manifest["experts"][1]["name"].as_str().unwrap());
    let tensor = (format!("tensor {}", tensor["name"].as_str().unwrap()), tensor["offset"].as_u64().unwrap());
    assert_eq!(places, [("the file".to_owned(), 0), tensor, (expert, 2 * stride)]);
    assert!(found.iter().all(|damage| damage.expected != damage.found));
    assert!(found[0].path.ends_with("tokenizer.json"));
}

#[test]
fn only_a_pack_can_be_verified() {
    let error = convert::verify(&data("qwen3_5_moe/mlx-q4"), 1, &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("is not a pack"), "{error}");
}

#[test]
fn weights_that_no_code_stands_for_are_refused() {
    let source = data("qwen3_5_moe/hf");
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let name = "model.language_model.layers.0.mlp.shared_expert.up_proj.weight";
    let span = {
        let model = Model::open(folder.path(), &ModelOptions::default()).unwrap();
        model.checkpoint().tensor(name).unwrap().span
    };
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = span.offset as usize + 2 * 64 + 6;
    bytes[at..at + 2].copy_from_slice(&[0x80, 0x7f]);
    fs::write(&path, bytes).unwrap();

    let model = Model::open(folder.path(), &ModelOptions::default()).unwrap();
    let run = |recipe: &str, target: &str| {
        let plan = convert::plan(&model, &recipe.parse().unwrap()).unwrap();
        let options = RunOptions { threads: 2, restart: false };
        convert::run(&plan, model.checkpoint(), &folder.path().join(target), &options, &|_, _| {})
    };
    let error = run("4bit", "four").unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("infinite or not a number"), "{error}");
    assert!(!folder.path().join("four").exists());
    // What is only copied is not looked at.
    run("", "same").unwrap();
}
