//! Spans for an OpenTelemetry collector.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::terminal::note;

/// Sends spans from a thread of its own, in batches; the rest when dropped.
pub(crate) struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// To the collector at this address.
    pub(crate) fn to(endpoint: &str) -> Result<Self> {
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .build()
            .with_context(|| format!("--otel-endpoint {endpoint}"))?;
        let resource = Resource::builder().with_service_name("moeflux").build();
        Ok(Telemetry(
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build(),
        ))
    }

    /// What hands it the spans of this project, and not those of what sends them.
    pub(crate) fn layer<S: Subscriber + for<'s> LookupSpan<'s>>(&self) -> impl Layer<S> + use<S> {
        let ours = ["moeflux", "moeflux_server", "moeflux_experts", "moeflux_checkpoint"];
        let filter = Targets::new().with_targets(ours.map(|target| (target, LevelFilter::INFO)));
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("moeflux")).with_filter(filter)
    }
}

/// Sends requests with the client that downloads models, on the thread that exports.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    /// How long a collector may take for a batch.
    const TIMEOUT: Duration = Duration::from_secs(10);

    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .tls_config(moeflux_hub::tls())
            .http_status_as_error(false)
            .timeout_global(Some(Self::TIMEOUT));
        Client(config.build().new_agent())
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = self.0.run(request.map(Vec::from))?.into_parts();
        Ok(Response::from_parts(head, body.into_with_config().read_to_vec()?.into()))
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            note(format_args!("warning: the last spans did not reach their collector: {error}"));
        }
    }
}
