//! Tokens to text and back: the reference cases, streaming, stop strings, and what folders may lack.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::copy_with;
use crate::property;
use moeflux::checkpoint::{Checkpoint, OpenOptions};
use moeflux::text::{StopStrings, TextError, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data")
}

fn reference() -> Tokenizer {
    Tokenizer::open(data().join("qwen3_5_moe/hf")).unwrap()
}

fn demo() -> Tokenizer {
    Tokenizer::open(data().join("../../models/demo")).unwrap()
}

/// A tokenizer as its `tokenizer.json` would be, in a folder of its own.
fn tokenizer(model: &Value, decoder: &Value, added: &Value) -> Tokenizer {
    let json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
                      "normalizer": null, "pre_tokenizer": null, "post_processor": null,
                      "decoder": decoder, "model": model});
    let folder = folder(&[("tokenizer.json", json)]);
    Tokenizer::open(folder.path()).unwrap()
}

fn folder(files: &[(&str, Value)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(
            folder.path().join(name),
            content.as_str().map_or_else(|| content.to_string(), str::to_owned),
        )
        .unwrap();
    }
    folder
}

/// A SentencePiece-like tokenizer: `▁` for spaces, bytes as `<0xNN>`, the first space stripped.
fn byte_fallback() -> Tokenizer {
    let pieces = ["<unk>", "</s>", "▁", "a", "▁b", "é", "日本", "\u{FFFD}", "▁▁", "\n", "", "x▁"];
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let vocab: serde_json::Map<_, _> = pieces
        .into_iter()
        .map(str::to_owned)
        .chain(bytes)
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    let model = json!({"type": "BPE", "dropout": null, "unk_token": "<unk>",
                       "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                       "byte_fallback": true, "vocab": vocab,
                       "merges": []});
    let end = json!([{"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}]);
    tokenizer(&model, &decoder, &end)
}

/// Words with `##` continuations, which are joined without spaces.
fn word_piece() -> Tokenizer {
    let vocab = json!({"[UNK]": 0, "un": 1, "##able": 2, "the": 3, "##s": 4, ".": 5, "do": 6, "n't": 7});
    let model = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                       "max_input_chars_per_word": 100, "vocab": vocab});
    tokenizer(&model, &json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), &json!([]))
}

fn metaspace() -> Tokenizer {
    let vocab = json!([["<unk>", 0.0], ["▁", -1.0], ["▁a", -2.0], ["b", -3.0], ["c▁d", -4.0]]);
    let decoder = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    tokenizer(&json!({"type": "Unigram", "unk_id": 0, "vocab": vocab}), &decoder, &json!([]))
}

#[test]
fn reference_cases_are_exact() {
    let cases: Value =
        serde_json::from_str(&fs::read_to_string(data().join("tokenizer_cases.json")).unwrap()).unwrap();
    for folder in ["hf", "mlx-q4", "mlx-mixed"] {
        let tokenizer = Tokenizer::open(data().join("qwen3_5_moe").join(folder)).unwrap();
        assert_eq!(tokenizer.eos_ids(), [504, 502]);
        assert_eq!(tokenizer.vocab_size(), 512);
        for case in cases["encode"].as_array().unwrap() {
            let ids = tokenizer.encode(case["text"].as_str().unwrap()).unwrap();
            assert_eq!(json!(ids), case["ids"]);
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded"]);
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), case["decoded_skip_special"]);
        }
    }
}

#[test]
fn tokens_have_names_and_kinds() {
    let tokenizer = demo();
    assert_eq!(tokenizer.id("<|im_end|>"), Some(2));
    assert_eq!(tokenizer.token(2).as_deref(), Some("<|im_end|>"));
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(100));
    assert_eq!(tokenizer.eos_ids(), [2, 0]);
    assert_eq!((tokenizer.id("no such token"), tokenizer.token(1 << 30)), (None, None));
    let defaults = tokenizer.generation_defaults();
    assert_eq!((defaults.do_sample, defaults.temperature, defaults.top_k), (Some(true), Some(0.7), Some(20)));
    assert_eq!((defaults.top_p, defaults.min_p, defaults.repetition_penalty), (Some(0.9), None, None));
}

