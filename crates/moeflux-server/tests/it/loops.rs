//! Whole tool loops of each client in each format of calls: the bodies of `data/clients` that have tools, five turns with scripted
//! models that call those tools, and what the client plays back between them. (Aider has none: its edits are text.)

mod apis;
mod formats;

use std::collections::BTreeSet;

use axum::Router;
use moeflux::chat;
use moeflux::text::{Content, Message};
use moeflux_server::{App, Config, router};
use moeflux_testing::scripted::Script;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clients::{bodies, sent};
use crate::common::{get, scheduler, source};
use apis::{Tool, play_back, read, tools};
use formats::{FORMATS, Format};

/// More than 100 bytes, so that it streams, with what looks like markup and what JSON escapes.
const LONG: &str = "<p class=\"x\">1 < 2 && 3 > 2</p>\n\tprintf(\"%s\\n\", 'Köln');\n# [so on] {\"a\": 1}, and so on, and so on,\n\n    and so on";

/// What a model says in a turn.
#[derive(Clone, Debug, PartialEq)]
struct Turn {
    thoughts: &'static str,
    text: &'static str,
    /// Names and arguments.
    calls: Vec<(String, Value)>,
}

/// Five turns with the tools of a request.
fn turns(body: &Value) -> [Turn; 5] {
    let tools = tools(body);
    let call = |index: usize, value: &str| {
        let Tool { name, parameters } = &tools[index % tools.len()];
        (name.clone(), example(parameters, value))
    };
    let turn = |thoughts, text, calls| Turn { thoughts, text, calls };
    let mut two = vec![call(0, "b.txt"), call(1, "007")];
    if body["parallel_tool_calls"] == false {
        two.pop();
    }
    [
        turn("I look.", "", vec![call(0, "a.txt")]),
        turn("", "I write “it” now:", vec![call(1, LONG)]),
        turn("Two at once?\n\nYes.", "", two),
        turn("So.", "One more.", vec![call(2, "{\"a\": [1, 2]}")]),
        turn("That is all.", "They say <b>1 < 2</b>.\n\n- Köln", Vec::new()),
    ]
}

/// A value that meets a schema, with a text in the places of texts.
fn example(schema: &Value, value: &str) -> Value {
    match schema["type"].as_str().unwrap() {
        "string" => json!(value),
        "number" => json!(2500),
        "array" => json!([example(&schema["items"], value), example(&schema["items"], "2")]),
        "object" => {
            let properties = schema["properties"].as_object().unwrap();
            properties.iter().map(|(name, schema)| (name.clone(), example(schema, value))).collect()
        }
        other => panic!("{other}"),
    }
}

impl Turn {
    /// What a model writes to say it.
    fn written(&self, format: &Format) -> String {
        let calls = self.calls.iter().enumerate().map(|(index, (name, arguments))| {
            let function = json!({ "name": name, "arguments": arguments });
            json!({ "id": format!("call{index:05}"), "type": "function", "function": function })
        });
        format.written(Message {
            content: (!self.text.is_empty()).then(|| Content::Text(self.text.to_owned())),
            reasoning_content: (!self.thoughts.is_empty()).then(|| self.thoughts.to_owned()),
            tool_calls: calls.collect(),
            ..Message::new("assistant", "")
        })
    }
}

/// The pieces that a text is cut into, and which of these are tokens by name.
type Cut = fn(&'static Format, &str) -> (Vec<String>, Vec<(&'static str, bool)>);

/// At every character, and in the first of its kind at every byte: a token that stands for a byte is there once.
fn characters(_: &Format, text: &str) -> (Vec<String>, Vec<(&'static str, bool)>) {
    let mut pieces: Vec<String> = Vec::new();
    for character in text.chars().map(String::from) {
        let bytes: Vec<String> = character.bytes().map(|byte| format!("<0x{byte:02X}>")).collect();
        let is_cut = bytes.len() > 1 && !bytes.iter().any(|byte| pieces.contains(byte));
        pieces.extend(if is_cut { bytes } else { vec![character] });
    }
    (pieces, Vec::new())
}

/// At the format's tokens alone. A token that the text has twice has no name, and then none has.
fn large_tokens(format: &'static Format, text: &str) -> (Vec<String>, Vec<(&'static str, bool)>) {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(character) = rest.chars().next() {
        let token = format.tokens.iter().find(|token| rest.starts_with(**token));
        let len = token.map_or(character.len_utf8(), |token| token.len());
        if token.is_some() && !plain.is_empty() {
            pieces.push(std::mem::take(&mut plain));
        }
        match token {
            Some(token) => pieces.push((*token).to_owned()),
            None => plain.push(character),
        }
        rest = &rest[len..];
    }
    pieces.extend(Some(plain).filter(|plain| !plain.is_empty()));
    let count = |token: &str| pieces.iter().filter(|piece| *piece == token).count();
    // Published tokenizers have those in plain angle brackets as tokens that are not special.
    let is_special = |token: &str| {
        !token[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') || !token.starts_with('<')
    };
    let are_named = format.tokens.iter().all(|token| count(token) < 2);
    let named = format.tokens.iter().filter(|_| are_named).map(|token| (*token, is_special(token)));
    let named = named.collect();
    (pieces, named)
}

/// Models by their numbers.
struct Models {
    server: Router,
    /// How many tokens each says, the last included.
    tokens: Vec<usize>,
    _folders: Vec<TempDir>,
}

impl Models {
    /// A model for each text.
    fn new(format: &'static Format, texts: &[String], cut: Cut) -> Self {
        let template = format.template();
        let write = |text: &String| {
            let (pieces, tokens) = cut(format, text);
            let folder = tempfile::tempdir().unwrap();
            Script { pieces: &pieces, tokens: &tokens, template: &template }.write(folder.path()).unwrap();
            (pieces.len() + 1, folder)
        };
        let (tokens, folders): (Vec<usize>, Vec<TempDir>) = texts.iter().map(write).unzip();
        let source = |(index, folder): (usize, &TempDir)| source(index.to_string(), folder.path().to_owned());
        let sources: Vec<_> = folders.iter().enumerate().map(source).collect();
        let config = Config { max_loaded: sources.len(), ..Config::default() };
        Models { server: router(App::new(config, sources, scheduler())), tokens, _folders: folders }
    }
}

/// Takes the limit of an answer away, which the bodies have for the demo's sake.
fn without_limit(body: &mut Value) {
    for name in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
        if body.get(name).is_some() {
            body[name] = json!(3000);
        }
    }
    if body["options"].get("num_predict").is_some() {
        body["options"]["num_predict"] = json!(3000);
    }
}

