//! Bodies that a response did not wait for, since it refuses the request. HTTP has them read before the next request of the
//! connection; a client that is still sending must be able to.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

use crate::app::App;

/// Longest time that is spent on a body that nobody reads.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads what is left of a request's body once its response is known, within a body's limit and for two seconds; otherwise the
/// response says that the connection ends with it.
pub(crate) async fn settle(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() || request.method() == Method::GET {
        return next.run(request).await;
    }
    let is_http1 = request.version() < Version::HTTP_2;
    let (parts, body) = request.into_parts();
    let rest = Shared(Arc::new(Mutex::new(body)));
    let mut response = next.run(Request::from_parts(parts, Body::new(rest.clone()))).await;
    let limit = app.config().limits.body_bytes;
    let has_failed = !response.status().is_success();
    if rest.is_end_stream() {
        return response;
    }
    let drained =
        has_failed && matches!(tokio::time::timeout(PATIENCE, drained(rest, limit)).await, Ok(true));
    if !drained && is_http1 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether a body ended within so many bytes.
async fn drained(mut body: Shared, limit: usize) -> bool {
    if body.size_hint().lower() > limit as u64 {
        return false;
    }
    let mut left = limit;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > left {
            return false;
        }
        left -= length;
    }
    true
}

/// A body that can be read on after whoever read it has gone.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}
