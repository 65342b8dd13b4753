//! Bodies of requests.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::error::{Failure, FailureKind};

/// A body of JSON, within the server's limits.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        // Also a guard: pages of other origins can send other types without being asked whether they may.
        if !is_json(request.headers()) {
            let message = "expected a body of JSON, with the header `Content-Type: application/json`";
            return Err(Failure::new(FailureKind::MediaType, message));
        }
        let limits = &app.config().limits;
        let body = Limited::new(request.into_body(), limits.body_bytes).collect();
        let body = tokio::time::timeout(limits.body_time, body).await.map_err(|_| {
            let message = format!("the body was not complete after {} s", limits.body_time.as_secs());
            Failure::new(FailureKind::Timeout, message)
        })?;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => {
                let message =
                    format!("the body has more than {} bytes, the server's limit", limits.body_bytes);
                Failure::new(FailureKind::TooLarge, message)
            }
            None => Failure::invalid(format!("the body ended early: {error}")),
        })?;
        let body = body.to_bytes();
        if app.config().log_text {
            tracing::info!(body = %String::from_utf8_lossy(&body), "body of the request");
        }
        parse(&body).map(Json)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json);
    let value = parsed.map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        if !error.is_data() {
            // Numbers that no float holds count here too.
            let place = if path == "." { String::new() } else { format!(" at {path}") };
            return Failure::invalid(format!("the body is not JSON{place}: {error}"));
        }
        let param = named_field(&error).unwrap_or(path);
        let message = if param == "." { error.to_string() } else { format!("{param}: {error}") };
        Failure { param: Some(param).filter(|param| param != "."), ..Failure::invalid(message) }
    })?;
    json.end().map_err(|error| Failure::invalid(format!("the body is not JSON: {error}")))?;
    Ok(value)
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// The field that is missing or unknown, which has no path of its own.
fn named_field(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let (before, rest) = text.split_once('`')?;
    let names = before.ends_with("missing field ") || before.ends_with("unknown field ");
    names.then(|| rest.split('`').next().unwrap_or("").to_owned())
}
