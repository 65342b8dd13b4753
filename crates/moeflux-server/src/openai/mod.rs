//! The API of OpenAI, but for its responses.

pub mod chat;
mod chat_stream;
pub mod completions;
pub mod embeddings;
mod logprobs;
pub mod models;
mod request;
mod tools;
pub mod types;

use serde_json::{Value, json};

use crate::body::parse;
use crate::error::{Failure, FailureKind};

pub(crate) use embeddings::embed;
pub(crate) use request::{effort_thinks, messages, prefill};
pub(crate) use tools::{Offered, call, custom_arguments, custom_input, is_service, tool_choice, tools};

/// What it makes of a chat's body.
pub(crate) fn check_chat(body: &[u8]) -> Result<(), Failure> {
    parse::<types::ChatCompletionRequest>(body)?.into_input().map(drop)
}

/// What it makes of the body of a text to go on with.
pub(crate) fn check_completion(body: &[u8]) -> Result<(), Failure> {
    let mut request = parse::<types::CompletionRequest>(body)?;
    request.take_controls()?;
    request::response_format(request.response_format).map(drop)
}

/// How it writes a failure.
pub(crate) fn error_body(failure: &Failure) -> Value {
    let (kind, code) = match failure.kind {
        FailureKind::ContextLength => ("invalid_request_error", Some("context_length_exceeded")),
        FailureKind::Unauthorized => ("authentication_error", Some("invalid_api_key")),
        FailureKind::NotFound => ("invalid_request_error", Some("not_found")),
        FailureKind::ModelNotFound => ("invalid_request_error", Some("model_not_found")),
        FailureKind::RateLimit => ("rate_limit_error", Some("rate_limit_exceeded")),
        FailureKind::QueueFull => ("overloaded_error", Some("queue_full")),
        FailureKind::Unavailable => ("overloaded_error", Some("unavailable")),
        FailureKind::Timeout | FailureKind::TimeUp => ("timeout_error", Some("timeout")),
        FailureKind::Internal => ("server_error", Some("internal_error")),
        _ => ("invalid_request_error", None),
    };
    json!({ "error": { "message": failure.message, "type": kind, "param": failure.param, "code": code } })
}
