//! What agents and editors send: the bodies in `data/clients`, written from public descriptions of each client, and whole tool
//! loops in the forms in which clients play answers back.

use std::fs;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use crate::common::{Answer, post, send, server};

pub(crate) fn bodies() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/clients");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()).collect()
}

pub(crate) async fn sent(server: &Router, case: &Value) -> Answer {
    let mut request =
        Request::post(case["path"].as_str().unwrap()).header(header::CONTENT_TYPE, "application/json");
    for (name, value) in case["headers"].as_object().unwrap() {
        request = request.header(name.as_str(), value.as_str().unwrap());
    }
    send(server, request.body(Body::from(case["body"].to_string())).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_is_answered_and_told_what_is_ignored() {
    let server = server();
    let bodies = bodies();
    assert!(bodies.len() > 15, "only {} bodies were found", bodies.len());
    for case in bodies {
        let answer = sent(&server, &case).await;
        let client = &case["client"];
        assert_eq!(answer.status, 200, "{client}: {}", answer.body);
        assert!(!answer.body.contains("\"error\":{"), "{client}: {}", answer.body);
        let named = answer.headers.get("x-moeflux-ignored").map_or("", |value| value.to_str().unwrap());
        let named: Vec<&str> = named.split(", ").filter(|name| !name.is_empty()).collect();
        let mut expected: Vec<&str> =
            case["ignored"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let mut sorted = named.clone();
        sorted.sort_unstable();
        expected.sort_unstable();
        assert_eq!(sorted, expected, "{client}");
    }
}

/// Sums that the demo asks its tool for, since they are too large for it.
const SUMS: [(u32, u32); 5] = [(4711, 289), (1234, 5678), (8250, 1999), (3141, 2718), (6022, 1380)];

fn parameters() -> Value {
    let number = json!({ "type": "integer" });
    json!({ "type": "object", "properties": { "a": number, "b": number }, "required": ["a", "b"] })
}

fn sum(arguments: &Value) -> String {
    let arguments: Value = match arguments {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        object => object.clone(),
    };
    let sum = arguments["a"].as_i64().unwrap() + arguments["b"].as_i64().unwrap();
    json!({ "result": sum }).to_string()
}

/// Five questions, each with a call, its result and an answer; `content: null` goes back as it came.
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_loop_through_chats() {
    let server = server();
    let function = json!({ "name": "add", "description": "Add two numbers", "parameters": parameters() });
    let mut messages = Vec::new();
    for (a, b) in SUMS {
        messages.push(json!({ "role": "user", "content": format!("What is {a} + {b}?") }));
        for turn in 0.. {
            let body = json!({ "model": "demo", "temperature": 0, "messages": messages,
                "tools": [{ "type": "function", "function": function }] });
            let answer = post(&server, "/v1/chat/completions", body).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let choice = answer.json()["choices"][0].clone();
            messages.push(choice["message"].clone());
            if choice["finish_reason"] != "tool_calls" {
                assert_eq!(choice["finish_reason"], "stop");
                assert!(turn > 0, "it answered without its tool: {choice}");
                assert!(
                    choice["message"]["content"].as_str().unwrap().contains(&(a + b).to_string()),
                    "{choice}"
                );
                break;
            }
            assert!(turn < 3 && choice["message"]["content"].is_null(), "{choice}");
            for call in choice["message"]["tool_calls"].as_array().unwrap() {
                let content = sum(&call["function"]["arguments"]);
                messages.push(json!({ "role": "tool", "tool_call_id": call["id"], "content": content }));
            }
        }
    }
}

/// The same, in which the client plays all items back, or names those that are stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_loop_through_responses() {
    let server = server();
    let tools = json!([
        { "type": "function", "name": "add", "description": "Add two numbers", "parameters": parameters() },
        { "type": "web_search" },
    ]);
    for by_reference in [false, true] {
        let mut input = Vec::new();
        for (a, b) in SUMS {
            input.push(json!({ "role": "user", "content": format!("What is {a} + {b}?") }));
            for turn in 0.. {
                let body = json!({ "model": "demo", "temperature": 0, "input": input, "tools": tools,
                    "store": by_reference, "include": ["reasoning.encrypted_content"] });
                let answer = post(&server, "/v1/responses", body).await;
                assert_eq!(answer.status, 200, "{}", answer.body);
                let output = answer.json()["output"].as_array().unwrap().clone();
                input.extend(output.iter().map(|item| {
                    let reference = json!({ "type": "item_reference", "id": item["id"] });
                    if by_reference { reference } else { item.clone() }
                }));
                let calls: Vec<&Value> =
                    output.iter().filter(|item| item["type"] == "function_call").collect();
                if calls.is_empty() {
                    let text = output.last().unwrap()["content"][0]["text"].as_str().unwrap();
                    assert!(turn > 0 && text.contains(&(a + b).to_string()), "{text}");
                    break;
                }
                assert!(turn < 3, "{output:?}");
                for call in calls {
                    let (id, output) = (&call["call_id"], sum(&call["arguments"]));
                    input.push(json!({ "type": "function_call_output", "call_id": id, "output": output }));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_loop_through_messages() {
    let server = server();
    let tools = json!([{ "name": "add", "description": "Add two numbers", "input_schema": parameters() }]);
    let mut messages = Vec::new();
    for (a, b) in SUMS {
        messages.push(json!({ "role": "user", "content": format!("What is {a} + {b}?") }));
        for turn in 0.. {
            let body = json!({ "model": "demo", "max_tokens": 200, "temperature": 0, "messages": messages, "tools": tools });
            let answer = post(&server, "/v1/messages", body).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let answer = answer.json();
            let content = answer["content"].as_array().unwrap().clone();
            messages.push(json!({ "role": "assistant", "content": content }));
            if answer["stop_reason"] != "tool_use" {
                assert!(
                    turn > 0 && content[0]["text"].as_str().unwrap().contains(&(a + b).to_string()),
                    "{answer}"
                );
                break;
            }
            assert!(turn < 3, "{answer}");
            let calls = content.iter().filter(|block| block["type"] == "tool_use");
            let results = calls.map(|call| {
                json!({ "type": "tool_result", "tool_use_id": call["id"], "content": sum(&call["input"]) })
            });
            messages.push(json!({ "role": "user", "content": results.collect::<Vec<_>>() }));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_loop_through_ollamas_api() {
    let server = server();
    let function = json!({ "name": "add", "description": "Add two numbers", "parameters": parameters() });
    let mut messages = Vec::new();
    for (a, b) in SUMS {
        messages.push(json!({ "role": "user", "content": format!("What is {a} + {b}?") }));
        for turn in 0.. {
            let body = json!({ "model": "demo", "stream": false, "options": { "temperature": 0 }, "messages": messages,
                "tools": [{ "type": "function", "function": function }] });
            let answer = post(&server, "/api/chat", body).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let message = answer.json()["message"].clone();
            messages.push(message.clone());
            let Some(calls) = message["tool_calls"].as_array() else {
                assert!(
                    turn > 0 && message["content"].as_str().unwrap().contains(&(a + b).to_string()),
                    "{message}"
                );
                break;
            };
            assert!(turn < 3, "{message}");
            for call in calls {
                let content = sum(&call["function"]["arguments"]);
                messages.push(json!({ "role": "tool", "tool_name": "add", "content": content }));
            }
        }
    }
}
