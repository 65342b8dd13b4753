//! The API of Anthropic.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::common::{Answer, post, server, with};

const MESSAGES: &str = "/v1/messages";

fn ask(content: impl Into<Value>) -> Value {
    json!({ "model": "demo", "max_tokens": 100, "temperature": 0, "messages": [{ "role": "user", "content": content.into() }] })
}

fn add() -> Value {
    let number = json!({ "type": "integer" });
    let schema =
        json!({ "type": "object", "properties": { "a": number, "b": number }, "required": ["a", "b"] });
    json!([{ "name": "add", "description": "Add two numbers", "input_schema": schema }])
}

/// The data of a stream's events, each under its own name.
pub(crate) fn events(answer: &Answer) -> Vec<Value> {
    let mut events = Vec::new();
    for event in answer.body.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')) {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        events.push(data);
    }
    events
}

/// The content that a stream's events build up, checked to come in the API's order.
pub(crate) fn content(events: &[Value]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut json = String::new();
    let mut is_open = false;
    for event in events {
        let kind = event["type"].as_str().unwrap();
        if kind.starts_with("content_block") && kind != "content_block_start" {
            assert!(is_open && event["index"] == blocks.len() - 1, "{event}");
        }
        match kind {
            "content_block_start" => {
                assert!(!is_open && event["index"] == blocks.len(), "{event}");
                is_open = true;
                blocks.push(event["content_block"].clone());
            }
            "content_block_delta" => {
                let (block, delta) = (blocks.last_mut().unwrap(), &event["delta"]);
                for field in ["text", "thinking"] {
                    if delta["type"] == format!("{field}_delta") {
                        block[field] =
                            json!(block[field].as_str().unwrap().to_owned() + delta[field].as_str().unwrap());
                    }
                }
                json.push_str(delta["partial_json"].as_str().unwrap_or(""));
            }
            "content_block_stop" => {
                is_open = false;
                if !json.is_empty() {
                    blocks.last_mut().unwrap()["input"] =
                        serde_json::from_str(&std::mem::take(&mut json)).unwrap();
                }
            }
            "message_start" | "message_delta" | "message_stop" | "ping" => assert!(!is_open, "{event}"),
            kind => panic!("{kind}"),
        }
    }
    assert!(!is_open);
    blocks
}

/// Names that every answer has anew.
fn without_ids(mut content: Value) -> Value {
    for block in content.as_array_mut().unwrap() {
        block.as_object_mut().unwrap().remove("id");
    }
    content
}

#[tokio::test]
async fn a_stream_says_what_the_whole_says() {
    let server = server();
    let thinks = json!({ "thinking": { "type": "enabled", "budget_tokens": 50 } });
    for (request, kinds, stop) in [
        (ask("What is 17 + 25?"), &["text"][..], "end_turn"),
        (with(ask("What is 63 - 28?"), thinks), &["thinking", "text"], "end_turn"),
        (with(ask("What is 4711 + 289?"), json!({ "tools": add() })), &["tool_use"], "tool_use"),
        (with(ask("Tell me a story."), json!({ "max_tokens": 8 })), &["text"], "max_tokens"),
    ] {
        let whole = post(&server, MESSAGES, request.clone()).await;
        assert_eq!(whole.status, StatusCode::OK, "{}", whole.body);
        let whole = whole.json();
        let types: Vec<&str> = whole["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block["type"].as_str().unwrap())
            .collect();
        assert_eq!(types, kinds);
        assert_eq!(whole["stop_reason"], stop);
        // The API's schema requires fields even where they say nothing.
        assert_eq!(whole.get("stop_details"), Some(&Value::Null));
        for call in whole["content"].as_array().unwrap().iter().filter(|block| block["type"] == "tool_use") {
            assert_eq!(call["caller"], json!({ "type": "direct" }));
        }
        let stream = events(&post(&server, MESSAGES, with(request, json!({ "stream": true }))).await);
        assert_eq!(without_ids(json!(content(&stream))), without_ids(whole["content"].clone()));
        assert_eq!(stream[0]["type"], "message_start");
        let signed = stream.iter().filter(|event| event["delta"]["type"] == "signature_delta").count();
        assert_eq!(signed, kinds.iter().filter(|kind| **kind == "thinking").count());
        let [.., delta, stopped] = &stream[..] else { panic!() };
        assert_eq!(stopped["type"], "message_stop");
        assert_eq!(delta["delta"]["stop_reason"], stop);
        assert_eq!(delta["delta"].get("stop_details"), Some(&Value::Null));
        assert_eq!(delta["delta"].get("container"), Some(&Value::Null));
        assert_eq!(delta["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    }
}

#[tokio::test]
async fn a_tools_result_is_told() {
    let server = server();
    let used =
        json!({ "type": "tool_use", "id": "toolu_1", "name": "add", "input": { "a": 4711, "b": 289 } });
    let result = json!({ "type": "tool_result", "tool_use_id": "toolu_1", "content": [{ "type": "text", "text": "{\"result\": 5000}" }] });
    let messages = json!([
        { "role": "user", "content": "What is 4711 + 289?" },
        { "role": "assistant", "content": [used] },
        { "role": "user", "content": [result] },
    ]);
    let request = with(ask(""), json!({ "messages": messages, "tools": add() }));
    let answer = post(&server, MESSAGES, request.clone()).await.json();
    assert_eq!(answer["content"][0]["text"], "4711 + 289 = 5000.");
    let used = &answer["usage"];
    let tokens = used["input_tokens"].as_u64().unwrap() + used["cache_read_input_tokens"].as_u64().unwrap();
    let mut request = request;
    for field in ["max_tokens", "temperature"] {
        request.as_object_mut().unwrap().remove(field);
    }
    assert_eq!(
        post(&server, "/v1/messages/count_tokens", request).await.json(),
        json!({ "input_tokens": tokens })
    );
}

#[tokio::test]
async fn a_clients_mistake_is_told_in_the_apis_shape() {
    let server = server();
    let result = json!([{ "type": "tool_result", "tool_use_id": "nobody", "content": "1" }]);
    for (more, status, kind) in [
        (json!({ "model": "nobody" }), 404, "not_found_error"),
        (json!({ "max_tokens": 0 }), 400, "invalid_request_error"),
        (json!({ "messages": [] }), 400, "invalid_request_error"),
        (json!({ "messages": [{ "role": "system", "content": "a" }] }), 400, "invalid_request_error"),
        (json!({ "messages": [{ "role": "assistant", "content": "a" }] }), 400, "invalid_request_error"),
        (json!({ "messages": [{ "role": "user", "content": result }] }), 400, "invalid_request_error"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image" }] }] }),
            400,
            "invalid_request_error",
        ),
        (json!({ "tools": [{ "name": "a" }] }), 400, "invalid_request_error"),
        (json!({ "tools": [{ "type": "telepathy", "name": "a" }] }), 400, "invalid_request_error"),
        (json!({ "tool_choice": { "type": "any" } }), 400, "invalid_request_error"),
        (json!({ "thinking": { "type": "enabled", "budget_tokens": 100 } }), 400, "invalid_request_error"),
        (json!({ "thinking": { "type": "enabled", "budget_tokens": 0 } }), 400, "invalid_request_error"),
        (json!({ "stop_token_ids": [1] }), 400, "invalid_request_error"),
    ] {
        let answer = post(&server, MESSAGES, with(ask("Hello"), more.clone())).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["type"]),
            (status, &json!(kind)),
            "{more}"
        );
        assert_eq!(answer.json()["type"], "error");
        assert!(!answer.json()["error"]["message"].as_str().unwrap().is_empty());
    }
}
