//! Ctrl-C: stops the answer being written; without one, or pressed again, ends the program.

use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use moeflux::CancelToken;

/// Exit status of a program that Ctrl-C ended: 128 + SIGINT.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// The process's Ctrl-C handler, and the answer that it would stop.
pub(crate) struct Interrupt {
    answer: Arc<Mutex<Option<CancelToken>>>,
}

impl Interrupt {
    /// Installs the handler; once per process.
    pub(crate) fn install() -> Result<Self> {
        let answer = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&answer);
        ctrlc::set_handler(move || match &*lock(&seen) {
            Some(token) if !token.is_cancelled() => token.cancel(),
            _ => process::exit(i32::from(EXIT_INTERRUPTED)),
        })
        .context("installing the Ctrl-C handler")?;
        Ok(Self { answer })
    }

    /// Runs `work` with a token that Ctrl-C cancels while it runs.
    pub(crate) fn during<T>(&self, work: impl FnOnce(CancelToken) -> T) -> T {
        let token = CancelToken::default();
        *lock(&self.answer) = Some(token.clone());
        let result = work(token);
        *lock(&self.answer) = None;
        result
    }
}

fn lock(answer: &Mutex<Option<CancelToken>>) -> MutexGuard<'_, Option<CancelToken>> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}
