//! `/v1/sequences/{id}`: what a model has read, kept in a folder over restarts.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use axum::Json as JsonAnswer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use moeflux::chat::ChatOptions;
use moeflux::text::Message;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::body::Json;
use crate::error::{Failure, FailureKind, from_request, from_submit};
use crate::generation::{ChatInput, Prompt, chat_prompt};
use crate::openai::{messages, tools};
use crate::openapi::ErrorBody;
use crate::work::{self, Size};

/// A prompt or a chat to prefill and save.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// A prompt, as text.
    pub prompt: Option<String>,
    /// A chat, as in `/v1/chat/completions`, up to where the answer begins.
    #[schema(value_type = Option<Vec<Object>>, min_items = 1)]
    pub messages: Option<Vec<Message>>,
    /// Tools of the chat.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
    /// Whether the model reasons before it answers.
    pub enable_thinking: Option<bool>,
}

/// The model that loads a saved sequence.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
}

/// A saved sequence.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SavedSequence {
    /// Id of the sequence.
    pub id: String,
    /// Number of tokens. Null if only the file was examined.
    pub tokens: Option<usize>,
    /// Size of the file, in bytes.
    pub bytes: u64,
}

/// Returns whether a sequence is saved.
#[utoipa::path(
    get,
    path = "/v1/sequences/{id}",
    tag = "Server",
    params(("id" = String, Path, description = "Id: letters, digits, `_`, `-` and `.`")),
    responses((status = 200, body = SavedSequence), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<JsonAnswer<SavedSequence>, Failure> {
    let path = file(&app, &id)?;
    work::run(Size::OfBody, move |_| {
        Ok(JsonAnswer(SavedSequence { bytes: size(&path, &id)?, id, tokens: None }))
    })
    .await
}

/// Prefills a prompt or a chat and saves its state. A saved sequence of this id is replaced.
#[utoipa::path(
    put,
    path = "/v1/sequences/{id}",
    tag = "Server",
    params(("id" = String, Path, description = "Id: letters, digits, `_`, `-` and `.`")),
    request_body = SaveRequest,
    responses((status = 200, body = SavedSequence), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn save(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(request): Json<SaveRequest>,
) -> Result<JsonAnswer<SavedSequence>, Failure> {
    let path = file(&app, &id)?;
    let model = app.model(request.model.as_deref()).await?;
    let asked = (model.clone(), path.clone());
    let pending = work::run(Size::OfBody, move |cancel| {
        let (model, path) = asked;
        let prompt = match (request.prompt, request.messages) {
            (Some(prompt), None) => prompt,
            (None, Some(chat)) => {
                let input = ChatInput {
                    messages: messages(chat)?,
                    options: ChatOptions {
                        tools: tools(request.tools.unwrap_or_default())?.functions,
                        enable_thinking: request.enable_thinking,
                        ..ChatOptions::default()
                    },
                    ..ChatInput::default()
                };
                chat_prompt(&model, &input)?
            }
            _ => return Err(Failure::field("prompt", "prompt: expected either `prompt` or `messages`")),
        };
        let mut tokens = Prompt::Text(prompt).tokens(&model, cancel)?;
        // The same prompt is to go on from it, and for that has to have a token more.
        if tokens.len() > 1 {
            tokens.pop();
        }
        model.handle().save(tokens, path).map_err(from_submit)
    })
    .await?;
    let saved = pending.await.map_err(|error| from_request(&error))?;
    work::run(Size::OfBody, move |_| {
        Ok(JsonAnswer(SavedSequence { bytes: size(&path, &id)?, id, tokens: Some(saved.tokens) }))
    })
    .await
}

/// Loads a saved sequence. Prompts and chats that begin with its tokens continue from its state.
#[utoipa::path(
    post,
    path = "/v1/sequences/{id}/restore",
    tag = "Server",
    params(("id" = String, Path, description = "Id: letters, digits, `_`, `-` and `.`")),
    request_body = RestoreRequest,
    responses((status = 200, body = SavedSequence), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn restore(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(request): Json<RestoreRequest>,
) -> Result<JsonAnswer<SavedSequence>, Failure> {
    let path = file(&app, &id)?;
    let looked_at = (path.clone(), id.clone());
    let bytes = work::run(Size::OfBody, move |_| size(&looked_at.0, &looked_at.1)).await?;
    let model = app.model(request.model.as_deref()).await?;
    let pending = model.handle().restore(path).map_err(from_submit)?;
    let restored = pending.await.map_err(|error| match &error {
        // The file is there; then it is another model's, or damaged.
        moeflux::engine::RequestError::Failed(cause)
            if matches!(**cause, moeflux::Error::Snapshot { .. }) =>
        {
            tracing::warn!(%cause, "a sequence cannot be restored");
            let message = format!("this model cannot load the sequence {id:?}");
            Failure::new(FailureKind::Conflict, message)
        }
        error => from_request(error),
    })?;
    Ok(JsonAnswer(SavedSequence { id, tokens: Some(restored.tokens.len()), bytes }))
}

/// Deletes a saved sequence.
#[utoipa::path(
    delete,
    path = "/v1/sequences/{id}",
    tag = "Server",
    params(("id" = String, Path, description = "Id: letters, digits, `_`, `-` and `.`")),
    responses((status = 204), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn remove(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    let path = file(&app, &id)?;
    work::run(Size::OfBody, move |_| {
        fs::remove_file(&path).map_err(|error| missing_or(&error, &path, &id))?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// The file of a sequence. A name is one plain name, so that it leads nowhere else.
fn file(app: &App, id: &str) -> Result<PathBuf, Failure> {
    let Some(folder) = &app.config().sequences else {
        let message = "this server does not save sequences: start it with `--sequences FOLDER`";
        return Err(Failure::new(FailureKind::NotFound, message));
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.bytes().all(is_plain) {
        let message = "id: expected 1 to 128 letters, digits, `_`, `-` and `.`, not beginning with `.`";
        return Err(Failure::field("id", message));
    }
    Ok(folder.join(format!("{id}.sequence")))
}

fn size(path: &FilePath, id: &str) -> Result<u64, Failure> {
    fs::metadata(path).map(|file| file.len()).map_err(|error| missing_or(&error, path, id))
}

fn missing_or(error: &io::Error, path: &FilePath, id: &str) -> Failure {
    if error.kind() == io::ErrorKind::NotFound {
        return Failure::new(FailureKind::NotFound, format!("there is no sequence {id:?}"));
    }
    tracing::error!(path = %path.display(), %error, "a sequence's file cannot be had");
    Failure::internal()
}
