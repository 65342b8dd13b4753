//! `/health`: whether the server lives, and whether it takes requests.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::{Failure, shutting_down};
use crate::openapi::ErrorBody;

/// State of the server.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ready` or `live`.
    pub status: &'static str,
}

/// Returns 200 while the server accepts requests, 503 once it shuts down.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "Server",
    security(()),
    responses((status = 200, body = Health), (status = 503, body = ErrorBody))
)]
pub async fn ready(State(app): State<Arc<App>>) -> Result<Json<Health>, Failure> {
    if app.models().is_open() { Ok(Json(Health { status: "ready" })) } else { Err(shutting_down()) }
}

/// Returns 200 while the process runs, also during shutdown.
#[utoipa::path(get, path = "/health/live", tag = "Server", security(()), responses((status = 200, body = Health)))]
pub async fn live() -> Json<Health> {
    Json(Health { status: "live" })
}
