//! The page for a browser: files that are part of the program.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ring::digest::{SHA256, digest};

use crate::ids::hex;

/// Name under `web/static` and content of each file.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What identifies a content, as an `ETag`.
static TAGS: LazyLock<BTreeMap<&str, HeaderValue>> = LazyLock::new(|| {
    let tag = |content: &[u8]| {
        let hash = hex(&digest(&SHA256, content).as_ref()[..12]);
        HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""))
    };
    FILES.iter().map(|&(name, content)| (name, tag(content))).collect()
});

/// Routes of the page.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new();
    for &(name, content) in FILES {
        let path = match name {
            "index.html" => "/".to_owned(),
            "status.html" => "/status".to_owned(),
            name => format!("/{name}"),
        };
        router = router.route(&path, get(async move |headers: HeaderMap| file(name, content, &headers)));
    }
    router
}

fn file(name: &'static str, content: &'static [u8], headers: &HeaderMap) -> Response {
    let tag = TAGS.get(name).cloned().unwrap_or(HeaderValue::from_static("\"\""));
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| {
        let known = known.to_str().unwrap_or("");
        known.split(',').any(|known| known.trim().trim_start_matches("W/").as_bytes() == tag.as_bytes())
    });
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Bytes::from_static(content).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
        response
    };
    for (name, value) in [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    ] {
        response.headers_mut().insert(name, value);
    }
    response
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml; charset=utf-8",
        _ => "application/octet-stream",
    }
}
