//! Requests that are made to cost much: refused with a reason, and everybody else is served.
//! `tools/server/hostile` does the same to the program, for longer and in little memory.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use moeflux_server::{Config, Limits};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::common::{post, post_text, question, server, with};
use crate::connections::{Running, endless, exchange, request};

/// A schema of so many definitions, each of which leads to the next.
fn chain(n: usize, link: fn(Value) -> Value) -> Value {
    let reference = |index: usize| json!({ "$ref": format!("#/$defs/a{index}") });
    let mut definitions: Map<String, Value> =
        (0..n).map(|index| (format!("a{index}"), link(reference(index + 1)))).collect();
    definitions.insert(format!("a{n}"), json!({ "type": "string" }));
    json!({ "type": "object", "properties": { "x": { "$ref": "#/$defs/a0" } }, "$defs": definitions })
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_of_references_are_refused_on_every_route() {
    let server = server();
    let links: [fn(Value) -> Value; 3] = [
        |next| json!({ "type": "object", "properties": { "x": next } }),
        |next| json!({ "anyOf": [next, { "type": "null" }] }),
        |next| next,
    ];
    for (index, link) in links.into_iter().enumerate() {
        let schema = chain(1000, link);
        let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
        let tool = json!({ "type": "function", "function": { "name": "f", "parameters": chain(140, link) } });
        let messages = json!([{ "role": "user", "content": "hi" }]);
        let flat = json!({ "type": "json_schema", "name": "x", "schema": schema });
        for (path, body) in [
            (
                "/v1/chat/completions",
                with(question("hi"), json!({ "response_format": format, "max_tokens": 2 })),
            ),
            (
                "/v1/chat/completions",
                with(question("hi"), json!({ "tools": [tool], "tool_choice": "required", "max_tokens": 2 })),
            ),
            ("/v1/completions", json!({ "prompt": "hi", "response_format": format })),
            ("/v1/responses", json!({ "model": "demo", "input": "hi", "text": { "format": flat } })),
            (
                "/v1/messages",
                json!({ "model": "demo", "max_tokens": 5, "messages": messages, "tool_choice": { "type": "any" },
                    "tools": [{ "name": "f", "input_schema": chain(140, link) }] }),
            ),
        ] {
            let start = Instant::now();
            let has_tools = body.get("tools").is_some();
            let answer = post(&server, path, body).await;
            if has_tools && index > 0 && answer.status == StatusCode::OK {
                // An argument that may be a text is written as it is, whatever its schema says besides.
                continue;
            }
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.body);
            assert!(
                answer.body.contains("limit is") || answer.body.contains("context"),
                "{path}: {}",
                answer.body
            );
            assert!(start.elapsed() < Duration::from_secs(20), "{path}: {:?}", start.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nested_too_deep_is_refused_on_every_route() {
    let server = server();
    let nested = |n: usize| {
        let mut schema = json!({ "type": "string" });
        for index in 0..n {
            schema = if index % 2 == 0 {
                json!({ "type": "array", "items": schema })
            } else {
                json!({ "anyOf": [schema] })
            };
        }
        schema
    };
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let pattern = |pattern: String| json!({ "type": "string", "pattern": pattern });
    let schemas = [
        pattern(format!("{}a{}", "(".repeat(500), ")".repeat(500))),
        pattern(format!("{}a{}", "(?:".repeat(600), "+)".repeat(600))),
        pattern("a|".repeat(100_000)),
        pattern(format!("({}b)*", "a?".repeat(60_000))),
        json!({ "allOf": vec![json!({ "anyOf": [{ "minimum": 1 }, { "maximum": 2 }] }); 30] }),
        // As deep as JSON may be.
        nested(60),
    ];
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"] {
        let messages = json!([{ "role": "user", "content": "hi" }]);
        for (index, schema) in schemas.iter().enumerate() {
            let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
            let flat = json!({ "type": "json_schema", "name": "x", "schema": schema });
            let body = match path {
                "/v1/chat/completions" => {
                    with(question("hi"), json!({ "response_format": format, "max_tokens": 2 }))
                }
                "/v1/completions" => json!({ "prompt": "hi", "response_format": format, "max_tokens": 2 }),
                "/v1/responses" => {
                    json!({ "model": "demo", "input": "hi", "text": { "format": flat }, "max_output_tokens": 2 })
                }
                _ => {
                    let tools = json!([{ "name": "f", "input_schema": schema }]);
                    json!({ "model": "demo", "max_tokens": 2, "messages": messages, "tools": tools,
                        "tool_choice": { "type": "any" } })
                }
            };
            let answer = post(&server, path, body).await;
            // An argument that may be a text is written as it is, whatever its schema says besides.
            let may_pass = index == schemas.len() - 1 || path == "/v1/messages";
            assert!(
                answer.status == StatusCode::BAD_REQUEST || may_pass && answer.status == StatusCode::OK,
                "{path} {index}: {} {}",
                answer.status,
                answer.body
            );
        }
        for body in [
            deep.clone(),
            format!("{{\"messages\":{deep}}}"),
            format!("{{\"model\":\"demo\",\"max_tokens\":1,\"input\":{deep},\"prompt\":{deep}}}"),
            format!("{{\"model\":\"demo\",\"prompt\":\"x\",\"response_format\":{deep},\"tools\":{deep}}}"),
            "{\"a\":".repeat(100_000),
        ] {
            let answer = post_text(&server, path, body).await;
            assert!(answer.status.is_client_error(), "{path}: {} {}", answer.status, answer.body);
        }
    }
    // Alternatives of alternatives, whose types are asked for.
    let reference = |index: usize| json!({ "$ref": format!("#/$defs/a{index}") });
    let wide: Map<String, Value> = (0..9)
        .map(|index| (format!("a{index}"), json!({ "anyOf": vec![reference(index + 1); 20] })))
        .collect();
    let parameters = json!({ "type": "object", "properties": { "x": reference(0) }, "$defs": wide });
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": parameters } });
    let ask = with(question("hi"), json!({ "tools": [tool], "tool_choice": "required", "max_tokens": 2 }));
    let answer = timeout(Duration::from_secs(30), post(&server, "/v1/chat/completions", ask)).await.unwrap();
    assert!(!answer.status.is_server_error(), "{}", answer.body);
    // Very many tools, and calls whose arguments are deep.
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": nested(40) } });
    for body in [
        with(question("hi"), json!({ "tools": vec![tool; 2000], "tool_choice": "required" })),
        json!({ "messages": [
            { "role": "user", "content": "hi" },
            { "role": "assistant", "tool_calls": [
                { "id": "c", "type": "function", "function": { "name": "f", "arguments": deep } } ] },
        ] }),
    ] {
        let answer = post(&server, "/v1/chat/completions", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_beyond_the_context_are_refused_soon() {
    let server = server();
    let start = Instant::now();
    for text in ["a ".repeat(7_000_000), "a".repeat(15_000_000), " ".repeat(15_000_000)] {
        for (path, body) in [
            ("/tokenize", json!({ "text": text })),
            ("/v1/chat/completions", question(&text)),
            ("/v1/embeddings", json!({ "input": text })),
        ] {
            let answer = post(&server, path, body).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.body);
            assert!(answer.body.contains("context_length_exceeded"), "{path}: {}", answer.body);
        }
    }
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_very_many_values_are_refused_unread() {
    let server = server();
    for body in [
        format!("{{\"prompt\":[{}1]}}", "1,".repeat(2_000_000)),
        format!("{{\"messages\":[{}{{}}]}}", "{},".repeat(2_000_000)),
    ] {
        let answer = post_text(&server, "/v1/completions", body).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.body);
    }
    // Commas in a text are none.
    let answer = post(&server, "/tokenize", json!({ "text": ",[{\\\"".repeat(2000) })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
}

async fn connect_from(local: &str, server: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{local}:0").parse().unwrap()).unwrap();
    socket.connect(server.address).await.unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_and_stalled_bodies_cost_nobody_else() {
    let limits = Limits { connections: 40, connections_per_address: 20, ..Limits::default() };
    let server = Running::start(Config { limits, ..Config::default() }).await;
    let mut held = Vec::new();
    for index in 0..80 {
        let mut stream = connect_from(["127.0.0.2", "127.0.0.3"][index % 2], &server).await;
        let begin = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Content-Length: 1000\r\n\r\n{";
        if index % 4 < 2 {
            drop(stream.write_all(begin.as_bytes()).await);
        }
        held.push(stream);
    }
    sleep(Duration::from_millis(1200)).await;
    let start = Instant::now();
    let health = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (status, text) = exchange(server.address, health).await;
    assert_eq!(status, Some(StatusCode::OK), "{text}");
    let ask = request("/v1/chat/completions", &question("What is 17 + 25?").to_string());
    let (status, text) = exchange(server.address, ask.as_bytes()).await;
    assert_eq!(status, Some(StatusCode::OK), "{text}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(held);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_end_and_make_room() {
    let limits = Limits { unread_time: Duration::from_secs(1), ..Limits::default() };
    let scheduler = moeflux::engine::SchedulerOptions {
        max_running: 2,
        unread_events: 32,
        unread_time: Some(Duration::from_secs(1)),
        ..crate::common::scheduler()
    };
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), limits, ..Config::default() };
    let app = moeflux_server::App::new(config, vec![crate::common::demo("demo")], scheduler);
    let server = Running::of(app).await;
    let story = with(endless(), json!({ "logprobs": true, "top_logprobs": 20 }));
    let bytes = request("/v1/chat/completions", &story.to_string());
    let mut unread = Vec::new();
    for _ in 0..4 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(server.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        unread.push(stream);
    }
    // Others get their turn meanwhile.
    let ask = request("/v1/chat/completions", &with(question("Hi"), json!({ "max_tokens": 3 })).to_string());
    let (status, text) = exchange(server.address, ask.as_bytes()).await;
    assert_eq!(status, Some(StatusCode::OK), "{text}");
    let start = Instant::now();
    while server.metric("moeflux_requests_running").await + server.metric("moeflux_requests_queued").await
        > 0.0
    {
        assert!(start.elapsed() < Duration::from_mins(2), "they go on");
        sleep(Duration::from_millis(50)).await;
    }
    drop(unread);
    server.stop().await;
}
