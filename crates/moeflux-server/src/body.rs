//! Bodies of requests.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::connections::Place;
use crate::error::{Failure, FailureKind};
use crate::{anthropic, openai, responses, work};

/// A body of JSON, within the server's limits.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

/// Most values of a body's JSON: each takes many times its bytes.
const VALUES: usize = 1_000_000;

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        if !is_json(request.headers()) && !is_of_a_program(request.headers()) {
            let message = "expected a body of JSON, with the header `Content-Type: application/json`";
            return Err(Failure::new(FailureKind::MediaType, message));
        }
        let limits = &app.config().limits;
        let place = request.extensions().get::<Arc<Place>>().cloned();
        let expected = request.body().size_hint().lower();
        if expected > limits.body_bytes as u64 {
            return Err(too_large(limits.body_bytes));
        }
        let reading = read(request.into_body(), limits.body_bytes, place.as_deref());
        let body = tokio::time::timeout(limits.body_time, reading).await.map_err(|_| {
            let message = format!("the body was not complete after {} s", limits.body_time.as_secs());
            Failure::new(FailureKind::Timeout, message)
        })??;
        if let Some(place) = &place {
            place.has_come();
        }
        if app.config().log_text {
            tracing::info!(body = %String::from_utf8_lossy(&body), "body of the request");
        }
        let value = if body.len() < work::LARGE {
            count_values(&body)?;
            parse(&body)?
        } else {
            work::large_body().await?;
            let parse = move || {
                count_values(&body)?;
                parse(&body)
            };
            work::read(parse).await?
        };
        if let Some(place) = &place {
            place.answers();
        }
        Ok(Json(value))
    }
}

/// What the route of a path makes of a body before it asks a model: the request it read, or the failure that the client gets.
/// Other paths than those of the APIs give nothing.
pub fn check(path: &str, body: &[u8]) -> Option<Result<(), Failure>> {
    let check = match path {
        "/v1/chat/completions" => openai::check_chat,
        "/v1/completions" => openai::check_completion,
        "/v1/messages" => anthropic::check,
        "/v1/responses" => responses::check,
        _ => return None,
    };
    Some(count_values(body).and_then(|()| check(body)))
}

/// The bytes of a body, as long as there is room for them.
async fn read(mut body: Body, limit: usize, place: Option<&Place>) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::invalid(format!("the body ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(&data);
        if place.is_some_and(|place| !place.received(bytes.len())) {
            let message = "the server has no room for another large body now; try again";
            return Err(Failure::new(FailureKind::Unavailable, message).retry_after(Duration::from_secs(2)));
        }
    }
    Ok(bytes)
}

fn too_large(limit: usize) -> Failure {
    Failure::new(FailureKind::TooLarge, format!("the body has more than {limit} bytes, the server's limit"))
}

/// Counts the values of JSON text before any of them is made.
fn count_values(body: &[u8]) -> Result<(), Failure> {
    let (mut values, mut in_text, mut escaped) = (1_usize, false, false);
    for &byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    if values > VALUES {
        let message = format!("the body has more than {VALUES} values of JSON, the server's limit");
        return Err(Failure::new(FailureKind::TooLarge, message));
    }
    Ok(())
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
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

/// Whether a body whose type says nothing comes from a program: curl's `-d` says that it is a form, and some clients of Ollama's
/// API leave the type out. Pages of other origins can send such bodies without being asked whether they may, but browsers say
/// then where they come from.
fn is_of_a_program(headers: &HeaderMap) -> bool {
    let says_nothing = headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        let essence = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    });
    says_nothing && !headers.contains_key(header::ORIGIN) && !headers.contains_key("sec-fetch-site")
}

/// The field that is missing or unknown, which has no path of its own.
fn named_field(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let (before, rest) = text.split_once('`')?;
    let names = before.ends_with("missing field ") || before.ends_with("unknown field ");
    names.then(|| rest.split('`').next().unwrap_or("").to_owned())
}
