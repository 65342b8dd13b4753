//! The command as a user sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cli;
mod common;
mod convert;
#[path = "../../../../tests/property.rs"]
mod property;
mod pull;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod signal;
