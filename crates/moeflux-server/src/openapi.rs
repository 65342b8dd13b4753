//! `/openapi.json`: what the server offers, for programs.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::{anthropic, ollama, openai, plain, responses};

/// Body of a failed request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// Why a request failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// Message for people.
    pub message: String,
    /// Kind of the failure.
    #[serde(rename = "type")]
    pub kind: String,
    /// The field that is wrong.
    pub param: Option<String>,
    /// More specific kind of the failure.
    pub code: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "moeflux", description = "Serves mixture-of-experts language models that are larger than memory.", license(name = "MIT OR Apache-2.0")),
    paths(
        anthropic::messages::create,
        anthropic::messages::count_tokens,
        openai::chat::create,
        openai::chat::input_tokens,
        openai::completions::create,
        openai::embeddings::create,
        openai::models::list,
        openai::models::one,
        responses::create::create,
        responses::create::input_tokens,
        responses::compact::compact,
        responses::stored::show,
        responses::stored::remove,
        responses::stored::input_items,
        responses::stored::cancel,
        ollama::answer::chat,
        ollama::answer::generate,
        ollama::embed::embed,
        ollama::embed::embeddings,
        ollama::models::tags,
        ollama::models::ps,
        ollama::models::show,
        ollama::models::version,
        ollama::models::pull,
        plain::health::ready,
        plain::health::live,
        plain::metrics,
        plain::sequences::show,
        plain::sequences::save,
        plain::sequences::restore,
        plain::sequences::remove,
        plain::tokens::tokenize,
        plain::tokens::detokenize,
        plain::tokens::apply_template,
    ),
    security(("key" = [])),
    modifiers(&Key)
)]
struct Api;

/// The key that a server may ask for.
struct Key;

impl Modify for Key {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        api.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

static TEXT: LazyLock<String> = LazyLock::new(|| Api::openapi().to_json().unwrap_or_default());

/// The description.
pub(crate) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key is asked for, and a body is read, before a route's own code runs: any route may refuse.
    #[test]
    fn every_route_that_needs_a_key_says_how_it_refuses() {
        let api: serde_json::Value = serde_json::from_str(&TEXT).expect("JSON");
        for (path, methods) in api["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let refuses = operation["responses"].get("4XX").is_some();
                assert!(
                    refuses || path.starts_with("/health"),
                    "{method} {path}: {}",
                    operation["responses"]
                );
            }
        }
    }
}
