//! Progress bars on a terminal's stderr, for work that takes longer than a glance.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_millis(400);

/// A bar that appears once the work has lasted a while, and leaves no trace.
pub(crate) struct Progress {
    label: &'static str,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar counting tokens, headed `label`.
    pub(crate) fn new(label: &'static str) -> Self {
        Self { label, started: Instant::now(), bar: None }
    }

    /// Says that `done` of `total` tokens are done.
    pub(crate) fn set(&mut self, done: usize, total: usize) {
        if self.bar.is_none() && self.started.elapsed() < PATIENCE {
            return;
        }
        let (label, started) = (self.label, self.started);
        let bar = self.bar.get_or_insert_with(|| new_bar(label, total, started));
        bar.set_position(done as u64);
    }

    /// Removes the bar.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// indicatif draws to stderr, and only where that is a terminal.
fn new_bar(label: &'static str, total: usize, started: Instant) -> ProgressBar {
    let bar = ProgressBar::new(total as u64).with_message(label).with_elapsed(started.elapsed());
    let template = "{msg} {bar:30} {pos}/{len} tokens, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
