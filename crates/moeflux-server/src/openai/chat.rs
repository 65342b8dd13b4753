//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use moeflux::chat;

use super::chat_stream;
use super::logprobs::chat_logprobs;
use super::types::{
    AnswerMessage, ChatChoice, ChatCompletion, ChatCompletionRequest, FunctionCall, ToolCall, Usage,
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
    let options = request.stream_options.unwrap_or_default();
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
    let generation = generation::chat(model.clone(), &app.config().limits, input).await?;
    let id = unique("chatcmpl-");
    if streams {
        let usage = options.include_usage.unwrap_or(false);
        return Ok(chat_stream::respond(generation, id, usage, app.config().keep_alive));
    }
    let answers = generation.collect().await?;
    let mut usage = Usage::default();
    let mut choices = Vec::with_capacity(answers.len());
    for (index, answer) in answers.iter().enumerate() {
        usage.add(&answer.usage, index == 0);
        choices.push(choice(index, answer, &model)?);
    }
    let (object, created, model) = ("chat.completion", unix_time(), model.name().to_owned());
    Ok(JsonAnswer(ChatCompletion { id, object, created, model, choices, usage }).into_response())
}

fn choice(index: usize, answer: &Answer, model: &Lease) -> Result<ChatChoice, Failure> {
    let call = |chat::ToolCall { name, arguments }| ToolCall {
        index: None,
        id: Some(unique("call_")),
        kind: Some("function"),
        function: FunctionCall { name: Some(name), arguments },
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
