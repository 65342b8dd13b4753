//! `/v1/messages`.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use moeflux::chat::Delta;
use serde_json::value::RawValue;

use super::error::AnthropicError;
use super::stream;
use super::types::{
    AnswerMessage, Block, Caller, CountTokensRequest, MessagesRequest, OutputDetails, TokenCount, Usage,
};
use crate::app::App;
use crate::body::Json;
use crate::error::{Failure, FailureKind};
use crate::generation::{self, Answer, Finish};
use crate::ids::unique;

/// Answers a conversation, at once or as a stream.
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "Anthropic",
    request_body = MessagesRequest,
    responses(
        (status = 200, content((AnswerMessage = "application/json"), (serde_json::Value = "text/event-stream"))),
        (status = "4XX", body = AnthropicError),
        (status = "5XX", body = AnthropicError),
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Json(request): Json<MessagesRequest>,
) -> Result<Response, Failure> {
    let streams = request.stream.unwrap_or(false);
    let name = request.model.clone();
    let input = request.into_input()?;
    let model = app.model(Some(&name)).await?;
    let generation = generation::chat(model, &app.config().limits, input).await?;
    let mut message = begun(generation.model().name(), generation.prompt_tokens());
    if streams {
        return Ok(stream::respond(generation, message, app.config().keep_alive));
    }
    let answer = generation.collect().await?.pop().ok_or_else(Failure::internal)?;
    (message.stop_reason, message.stop_sequence) = stop(answer.finish.as_ref())?;
    message.usage = usage(&answer.usage);
    message.content = blocks(answer)?;
    Ok(JsonAnswer(message).into_response())
}

/// Counts the tokens of a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    tag = "Anthropic",
    request_body = CountTokensRequest,
    responses(
        (status = 200, body = TokenCount),
        (status = "4XX", body = AnthropicError),
        (status = "5XX", body = AnthropicError),
    )
)]
pub async fn count_tokens(
    State(app): State<Arc<App>>,
    Json(request): Json<CountTokensRequest>,
) -> Result<JsonAnswer<TokenCount>, Failure> {
    let name = request.model.clone();
    let input = request.into_input()?;
    let model = app.model(Some(&name)).await?;
    Ok(JsonAnswer(TokenCount { input_tokens: generation::count_tokens(model, input).await? }))
}

/// An answer that says nothing yet.
fn begun(model: &str, prompt_tokens: usize) -> AnswerMessage {
    AnswerMessage {
        id: unique("msg_"),
        kind: "message",
        role: "assistant",
        model: model.to_owned(),
        content: Vec::new(),
        stop_reason: None,
        stop_sequence: None,
        stop_details: None,
        usage: Usage { input_tokens: prompt_tokens, ..Usage::default() },
        container: None,
    }
}

fn blocks(answer: Answer) -> Result<Vec<Block>, Failure> {
    let mut blocks = Vec::new();
    for delta in answer.content.deltas {
        match delta {
            Delta::Reasoning(thinking) => blocks.push(Block::Thinking { thinking, signature: "" }),
            Delta::Text(text) => blocks.push(Block::Text { text, citations: None }),
            Delta::ToolCall { name, .. } => {
                let input = RawValue::NULL.to_owned();
                blocks.push(Block::ToolUse { id: unique("toolu_"), name, input, caller: Caller::Direct });
            }
            // All of a call's arguments come as one, since neighbours are joined.
            Delta::Arguments { piece, .. } => {
                if let Some(Block::ToolUse { input, .. }) = blocks.last_mut() {
                    *input = RawValue::from_string(piece).map_err(|error| {
                        tracing::error!(%error, "a call's arguments are not JSON");
                        Failure::internal()
                    })?;
                }
            }
        }
    }
    Ok(blocks)
}

/// How an end is called, and the text that made it. A cancelled answer is none.
pub(super) fn stop(finish: Option<&Finish>) -> Result<(Option<&'static str>, Option<String>), Failure> {
    match finish {
        Some(Finish::EndOfTurn) => Ok((Some("end_turn"), None)),
        Some(Finish::StopText(text)) => Ok((Some("stop_sequence"), Some(text.clone()))),
        Some(Finish::ToolCalls) => Ok((Some("tool_use"), None)),
        Some(Finish::Length) => Ok((Some("max_tokens"), None)),
        Some(Finish::Cancelled) | None => {
            Err(Failure::new(FailureKind::Unavailable, "the server stopped before the answer was complete"))
        }
    }
}

pub(super) fn usage(usage: &generation::Usage) -> Usage {
    Usage {
        input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        cache_read_input_tokens: usage.cached_tokens,
        output_tokens: usage.completion_tokens,
        output_tokens_details: OutputDetails { thinking_tokens: usage.reasoning_tokens },
        ..Usage::default()
    }
}
