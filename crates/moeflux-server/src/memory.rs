//! The process's memory: what it has, what it may have, and what happens in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use moeflux::placement::Machine;

use crate::app::App;

/// How often it is measured.
const PERIOD: Duration = Duration::from_millis(200);
/// How often memory that nobody uses is given back, at most.
const BETWEEN: Duration = Duration::from_secs(2);
/// Bytes beyond what is accounted for, from which on it is worth giving back.
const WORTH: u64 = 32 << 20;
/// Part of what is left to the process below which requests are refused: an eighth of what it could have.
const LEFT: u64 = 8;

/// What was measured last.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Bytes of the process that no file backs.
    own: AtomicU64,
    /// Bytes of the process that are in memory.
    resident: AtomicU64,
    /// Bytes that it has when it serves nothing: code, tokenizers, tables.
    base: AtomicU64,
    is_short: AtomicBool,
    /// Requests that were refused since memory was short.
    shed: AtomicU64,
}

impl Memory {
    /// Whether there is so little left that requests have to be refused. Counts the answer "yes".
    pub(crate) fn sheds(&self) -> bool {
        let sheds = self.is_short.load(Ordering::Relaxed);
        self.shed.fetch_add(u64::from(sheds), Ordering::Relaxed);
        sheds
    }

    /// Requests refused so far.
    pub(crate) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Bytes of the process that are in memory.
    pub(crate) fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    /// Bytes of the process that no file backs.
    pub(crate) fn own(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    /// Bytes that it has when it serves nothing.
    pub(crate) fn base(&self) -> u64 {
        self.base.load(Ordering::Relaxed)
    }

    fn measure(&self, limit: Option<u64>) {
        let own = own_bytes();
        let machine = Machine::measure();
        self.own.store(own, Ordering::Relaxed);
        self.resident.store(machine.resident, Ordering::Relaxed);
        let is_short = match limit {
            Some(limit) => own > limit,
            None => machine.free().is_some_and(|free| free < (free + own) / LEFT),
        };
        if is_short && !self.is_short.load(Ordering::Relaxed) {
            tracing::warn!(own, "memory is short: requests are refused");
        }
        self.is_short.store(is_short, Ordering::Relaxed);
    }
}

/// Watches memory until the app is gone: a thread of its own, so that it does so whatever else is busy.
pub(crate) fn watch(app: &Arc<App>) {
    let weak = Arc::downgrade(app);
    let (limit, give_back) = (app.config().memory_limit, app.config().give_back);
    app.memory().measure(limit);
    let watch = move || {
        let mut last = Instant::now();
        while let Some(app) = weak.upgrade() {
            let memory = app.memory();
            memory.measure(limit);
            let accounted = app.accounted_bytes();
            let beyond = memory.own().saturating_sub(accounted + memory.base());
            if (beyond > WORTH || memory.base() == 0) && last.elapsed() > BETWEEN {
                if let Some(give_back) = give_back {
                    give_back();
                    memory.measure(limit);
                }
                last = Instant::now();
                // The least that it ever had beside what is accounted for is what it needs.
                let besides = memory.own().saturating_sub(accounted);
                let base = memory.base();
                if app.is_idle() && (base == 0 || besides < base) {
                    memory.base.store(besides, Ordering::Relaxed);
                }
            }
            drop(app);
            thread::sleep(PERIOD);
        }
    };
    if let Err(error) = thread::Builder::new().name("moeflux-memory".to_owned()).spawn(watch) {
        tracing::error!(%error, "memory is not watched: there is no thread for it");
    }
}

/// What of the process no file backs, where the system tells it.
fn own_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (field("RssAnon:").unwrap_or(0) + field("RssShmem:").unwrap_or(0)) << 10
}
