//! Answers in pieces: server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Serialize;

/// A response of events, with comments where none comes for so long.
pub fn respond(events: impl Stream<Item = Event> + Send + 'static, keep_alive: Duration) -> Response {
    let events = futures_util::StreamExt::map(events, Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(keep_alive).text("keep-alive");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies are to pass on each event as it comes.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// An event of JSON.
pub fn json(value: &impl Serialize) -> Event {
    Event::default().data(text(value))
}

/// The same with a name, which comes first.
pub fn named(name: &str, value: &impl Serialize) -> Event {
    Event::default().event(name).data(text(value))
}

/// The types that are sent have string keys and no values that JSON lacks.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
