//! `/v1/chat/completions`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use moeflux::chat;

use super::chat_stream;
use super::logprobs::chat_logprobs;
use super::tools::custom_input;
use super::types::{
    AnswerMessage, ChatChoice, ChatCompletion, ChatCompletionRequest, CustomCall, FINGERPRINT, FunctionCall,
    InputTokenCount, ToolCall, Usage,
};
use crate::app::App;
use crate::body::Json;
use crate::clock::unix_time;
use crate::error::{Failure, FailureKind};
use crate::generation::{self, Answer, Finish};
use crate::ids::unique;
use crate::models::Lease;
use crate::openapi::ErrorBody;

/// Answers a chat, at once or as a stream.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "OpenAI",
    request_body = ChatCompletionRequest,
    responses(
        (status = 200, content((ChatCompletion = "application/json"), (serde_json::Value = "text/event-stream"))),
        (status = "4XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody),
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Json(request): Json<ChatCompletionRequest>,
) -> Result<Response, Failure> {
    let include_usage = request.stream_options.as_ref().and_then(|options| options.include_usage);
    let streams = request.stream.unwrap_or(false);
    if request.stream_options.is_some() && !streams {
        return Err(Failure::field(
            "stream_options",
            "stream_options: expected only together with `stream: true`",
        ));
    }
    let name = request.model.clone();
    let input = request.into_input()?;
    let model = app.model(name.as_deref()).await?;
    let customs = input.customs.clone();
    let generation = generation::chat(model.clone(), &app.config().limits, input).await?;
    let id = unique("chatcmpl-");
    if streams {
        let usage = include_usage.unwrap_or(false);
        return Ok(chat_stream::respond(generation, id, usage, app.config().keep_alive, customs));
    }
    let answers = generation.collect().await?;
    let mut usage = Usage::default();
    let mut choices = Vec::with_capacity(answers.len());
    for (index, answer) in answers.iter().enumerate() {
        usage.add(&answer.usage, index == 0);
        choices.push(choice(index, answer, &model, &customs)?);
    }
    let (object, created, model) = ("chat.completion", unix_time(), model.name().to_owned());
    let system_fingerprint = FINGERPRINT;
    let completion = ChatCompletion { id, object, created, model, choices, usage, system_fingerprint };
    Ok(JsonAnswer(completion).into_response())
}

/// Counts the tokens of a chat's prompt.
#[utoipa::path(
    post,
    path = "/v1/chat/completions/input_tokens",
    tag = "OpenAI",
    request_body = ChatCompletionRequest,
    responses((status = 200, body = InputTokenCount), (status = "4XX", body = ErrorBody))
)]
pub async fn input_tokens(
    State(app): State<Arc<App>>,
    Json(request): Json<ChatCompletionRequest>,
) -> Result<JsonAnswer<InputTokenCount>, Failure> {
    let name = request.model.clone();
    let input = request.into_input()?;
    let model = app.model(name.as_deref()).await?;
    let input_tokens = generation::count_tokens(model, input).await?;
    Ok(JsonAnswer(InputTokenCount { object: "response.input_tokens", input_tokens }))
}

fn choice(
    index: usize,
    answer: &Answer,
    model: &Lease,
    customs: &BTreeSet<String>,
) -> Result<ChatChoice, Failure> {
    let call = |chat::ToolCall { name, arguments }| {
        let is_custom = customs.contains(&name);
        let (function, custom) = if is_custom {
            (None, Some(CustomCall { name: Some(name), input: custom_input(&arguments) }))
        } else {
            (Some(FunctionCall { name: Some(name), arguments }), None)
        };
        let kind = Some(if is_custom { "custom" } else { "function" });
        ToolCall { index: None, id: Some(unique("call_")), kind, function, custom }
    };
    let tool_calls: Vec<ToolCall> = answer.content.tool_calls().into_iter().map(call).collect();
    let text = answer.content.text();
    let reasoning = answer.content.reasoning();
    Ok(ChatChoice {
        index,
        message: AnswerMessage {
            role: "assistant",
            content: (!text.is_empty() || tool_calls.is_empty()).then_some(text),
            refusal: None,
            reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
            tool_calls,
        },
        logprobs: (!answer.tokens.is_empty()).then(|| chat_logprobs(&answer.tokens, model)),
        finish_reason: finish_reason(answer.finish.as_ref())?,
    })
}

/// How an end is called. A cancelled answer is none.
pub(super) fn finish_reason(finish: Option<&Finish>) -> Result<&'static str, Failure> {
    match finish {
        Some(Finish::EndOfTurn | Finish::StopText(_)) => Ok("stop"),
        Some(Finish::ToolCalls) => Ok("tool_calls"),
        Some(Finish::Length) => Ok("length"),
        Some(Finish::Cancelled) | None => {
            Err(Failure::new(FailureKind::Unavailable, "the server stopped before the answer was complete"))
        }
    }
}
