//! Which pages of elsewhere may use the API.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::fields::IGNORED;

/// Lets pages of these origins in; `*` is all. They may send any headers: SDKs have many of their own.
pub(crate) fn layer(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE])
        // The list that the page asks for: a wildcard does not cover `authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            header::RETRY_AFTER,
            IGNORED,
            HeaderName::from_static("request-id"),
            HeaderName::from_static("x-request-id"),
        ])
        .max_age(Duration::from_mins(10))
}
