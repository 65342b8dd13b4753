//! What every request goes through: a number, a line in the log, a count, and for failures a body.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use crate::app::App;
use crate::error::{Failure, FailureKind};
use crate::{anthropic, ids, ollama, openai, work};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The request's number: the client's if it has a decent one.
#[derive(Clone, Debug)]
struct RequestId(HeaderValue);

/// Gives the request and its response a number.
pub(crate) async fn number(mut request: Request, next: Next) -> Response {
    let is_decent = |id: &&HeaderValue| {
        let id = id.as_bytes();
        !id.is_empty()
            && id.len() <= 128
            && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
    };
    let id = match request.headers().get(REQUEST_ID).filter(is_decent) {
        Some(id) => id.clone(),
        None => HeaderValue::from_str(&ids::unique("req_")).unwrap_or(HeaderValue::from_static("req")),
    };
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    // Under OpenAI's name and Anthropic's.
    response.headers_mut().insert(ANTHROPIC_REQUEST_ID, id.clone());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Logs and counts the request, and writes its failure in the form of the API that was asked.
pub(crate) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    // A route that was never named would give every scan a count of its own.
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let id = request.extensions().get::<RequestId>().and_then(|RequestId(id)| id.to_str().ok()).unwrap_or("");
    let id = &id.to_owned();
    let span = tracing::info_span!("request", id, %method, route, status = tracing::field::Empty);
    let answering =
        AssertUnwindSafe(work::request(next.run(request))).catch_unwind().instrument(span.clone());
    let (response, ignored) = answering.await.unwrap_or_else(|_| {
        tracing::error!(parent: &span, "a handler panicked");
        (Failure::internal().into_response(), Vec::new())
    });
    let mut response = written(response, &path, id);
    span.in_scope(|| app.named().tell(&route, &ignored, response.headers_mut()));
    let status = response.status().as_u16();
    span.record("status", status);
    app.metrics().answered(&route, status);
    let ms = start.elapsed().as_millis() as u64;
    // Monitors ask every second.
    if route == "/metrics" || route.starts_with("/health") {
        tracing::debug!(parent: &span, ms, "answered");
    } else {
        tracing::info!(parent: &span, ms, "answered");
    }
    response
}

/// A failure gets its body; everything else passes.
fn written(response: Response, path: &str, id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let failure = match parts.extensions.remove::<Failure>() {
        Some(failure) => failure,
        // The framework's own refusals are text.
        None if parts.status.is_client_error() && !is_json(parts.headers.get(header::CONTENT_TYPE)) => {
            let reason = parts.status.canonical_reason().unwrap_or("refused");
            // Only a body in an unknown encoding is answered with those that are known.
            let is_encoding = parts.headers.contains_key(header::ACCEPT_ENCODING);
            let encodings = "Content-Encoding: expected gzip, deflate, br or zstd";
            Failure::new(kind_of(parts.status), if is_encoding { encodings } else { reason })
        }
        None => return Response::from_parts(parts, body),
    };
    let body = if anthropic::is_path(path) {
        anthropic::error_body(&failure, Some(id))
    } else if path.starts_with("/api/") {
        ollama::error_body(&failure)
    } else {
        openai::error_body(&failure)
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(wait) = failure.retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        parts.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if failure.kind == FailureKind::Unauthorized {
        parts.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    Response::from_parts(parts, Body::from(body.to_string()))
}

fn is_json(content_type: Option<&HeaderValue>) -> bool {
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

fn kind_of(status: StatusCode) -> FailureKind {
    match status {
        StatusCode::NOT_FOUND => FailureKind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => FailureKind::Method,
        StatusCode::PAYLOAD_TOO_LARGE => FailureKind::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => FailureKind::MediaType,
        _ => FailureKind::Invalid,
    }
}
