//! OpenAI's responses API: `/v1/responses` and what belongs to it.

pub(crate) mod create;
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
    parse::<types::ResponsesRequest>(body)?.asked(Vec::new()).map(drop)
}

/// The routes of this API.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/responses", post(create::create))
        .route("/v1/responses/{id}", get(stored::show).delete(stored::remove))
}
