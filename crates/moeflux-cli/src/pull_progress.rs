//! What a download has brought so far: bars on a terminal, elsewhere a line a file.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use moeflux_hub::{Event, Plan};

use crate::stats::Bytes;
use crate::terminal::note;

/// The progress of a plan.
pub(crate) struct PullProgress<'a> {
    plan: &'a Plan,
    bars: MultiProgress,
    total: ProgressBar,
    files: Mutex<Vec<FileProgress>>,
}

#[derive(Clone, Default)]
struct FileProgress {
    bytes: u64,
    /// Whether it was there before.
    was_there: bool,
    bar: Option<ProgressBar>,
}

impl<'a> PullProgress<'a> {
    /// Of a plan, some bytes of whose files are `there` before it starts.
    pub(crate) fn new(plan: &'a Plan, there: &[u64]) -> Self {
        let bars = MultiProgress::new();
        let total = bars.add(new_bar(plan.size(), "in all".to_owned()));
        let files: Vec<_> = there
            .iter()
            .zip(&plan.files)
            .map(|(&bytes, file)| FileProgress { bytes, was_there: bytes == file.size, bar: None })
            .collect();
        begin_at(&total, there.iter().sum());
        Self { plan, bars, total, files: Mutex::new(files) }
    }

    /// A handle to what is drawn.
    pub(crate) fn bars(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// Takes in what has happened.
    pub(crate) fn take(&self, event: &Event<'_>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match *event {
            Event::At { file, bytes } => {
                let planned = &self.plan.files[file];
                let progress = &mut files[file];
                progress.bytes = bytes;
                match &progress.bar {
                    Some(bar) => bar.set_position(bytes),
                    None if progress.was_there => {}
                    None => {
                        let bar = new_bar(planned.size, planned.path.clone());
                        let bar = self.bars.insert_before(&self.total, bar);
                        begin_at(&bar, bytes);
                        progress.bar = Some(bar);
                    }
                }
                self.total.set_position(files.iter().map(|file| file.bytes).sum());
            }
            Event::Done { file } => {
                if let Some(bar) = files[file].bar.take() {
                    bar.finish_and_clear();
                }
                if !files[file].was_there {
                    let planned = &self.plan.files[file];
                    self.line(&format!("{:>10}  {}", Bytes(planned.size), planned.path));
                }
            }
            Event::Retry { file, error, pause } => {
                let path = &self.plan.files[file].path;
                self.line(&format!("{path}: {error}; tried again in {:.1} s", pause.as_secs_f64()));
            }
        }
    }

    /// Removes the bars.
    pub(crate) fn clear(&self) {
        let _ = self.bars.clear();
    }

    /// Says something above the bars.
    fn line(&self, text: &str) {
        if io::stderr().is_terminal() {
            let _ = self.bars.println(text);
        } else {
            note(text);
        }
    }
}

/// indicatif draws to stderr, and only where that is a terminal.
fn new_bar(size: u64, label: String) -> ProgressBar {
    let bar = ProgressBar::new(size).with_message(label);
    let template = "{bar:20} {decimal_bytes:>9} of {decimal_total_bytes:9} {decimal_bytes_per_sec:>12} {eta:>4} {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Bytes of an earlier run are none of this run's speed.
fn begin_at(bar: &ProgressBar, bytes: u64) {
    bar.set_position(bytes);
    bar.reset_eta();
}
