//! `/v1/models`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::clock::rfc3339;
use crate::error::Failure;
use crate::models::Facts;
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
    /// Context length of the model in tokens. Null until it has been loaded once, as the fields below.
    pub context_length: Option<usize>,
    /// The same, under vLLM's name.
    pub max_model_len: Option<usize>,
    /// What the model can do: `completion`, `embedding`, `tools` where it is known how it writes calls, `thinking`.
    pub capabilities: Option<Vec<&'static str>>,
    /// Format in which the model writes tool calls, such as `hermes`; null if it is not known.
    pub call_format: Option<&'static str>,
}

/// The models in the form of Anthropic's API.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnthropicModelList {
    /// The models, in the order of the command line.
    pub data: Vec<AnthropicModel>,
    /// Always false: all are in the list.
    pub has_more: bool,
    /// Name of the first.
    pub first_id: Option<String>,
    /// Name of the last.
    pub last_id: Option<String>,
}

/// A model in the form of Anthropic's API.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnthropicModel {
    /// Always `model`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Name of the model in requests.
    pub id: String,
    /// The same.
    pub display_name: String,
    /// Start of the server, as RFC 3339 writes it.
    pub created_at: String,
    /// Context length of the model in tokens. Null until it has been loaded once.
    pub max_input_tokens: Option<usize>,
}

/// Lists the models, in the form of Anthropic's API for requests with the header `anthropic-version`.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "OpenAI",
    responses((status = 200, body = ModelList), (status = "4XX", body = ErrorBody))
)]
pub async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let names: Vec<String> = app.models().names().map(str::to_owned).collect();
    if headers.contains_key(ANTHROPIC) {
        let data = (0..).zip(&names).map(|(index, name)| anthropic(&app, index, name)).collect();
        let (first_id, last_id) = (names.first().cloned(), names.last().cloned());
        return Json(AnthropicModelList { data, has_more: false, first_id, last_id }).into_response();
    }
    let data = (0..).zip(&names).map(|(index, name)| model(&app, index, name)).collect();
    Json(ModelList { object: "list", data }).into_response()
}

/// Returns one model, in the form of Anthropic's API for requests with the header `anthropic-version`.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "OpenAI",
    params(("model" = String, Path, description = "Name of the model")),
    responses((status = 200, body = Model), (status = "4XX", body = ErrorBody))
)]
pub async fn one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let index = app.models().find(Some(&name))?;
    Ok(if headers.contains_key(ANTHROPIC) {
        Json(anthropic(&app, index, &name)).into_response()
    } else {
        Json(model(&app, index, &name)).into_response()
    })
}

/// The header that every request to Anthropic's API has.
const ANTHROPIC: &str = "anthropic-version";

fn model(app: &App, index: usize, name: &str) -> Model {
    let facts = app.models().facts(index);
    let context_length = facts.map(|facts| facts.context_length);
    Model {
        id: name.to_owned(),
        object: "model",
        created: app.models().created(),
        owned_by: "moeflux",
        context_length,
        max_model_len: context_length,
        capabilities: facts.map(Facts::capabilities),
        call_format: facts.and_then(|facts| facts.call_format),
    }
}

fn anthropic(app: &App, index: usize, name: &str) -> AnthropicModel {
    AnthropicModel {
        kind: "model",
        id: name.to_owned(),
        display_name: name.to_owned(),
        created_at: rfc3339(app.models().created()),
        max_input_tokens: app.models().facts(index).map(|facts| facts.context_length),
    }
}
