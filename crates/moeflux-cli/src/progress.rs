//! Progress bars on a terminal's stderr, for work that takes longer than a glance.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_millis(400);

/// A bar that appears once the work has lasted a while, and leaves no trace.
pub(crate) struct Progress {
    label: &'static str,
    /// How indicatif shows position, total and speed.
    counts: &'static str,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar counting tokens, headed `label`.
    pub(crate) fn new(label: &'static str) -> Self {
        Self { label, counts: "{pos}/{len} tokens, {per_sec}", started: Instant::now(), bar: None }
    }

    /// A bar counting bytes.
    pub(crate) fn bytes(label: &'static str) -> Self {
        Self { counts: "{bytes}/{total_bytes}, {bytes_per_sec}", ..Self::new(label) }
    }

    /// A bar counting things.
    pub(crate) fn counts(label: &'static str) -> Self {
        Self { counts: "{pos}/{len}", ..Self::new(label) }
    }

    /// Shows how far `work` is, which tells it from any thread.
    pub(crate) fn follow<T>(self, work: impl FnOnce(&(dyn Fn(u64, u64) + Sync)) -> T) -> T {
        let bar = Mutex::new(self);
        let lock = || bar.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&|done, total| lock().set(done as usize, total as usize));
        lock().clear();
        result
    }

    /// Says that `done` of `total` tokens are done.
    pub(crate) fn set(&mut self, done: usize, total: usize) {
        if self.bar.is_none() && self.started.elapsed() < PATIENCE {
            return;
        }
        let (label, counts, started) = (self.label, self.counts, self.started);
        let bar = self.bar.get_or_insert_with(|| new_bar(label, counts, total, started));
        bar.set_position(done as u64);
    }

    /// Shows a remark behind the bar, if there is one.
    pub(crate) fn say(&mut self, remark: &str) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!(", {remark}"));
        }
    }

    /// Removes the bar.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// indicatif draws to stderr, and only where that is a terminal.
fn new_bar(label: &'static str, counts: &str, total: usize, started: Instant) -> ProgressBar {
    let bar = ProgressBar::new(total as u64).with_message(label).with_elapsed(started.elapsed());
    if let Ok(style) =
        ProgressStyle::with_template(&format!("{{msg}} {{bar:30}} {counts}, {{eta}} left{{prefix}}"))
    {
        bar.set_style(style);
    }
    bar
}
