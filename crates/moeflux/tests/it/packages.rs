//! A small model in each format, written by the package that defines the format: log-probabilities of a text against those that
//! transformers computes in float32 from the values that the package reads back (`tools/reference/formats/subset.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::data;
use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision};
use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, serialize};
use serde_json::Value;

/// Largest difference of a log-probability.
const LIMIT: f64 = 1e-4;

fn stored(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/formats").join(file)
}

/// Writes the checkpoint whose modules are those of a format.
fn checkpoint(config: &Value, format: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(data("qwen3_moe/hf").join(file), folder.path().join(file)).unwrap();
    }
    let mut config = config.clone();
    config["quantization_config"] = format["quantization_config"].clone();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let files =
        ["plain.safetensors", format["file"].as_str().unwrap()].map(|file| fs::read(stored(file)).unwrap());
    let files = files.each_ref().map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let tensors: BTreeMap<String, TensorView<'_>> = files.iter().flat_map(SafeTensors::tensors).collect();
    fs::write(folder.path().join("model.safetensors"), serialize(tensors, None).unwrap()).unwrap();
    folder
}

/// The log-probability of each token behind the first.
fn logprobs(folder: &Path, tokens: &[u32]) -> Vec<f64> {
    let model = Model::open(folder, &ModelOptions::default()).unwrap();
    let vocab_size = model.vocab_size();
    let options = EngineOptions { precision: Precision::Exact, threads: 2, ..EngineOptions::default() };
    let mut engine = Engine::new(model, &options).unwrap();
    let mut sequence = engine.sequence();
    let logits = engine.eval_all(&mut sequence, tokens).unwrap();
    let of_token = |(logits, &token): (&[f32], &u32)| {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
        f64::from(logits[token as usize] - largest) - sum.ln()
    };
    logits.chunks_exact(vocab_size).zip(&tokens[1..]).map(of_token).collect()
}

#[test]
fn what_packages_write_computes_what_they_read() {
    let stored: Value = serde_json::from_slice(&fs::read(stored("formats.json")).unwrap()).unwrap();
    let tokens: Vec<u32> = serde_json::from_value(stored["tokens"].clone()).unwrap();
    let formats = stored["formats"].as_object().unwrap();
    assert!(formats.len() >= 20 && tokens.len() >= 290);
    for (name, format) in formats {
        let expected: Vec<f64> = serde_json::from_value(format["logprobs"].clone()).unwrap();
        let folder = checkpoint(&stored["config"], format);
        let found = logprobs(folder.path(), &tokens);
        assert_eq!(found.len(), expected.len());
        let worst =
            found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max);
        println!("{name}: {worst:.1e}");
        assert!(worst <= LIMIT, "{name}: log-probabilities differ by {worst:.1e}");
    }
}
