//! Errors in the shape of this API.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::error::{Failure, FailureKind};

/// What a failed request gets.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnthropicError {
    /// `error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The failure.
    pub error: AnthropicErrorDetail,
    /// The request's number, as in the header `request-id`.
    pub request_id: Option<String>,
}

/// Why a request failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnthropicErrorDetail {
    /// What kind of failure.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// For people.
    pub message: String,
}

/// How it writes a failure.
pub(crate) fn error_body(failure: &Failure, request_id: Option<&str>) -> Value {
    let error = AnthropicErrorDetail { kind: error_type(failure.kind), message: failure.message.clone() };
    json!(AnthropicError { kind: "error", error, request_id: request_id.map(str::to_owned) })
}

fn error_type(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Unauthorized => "authentication_error",
        FailureKind::NotFound | FailureKind::ModelNotFound => "not_found_error",
        FailureKind::TooLarge => "request_too_large",
        FailureKind::RateLimit | FailureKind::QueueFull => "rate_limit_error",
        FailureKind::Timeout | FailureKind::TimeUp => "timeout_error",
        FailureKind::Unavailable => "overloaded_error",
        FailureKind::Internal => "api_error",
        _ => "invalid_request_error",
    }
}
