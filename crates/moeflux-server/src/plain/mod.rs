//! Routes of the server's own.

pub mod health;
mod metrics;
pub mod sequences;
pub mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::app::App;

/// Its routes that ask for a key.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/apply-template", post(tokens::apply_template))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/sequences/{id}", get(sequences::show).put(sequences::save).delete(sequences::remove))
        .route("/v1/sequences/{id}/restore", post(sequences::restore))
}

pub(crate) use metrics::__path_metrics;
