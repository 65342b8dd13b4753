//! Bodies that nobody meant: whatever comes, the answer is no 5xx and the server goes on.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::common::{post_text, server};
use crate::property;

const FIELDS: [&str; 40] = [
    "messages",
    "model",
    "tools",
    "tool_choice",
    "response_format",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "n",
    "stop",
    "stream",
    "stream_options",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "seed",
    "prompt",
    "input",
    "echo",
    "text",
    "tokens",
    "enable_thinking",
    "chat_template_kwargs",
    "reasoning_effort",
    "role",
    "content",
    "type",
    "function",
    "name",
    "arguments",
    "tool_calls",
    "json_schema",
    "schema",
    "properties",
    "system",
    "thinking",
    "instructions",
    "pattern",
    "$ref",
];

fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just("user".to_owned()),
        Just("assistant".to_owned()),
        Just("tool".to_owned()),
        Just("function".to_owned()),
        Just("text".to_owned()),
        Just("json_schema".to_owned()),
        Just("object".to_owned()),
        Just("auto".to_owned()),
        Just("<|im_end|>".to_owned()),
        Just("<tool_call>".to_owned()),
        "\\PC{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..20_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(&FIELDS[..]), inner), 0..6).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

/// A route and a request that it takes, with much in it to go wrong.
fn requests() -> Vec<(&'static str, Value)> {
    let parameters =
        json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    let function = json!({ "name": "get_weather", "description": "Weather.", "parameters": parameters });
    let call = json!({ "id": "c1", "type": "function", "function": { "name": "get_weather", "arguments": "{\"city\": \"Rome\"}" } });
    let messages = json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": [{ "type": "text", "text": "Hello" }] },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c1", "content": "Rain." },
        { "role": "user", "content": "And?" },
    ]);
    let sampling = json!({ "model": "demo", "max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "seed": 1, "n": 1,
        "stop": ["."], "logit_bias": { "5": 1 }, "top_k": 5, "min_p": 0.1, "presence_penalty": 0.5, "stream": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": parameters } });
    let with = crate::common::with;
    vec![
        (
            "/v1/chat/completions",
            with(
                sampling.clone(),
                json!({ "messages": messages, "tools": [{ "type": "function",
            "function": function }], "tool_choice": "auto", "logprobs": true, "top_logprobs": 2 }),
            ),
        ),
        (
            "/v1/chat/completions",
            with(
                sampling.clone(),
                json!({ "messages": messages, "response_format": format,
            "reasoning_effort": "low", "chat_template_kwargs": { "x": 1 } }),
            ),
        ),
        ("/v1/completions", with(sampling, json!({ "prompt": ["x", "y"], "echo": true, "logprobs": 2 }))),
        ("/v1/embeddings", json!({ "model": "demo", "input": ["x", "y"], "encoding_format": "float" })),
        (
            "/v1/responses",
            json!({ "model": "demo", "input": [{ "role": "user", "content": "Hello" },
            { "type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "c1", "output": "Rain." }], "max_output_tokens": 2,
            "instructions": "Be brief.", "tools": [{ "type": "function", "name": "get_weather", "parameters": parameters }],
            "text": { "format": { "type": "text" } }, "reasoning": { "effort": "low" }, "store": false }),
        ),
        (
            "/v1/messages",
            json!({ "model": "demo", "max_tokens": 2, "system": "Be brief.", "messages": [
            { "role": "user", "content": "Hello" },
            { "role": "assistant", "content": [{ "type": "tool_use", "id": "c1", "name": "get_weather", "input": {} }] },
            { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "c1", "content": "Rain." }] }],
            "tools": [{ "name": "get_weather", "input_schema": parameters }], "tool_choice": { "type": "auto" } }),
        ),
        (
            "/v1/messages/count_tokens",
            json!({ "model": "demo", "messages": [{ "role": "user", "content": "Hello" }] }),
        ),
        ("/tokenize", json!({ "model": "demo", "text": "Hello" })),
        ("/detokenize", json!({ "model": "demo", "tokens": [1, 2] })),
        (
            "/apply-template",
            json!({ "messages": messages, "tools": [{ "type": "function", "function": function }] }),
        ),
    ]
}

/// What may be done to a request.
#[derive(Clone, Debug)]
enum Change {
    Replace(Value),
    Remove,
    Add(&'static str, Value),
    Cut(usize),
    Bytes(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => value().prop_map(Change::Replace),
        2 => Just(Change::Remove),
        2 => (prop::sample::select(&FIELDS[..]), value()).prop_map(|(name, value)| Change::Add(name, value)),
        1 => any::<usize>().prop_map(Change::Cut),
        1 => prop::collection::vec(any::<u8>(), 0..64).prop_map(Change::Bytes),
    ]
}

/// The request with a change somewhere in it.
fn changed(mut request: Value, place: usize, change: Change) -> Vec<u8> {
    let paths = paths(&request, String::new());
    let path = &paths[place % paths.len()];
    match change {
        Change::Replace(value) => *request.pointer_mut(path).unwrap() = value,
        Change::Remove => {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", ""));
            if let Some(Value::Object(fields)) = request.pointer_mut(parent) {
                fields.remove(name);
            }
        }
        Change::Add(name, value) => match request.pointer_mut(path).unwrap() {
            Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
            Value::Array(values) => values.push(value),
            other => *other = json!({ name: value }),
        },
        Change::Cut(at) => {
            let mut bytes = request.to_string().into_bytes();
            bytes.truncate(at % bytes.len());
            return bytes;
        }
        Change::Bytes(bytes) => return bytes,
    }
    request.to_string().into_bytes()
}

/// Pointers to everything in a value.
fn paths(value: &Value, here: String) -> Vec<String> {
    let inner: Vec<String> = match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, value)| paths(value, format!("{here}/{name}"))).collect()
        }
        Value::Array(values) => values
            .iter()
            .enumerate()
            .flat_map(|(index, value)| paths(value, format!("{here}/{index}")))
            .collect(),
        _ => Vec::new(),
    };
    [vec![here], inner].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_is_the_servers_failure() {
    let seconds = std::env::var("MOEFLUX_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds = seconds.unwrap_or(5.0 * property::multiplier());
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let server = server();
    let requests = requests();
    for (route, request) in &requests {
        let answer = crate::common::post(&server, route, request.clone()).await;
        assert_eq!(answer.status, 200, "{route} {request}: {}", answer.body);
    }
    let mut runner = TestRunner::new(property::config(1));
    let (mut sent, mut answered) = (0, 0);
    while Instant::now() < end {
        let (route, request) = requests[sent % requests.len()].clone();
        let (place, change) = (any::<usize>(), change()).new_tree(&mut runner).unwrap().current();
        let bytes = changed(request, place, change);
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let answer = tokio::time::timeout(Duration::from_secs(30), post_text(&server, route, bytes)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{route} {shown}: no answer"));
        assert!(!answer.status.is_server_error(), "{route} {shown}: {} {}", answer.status, answer.body);
        assert!(!answer.body.contains("\"server_error\""), "{route} {shown}: {}", answer.body);
        answered += usize::from(answer.status.is_success());
        sent += 1;
    }
    println!("{sent} bodies, {answered} of them fine");
    assert!(sent > 50 && answered > 0, "{sent}, {answered}");
}
