//! What clients get wrong: a useful message in the API's own shape, the right status, and a server that goes on.

use std::slice;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, Method, Request, header};
use moeflux_server::{Config, Limits, router};
use serde_json::{Value, json};

use crate::common::{Answer, app, ask, post, post_text, question, send, server, with};

const CHAT: &str = "/v1/chat/completions";

/// An error of OpenAI's shape, with this status and these words in its message.
fn refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    let error = &answer.json()["error"];
    assert!(
        error["type"].is_string() && error.get("param").is_some() && error.get("code").is_some(),
        "{error}"
    );
    assert!(error["message"].as_str().unwrap().contains(words), "{words:?} in {error}");
    assert!(answer.headers.contains_key("x-request-id"));
}

async fn still_works(server: &Router) {
    let answer = post(server, CHAT, with(question("What is 1 + 1?"), json!({ "max_tokens": 3 }))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_requests() {
    let server = server();
    for (body, words) in [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("{\"messages\": [}", "not JSON"),
        ("{} {}", "messages"),
        ("[]", ""),
        ("null", ""),
        ("{\"messages\": []}", "at least one message"),
        ("{\"model\": \"demo\"}", "messages"),
        ("{\"messages\": \"hello\"}", "messages"),
        ("{\"messages\": [{\"role\": \"user\"}]}", "content"),
        ("{\"messages\": [{\"content\": \"x\"}]}", "role"),
        ("{\"messages\": [{\"role\": \"robot\", \"content\": \"x\"}]}", "robot"),
        ("{\"messages\": [{\"role\": \"user\", \"content\": 5}]}", "messages"),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {}}]}]}",
            "image_url",
        ),
    ] {
        refused(&post_text(&server, CHAT, body).await, 400, words);
    }
    let deep = format!("{{\"messages\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    refused(&post_text(&server, CHAT, deep).await, 400, "");
    refused(&post_text(&server, CHAT, vec![0xff, 0xfe, 0x00]).await, 400, "not JSON");
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_make_no_sense() {
    let server = server();
    let tool = json!({ "type": "function", "function": { "name": "add", "parameters": {} } });
    let schema = |schema: Value| json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": schema } } });
    let mut cases = vec![
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "temperature": -1 }), "temperature"),
        (json!({ "temperature": 1e300 }), "temperature"),
        (json!({ "top_p": 2 }), "top_p"),
        (json!({ "top_k": -2 }), "top_k"),
        (json!({ "presence_penalty": 5 }), "presence_penalty"),
        (json!({ "repetition_penalty": 0 }), "repetition_penalty"),
        (json!({ "max_tokens": -2 }), "max_tokens"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "max_tokens": 1.5 }), "max_tokens"),
        (json!({ "min_tokens": 10, "max_tokens": 5 }), "min_tokens"),
        (json!({ "n": 0 }), "n"),
        (json!({ "n": 1_000_000_000 }), "n"),
        (json!({ "stop": [""] }), "stop"),
        (json!({ "stop": vec!["x"; 1000] }), "stop"),
        (json!({ "logit_bias": { "fox": 1 } }), "logit_bias"),
        (json!({ "logit_bias": { "1": 1e30 } }), "logit_bias"),
        (json!({ "logit_bias": { "99999999": 1 } }), "logit_bias"),
        (json!({ "top_logprobs": 2 }), "logprobs"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs: expected at most 20"),
        (json!({ "stream_options": {} }), "stream"),
        (json!({ "modalities": ["audio"] }), "modalities"),
        (json!({ "reasoning_effort": "colossal" }), "reasoning_effort"),
        (json!({ "tools": [{ "type": "retrieval" }] }), "tools[0]"),
        (json!({ "tools": [{ "type": "function", "function": { "name": "a b" } }] }), "tools[0]"),
        (json!({ "tools": [tool, tool] }), "tools[1]"),
        (json!({ "tools": [tool], "tool_choice": "always" }), "tool_choice"),
        (json!({ "tool_choice": "required" }), "tools"),
        (
            json!({ "tools": [tool], "tool_choice": { "type": "function", "function": { "name": "sub" } } }),
            "tool_choice",
        ),
        (json!({ "response_format": { "type": "xml" } }), "response_format"),
        (json!({ "response_format": { "type": "json_schema" } }), "json_schema"),
        (schema(json!({ "type": "colour" })), "schema"),
        (schema(json!({ "type": "string", "pattern": "(" })), "schema"),
        (schema(json!({ "$ref": "#/nowhere" })), "schema"),
        (schema(json!({ "type": "object", "dependentSchemas": { "a": {} } })), "schema"),
        (json!({ "tools": [tool], "guided_choice": ["yes", "no"] }), "grammar"),
    ];
    for (fields, words) in cases.drain(..) {
        let answer = post(&server, CHAT, with(question("Hello"), fields.clone())).await;
        assert_eq!(answer.status, 400, "{fields}: {}", answer.body);
        refused(&answer, 400, words);
    }
    let unknown = post(&server, CHAT, with(question("Hello"), json!({ "model": "gpt-9" }))).await;
    refused(&unknown, 404, "gpt-9");
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_values_that_are_fine() {
    let server = server();
    for fields in [
        json!({ "temperature": 1e-30, "seed": -5 }),
        json!({ "temperature": 0.0, "top_p": 0.0 }),
        json!({ "temperature": 100, "top_k": 1_000_000_000 }),
        json!({ "logit_bias": { "5": 100 }, "frequency_penalty": -2.0, "temperature": 1 }),
        json!({ "max_tokens": 4, "stop": null, "tools": null, "response_format": null, "user": "me" }),
    ] {
        let fields = with(json!({ "max_tokens": 4 }), fields);
        let answer = post(&server, CHAT, with(question("Hello"), fields.clone())).await;
        assert_eq!(answer.status, 200, "{fields}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_a_template_cannot_take() {
    let server = server();
    let call = |arguments: Value| {
        json!({ "messages": [{ "role": "user", "content": "x" },
        { "role": "assistant", "tool_calls": [{ "id": "1", "type": "function",
            "function": { "name": "add", "arguments": arguments } }] }] })
    };
    for request in [
        call(json!("{\"a\": ")),
        call(json!("5")),
        call(json!(null)),
        json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "assistant", "tool_calls": [{}] }] }),
        json!({ "messages": [{ "role": "user", "content": "x" }], "chat_template_kwargs": { "messages": 5 } }),
    ] {
        let answer = post(&server, CHAT, request.clone()).await;
        assert_eq!(answer.status, 400, "{request}: {}", answer.body);
    }
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tokens_than_the_context() {
    let server = server();
    let long = "fox ".repeat(40_000);
    let answer = post(&server, CHAT, question(&long)).await;
    refused(&answer, 400, "32768");
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
    let answer = post(&server, "/v1/completions", json!({ "prompt": long })).await;
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
    for (prompt, words) in
        [(json!([5_000_000]), "5000000"), (json!(""), "token"), (json!([]), "token"), (json!([[]]), "token")]
    {
        refused(&post(&server, "/v1/completions", json!({ "prompt": prompt })).await, 400, words);
    }
    refused(&post(&server, "/v1/completions", json!({ "prompt": vec!["x"; 1000] })).await, 400, "prompts");
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_or_of_another_type() {
    let limits = Limits { body_bytes: 10_000, ..Limits::default() };
    let server = router(app(Config { limits, ..Config::default() }));
    let answer = post(&server, CHAT, question(&"x".repeat(20_000))).await;
    refused(&answer, 413, "10000");
    let text = Request::post(CHAT).header(header::CONTENT_TYPE, "text/plain").body(Body::from("{}")).unwrap();
    refused(&send(&server, text).await, 415, "application/json");
    // Programs may leave the type out, or send what curl sends; pages may not.
    let form = (header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let origin = (header::ORIGIN, "https://evil.example");
    let site = (HeaderName::from_static("sec-fetch-site"), "cross-site");
    for (headers, status, words) in [
        (&[][..], 400, "messages"),
        (slice::from_ref(&form), 400, "messages"),
        (slice::from_ref(&origin), 415, "application/json"),
        (&[form.clone(), origin.clone()], 415, "application/json"),
        (&[form.clone(), site], 415, "application/json"),
    ] {
        let mut request = Request::post(CHAT);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        refused(&send(&server, request.body(Body::from("{}")).unwrap()).await, status, words);
    }
    refused(&ask(&server, Method::GET, CHAT).await, 405, "method");
    refused(&ask(&server, Method::GET, "/v1/nothing").await, 404, "route");
    refused(&ask(&server, Method::GET, "/v1/models/%ff").await, 400, "");
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_the_shape_of_their_api() {
    let server = server();
    let answer = post_text(&server, "/v1/messages", "{").await;
    assert_eq!(answer.json()["type"], "error", "{}", answer.body);
    assert!(answer.json()["error"]["message"].is_string());
}
