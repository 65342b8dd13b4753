//! Tests that measure the whole process (its memory, its speed), one at a time in a binary of their own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::result_large_err)]

#[path = "../it/common/mod.rs"]
#[allow(dead_code, reason = "shared with the other binary")]
mod common;
mod memory;
mod soak;
mod soak_requests;
mod templates;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lets one test at a time run.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
