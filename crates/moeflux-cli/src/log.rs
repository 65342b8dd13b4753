//! What the program says of its work: a log on stderr, spans for an OpenTelemetry collector.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use clap::{ArgAction, Args, ValueEnum};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

#[cfg(feature = "otel")]
use crate::telemetry::Telemetry;

/// Arguments of every command.
#[derive(Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LogArgs {
    /// Log more to stderr; -vv and -vvv log still more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Log what this filter selects, such as `moeflux=debug`
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// Format of the log
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Send spans of requests to the OpenTelemetry collector at this address, such as http://localhost:4318 (OTLP over
    /// HTTP). A program that was built without the default feature `otel` refuses it
    #[arg(long, global = true, value_name = "URL")]
    otel_endpoint: Option<String>,
}

/// How the log is written.
#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// For programs, an object a line
    Json,
}

/// What has to be sent before the program ends; sends it when dropped.
pub(crate) struct Unsent {
    #[cfg(feature = "otel")]
    _telemetry: Option<Telemetry>,
}

impl LogArgs {
    /// Starts the log. A server says at least what it answers.
    pub(crate) fn start(&self, is_server: bool) -> Result<Unsent> {
        let level =
            ["warn", "info", "debug", "trace"][usize::from(self.verbose.max(u8::from(is_server)).min(3))];
        let filter = self.log.as_deref().unwrap_or(level);
        let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}"))?;
        let log = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
        let log = match self.log_format {
            LogFormat::Text => log.with_filter(filter).boxed(),
            LogFormat::Json => log.json().flatten_event(true).with_filter(filter).boxed(),
        };
        let registry = tracing_subscriber::registry().with(log);
        #[cfg(feature = "otel")]
        {
            let telemetry = self.otel_endpoint.as_deref().map(Telemetry::to).transpose()?;
            registry.with(telemetry.as_ref().map(Telemetry::layer)).init();
            Ok(Unsent { _telemetry: telemetry })
        }
        #[cfg(not(feature = "otel"))]
        {
            anyhow::ensure!(
                self.otel_endpoint.is_none(),
                "--otel-endpoint: this program was built without OpenTelemetry; build it with `--features otel`"
            );
            registry.init();
            Ok(Unsent {})
        }
    }
}
