//! The API of Anthropic: `/v1/messages` and what belongs to it.

mod error;
pub mod messages;
mod request;
mod stream;
pub mod types;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::app::App;
use crate::body::parse;
use crate::error::Failure;

pub(crate) use error::error_body;
pub use error::{AnthropicError, AnthropicErrorDetail};

/// What it makes of a message's body.
pub(crate) fn check(body: &[u8]) -> Result<(), Failure> {
    parse::<types::MessagesRequest>(body)?.into_input().map(drop)
}

/// Whether a path belongs to this API.
pub(crate) fn is_path(path: &str) -> bool {
    let mut path = path;
    while let Some(rest) = path.strip_prefix("/v1") {
        path = rest;
    }
    path.strip_prefix("/messages").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The routes of this API, without the `/v1` before them.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/messages", post(messages::create))
        .route("/messages/count_tokens", post(messages::count_tokens))
}
