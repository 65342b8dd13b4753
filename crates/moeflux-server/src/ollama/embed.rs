//! `/api/embed` and the older `/api/embeddings`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json as JsonAnswer;
use axum::extract::State;

use super::nanoseconds;
use super::types::{EmbedRequest, Embedded, EmbeddedOne, EmbeddingRequest, OllamaError};
use crate::app::App;
use crate::body::Json;
use crate::error::Failure;
use crate::fields::NONE;
use crate::generation::Prompt;
use crate::openai;

/// Computes the embeddings of texts.
#[utoipa::path(
    post,
    path = "/api/embed",
    tag = "Ollama",
    request_body = EmbedRequest,
    responses((status = 200, body = Embedded), (status = "4XX", body = OllamaError), (status = "5XX", body = OllamaError))
)]
pub async fn embed(
    State(app): State<Arc<App>>,
    Json(request): Json<EmbedRequest>,
) -> Result<JsonAnswer<Embedded>, Failure> {
    request.unknown.settle("", &[NONE])?;
    let start = Instant::now();
    let model = app.model(request.model.as_deref()).await?;
    let load = start.elapsed();
    let inputs = request.input.into_vec().into_iter().map(Prompt::Text).collect();
    let (embeddings, tokens) =
        openai::embed(&model, app.config().limits.texts, inputs, request.dimensions).await?;
    Ok(JsonAnswer(Embedded {
        model: request.model.unwrap_or_else(|| model.name().to_owned()),
        embeddings,
        total_duration: nanoseconds(start.elapsed()),
        load_duration: nanoseconds(load),
        prompt_eval_count: tokens,
    }))
}

/// Computes the embedding of one text.
#[utoipa::path(
    post,
    path = "/api/embeddings",
    tag = "Ollama",
    request_body = EmbeddingRequest,
    responses((status = 200, body = EmbeddedOne), (status = "4XX", body = OllamaError), (status = "5XX", body = OllamaError))
)]
pub async fn embeddings(
    State(app): State<Arc<App>>,
    Json(request): Json<EmbeddingRequest>,
) -> Result<JsonAnswer<EmbeddedOne>, Failure> {
    request.unknown.settle("", &[NONE])?;
    let model = app.model(request.model.as_deref()).await?;
    let (mut embeddings, _) = openai::embed(&model, 1, vec![Prompt::Text(request.prompt)], None).await?;
    Ok(JsonAnswer(EmbeddedOne { embedding: embeddings.pop().unwrap_or_default() }))
}
