//! The server's state and its routes.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use tower_http::decompression::RequestDecompressionLayer;

use crate::auth::{self, Keys, Rate};
use crate::config::Config;
use crate::error::{Failure, FailureKind};
use crate::fields::Named;
use crate::hosts;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::models::{Lease, ModelSource, Models};
use crate::{anthropic, cors, observe, ollama, openai, openapi, page, plain, responses, unread};
use moeflux::engine::SchedulerOptions;

/// What all requests share.
pub struct App {
    config: Config,
    models: Arc<Models>,
    metrics: Metrics,
    keys: Keys,
    rate: Rate,
    responses: responses::Store,
    memory: Memory,
    named: Named,
}

impl App {
    /// A server of these models; the first answers requests that name none.
    pub fn new(config: Config, models: Vec<ModelSource>, scheduler: SchedulerOptions) -> Arc<Self> {
        let models = Models::new(models, config.max_loaded, config.expert_budget, scheduler);
        Arc::new(App {
            models: Arc::new(models),
            metrics: Metrics::new(),
            keys: Keys::new(&config.keys),
            rate: Rate::new(config.limits.requests_per_minute),
            responses: responses::Store::default(),
            memory: Memory::default(),
            named: Named::default(),
            config,
        })
    }

    /// How it runs.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model of that name, or the first, loaded if it is not in memory.
    pub async fn model(&self, name: Option<&str>) -> Result<Lease, Failure> {
        self.models.get(name).await
    }

    /// Responses that requests may go on from.
    pub fn responses(&self) -> &responses::Store {
        &self.responses
    }

    /// Takes no more requests and returns when all that ran have ended, within the drain time or cut off after it.
    pub async fn shutdown(&self) {
        self.models.shutdown(self.config.drain).await;
    }

    pub(crate) fn models(&self) -> &Arc<Models> {
        &self.models
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Kinds of ignored fields that the log has named.
    pub(crate) fn named(&self) -> &Named {
        &self.named
    }

    /// Bytes of memory that are known by their use, but for mapped files.
    pub(crate) fn accounted_bytes(&self) -> u64 {
        let stats = self.models.report().into_iter().filter_map(|report| report.stats);
        stats.map(|stats| stats.accounted_bytes()).sum()
    }

    /// Whether a model is loaded and nobody asks for anything.
    pub(crate) fn is_idle(&self) -> bool {
        let reports = self.models.report();
        let mut loaded = reports.iter().filter_map(|report| report.stats.as_ref()).peekable();
        loaded.peek().is_some() && loaded.all(|stats| stats.engine.running == 0 && stats.engine.queued == 0)
    }

    pub(crate) fn rate(&self) -> &Rate {
        &self.rate
    }
}

/// Compresses answers for clients that accept it, but for streams, of which each piece is to leave at once.
fn compression() -> CompressionLayer<impl Predicate> {
    let predicate = DefaultPredicate::new().and(NotForContentType::const_new("application/x-ndjson"));
    CompressionLayer::new().quality(CompressionLevel::Precise(4)).compress_when(predicate)
}

/// All routes. The page and `/health` are for everyone; the rest asks for a key where there are any.
///
/// Clients differ in whether the `/v1` belongs to the base URL or to the paths, so the APIs are served with it, without it, and
/// with two of it.
pub fn router(app: Arc<App>) -> Router {
    let versioned = Router::new()
        .route("/models", get(openai::models::list))
        .route("/models/{model}", get(openai::models::one))
        .route("/chat/completions", post(openai::chat::create))
        .route("/chat/completions/input_tokens", post(openai::chat::input_tokens))
        .route("/completions", post(openai::completions::create))
        .route("/embeddings", post(openai::embeddings::create))
        .merge(responses::routes())
        .merge(anthropic::routes());
    let api = Router::new()
        .nest("/v1", versioned.clone())
        .nest("/v1/v1", versioned.clone())
        .merge(versioned)
        .merge(ollama::routes())
        .merge(plain::routes())
        .route("/openapi.json", get(openapi::serve))
        .route_layer(RequestDecompressionLayer::new())
        .route_layer(from_fn_with_state(Arc::clone(&app), auth::admit));
    let open = Router::new()
        .route("/health", get(plain::health::ready))
        .route("/health/ready", get(plain::health::ready))
        .route("/health/live", get(plain::health::live))
        .merge(page::routes());
    let mut router = api
        .merge(open)
        .fallback(async || Failure::new(FailureKind::NotFound, "there is no such route"))
        .method_not_allowed_fallback(async || {
            Failure::new(FailureKind::Method, "this route has no such method; see the header `Allow`")
        })
        .layer(from_fn_with_state(Arc::clone(&app), hosts::check));
    if !app.config().cors_origins.is_empty() {
        router = router.layer(cors::layer(&app.config().cors_origins));
    }
    router
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        .layer(from_fn(observe::number))
        .layer(compression())
        .layer(from_fn_with_state(Arc::clone(&app), unread::settle))
        .with_state(app)
}
