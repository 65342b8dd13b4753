//! Numbers about the server, in the text format of Prometheus.

mod histogram;
mod text;

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use self::histogram::Histogram;
use self::text::Text;
use crate::memory::Memory;
use crate::models::{ModelReport, Numbers};

/// Bounds of times to the first token, in seconds.
const FIRST_TOKEN: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0];
/// Bounds of times between tokens, in seconds.
const NEXT_TOKEN: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What the server counts itself.
pub(crate) struct Metrics {
    started: f64,
    /// By route and status.
    requests: Mutex<BTreeMap<(String, u16), u64>>,
}

/// What is measured of a model, whether or not it is in memory.
pub(crate) struct ModelMetrics {
    first_token: Histogram,
    next_token: Histogram,
    /// Totals of the times that it was in memory before.
    past: Mutex<Totals>,
}

/// What a model's engines have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    prompt: u64,
    cached: u64,
    generated: u64,
    hits: u64,
    misses: u64,
    bytes_read: u64,
    stall: Duration,
}

/// Measures one answer.
pub(crate) struct Meter {
    metrics: Arc<ModelMetrics>,
    last: Instant,
    is_first: bool,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Metrics { started, requests: Mutex::default() }
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(&self, route: &str, status: u16) {
        *lock(&self.requests).entry((route.to_owned(), status)).or_default() += 1;
    }

    /// All numbers, as Prometheus reads them.
    pub(crate) fn render(&self, models: &[ModelReport<'_>], memory: &Memory) -> String {
        let mut text = Text::default();
        text.one("moeflux_build_info", "gauge", "Version of the server.", &[("version", VERSION)], 1.0);
        text.one(
            "process_start_time_seconds",
            "gauge",
            "When the process started, Unix time.",
            &[],
            self.started,
        );
        text.family("moeflux_requests_total", "counter", "Requests answered.");
        for ((route, status), &count) in &*lock(&self.requests) {
            text.sample(&[("route", route), ("status", &status.to_string())], count as f64);
        }
        let live = || models.iter().filter_map(|model| model.stats.as_ref());
        let running = live().map(|stats| stats.engine.running).sum::<usize>();
        text.one("moeflux_requests_running", "gauge", "Requests that compute now.", &[], running as f64);
        let queued = live().map(|stats| stats.engine.queued).sum::<usize>();
        text.one(
            "moeflux_requests_queued",
            "gauge",
            "Requests that wait for their turn.",
            &[],
            queued as f64,
        );

        let mut each = |name, kind, help, value: &dyn Fn(&ModelReport<'_>) -> f64| {
            text.family(name, kind, help);
            for model in models {
                text.sample(&[("model", model.name)], value(model));
            }
        };
        let loaded = |model: &ModelReport<'_>| f64::from(u8::from(model.stats.is_some()));
        each("moeflux_model_loaded", "gauge", "Whether the model is in memory.", &loaded);
        each("moeflux_tokens_generated_total", "counter", "Tokens generated.", &|model| {
            model.generated as f64
        });
        each("moeflux_tokens_prompt_total", "counter", "Tokens of prompts.", &|model| model.prompt as f64);
        let help = "Tokens of prompts that the prefix cache had.";
        each("moeflux_tokens_cached_total", "counter", help, &|model| model.cached as f64);
        let help = "Experts wanted that were in memory.";
        each("moeflux_expert_hits_total", "counter", help, &|model| model.hits as f64);
        let help = "Experts wanted that were not in memory.";
        each("moeflux_expert_misses_total", "counter", help, &|model| model.misses as f64);
        let help = "Bytes of experts read from files.";
        each("moeflux_expert_bytes_read_total", "counter", help, &|model| model.bytes_read as f64);
        let help = "Time that computing waited for experts.";
        each("moeflux_expert_stall_seconds_total", "counter", help, &|model| model.stall.as_secs_f64());

        text.family(
            "moeflux_time_to_first_token_seconds",
            "histogram",
            "From the request to its first token.",
        );
        for model in models {
            text.histogram(&[("model", model.name)], &model.metrics.first_token);
        }
        text.family(
            "moeflux_time_per_token_seconds",
            "histogram",
            "From one token of an answer to the next.",
        );
        for model in models {
            text.histogram(&[("model", model.name)], &model.metrics.next_token);
        }

        text.family("moeflux_memory_bytes", "gauge", "Memory by use.");
        let mut uses = [
            ("weights", 0),
            ("experts", 0),
            ("sequences", 0),
            ("prefixes", 0),
            ("transient", 0),
            ("program", memory.base()),
        ];
        for stats in live() {
            uses[0].1 += stats.weights;
            uses[1].1 += stats.experts.as_ref().map_or(0, |experts| experts.bytes_used);
            uses[2].1 += stats.engine.state_bytes;
            uses[3].1 += stats.engine.prefix_bytes;
            uses[4].1 += stats.engine.transient_bytes;
        }
        for (name, bytes) in uses {
            text.sample(&[("use", name)], bytes as f64);
        }
        let help =
            "Memory of the process that no file backs: what moeflux_memory_bytes explains, but for weights.";
        text.one("moeflux_memory_own_bytes", "gauge", help, &[], memory.own() as f64);
        let help = "Resident memory of the process.";
        text.one("process_resident_memory_bytes", "gauge", help, &[], memory.resident() as f64);
        let help = "Requests refused since memory was short.";
        text.one("moeflux_requests_shed_total", "counter", help, &[], memory.shed() as f64);
        text.finish()
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Default for ModelMetrics {
    fn default() -> Self {
        Self {
            first_token: Histogram::new(FIRST_TOKEN),
            next_token: Histogram::new(NEXT_TOKEN),
            past: Mutex::default(),
        }
    }
}

impl ModelMetrics {
    /// Keeps the totals of an engine that ends.
    pub(crate) fn keep(&self, stats: &Numbers) {
        *lock(&self.past) += Totals::of(stats);
    }

    /// The totals of all times, with the present engine's if there is one.
    pub(crate) fn totals(&self, present: Option<&Numbers>) -> Totals {
        let mut totals = *lock(&self.past);
        totals += present.map(Totals::of).unwrap_or_default();
        totals
    }
}

impl Totals {
    fn of(stats: &Numbers) -> Self {
        let experts = stats.experts.as_ref();
        Self {
            prompt: stats.engine.prompt_tokens + stats.engine.cached_tokens,
            cached: stats.engine.cached_tokens,
            generated: stats.engine.completion_tokens,
            hits: experts.map_or(0, |experts| experts.hits),
            misses: experts.map_or(0, |experts| experts.misses),
            bytes_read: experts.map_or(0, |experts| experts.bytes_read),
            stall: experts.map_or(Duration::ZERO, |experts| experts.stall_time),
        }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, more: Self) {
        self.prompt += more.prompt;
        self.cached += more.cached;
        self.generated += more.generated;
        self.hits += more.hits;
        self.misses += more.misses;
        self.bytes_read += more.bytes_read;
        self.stall += more.stall;
    }
}

impl Meter {
    pub(crate) fn new(metrics: Arc<ModelMetrics>, asked: Instant) -> Self {
        Meter { metrics, last: asked, is_first: true }
    }

    /// A token came.
    pub(crate) fn token(&mut self) {
        let now = Instant::now();
        let histogram = if self.is_first { &self.metrics.first_token } else { &self.metrics.next_token };
        histogram.add((now - self.last).as_secs_f64());
        (self.last, self.is_first) = (now, false);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