#[test]
fn an_unknown_id_is_an_error_that_names_it() {
    let tokenizer = reference();
    let expected = "token id 512 is unknown to the tokenizer, which has 512 tokens";
    assert_eq!(tokenizer.decode(&[1, 512], true).unwrap_err().to_string(), expected);
    let mut stream = tokenizer.stream(false);
    assert_eq!(stream.push(512).unwrap_err().to_string(), expected);
    assert_eq!(stream.push(64).unwrap(), "a");
}

#[test]
fn a_character_is_shown_when_it_is_complete() {
    let tokenizer = reference();
    let ids = tokenizer.encode("é🙂").unwrap();
    let mut stream = tokenizer.stream(false);
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap().to_owned()).collect();
    assert_eq!(pieces, ["", "é", "", "", "", "🙂"]);
    assert_eq!(stream.finish().unwrap(), "");
}

#[test]
fn bytes_that_cannot_become_a_character_come_out_at_once() {
    let tokenizer = reference();
    let emoji = tokenizer.encode("🙂").unwrap();
    let a = tokenizer.encode("a").unwrap()[0];
    let mut stream = tokenizer.stream(false);
    assert_eq!(stream.push(emoji[0]).unwrap(), "");
    assert_eq!(stream.push(a).unwrap(), "\u{FFFD}a");
    assert_eq!(stream.push(emoji[1]).unwrap(), "\u{FFFD}");
    assert_eq!(stream.push(emoji[0]).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
}

#[test]
fn end_of_sequence_ids_come_from_the_first_file_that_has_them() {
    let generation = |value: Value| ("generation_config.json", json!({"eos_token_id": value}));
    let config = ("config.json", json!({"text_config": {"eos_token_id": 5}}));
    let tokenizer_config = ("tokenizer_config.json", json!({"eos_token": {"content": "<|im_end|>"}}));
    let cases = [
        (vec![generation(json!([7, 8])), config.clone()], vec![7, 8]),
        (vec![generation(json!(7)), config.clone()], vec![7]),
        (vec![generation(Value::Null), config.clone(), tokenizer_config.clone()], vec![5]),
        (vec![("config.json", json!({"eos_token_id": 6})), tokenizer_config.clone()], vec![6]),
        (vec![tokenizer_config], vec![504]),
        (vec![], vec![]),
    ];
    for (files, expected) in cases {
        let folder = folder(&files);
        fs::copy(data().join("qwen3_5_moe/hf/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
        assert_eq!(Tokenizer::open(folder.path()).unwrap().eos_ids(), expected, "{files:?}");
    }
}

#[test]
fn unusable_files_are_errors_that_name_them() {
    let usable: Value =
        serde_json::from_str(&fs::read_to_string(data().join("qwen3_5_moe/hf/tokenizer.json")).unwrap())
            .unwrap();
    let with = |name: &'static str, content: Value| vec![("tokenizer.json", usable.clone()), (name, content)];
    let cases = [
        (vec![], "no tokenizer.json"),
        (vec![("tokenizer.json", json!("{"))], "tokenizer.json: not a usable tokenizer"),
        (
            vec![("tokenizer.json", json!({"model": {"type": "other"}}))],
            "tokenizer.json: not a usable tokenizer",
        ),
        (with("tokenizer_config.json", json!("{]")), "tokenizer_config.json: not valid"),
        (with("tokenizer_config.json", json!([])), "tokenizer_config.json: not valid"),
        (with("generation_config.json", json!({"eos_token_id": "x"})), "`eos_token_id` should be a token id"),
        (
            with("generation_config.json", json!({"eos_token_id": [1, -1]})),
            "`eos_token_id` should be a token id",
        ),
        (
            with("config.json", json!({"eos_token_id": 1.5})),
            "config.json: `eos_token_id` should be a token id",
        ),
        (with("generation_config.json", json!({"temperature": "hot"})), "generation_config.json: not valid"),
        (with("chat_template.jinja", json!("{% if %}")), "chat template, line 1"),
    ];
    for (files, expected) in cases {
        let error = Tokenizer::open(folder(&files).path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn truncation_and_padding_of_the_file_are_off() {
    let path = data().join("qwen3_5_moe/hf/tokenizer.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    json["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
                             "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
    let folder = folder(&[("tokenizer.json", json)]);
    let text = "The quick brown fox";
    let ids = Tokenizer::open(folder.path()).unwrap().encode(text).unwrap();
    assert_eq!(ids, reference().encode(text).unwrap());
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut stream = tokenizer.stream(skip_special);
    let mut text = String::new();
    for &id in ids {
        text.push_str(stream.push(id).unwrap());
    }
    text + &stream.finish().unwrap()
}

fn assert_streams(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) {
    assert_eq!(
        streamed(tokenizer, ids, skip_special),
        tokenizer.decode(ids, skip_special).unwrap(),
        "{ids:?}"
    );
}

thread_local! {
    static TOKENIZERS: Vec<Tokenizer> = vec![reference(), demo(), byte_fallback(), word_piece(), metaspace()];
}

proptest! {
    #![proptest_config(property::config(1000))]

    #[test]
    fn random_tokens_stream_as_they_decode(
        which in 0_usize..5,
        seeds in prop::collection::vec(any::<u32>(), 0..40),
        skip_special: bool,
    ) {
        TOKENIZERS.with(|tokenizers| {
            let tokenizer = &tokenizers[which];
            let ids: Vec<u32> = seeds.iter().map(|seed| seed % tokenizer.vocab_size() as u32).collect();
            assert_streams(tokenizer, &ids, skip_special);
        });
    }

    /// Byte tokens that mostly form characters, between words, spaces and bytes that form none.
    #[test]
    fn byte_tokens_stream_as_they_decode(
        parts in prop::collection::vec(
            prop_oneof![
                any::<char>()
                    .prop_map(|c| c.to_string().bytes().map(|byte| 12 + u32::from(byte)).collect::<Vec<_>>()),
                (0_u32..12).prop_map(|id| vec![id]),
                (12_u32..268).prop_map(|id| vec![id]),
            ],
            0..20,
        ),
        skip_special: bool,
    ) {
        TOKENIZERS.with(|tokenizers| assert_streams(&tokenizers[2], &parts.concat(), skip_special));
    }

    #[test]
    fn any_text_comes_back_from_its_tokens(text in "\\PC{0,20}|[a-z0-9 \n.,=+]{0,60}|.{0,20}") {
        TOKENIZERS.with(|tokenizers| {
            // Both byte-level tokenizers normalise to NFC: what comes back is what its own tokens give again.
            for tokenizer in &tokenizers[..2] {
                let ids = tokenizer.encode(&text).unwrap();
                let decoded = tokenizer.decode(&ids, false).unwrap();
                if text.is_ascii() {
                    assert_eq!(decoded, text);
                }
                assert_eq!(streamed(tokenizer, &ids, false), decoded);
                assert_eq!(tokenizer.decode(&tokenizer.encode(&decoded).unwrap(), false).unwrap(), decoded);
            }
        });
    }

    #[test]
    fn stop_strings_are_found_however_the_text_is_cut(
        text in "[abé]{0,30}",
        cuts in prop::collection::vec(0_usize..31, 0..10),
        stops in prop::collection::vec("[abé]{1,4}", 0..4),
    ) {
        let mut watch = StopStrings::new(stops.clone()).unwrap();
        let (mut shown, mut hit) = (String::new(), None);
        for piece in pieces(&text, cuts) {
            let outcome = watch.push(&piece);
            prop_assert!(hit.is_none() || (outcome.text.is_empty() && outcome.hit == hit));
            shown.push_str(&outcome.text);
            hit = outcome.hit;
            // What is shown is at most what can never be part of a match.
            prop_assert!(text.starts_with(&shown));
        }
        shown.push_str(&watch.finish());
        prop_assert_eq!((shown, hit), naive_stop(&text, &stops));
    }
}

fn pieces(text: &str, cuts: Vec<usize>) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(characters.len())).collect();
    cuts.extend([0, characters.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| characters[cut[0]..cut[1]].iter().collect()).collect()
}

/// The text up to the first complete stop string, by trying every end and every start.
fn naive_stop(text: &str, stops: &[String]) -> (String, Option<usize>) {
    for end in 0..=text.len() {
        for start in 0..end {
            let found = stops.iter().position(|stop| text.get(start..end) == Some(stop.as_str()));
            if found.is_some() {
                return (text[..start].to_owned(), found);
            }
        }
    }
    (text.to_owned(), None)
}

#[test]
fn text_that_may_begin_a_stop_string_is_held_back() {
    let mut stop = StopStrings::new(vec!["\n\nUser:".to_owned(), "END".to_owned()]).unwrap();
    assert_eq!((stop.push("Yes.\n").text.as_str(), stop.push("\nUs").text.as_str()), ("Yes.", ""));
    assert_eq!(stop.push("ually.").text, "\n\nUsually.");
    assert_eq!(stop.push(" E").text, " ");
    let outcome = stop.push("ND of it");
    assert_eq!((outcome.text.as_str(), outcome.hit), ("", Some(1)));
    assert_eq!(stop.push("more").text, "");
    assert_eq!(stop.finish(), "");
}

#[test]
fn an_empty_stop_string_is_an_error() {
    let error = StopStrings::new(vec!["a".to_owned(), String::new()]).unwrap_err();
    assert!(matches!(error, TextError::EmptyStopString { index: 1 }));
}

/// A tokenizer in tiktoken's format, against what tiktoken makes of the same texts.
#[test]
fn ranks_of_tiktoken() {
    let folder = copy_with(&crate::common::data("deepseek_v3/hf"), &json!({"model_type": "kimi_k2"}));
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let _ = fs::remove_file(folder.path().join(file));
    }
    for file in ["tiktoken.model", "tokenizer_config.json"] {
        fs::copy(data().join("tiktoken").join(file), folder.path().join(file)).unwrap();
    }
    let checkpoint = Checkpoint::open(folder.path(), &OpenOptions::default()).unwrap();
    let tokenizer = Tokenizer::of(&checkpoint).unwrap();
    let cases: Vec<(String, Vec<u32>)> =
        serde_json::from_slice(&fs::read(data().join("tiktoken/cases.json")).unwrap()).unwrap();
    assert!(cases.len() > 600);
    for (text, expected) in cases {
        let found = tokenizer.encode(&text).unwrap();
        assert_eq!(found, expected, "{text:?}");
        assert_eq!(tokenizer.decode(&found, false).unwrap(), text);
    }
    assert_eq!(tokenizer.id("[BOS]"), Some(tokenizer.vocab_size() as u32 - 256));
    assert!(!tokenizer.is_special(tokenizer.id("<|im_user|>").unwrap()));

    // Without the class nobody knows how texts are split.
    fs::write(folder.path().join("tokenizer_config.json"), "{}").unwrap();
    let error = Tokenizer::of(&checkpoint).unwrap_err().to_string();
    assert!(error.contains("tiktoken.model") && error.contains("TikTokenTokenizer"), "{error}");
    fs::write(folder.path().join("tiktoken.model"), "IQ== 0\nIg== 2\n").unwrap();
    fs::copy(data().join("tiktoken/tokenizer_config.json"), folder.path().join("tokenizer_config.json"))
        .unwrap();
    let error = Tokenizer::of(&checkpoint).unwrap_err().to_string();
    assert!(error.contains("line 2: expected a token in base64 and rank 1"), "{error}");
    fs::remove_file(folder.path().join("tiktoken.model")).unwrap();
    fs::write(folder.path().join("tokenizer.model"), "x").unwrap();
    let error = Tokenizer::of(&checkpoint).unwrap_err().to_string();
    assert!(
        error.contains("no tokenizer.json") && error.contains("tokenizer.model alone is not read"),
        "{error}"
    );
}

/// The library panics at them.
#[test]
fn empty_patterns() {
    let model = json!({"type": "BPE", "vocab": {"a": 0, "String": 1}, "merges": []});
    let file = |normalizer: Value, split: Value| {
        let json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
                          "normalizer": normalizer, "pre_tokenizer": split, "post_processor": null,
                          "decoder": null, "model": model});
        let folder = folder(&[("tokenizer.json", json)]);
        Tokenizer::open(folder.path()).map(|tokenizer| tokenizer.encode("aa").unwrap())
    };
    let replace = |pattern: Value| json!({"type": "Replace", "pattern": pattern, "content": "a"});
    assert_eq!(file(replace(json!({"String": "b"})), Value::Null).unwrap(), [0, 0]);
    for pattern in [json!({"String": ""}), json!({"Regex": ""})] {
        let split = json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
        for (normalizer, split) in [(replace(pattern.clone()), Value::Null), (Value::Null, split)] {
            let error = file(normalizer, split).unwrap_err().to_string();
            assert!(error.contains("tokenizer.json") && error.contains("an empty pattern"), "{error}");
        }
    }
}

/// Files that have no end, or wait for somebody to write.
#[cfg(unix)]
#[test]
fn text_files_that_are_no_files() {
    let names = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"];
    for name in names {
        for device in [true, false] {
            let folder = copy_with(&data().join("qwen3/hf"), &json!({}));
            let path = folder.path().join(name);
            let _ = fs::remove_file(&path);
            if device {
                std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            } else {
                assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            }
            let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("expected a regular file"), "{error}");
        }
    }
}

#[test]
fn a_text_beyond_the_limit_is_refused_unread() {
    use moeflux::CancelToken;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let (cancel, limit) = (CancelToken::default(), 32_768);
    let word = "The fox said: \u{e9}\u{301} 42!\n";
    for text in [String::new(), word.to_owned(), word.repeat(200), "a ".repeat(limit / 2), word.repeat(3500)]
    {
        let tokens = tokenizer.encode(&text).unwrap();
        match tokenizer.encode_within(&text, limit, &cancel) {
            Ok(within) => assert_eq!(within, tokens),
            Err(error) => {
                assert!(matches!(error, moeflux::text::TextError::TooLong { .. }), "{error}");
                assert!(tokens.len() > limit, "{} tokens", tokens.len());
            }
        }
        let exact = tokenizer.encode_within(&text, tokens.len(), &cancel).unwrap();
        assert_eq!(exact, tokens);
        if !tokens.is_empty() {
            tokenizer.encode_within(&text, tokens.len() - 1, &cancel).unwrap_err();
        }
    }
    let start = std::time::Instant::now();
    for text in
        ["a ".repeat(7 << 20), "a".repeat(15 << 20), " ".repeat(15 << 20), "\u{1f98a}".repeat(4 << 20)]
    {
        let error = tokenizer.encode_within(&text, limit, &cancel).unwrap_err();
        assert!(matches!(error, moeflux::text::TextError::TooLong { .. }), "{error}");
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
    cancel.cancel();
    let error = tokenizer.encode_within(&"a ".repeat(40_000), limit * 4, &cancel).unwrap_err();
    assert!(matches!(error, moeflux::text::TextError::Cancelled), "{error}");
}
