//! The expert store: its promises, under faults, and against replays of its traces.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod chaos;
mod common;
#[path = "../../../../tests/property.rs"]
mod property;
mod replay;
mod store;
