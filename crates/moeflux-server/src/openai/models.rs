//! `/v1/models`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::Failure;
use crate::openapi::ErrorBody;

/// The models of the server.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: &'static str,
    /// The models, in the order of the command line.
    pub data: Vec<Model>,
}

/// A model of the server.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Model {
    /// Name of the model in requests.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// Start of the server, in Unix seconds.
    pub created: u64,
    /// Always `moeflux`.
    pub owned_by: &'static str,
}

/// Lists the models.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "OpenAI",
    responses((status = 200, body = ModelList), (status = "4XX", body = ErrorBody))
)]
pub async fn list(State(app): State<Arc<App>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: app.models().names().map(|name| model(&app, name)).collect() })
}

/// Returns one model.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "OpenAI",
    params(("model" = String, Path, description = "Name of the model")),
    responses((status = 200, body = Model), (status = "4XX", body = ErrorBody))
)]
pub async fn one(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Model>, Failure> {
    app.models().find(Some(&name))?;
    Ok(Json(model(&app, &name)))
}

fn model(app: &App, name: &str) -> Model {
    Model { id: name.to_owned(), object: "model", created: app.models().created(), owned_by: "moeflux" }
}
