//! Ollama's API: `/api/chat`, `/api/generate` and what belongs to them.

pub mod answer;
pub mod embed;
pub mod models;
mod request;
pub mod types;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use serde_json::{Value, json};

use self::types::OllamaError;
use crate::app::App;
use crate::error::Failure;

/// The routes of this API.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/chat", post(answer::chat))
        .route("/api/generate", post(answer::generate))
        .route("/api/embed", post(embed::embed))
        .route("/api/embeddings", post(embed::embeddings))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::ps))
        .route("/api/show", post(models::show))
        .route("/api/version", get(models::version))
        .route("/api/pull", post(models::pull))
}

/// How it writes a time.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How it writes a failure.
pub(crate) fn error_body(failure: &Failure) -> Value {
    json!(OllamaError { error: failure.message.clone() })
}
