//! What a client is told when a request fails: one type for all APIs, which differ in how they write it.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use moeflux::Error;
use moeflux::chat::ChatError;
use moeflux::sampling::{ConstraintError, SamplingError};
use moeflux::text::TextError;

use moeflux::engine::{RequestError, SubmitError};

/// When to come again where nobody knows.
const SOON: Duration = Duration::from_secs(1);

/// A request that failed.
///
/// As a response it has its status and no body yet: it travels in the response's extensions, and the outermost layer of the
/// router writes it in the form of the API that the path belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What is wrong, for people.
    pub message: String,
    /// The field of the request that is to blame.
    pub param: Option<String>,
    /// When it makes sense to try again.
    pub retry_after: Option<Duration>,
}

/// The kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The request makes no sense.
    Invalid,
    /// It has more tokens than the model's context.
    ContextLength,
    /// It has no key, or a wrong one.
    Unauthorized,
    /// There is no such route, or nothing of that name.
    NotFound,
    /// There is no such model.
    ModelNotFound,
    /// The route has other methods.
    Method,
    /// The body did not come in time.
    Timeout,
    /// The answer took longer than the server allows.
    TimeUp,
    /// What is to be made exists already.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The body is of another type.
    MediaType,
    /// The client asks too often.
    RateLimit,
    /// Too many requests wait already.
    QueueFull,
    /// The server stops, or the model can't be had now.
    Unavailable,
    /// The server is at fault.
    Internal,
}

impl FailureKind {
    /// Its status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid | Self::ContextLength => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound | Self::ModelNotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TimeUp => StatusCode::GATEWAY_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimit | Self::QueueFull => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Failure {
    /// A failure of some kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, retry_after: None }
    }

    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, message)
    }

    /// A field that makes no sense.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::invalid(message) }
    }

    /// The server is at fault. What happened is for the log, not for the client.
    pub fn internal() -> Self {
        Self::new(FailureKind::Internal, "the server failed; its log says why")
    }

    /// The same, with when to try again.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What an error of the library says about the request.
pub(crate) fn from_error(error: &Error) -> Failure {
    match error {
        // Clients know it by these words, and then shorten the conversation.
        Error::ContextFull { len, new, context } => {
            let message = format!(
                "prompt is too long: {} tokens > {context} maximum, the model's maximum context length",
                len + new
            );
            Failure::new(FailureKind::ContextLength, message)
        }
        Error::Text(TextError::TooLong { bytes, limit }) => {
            let message = format!(
                "prompt is too long: the tokens of {bytes} bytes > {limit} maximum, the model's maximum context length"
            );
            Failure::new(FailureKind::ContextLength, message)
        }
        Error::Sampling(SamplingError::NotFinite { .. } | SamplingError::LogitCount { .. }) => {
            internal(error)
        }
        Error::Constraint(ConstraintError::Thread { .. }) => {
            tracing::error!(%error, "there is no thread to compile a constraint on");
            Failure::new(FailureKind::Unavailable, error.to_string()).retry_after(SOON)
        }
        Error::Option { .. }
        | Error::Sampling(_)
        | Error::Constraint(_)
        | Error::TokenOutOfRange { .. }
        | Error::NoTokens
        | Error::Text(_) => Failure::invalid(error.to_string()),
        error => internal(error),
    }
}

/// What an error of a conversation says about the request.
pub(crate) fn from_chat(error: &ChatError) -> Failure {
    let field = match error {
        ChatError::Engine(error) => return from_error(error),
        ChatError::NoMessages => "messages",
        ChatError::Tool { .. } => "tools",
        ChatError::UnknownTool { .. } | ChatError::NoTools | ChatError::UnknownCalls => "tool_choice",
        ChatError::ConstraintWithTools => "response_format",
        error => {
            tracing::error!(%error, "a request failed");
            return Failure::internal();
        }
    };
    Failure::field(field, error.to_string())
}

/// Why the engine did not take a request.
pub(crate) fn from_submit(error: SubmitError) -> Failure {
    match error {
        SubmitError::QueueFull { limit } => {
            let message = format!("{limit} requests are waiting, which is the server's limit; try again");
            Failure::new(FailureKind::QueueFull, message).retry_after(SOON)
        }
        SubmitError::ShuttingDown => shutting_down(),
        SubmitError::Stopped => from_request(&RequestError::Stopped),
        SubmitError::Invalid(error) => from_error(&error),
        error => {
            tracing::error!(%error, "a request was not taken");
            Failure::internal()
        }
    }
}

/// Why the engine did not finish a request.
pub(crate) fn from_request(error: &RequestError) -> Failure {
    match error {
        RequestError::Failed(error) => from_error(error),
        RequestError::Stopped => {
            tracing::error!("the model's engine has stopped");
            Failure::new(FailureKind::Unavailable, "the model's engine has stopped; try again")
                .retry_after(SOON)
        }
        error => {
            tracing::error!(%error, "a request failed");
            Failure::internal()
        }
    }
}

/// What new requests are told when the server stops.
pub(crate) fn shutting_down() -> Failure {
    Failure::new(FailureKind::Unavailable, "the server is shutting down").retry_after(SOON)
}

fn internal(error: &Error) -> Failure {
    tracing::error!(%error, "a request failed");
    Failure::internal()
}
