//! A server of the demo, and requests to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use moeflux::engine::SchedulerOptions;
use moeflux::{Engine, EngineOptions, Model, ModelOptions};
use moeflux_server::{App, Config, ModelSource, router};
use serde_json::{Value, json};
use tower::ServiceExt;

/// A name for the demo.
pub(crate) fn demo(name: &str) -> ModelSource {
    source(name.to_owned(), Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo"))
}

/// A name for a folder's model.
pub(crate) fn source(name: String, folder: PathBuf) -> ModelSource {
    ModelSource {
        name,
        load: Box::new(move |_| {
            let model = Model::open(&folder, &ModelOptions::default())?;
            Ok(Engine::new(model, &EngineOptions { threads: 1, ..EngineOptions::default() })?)
        }),
        unload: Box::new(|_| ()),
    }
}

/// Little memory for states: tests run many servers at once.
pub(crate) fn scheduler() -> SchedulerOptions {
    SchedulerOptions { state_budget: Some(256 << 20), ..SchedulerOptions::default() }
}

/// An app of the demo.
pub(crate) fn app(config: Config) -> Arc<App> {
    App::new(config, vec![demo("demo")], scheduler())
}

/// The routes of a server with all defaults.
pub(crate) fn server() -> Router {
    router(app(Config::default()))
}

/// An answer as a whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The JSON of each event of a stream, which has to end with `[DONE]`.
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut data: Vec<&str> = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{}", self.body);
        data.into_iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// Sends a request.
pub(crate) async fn send(server: &Router, request: Request<Body>) -> Answer {
    let response = server.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
}

/// Sends JSON.
pub(crate) async fn post(server: &Router, path: &str, body: Value) -> Answer {
    post_text(server, path, body.to_string()).await
}

/// Sends what may be no JSON, as JSON.
pub(crate) async fn post_text(server: &Router, path: &str, body: impl Into<Body>) -> Answer {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    send(server, request.body(body.into()).unwrap()).await
}

/// Asks without a body.
pub(crate) async fn ask(server: &Router, method: Method, path: &str) -> Answer {
    send(server, Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
}

/// Asks.
pub(crate) async fn get(server: &Router, path: &str) -> Answer {
    ask(server, Method::GET, path).await
}

/// A chat of one question, answered greedily.
pub(crate) fn question(text: &str) -> Value {
    json!({ "model": "demo", "messages": [{ "role": "user", "content": text }], "temperature": 0 })
}

/// The same with more fields.
pub(crate) fn with(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}
