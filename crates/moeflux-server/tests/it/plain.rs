//! The server's own routes.

use axum::http::{Method, header};
use moeflux_server::{Config, router};
use serde_json::json;

use crate::common::{app, ask, get, post, question, send, server, with};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_back_as_text() {
    let server = server();
    let tokens = post(&server, "/tokenize", json!({ "text": "Tell me ünïcode 🦊." })).await.json();
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let text = post(&server, "/detokenize", json!({ "tokens": tokens["tokens"] })).await.json();
    assert_eq!(text["text"], "Tell me ünïcode 🦊.");
    assert_eq!(post(&server, "/detokenize", json!({ "tokens": [4_000_000] })).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_rendered_as_it_is_read() {
    let server = server();
    let messages =
        json!([{ "role": "developer", "content": "Be brief." }, { "role": "user", "content": "Hi." }]);
    let rendered = post(&server, "/apply-template", json!({ "messages": messages })).await.json();
    let prompt = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n\
                  <think>\n\n</think>\n\n";
    assert_eq!(rendered["prompt"], prompt);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count() {
    let server = server();
    assert_eq!(get(&server, "/health").await.json(), json!({ "status": "ready" }));
    let before = get(&server, "/metrics").await;
    assert!(before.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(before.body.contains("moeflux_model_loaded{model=\"demo\"} 0\n"));
    let request = with(question("Tell me a story."), json!({ "max_tokens": 10 }));
    let usage = post(&server, "/v1/chat/completions", request).await.json()["usage"].clone();
    // The engine counts a step once it has ended, and that is a moment after its last word.
    let mut metrics = get(&server, "/metrics").await.body;
    while !metrics.contains("moeflux_requests_running 0\n") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        metrics = get(&server, "/metrics").await.body;
    }
    for line in [
        "moeflux_model_loaded{model=\"demo\"} 1".to_owned(),
        format!("moeflux_tokens_prompt_total{{model=\"demo\"}} {}", usage["prompt_tokens"]),
        "moeflux_tokens_generated_total{model=\"demo\"} 10".to_owned(),
        "moeflux_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1".to_owned(),
        "moeflux_time_to_first_token_seconds_count{model=\"demo\"} 1".to_owned(),
        "moeflux_time_per_token_seconds_count{model=\"demo\"} 9".to_owned(),
        "moeflux_requests_running 0".to_owned(),
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_are_saved_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    let config = || Config { sequences: Some(folder.path().to_owned()), ..Config::default() };
    let first = router(app(config()));
    let chat =
        json!({ "messages": [{ "role": "user", "content": "Tell me a story about a fox and a goose." }] });
    let saved = crate::common::send(&first, put("/v1/sequences/fox.1", &chat)).await;
    assert_eq!(saved.status, 200, "{}", saved.body);
    let saved = saved.json();
    assert_eq!(get(&first, "/v1/sequences/fox.1").await.json()["bytes"], saved["bytes"]);
    let request = with(chat, json!({ "temperature": 0, "max_tokens": 12 }));
    let fresh = post(&first, "/v1/chat/completions", request.clone()).await.json();

    let second = router(app(config()));
    let restored = post(&second, "/v1/sequences/fox.1/restore", json!({})).await;
    assert_eq!(restored.status, 200, "{}", restored.body);
    assert_eq!(restored.json()["tokens"], saved["tokens"]);
    let resumed = post(&second, "/v1/chat/completions", request).await.json();
    assert_eq!(resumed["choices"][0]["message"], fresh["choices"][0]["message"]);
    let cached = resumed["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached, saved["tokens"], "{resumed}");

    assert_eq!(ask(&second, Method::DELETE, "/v1/sequences/fox.1").await.status, 204);
    assert_eq!(get(&second, "/v1/sequences/fox.1").await.status, 404);
    assert_eq!(post(&second, "/v1/sequences/fox.1/restore", json!({})).await.status, 404);
    std::fs::write(folder.path().join("bad.sequence"), b"no sequence").unwrap();
    assert_eq!(post(&second, "/v1/sequences/bad/restore", json!({})).await.status, 409);
    assert_eq!(send(&server(), put("/v1/sequences/fox", &json!({ "prompt": "x" }))).await.status, 404);
}

fn put(path: &str, body: &serde_json::Value) -> axum::http::Request<axum::body::Body> {
    let request = axum::http::Request::put(path).header(header::CONTENT_TYPE, "application/json");
    request.body(body.to_string().into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_there_with_its_headers() {
    let server = server();
    for (path, media_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/status", "text/html; charset=utf-8"),
        ("/assets/chat.js", "text/javascript; charset=utf-8"),
        ("/assets/chat.css", "text/css; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml; charset=utf-8"),
    ] {
        let answer = get(&server, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], media_type);
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
        let known =
            axum::http::Request::get(path).header(header::IF_NONE_MATCH, &answer.headers[header::ETAG]);
        let again = send(&server, known.body(axum::body::Body::empty()).unwrap()).await;
        assert_eq!((again.status.as_u16(), &*again.body), (304, ""));
    }
    assert_eq!(get(&server, "/assets/nothing.js").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_has_every_route() {
    let server = server();
    let api = get(&server, "/openapi.json").await.json();
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/sequences/{id}",
        "/metrics",
    ] {
        assert!(api["paths"][path].is_object(), "{path}");
    }
}
