//! `/v1/responses/compact`: a long conversation as a short one.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json as JsonAnswer};
use moeflux::chat::ToolChoice;
use moeflux::text::Message;
use serde_json::{Value, json};

use super::create::asked;
use super::items::encoded;
use super::types::{ResponsesRequest, Usage};
use crate::app::App;
use crate::auth::Caller;
use crate::body::Json;
use crate::clock::unix_time;
use crate::error::Failure;
use crate::generation;
use crate::ids::unique;
use crate::openapi::ErrorBody;

/// What the model is asked for.
const ASK: &str = "Summarize this conversation so that it can be continued from the summary alone: the task, what was decided \
                   and done, facts that are still needed, and what remains to do.";
/// Most tokens of a summary.
const TOKENS: usize = 2048;

/// Has the model summarize a conversation. The item of the result stands for the conversation in later requests.
#[utoipa::path(
    post,
    path = "/v1/responses/compact",
    tag = "OpenAI",
    request_body = ResponsesRequest,
    responses((status = 200, body = Object), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn compact(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<ResponsesRequest>,
) -> Result<JsonAnswer<Value>, Failure> {
    let name = request.model.clone();
    let mut input = asked(&app, caller, request)?.input;
    input.messages.push(Message::new("user", ASK));
    input.options.tool_choice = ToolChoice::None;
    input.options.enable_thinking = Some(false);
    input.constraint = None;
    input.controls.max_tokens = Some(input.controls.max_tokens.unwrap_or(TOKENS).min(TOKENS));
    let model = app.model(name.as_deref()).await?;
    let generation = generation::chat(model, &app.config().limits, input).await?;
    let answer = generation.collect().await?.pop().ok_or_else(Failure::internal)?;
    let summary = format!("Summary of the conversation so far:\n\n{}", answer.content.text());
    let item = json!({ "type": "compaction", "id": unique("cmp_"), "encrypted_content": encoded(&summary) });
    Ok(JsonAnswer(json!({
        "id": unique("resp_"),
        "object": "response.compaction",
        "created_at": unix_time(),
        "output": [item],
        "usage": Usage::from(&answer.usage),
    })))
}
