//! Models from GGUF files: float encodings of the same weights, tokenizers from metadata.

use std::path::{Path, PathBuf};

use crate::common::{Reference, data};
use crate::gguf_file::GgufFile;
use moeflux::checkpoint::gguf::Value;
use moeflux::checkpoint::{Checkpoint, OpenOptions};
use moeflux::text::{TextError, Tokenizer};
use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

const FAMILIES: [&str; 9] = [
    "deepseek_v2",
    "deepseek_v3",
    "glm4_moe",
    "gpt_oss",
    "mixtral",
    "olmoe",
    "qwen3_5_moe",
    "qwen3_moe",
    "qwen3_next",
];

fn reference(family: &str) -> PathBuf {
    data(family).join("gguf-q8_0/model.gguf")
}

fn written(file: &GgufFile) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), file.bytes()).unwrap();
    folder
}

fn logits(path: &Path, tokens: &[u32]) -> Vec<f32> {
    let model = Model::open(path, &ModelOptions::default()).unwrap();
    let mut engine =
        Engine::new(model, &EngineOptions { precision: Precision::Exact, ..EngineOptions::default() })
            .unwrap();
    let mut sequence = engine.sequence();
    engine.eval(&mut sequence, tokens).unwrap()
}

/// What a block of Q8_0 or MXFP4 holds, written as F32, gives the same bits.
#[test]
fn dequantised_files_give_the_same_logits() {
    for family in FAMILIES {
        let known = Reference::open(&data(family).join("ref_gguf-q8_0.safetensors"));
        let folder = crate::float_gguf::folder(&reference(family));
        let tokens = known.ints("p2.ids");
        assert_eq!(logits(&reference(family), tokens), logits(folder.path(), tokens), "{family}");
    }
}

/// The tokenizer of a file made from a checkpoint is that of the checkpoint's `tokenizer.json`.
#[test]
fn tokenizers_are_those_of_the_hub() {
    let cases = std::fs::read_to_string(data("tokenizer_cases.json")).unwrap();
    let cases: Json = serde_json::from_str(&cases).unwrap();
    for family in ["qwen3_5_moe", "mixtral", "gpt_oss"] {
        let model = Model::open(reference(family), &ModelOptions::default()).unwrap();
        let (tokenizer, hub) = (model.tokenizer(), Tokenizer::open(data(family).join("hf")).unwrap());
        assert_eq!(tokenizer.eos_ids(), hub.eos_ids());
        assert_eq!(tokenizer.vocab_size(), hub.vocab_size());
        assert_eq!(tokenizer.generation_defaults(), hub.generation_defaults());
        for id in 0..hub.vocab_size() as u32 {
            assert_eq!(
                (tokenizer.token(id), tokenizer.is_special(id)),
                (hub.token(id), hub.is_special(id)),
                "{id}"
            );
        }
        for case in cases["encode"].as_array().unwrap() {
            let ids = tokenizer.encode(case["text"].as_str().unwrap()).unwrap();
            assert_eq!(json!(ids), case["ids"]);
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded"]);
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), case["decoded_skip_special"]);
        }
        let text = std::fs::read_to_string(data("heldout.txt")).unwrap();
        assert_eq!(tokenizer.encode(&text).unwrap(), hub.encode(&text).unwrap());
        let messages: Vec<moeflux::text::Message> =
            serde_json::from_value(json!([{"role": "user", "content": "Hi"}])).unwrap();
        let request = moeflux::text::ChatRequest { messages: &messages, ..Default::default() };
        assert_eq!(tokenizer.render_chat(&request).unwrap(), hub.render_chat(&request).unwrap());
    }
}

/// A file with metadata of a tokenizer and nothing else that matters.
fn tokenizer(change: impl FnOnce(&mut GgufFile)) -> Result<Tokenizer, TextError> {
    let mut file = GgufFile::read(&reference("mixtral"));
    change(&mut file);
    let folder = written(&file);
    Tokenizer::of(&Checkpoint::open(folder.path(), &OpenOptions::default()).unwrap())
}

