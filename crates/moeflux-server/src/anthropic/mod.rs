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

pub(crate) use error::error_body;
pub use error::{AnthropicError, AnthropicErrorDetail};

/// The routes of this API.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
}
