//! The server with the demo model: whole requests through all its layers.
#![allow(clippy::unwrap_used, clippy::panic)] // a failed expectation is a failed test

mod bad_input;
mod chat;
mod clients;
mod common;
mod completions;
mod connections;
mod fields;
mod fuzz;
mod hostile;
mod load;
mod loops;
mod messages;
mod models;
mod ollama;
mod plain;
mod playback;
#[path = "../../../../tests/property.rs"]
mod property;
mod responses;
mod security;
mod tls;
mod wire;
