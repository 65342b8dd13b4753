//! OpenAI's responses API: `/v1/responses` and what belongs to it.

pub(crate) mod compact;
pub(crate) mod create;
mod input;
mod items;
mod request;
mod store;
pub(crate) mod stored;
mod stream;
pub mod types;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::app::App;
use crate::body::parse;
use crate::error::Failure;

pub use store::Store;

/// What it makes of a request's body.
pub(crate) fn check(body: &[u8]) -> Result<(), Failure> {
    parse::<types::ResponsesRequest>(body)?.asked(Vec::new(), &|_| None).map(drop)
}

/// The routes of this API, without the `/v1` before them.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/responses", post(create::create))
        .route("/responses/input_tokens", post(create::input_tokens))
        .route("/responses/compact", post(compact::compact))
        .route("/responses/{id}", get(stored::show).delete(stored::remove))
        .route("/responses/{id}/input_items", get(stored::input_items))
        .route("/responses/{id}/cancel", post(stored::cancel))
}
