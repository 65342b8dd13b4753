//! Constrained output: masks against languages written out word by word, JSON from the demo against an independent
//! validator, and what cannot be used or met.

mod limits;
mod schemas;

use crate::common::{data, root};
use crate::property;
use moeflux::engine::Outcome;
use moeflux::sampling::{
    Constraint, ConstraintError, Grammar, GrammarCompiler, SamplingError, SamplingOptions,
};
use moeflux::text::{ChatRequest, Message, Tokenizer};
use moeflux::{
    Engine, EngineOptions, Error, Event, GenerateRequest, Model, ModelOptions, Sequence, StopReason,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn demo() -> Engine {
    let model = Model::open(root().join("models/demo"), &ModelOptions::default()).unwrap();
    Engine::new(model, &EngineOptions { threads: 1, ..EngineOptions::default() }).unwrap()
}

/// A tokenizer of a folder that has nothing else.
fn tokenizer(json: &Value, eos: &str) -> (TempDir, Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), json!({ "eos_token": eos }).to_string())
        .unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    (folder, tokenizer)
}

fn special(id: usize, content: &str) -> Value {
    json!({
        "id": id, "content": content, "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    })
}

/// SentencePiece's way: spaces are `▁`, unknown characters are bytes.
fn byte_fallback() -> (TempDir, Tokenizer) {
    let pieces: Value = serde_json::from_slice(&std::fs::read(data("sentence_piece.json")).unwrap()).unwrap();
    let pieces = pieces["tokens"].as_array().unwrap();
    let vocab: serde_json::Map<String, Value> = pieces
        .iter()
        .enumerate()
        .map(|(id, token)| (token.as_str().unwrap().to_owned(), json!(id)))
        .collect();
    let json = json!({
        "version": "1.0",
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        "model": { "type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "vocab": vocab, "merges": [] },
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" }, { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] },
    });
    tokenizer(&json, "</s>")
}

/// Every ordinary token's bytes, next to its id, by a way of its own: `None` for special tokens.
fn bytes_of_byte_level(tokenizer: &Tokenizer) -> Vec<Option<Vec<u8>>> {
    (0..tokenizer.vocab_size() as u32)
        .map(|id| {
            let mut stream = tokenizer.stream(true);
            (!tokenizer.is_special(id)).then(|| {
                // A stream gives whole characters only; what is held back comes out as U+FFFD, so such tokens are
                // judged by the alphabet that tokenizer.json writes bytes in.
                let text = stream.push(id).unwrap().to_owned();
                let whole = text + &stream.finish().unwrap();
                if whole.contains('\u{FFFD}') {
                    alphabet(&tokenizer.token(id).unwrap())
                } else {
                    whole.into_bytes()
                }
            })
        })
        .collect()
}

/// Bytes from GPT-2's alphabet, built as its `bytes_to_unicode` does.
fn alphabet(token: &str) -> Vec<u8> {
    let mut printable: Vec<u8> = (b'!'..=b'~').chain(0xA1..=0xAC).chain(0xAE..=0xFF).collect();
    let mut letters: Vec<char> = printable.iter().map(|&byte| char::from(byte)).collect();
    for byte in 0..=255 {
        if !printable.contains(&byte) {
            letters.push(char::from_u32(256 + letters.len() as u32 - 188).unwrap());
            printable.push(byte);
        }
    }
    token
        .chars()
        .map(|letter| printable[letters.iter().position(|&other| other == letter).unwrap()])
        .collect()
}

fn bytes_of_sentence_piece(tokenizer: &Tokenizer) -> Vec<Option<Vec<u8>>> {
    (0..tokenizer.vocab_size() as u32)
        .map(|id| {
            let token = tokenizer.token(id).unwrap();
            if let Some(hex) = token.strip_prefix("<0x").and_then(|hex| hex.strip_suffix('>')) {
                return Some(vec![u8::from_str_radix(hex, 16).unwrap()]);
            }
            (!tokenizer.is_special(id)).then(|| token.replace('▁', " ").into_bytes())
        })
        .collect()
}

/// Walks through a language that is written out: at each step exactly those tokens are allowed that lead on to a word,
/// and the end exactly where one is complete. Returns the steps taken.
fn check_masks(
    constraint: &Constraint,
    words: &[String],
    tokenizer: &Tokenizer,
    bytes: &[Option<Vec<u8>>],
) -> usize {
    let compiler = GrammarCompiler::default();
    let mut steps = 0;
    for walk in 0..12_usize {
        let mut grammar = compiler.compile(constraint, tokenizer).unwrap();
        let mut text = Vec::new();
        loop {
            let allowed = grammar.allowed().unwrap();
            let leads = |bytes: &[u8]| words.iter().any(|word| word.as_bytes().starts_with(bytes));
            let mut choices = Vec::new();
            for (id, bytes) in bytes.iter().enumerate() {
                let expected = if tokenizer.eos_ids().contains(&(id as u32)) {
                    words.iter().any(|word| word.as_bytes() == text)
                } else {
                    bytes
                        .as_ref()
                        .is_some_and(|bytes| !bytes.is_empty() && leads(&[&text[..], bytes].concat()))
                };
                let found = allowed.contains(id as u32);
                let so_far = String::from_utf8_lossy(&text);
                assert_eq!(found, expected, "{constraint:?}: token {id} ({bytes:?}) after {so_far:?}");
                if expected {
                    choices.push(id);
                }
            }
            let beyond = bytes.len() as u32;
            assert!((beyond..beyond + 5000).all(|id| !allowed.contains(id)), "padding is allowed");
            let chosen = choices[(walk * 7919 + steps * 104_729) % choices.len()];
            steps += 1;
            grammar.accept(chosen as u32).unwrap();
            match &bytes[chosen] {
                Some(bytes) if !tokenizer.eos_ids().contains(&(chosen as u32)) => {
                    text.extend_from_slice(bytes);
                }
                _ => break,
            }
        }
        assert!(words.iter().any(|word| word.as_bytes() == text));
    }
    steps
}

#[test]
fn exactly_the_tokens_that_lead_on_are_allowed() {
    let animals = ["cat", "cats", "category", "naïve 🙂", "日本語"];
    let regex =
        Constraint::Regex("(cats?|category|naïve 🙂|日本語)(, (cats?|category|naïve 🙂|日本語)){0,1}".into());
    let pairs = animals.iter().flat_map(|a| animals.iter().map(move |b| format!("{a}, {b}")));
    let regex_words: Vec<String> = animals.iter().map(|&a| a.to_owned()).chain(pairs).collect();
    let lark = Constraint::Lark("start: a | \"(\" a \")\" | \"((\" a \"))\"\na: WORD\nWORD: /[xy]/".into());
    let lark_words = ["x", "y", "(x)", "(y)", "((x))", "((y))"].map(str::to_owned);
    let schema = Constraint::JsonSchema(json!({
        "x-guidance": { "whitespace_flexible": false },
        "type": "object", "properties": { "n": { "enum": [1, 12, "a ü"] }, "b": { "type": "boolean" } },
        "required": ["n"], "additionalProperties": false,
    }));
    let schema_words: Vec<String> = ["1", "12", r#""a ü""#]
        .iter()
        .flat_map(|n| ["", r#","b":true"#, r#","b":false"#].map(|b| format!(r#"{{"n":{n}{b}}}"#)))
        .collect();

    let demo = Tokenizer::open(root().join("models/demo")).unwrap();
    let small = Tokenizer::open(data("qwen3_5_moe/hf")).unwrap();
    let (_folder, pieces) = byte_fallback();
    let mut steps = 0;
    for (tokenizer, bytes) in [
        (&demo, bytes_of_byte_level(&demo)),
        (&small, bytes_of_byte_level(&small)),
        (&pieces, bytes_of_sentence_piece(&pieces)),
    ] {
        steps += check_masks(&regex, &regex_words, tokenizer, &bytes);
        steps += check_masks(&schema, &schema_words, tokenizer, &bytes);
        steps += check_masks(&lark, &lark_words, tokenizer, &bytes);
    }
    assert!(steps > 300, "{steps} steps");
}

/// The bytes of tokens put together are those of the text, whichever way a tokenizer has.
#[test]
fn token_bytes_make_up_texts() {
    let demo = Tokenizer::open(root().join("models/demo")).unwrap();
    let (_folder, pieces) = byte_fallback();
    for tokenizer in [&demo, &pieces] {
        let bytes = tokenizer.token_bytes().unwrap();
        for text in ["Hello world,  two", "naïve 日本語 🙂\n\tx", "a"] {
            let joined: Vec<u8> =
                tokenizer.encode(text).unwrap().iter().flat_map(|&id| bytes[id as usize].clone()).collect();
            assert_eq!(String::from_utf8(joined).unwrap(), text);
        }
    }
}

#[test]
fn constraints_that_cannot_be_used_say_why() {
    let tokenizer = Tokenizer::open(root().join("models/demo")).unwrap();
    let compiler = GrammarCompiler::default();
    let schema = |schema: Value| Constraint::JsonSchema(schema);
    for (constraint, kind, part) in [
        (schema(json!({ "type": "strin" })), "JSON schema", "strin"),
        (schema(json!({ "type": "string", "minLength": 5, "maxLength": 2 })), "JSON schema", "minLength"),
        (schema(json!({ "type": "array", "uniqueItems": true })), "JSON schema", "uniqueItems"),
        (schema(json!({ "$ref": "#/$defs/none" })), "JSON schema", "none"),
        (schema(json!(false)), "JSON schema", "false"),
        (schema(json!([1])), "JSON schema", "[1]"),
        (Constraint::Regex("a(b".into()), "regular expression", ""),
        (Constraint::Lark("start: missing".into()), "Lark grammar", "missing"),
        (Constraint::Lark("begin: \"a\"".into()), "Lark grammar", "start"),
    ] {
        let compiled = compiler.compile(&constraint, &tokenizer).map(|_: Grammar| ());
        let Err(error) = compiled else { panic!("{constraint:?} can be used") };
        let ConstraintError::Invalid { kind: found, detail } = &error else {
            panic!("{constraint:?}: {error}")
        };
        assert_eq!(*found, kind);
        assert!(detail.contains(part), "{constraint:?}: {error}");
    }
}

#[test]
fn a_dead_end_is_an_error() {
    let json = json!({
        "version": "1.0",
        "added_tokens": [special(2, "<end>")],
        "model": { "type": "WordLevel", "vocab": { "a": 0, "b": 1, "<end>": 2 }, "unk_token": "a" },
        "decoder": { "type": "Fuse" },
    });
    let (_folder, words) = tokenizer(&json, "<end>");
    let compiler = GrammarCompiler::default();
    let mut grammar = compiler.compile(&Constraint::Regex("abc".into()), &words).unwrap();
    for token in [0, 1] {
        assert!(grammar.allowed().unwrap().contains(token));
        grammar.accept(token).unwrap();
    }
    let error = grammar.allowed().unwrap_err();
    assert!(
        matches!(error, ConstraintError::DeadEnd { kind: "regular expression", tokens: 2, .. }),
        "{error}"
    );

    let mut grammar = compiler.compile(&Constraint::Regex("ab".into()), &words).unwrap();
    for refused in [1, 2] {
        let mut grammar = compiler.compile(&Constraint::Regex("ab".into()), &words).unwrap();
        let error = grammar.accept(refused).unwrap_err();
        assert!(
            matches!(error, ConstraintError::Refused { token, tokens: 0, .. } if token == refused),
            "{error}"
        );
    }
    grammar.accept(0).unwrap();

    let (_folder, endless) = tokenizer(&json, "<none>");
    let error =
        GrammarCompiler::default().compile(&Constraint::JsonObject, &endless).map(|_| ()).unwrap_err();
    assert!(matches!(error, ConstraintError::NoEndOfSequence), "{error}");
}

/// Runs a request to its end: what came before the answer's text is in it too.
fn run(
    engine: &mut Engine,
    sequence: &mut Sequence,
    request: GenerateRequest,
) -> Result<(String, Outcome), Error> {
    let mut text = String::new();
    for event in engine.generate(sequence, request)? {
        match event? {
            Event::Token { text: piece, .. } => text += &piece,
            Event::Done(outcome) => return Ok((text + &outcome.text, outcome)),
            _ => {}
        }
    }
    panic!("no end");
}

fn prompt(engine: &Engine, question: &str, think: bool) -> Vec<u32> {
    let tokenizer = engine.model().tokenizer();
    let prompt = tokenizer.render_chat(&ChatRequest {
        messages: &[Message::new("user", question)],
        add_generation_prompt: true,
        enable_thinking: Some(think),
        ..ChatRequest::default()
    });
    tokenizer.encode(&prompt.unwrap()).unwrap()
}

fn freely(prompt: Vec<u32>, seed: u64, constraint: Constraint) -> GenerateRequest {
    GenerateRequest {
        prompt,
        sampling: SamplingOptions { temperature: 1.0, seed, ..SamplingOptions::default() },
        max_tokens: 4000,
        constraint: Some(constraint),
        ..GenerateRequest::default()
    }
}

/// Whatever the schema, what the demo says at temperature 1 parses, validates, and ends.
/// The first 100 schemas; more of them with `MOEFLUX_PROPERTY_CASES`.
#[test]
fn json_of_random_schemas() {
    let count = (100.0 * property::multiplier()).ceil() as u64;
    let mut engine = demo();
    let prompt = prompt(&engine, "Write JSON for a person named Mia who is 34 years old.", false);
    let (last, before) = prompt.split_last().unwrap();
    let mut start = engine.sequence();
    engine.eval(&mut start, before).unwrap();
    for seed in 0..count {
        let schema = schemas::schema(seed);
        let request = freely(vec![*last], seed, Constraint::JsonSchema(schema.clone()));
        let (text, outcome) =
            run(&mut engine, &mut start.clone(), request).unwrap_or_else(|e| panic!("{schema}: {e}"));
        assert!(matches!(outcome.stop, StopReason::EndOfSequence(_)), "{schema}: {:?}: {text}", outcome.stop);
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{schema}: {error}: {text}"));
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        if let Err(error) = validator.validate(&value) {
            panic!("{schema}: {error}: {text}");
        }
    }
}

#[test]
fn other_languages_of_the_demo() {
    let mut engine = demo();
    let prompt = prompt(&engine, "What is 63 - 28?", false);
    for seed in 0..5 {
        let regex = Constraint::Regex("[0-9]{1,3} (apples|pears)\\.".into());
        let mut sequence = engine.sequence();
        let (text, _) = run(&mut engine, &mut sequence, freely(prompt.clone(), seed, regex)).unwrap();
        let (number, fruit) = text.split_once(' ').unwrap();
        assert!(
            number.len() <= 3 && number.parse::<u32>().is_ok() && ["apples.", "pears."].contains(&fruit),
            "{text}"
        );

        let mut sequence = engine.sequence();
        let request =
            GenerateRequest { max_tokens: 60, ..freely(prompt.clone(), seed, Constraint::JsonObject) };
        let (text, outcome) = run(&mut engine, &mut sequence, request).unwrap();
        // An object may be as long as it likes: it is whole, or it was cut.
        let whole = serde_json::from_str::<serde_json::Map<String, Value>>(&text).is_ok();
        assert!(
            text.starts_with('{') && whole == (outcome.stop != StopReason::MaxTokens),
            "{text}: {:?}",
            outcome.stop
        );
    }
}

/// Thoughts are free, and the constraint holds from their end on.
#[test]
fn a_constraint_begins_after_the_thoughts() {
    let mut engine = demo();
    let prompt = prompt(&engine, "What is 63 - 28?", true);
    for (seed, budget) in [(1, None), (2, Some(3)), (3, Some(0))] {
        let constraint = Constraint::JsonSchema(json!({ "type": "integer", "minimum": 0, "maximum": 99 }));
        let request =
            GenerateRequest { reasoning_budget: budget, ..freely(prompt.clone(), seed, constraint) };
        let mut sequence = engine.sequence();
        let (text, outcome) = run(&mut engine, &mut sequence, request).unwrap();
        assert!(matches!(outcome.stop, StopReason::EndOfSequence(_)), "{text}: {:?}", outcome.stop);
        let (thoughts, number) = text.split_once("</think>").unwrap();
        assert!(number.trim().parse::<u32>().unwrap() < 100, "{text}");
        if let Some(budget) = budget {
            assert!(engine.model().tokenizer().encode(thoughts).unwrap().len() <= budget, "{text}");
        }
    }
}

#[test]
fn where_nothing_is_allowed_no_token_is_chosen() {
    let mut engine = demo();
    let prompt = prompt(&engine, "What is 63 - 28?", false);
    let vocab_size = engine.model().vocab_size();
    let mut request = freely(prompt.clone(), 1, Constraint::Regex("a".into()));
    request.sampling.logit_bias = (0..vocab_size as u32).map(|token| (token, f32::NEG_INFINITY)).collect();
    let mut sequence = engine.sequence();
    let error = run(&mut engine, &mut sequence, request).unwrap_err();
    assert!(matches!(error, Error::Sampling(SamplingError::NothingToChoose)), "{error}");

    // One token is the whole language, but it may not end before five.
    let request =
        GenerateRequest { min_tokens: 5, ..freely(prompt.clone(), 1, Constraint::Regex("a".into())) };
    let mut sequence = engine.sequence();
    let error = run(&mut engine, &mut sequence, request).unwrap_err();
    assert!(matches!(error, Error::Sampling(SamplingError::NothingToChoose)), "{error}");

    let request = GenerateRequest { ignore_eos: true, ..freely(prompt, 1, Constraint::Regex("a".into())) };
    let mut sequence = engine.sequence();
    let error = run(&mut engine, &mut sequence, request).unwrap_err();
    assert!(matches!(error, Error::Option { option: "ignore_eos", .. }), "{error}");
}

/// Requests of several threads share one compiler.
#[test]
fn compilers_are_shared_between_threads() {
    let tokenizer = Tokenizer::open(root().join("models/demo")).unwrap();
    let compiler = GrammarCompiler::default();
    std::thread::scope(|scope| {
        for word in ["one", "two", "three"] {
            let (compiler, tokenizer) = (&compiler, &tokenizer);
            scope.spawn(move || {
                let mut grammar = compiler.compile(&Constraint::Regex(word.into()), tokenizer).unwrap();
                for token in tokenizer.encode(word).unwrap() {
                    assert!(grammar.allowed().unwrap().contains(token), "{word}");
                    grammar.accept(token).unwrap();
                }
                let allowed = grammar.allowed().unwrap();
                assert!(tokenizer.eos_ids().iter().all(|&token| allowed.contains(token)), "{word}");
            });
        }
    });
}
