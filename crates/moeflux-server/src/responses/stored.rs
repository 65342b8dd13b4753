//! Responses that are kept.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde_json::Value;

use super::create::not_found;
use super::types::{Deleted, Response};
use crate::app::App;
use crate::auth::Caller;
use crate::error::Failure;
use crate::openapi::ErrorBody;

/// Returns a stored response.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "Id of the response")),
    responses((status = 200, body = Response), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    app.responses().response(&id, caller).map(Json).ok_or_else(|| not_found(&id, "id"))
}

/// Deletes a stored response.
#[utoipa::path(
    delete,
    path = "/v1/responses/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "Id of the response")),
    responses((status = 200, body = Deleted), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, Failure> {
    if app.responses().remove(&id, caller) {
        return Ok(Json(Deleted { id, object: "response", deleted: true }));
    }
    Err(not_found(&id, "id"))
}
