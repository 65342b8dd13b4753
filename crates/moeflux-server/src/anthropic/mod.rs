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

/// The routes of this API.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
}