/// Pieces, scores and cases of a small model that SentencePiece made (`tools/reference/sentence_piece.py`).
#[test]
fn sentence_piece_models_encode_as_sentence_piece_does() {
    let cases: Json =
        serde_json::from_str(&std::fs::read_to_string(data("sentence_piece.json")).unwrap()).unwrap();
    let list = |name: &str| cases[name].as_array().unwrap().iter();
    let tokenizer = tokenizer(|file| {
        file.set("tokenizer.ggml.model", Value::Text("llama".into()));
        let tokens = list("tokens").map(|token| token.as_str().unwrap().to_owned());
        file.set("tokenizer.ggml.tokens", Value::Texts(tokens.collect()));
        let scores = list("scores").map(|score| score.as_f64().unwrap());
        file.set("tokenizer.ggml.scores", Value::Floats(scores.collect()));
        let kinds = list("token_type").map(|kind| kind.as_i64().unwrap());
        file.set("tokenizer.ggml.token_type", Value::Integers(kinds.collect()));
        file.set("tokenizer.ggml.eos_token_id", Value::Integer(2));
        file.set("tokenizer.ggml.bos_token_id", Value::Integer(1));
        file.remove("tokenizer.ggml.merges");
        file.remove("tokenizer.ggml.pre");
        file.remove("tokenizer.ggml.add_space_prefix");
    })
    .unwrap();
    assert_eq!(tokenizer.eos_ids(), [2]);
    for case in list("cases") {
        let text = case["text"].as_str().unwrap();
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(json!(ids), case["ids"], "{text:?}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), case["decoded"], "{text:?}");
    }
    assert_eq!(tokenizer.encode("<s>a</s>").unwrap().first(), Some(&1));
}

#[test]
fn every_way_to_split_words_compiles() {
    let error = tokenizer(|file| file.set("tokenizer.ggml.pre", Value::Text("other".into())))
        .unwrap_err()
        .to_string();
    let (_, names) = error.split_once("expected one of ").unwrap();
    let (names, found) = names.split_once(", found ").unwrap();
    assert_eq!(found, "\"other\"");
    let names: Vec<&str> = names.split(", ").collect();
    assert!(names.len() > 10 && names.contains(&"deepseek-v3"));
    for name in names {
        let tokenizer = tokenizer(|file| file.set("tokenizer.ggml.pre", Value::Text(name.into()))).unwrap();
        for text in ["It's 1234 o'clock,\n\n  naïve — 日本語! ", "x = [1, 2];\t// ok"] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{name}");
        }
    }
}

#[test]
fn metadata_that_is_no_tokenizer() {
    let cases: [(&str, Option<Value>, &str); 13] = [
        ("tokenizer.ggml.model", None, "field tokenizer.ggml.model is missing"),
        ("tokenizer.ggml.model", Some(Value::Text("t5".into())), "expected gpt2"),
        ("tokenizer.ggml.model", Some(Value::Integer(1)), "expected a string, found 1"),
        ("tokenizer.ggml.model", Some(Value::Text("llama".into())), "field tokenizer.ggml.scores is missing"),
        ("tokenizer.ggml.pre", None, "field tokenizer.ggml.pre is missing"),
        ("tokenizer.ggml.tokens", None, "field tokenizer.ggml.tokens is missing"),
        ("tokenizer.ggml.tokens", Some(Value::Texts(vec![])), "found 0 strings"),
        (
            "tokenizer.ggml.token_type",
            Some(Value::Integers(vec![1, 1])),
            "expected 512 whole numbers from 0 to 6",
        ),
        (
            "tokenizer.ggml.token_type",
            Some(Value::Integers(vec![7; 512])),
            "expected 512 whole numbers from 0 to 6",
        ),
        ("tokenizer.ggml.merges", Some(Value::Texts(vec!["ab".into()])), "two tokens with a space between"),
        ("tokenizer.ggml.merges", Some(Value::Texts(vec!["a nothing".into()])), "not a usable tokenizer"),
        (
            "tokenizer.ggml.eos_token_id",
            Some(Value::Integer(512)),
            "expected a token id below 512, found 512",
        ),
        ("tokenizer.chat_template", Some(Value::Text("{% if %}".into())), "chat template, line 1"),
    ];
    for (key, value, says) in cases {
        let error = tokenizer(|file| match value {
            Some(value) => file.set(key, value),
            None => file.remove(key),
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says), "{key}: {error}");
    }
}