/// A client's loop, of which each turn has the model of its text.
async fn a_loop(models: &Models, client: &Value, turns: &[(Turn, usize)], format: &Format) {
    let mut client = client.clone();
    let path = client["path"].as_str().unwrap().to_owned();
    without_limit(&mut client["body"]);
    let mut ids = BTreeSet::new();
    for (turn, model) in turns {
        client["body"]["model"] = json!(model.to_string());
        let answer = sent(&models.server, &client).await;
        let context = format!("{} in {}: {turn:?}, {}", client["client"], format.name, answer.body);
        assert_eq!(answer.status, 200, "{context}");
        let said = read(&path, &answer);
        assert_eq!((said.thoughts.as_str(), said.text.as_str()), (turn.thoughts, turn.text), "{context}");
        let calls = said.calls.iter().map(|call| {
            let arguments = serde_json::from_str(&call.arguments);
            (call.name.clone(), arguments.unwrap_or_else(|error| panic!("{error}: {context}")))
        });
        assert_eq!(calls.collect::<Vec<(String, Value)>>(), turn.calls, "{context}");
        // A constraint has not kept the model from any of its words.
        assert_eq!(said.tokens, models.tokens[*model], "{context}");
        let (called, ended) = match path.as_str() {
            "/v1/chat/completions" => ("tool_calls", "stop"),
            "/v1/responses" => ("response.completed", "response.completed"),
            "/api/chat" => ("stop", "stop"),
            _ => ("tool_use", "end_turn"),
        };
        assert_eq!(said.finish, if turn.calls.is_empty() { ended } else { called }, "{context}");
        let mut named = said.calls.iter().filter(|_| path != "/api/chat");
        assert!(named.all(|call| !call.id.is_empty() && ids.insert(call.id.clone())), "{context}");
        let results: Vec<String> = said.calls.iter().map(|call| format!("{}: done", call.name)).collect();
        play_back(&path, &mut client["body"], &said, &results);
    }
}

/// The loops of all clients in all formats.
async fn all(cut: Cut) {
    let counts = |client: &Value| client["path"].as_str().unwrap().contains("count_tokens");
    let has_loop = |client: &Value| !tools(&client["body"]).is_empty() && !counts(client);
    let clients: Vec<Value> = bodies().into_iter().filter(has_loop).collect();
    assert!(clients.len() > 8, "only {} bodies have tools", clients.len());
    for format in &FORMATS {
        let mut texts: Vec<String> = Vec::new();
        let mut numbered = |turn: Turn| {
            let text = turn.written(format);
            let known = texts.iter().position(|known| *known == text);
            let number = known.unwrap_or_else(|| {
                texts.push(text);
                texts.len() - 1
            });
            (turn, number)
        };
        let loops: Vec<[(Turn, usize); 5]> =
            clients.iter().map(|client| turns(&client["body"]).map(&mut numbered)).collect();
        let models = Models::new(format, &texts, cut);
        for (client, turns) in clients.iter().zip(&loops) {
            a_loop(&models, client, turns, format).await;
        }
        for model in get(&models.server, "/v1/models").await.json()["data"].as_array().unwrap() {
            assert_eq!(model["call_format"], format.name, "{model}");
        }
    }
}

#[test]
fn every_format_is_written() {
    let known: BTreeSet<_> = chat::Format::known().filter_map(chat::Format::calls).collect();
    assert_eq!(FORMATS.iter().map(|format| format.name).collect::<BTreeSet<_>>(), known);
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_of_models_whose_tokens_are_characters() {
    all(characters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_of_models_whose_tokens_are_large() {
    all(large_tokens).await;
}
