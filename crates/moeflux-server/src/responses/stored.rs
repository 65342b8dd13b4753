//! Responses that are kept.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::{Extension, Json};
use serde_json::Value;

use super::create::not_found;
use super::stream;
use super::types::{Deleted, ItemList, Response};
use crate::app::App;
use crate::auth::Caller;
use crate::error::Failure;
use crate::openapi::ErrorBody;

/// Returns a stored response, as events with `stream=true`.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}",
    tag = "OpenAI",
    params(
        ("id" = String, Path, description = "Id of the response"),
        ("stream" = Option<bool>, Query, description = "Whether to return it as events"),
        ("starting_after" = Option<u64>, Query, description = "Number of the event after which to start"),
    ),
    responses(
        (status = 200, content((Response = "application/json"), (serde_json::Value = "text/event-stream"))),
        (status = "4XX", body = ErrorBody),
    )
)]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<HttpResponse, Failure> {
    let response = app.responses().response(&id, caller).ok_or_else(|| not_found(&id, "id"))?;
    if query(&uri, "stream") != Some("true") {
        return Ok(Json(response).into_response());
    }
    let from = match query(&uri, "starting_after").map(str::parse::<u64>) {
        None => 0,
        Some(Ok(number)) => number.saturating_add(1),
        Some(Err(_)) => {
            return Err(Failure::field("starting_after", "starting_after: expected the number of an event"));
        }
    };
    let items = app.responses().items(&id, caller).unwrap_or_default();
    Ok(stream::replay(response, &items, from, app.config().keep_alive))
}

/// Lists the items of a stored response's input.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}/input_items",
    tag = "OpenAI",
    params(
        ("id" = String, Path, description = "Id of the response"),
        ("order" = Option<String>, Query, description = "`asc` or `desc`. Default: `desc`"),
        ("limit" = Option<usize>, Query, description = "Most items. Default: 20"),
        ("after" = Option<String>, Query, description = "Id of the item after which to start"),
    ),
    responses((status = 200, body = ItemList), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn input_items(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<ItemList>, Failure> {
    let mut items = app.responses().input(&id, caller).ok_or_else(|| not_found(&id, "id"))?;
    if query(&uri, "order") != Some("asc") {
        items.reverse();
    }
    if let Some(after) = query(&uri, "after")
        && let Some(place) = items.iter().position(|item| item["id"] == after)
    {
        items.drain(..=place);
    }
    let limit = query(&uri, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(20);
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id = |item: Option<&Value>| item.and_then(|item| item["id"].as_str()).map(str::to_owned);
    let (first_id, last_id) = (id(items.first()), id(items.last()));
    Ok(Json(ItemList { object: "list", data: items, first_id, last_id, has_more }))
}

/// Cancels a response that is made in the background.
#[utoipa::path(
    post,
    path = "/v1/responses/{id}/cancel",
    tag = "OpenAI",
    params(("id" = String, Path, description = "Id of the response")),
    responses((status = 200, body = Response), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    app.responses().cancel(&id, caller).map(Json).ok_or_else(|| not_found(&id, "id"))
}

/// A parameter of a query, as it is written.
fn query<'u>(uri: &'u Uri, name: &str) -> Option<&'u str> {
    let mut fields = uri.query()?.split('&').filter_map(|field| field.split_once('='));
    fields.find(|(field, _)| *field == name).map(|(_, value)| value)
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
