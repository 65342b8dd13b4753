//! Requests as they come over a wire: bodies that nobody reads, encodings, pages of elsewhere, base URLs.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use moeflux_server::{Config, router};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::{app, get, post, question, send, server, with};
use crate::connections::Running;

/// Reads one response with a length; `None` if the connection ends first.
async fn response(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let shown = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = shown.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(shown);
            }
        }
        let mut piece = [0; 4096];
        let read = timeout(Duration::from_secs(10), stream.read(&mut piece)).await.unwrap().ok()?;
        if read == 0 {
            return None;
        }
        text.extend_from_slice(&piece[..read]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lives_on_after_a_body_that_nobody_read() {
    let server = Running::start(Config { keys: vec!["key".to_owned()], ..Config::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for (path, status) in [("/v1/nothing", "404"), ("/health", "405"), ("/v1/chat/completions", "401")] {
        let body = "x".repeat(300_000);
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        let answer = response(&mut stream).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(!answer.to_lowercase().contains("connection: close"), "{answer}");
    }
    // One that is too large to be read is announced.
    let head = format!("POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 1 << 30);
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = response(&mut stream).await.unwrap();
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn base_urls_with_and_without_a_version() {
    let server = server();
    for prefix in ["", "/v1", "/v1/v1"] {
        let chat = with(question("Hello"), json!({ "max_tokens": 2 }));
        assert_eq!(post(&server, &format!("{prefix}/chat/completions"), chat).await.status, 200, "{prefix}");
        assert_eq!(get(&server, &format!("{prefix}/models")).await.status, 200, "{prefix}");
        let failed = post(&server, &format!("{prefix}/messages"), json!({})).await;
        assert_eq!((failed.status.as_u16(), &failed.json()["type"]), (400, &json!("error")), "{prefix}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_models_in_each_apis_form() {
    let server = server();
    let failed = post(&server, "/v1/messages", json!({})).await;
    assert_eq!(failed.headers["request-id"], failed.headers["x-request-id"]);
    assert_eq!(failed.json()["request_id"], failed.headers["request-id"].to_str().unwrap());
    let message =
        json!({ "model": "demo", "max_tokens": 2, "messages": [{ "role": "user", "content": "Hi" }] });
    let message = post(&server, "/v1/messages", message).await.json();
    for field in
        ["cache_creation", "inference_geo", "output_tokens_details", "server_tool_use", "service_tier"]
    {
        assert!(message["usage"].get(field).is_some(), "{field}: {message}");
    }
    assert!(message["content"][0].get("citations").is_some());
    let models = get(&server, "/v1/models").await.json();
    let model = &models["data"][0];
    assert_eq!(
        (&model["context_length"], &model["max_model_len"]),
        (&json!(32768), &json!(32768)),
        "{models}"
    );
    assert!(model["capabilities"].as_array().unwrap().contains(&json!("tools")), "{models}");
    assert_eq!(model["call_format"], "qwen-xml", "{models}");
    let asked =
        Request::get("/v1/models").header("anthropic-version", "2023-06-01").body(Body::empty()).unwrap();
    let models = send(&server, asked).await.json();
    assert_eq!(
        (&models["data"][0]["type"], &models["has_more"]),
        (&json!("model"), &json!(false)),
        "{models}"
    );
    assert!(models["data"][0]["display_name"].is_string() && models["first_id"] == "demo");
    let chat =
        post(&server, "/v1/chat/completions", with(question("Hi"), json!({ "max_tokens": 2 }))).await.json();
    assert!(chat["system_fingerprint"].as_str().unwrap().starts_with("moeflux-"));
    let counted = post(&server, "/v1/chat/completions/input_tokens", question("Hi")).await.json();
    assert_eq!(counted["input_tokens"], chat["usage"]["prompt_tokens"]);
}

/// `{"text": "Hello"}` as gzip, deflate (zlib) and a zstd frame of one raw block.
const ENCODED: [(&str, &[u8]); 3] = [
    ("gzip", GZIP),
    ("deflate", ZLIB),
    ("zstd", b"\x28\xb5\x2f\xfd\x20\x11\x89\x00\x00{\"text\": \"Hello\"}"),
];
const GZIP: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x2a\x49\xad\x28\x51\xb2\x52\x50\xf2\x48\xcd\xc9\xc9\x57\xaa\x05\x00\xf0\x4d\x4a\x9b\x11\x00\x00\x00";
const ZLIB: &[u8] =
    b"\x78\x9c\xab\x56\x2a\x49\xad\x28\x51\xb2\x52\x50\xf2\x48\xcd\xc9\xc9\x57\xaa\x05\x00\x32\x50\x05\x94";

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_answers_may_be_compressed() {
    let server = server();
    let plain = post(&server, "/tokenize", json!({ "text": "Hello" })).await.body;
    let request = |encoding: &str, body: &[u8]| {
        Request::post("/tokenize")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_ENCODING, encoding)
            .body(Body::from(body.to_vec()))
            .unwrap()
    };
    for (encoding, body) in ENCODED {
        let answer = send(&server, request(encoding, body)).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, plain.as_str()), "{encoding}");
    }
    let unknown = send(&server, request("lz4", b"{}")).await;
    assert!(unknown.status == 415 && unknown.body.contains("Content-Encoding"), "{}", unknown.body);
    assert!(send(&server, request("gzip", b"{}")).await.status.is_client_error());
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let asked =
            Request::get("/openapi.json").header(header::ACCEPT_ENCODING, encoding).body(Body::empty());
        let answer = send(&server, asked.unwrap()).await;
        assert_eq!(answer.headers[header::CONTENT_ENCODING], encoding);
    }
    let stream = with(question("Hello"), json!({ "max_tokens": 2, "stream": true }));
    let stream = Request::post("/v1/chat/completions")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT_ENCODING, "gzip")
        .body(Body::from(stream.to_string()));
    let stream = send(&server, stream.unwrap()).await;
    assert!(!stream.headers.contains_key(header::CONTENT_ENCODING), "events leave at once");
}

/// A body that is small and becomes large: the limit is on what it becomes.
#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_has_the_limit_of_a_plain_one() {
    let limits = moeflux_server::Limits { body_bytes: 10_000, ..moeflux_server::Limits::default() };
    let server = router(app(Config { limits, ..Config::default() }));
    // A zstd frame of one block that repeats a space 100,000 times.
    let mut bomb = b"\x28\xb5\x2f\xfd\xa0".to_vec();
    bomb.extend(100_000_u32.to_le_bytes());
    bomb.extend(&((100_000_u32 << 3) | 0b011).to_le_bytes()[..3]);
    bomb.push(b' ');
    let request = Request::post("/tokenize")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_ENCODING, "zstd")
        .body(Body::from(bomb))
        .unwrap();
    let answer = send(&server, request).await;
    assert_eq!(answer.status, 413, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn sdks_work_from_a_page() {
    let server = router(app(Config { cors_origins: vec!["*".to_owned()], ..Config::default() }));
    let asked = "authorization, content-type, x-stainless-os, anthropic-dangerous-direct-browser-access, http-referer";
    let preflight = Request::builder()
        .method(Method::OPTIONS)
        .uri("/v1/chat/completions")
        .header(header::ORIGIN, "https://chat.example")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, asked)
        .body(Body::empty());
    let answer = send(&server, preflight.unwrap()).await;
    let allowed = answer.headers[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
    for name in asked.split(", ") {
        assert!(allowed.contains(name), "{name} in {allowed}");
    }
}
