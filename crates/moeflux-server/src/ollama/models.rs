//! What models there are: `/api/tags`, `/api/ps`, `/api/show`, `/api/version` and `/api/pull`.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::types::{ModelRequest, OllamaError};
use crate::app::App;
use crate::body::Json;
use crate::clock::rfc3339;
use crate::error::{Failure, FailureKind};
use crate::fields::ignore;
use crate::models::Facts;

/// The version of Ollama's API that these routes follow: clients compare it with what they need.
const VERSION: &str = "0.12.0";

/// Lists the models.
#[utoipa::path(
    get,
    path = "/api/tags",
    tag = "Ollama",
    responses((status = 200, body = Object), (status = "4XX", body = OllamaError))
)]
pub async fn tags(State(app): State<Arc<App>>) -> JsonAnswer<Value> {
    let models: Vec<Value> =
        app.models().names().enumerate().map(|(index, name)| entry(&app, index, name)).collect();
    JsonAnswer(json!({ "models": models }))
}

/// Lists the models in memory.
#[utoipa::path(
    get,
    path = "/api/ps",
    tag = "Ollama",
    responses((status = 200, body = Object), (status = "4XX", body = OllamaError))
)]
pub async fn ps(State(app): State<Arc<App>>) -> JsonAnswer<Value> {
    let loaded = app.models().in_memory_now();
    let names = app.models().names().enumerate().filter(|(_, name)| loaded.iter().any(|other| other == name));
    let models: Vec<Value> = names
        .map(|(index, name)| {
            let mut entry = entry(&app, index, name);
            entry["context_length"] = json!(app.models().facts(index).map(|facts| facts.context_length));
            entry
        })
        .collect();
    JsonAnswer(json!({ "models": models }))
}

/// Describes a model, which is loaded for it.
#[utoipa::path(
    post,
    path = "/api/show",
    tag = "Ollama",
    request_body = ModelRequest,
    responses((status = 200, body = Object), (status = "4XX", body = OllamaError), (status = "5XX", body = OllamaError))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    Json(request): Json<ModelRequest>,
) -> Result<JsonAnswer<Value>, Failure> {
    let index = app.models().find(Some(&request.model))?;
    drop(app.model(Some(&request.model)).await?);
    let facts = app.models().facts(index).ok_or_else(Failure::internal)?;
    let mut capabilities = facts.capabilities();
    if !facts.chats {
        capabilities.retain(|capability| *capability != "tools");
    }
    Ok(JsonAnswer(json!({
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": details(),
        "model_info": {
            "general.architecture": ARCHITECTURE,
            "moeflux.context_length": facts.context_length,
            "moeflux.vocab_size": facts.vocab_size,
        },
        "capabilities": capabilities,
        "modified_at": rfc3339(app.models().created()),
    })))
}

/// Names the version of the API.
#[utoipa::path(
    get,
    path = "/api/version",
    tag = "Ollama",
    responses((status = 200, body = Object), (status = "4XX", body = OllamaError))
)]
pub async fn version() -> JsonAnswer<Value> {
    JsonAnswer(json!({ "version": VERSION, "server": crate::openai::types::FINGERPRINT }))
}

/// Reports success for a model that is served; others are not downloaded.
#[utoipa::path(
    post,
    path = "/api/pull",
    tag = "Ollama",
    request_body = ModelRequest,
    responses((status = 200, body = Object), (status = "4XX", body = OllamaError), (status = "5XX", body = OllamaError))
)]
pub async fn pull(
    State(app): State<Arc<App>>,
    Json(request): Json<ModelRequest>,
) -> Result<Response, Failure> {
    if request.stream.is_some() {
        ignore("stream");
    }
    if app.models().find(Some(&request.model)).is_err() {
        let message = format!(
            "model: this server does not download models; run `moeflux pull` with {:?} and serve it",
            request.model
        );
        return Err(Failure {
            param: Some("model".to_owned()),
            ..Failure::new(FailureKind::ModelNotFound, message)
        });
    }
    Ok(JsonAnswer(json!({ "status": "success" })).into_response())
}

/// The prefix of the keys in `model_info`: clients look for `ARCHITECTURE.context_length`.
const ARCHITECTURE: &str = "moeflux";

fn entry(app: &App, index: usize, name: &str) -> Value {
    let facts = app.models().facts(index);
    json!({
        "name": name,
        "model": name,
        "modified_at": rfc3339(app.models().created()),
        "size": facts.map_or(0, |facts| facts.bytes),
        "digest": "",
        "details": details(),
        "capabilities": facts.map(Facts::capabilities),
    })
}

fn details() -> Value {
    json!({
        "parent_model": "", "format": "moeflux", "family": ARCHITECTURE, "families": [ARCHITECTURE],
        "parameter_size": "", "quantization_level": "",
    })
}
