//! An HTTP server for moeflux.
//!
//! It speaks the APIs of OpenAI, Anthropic and Ollama and a few plain routes of its own, and serves a page for a browser. All APIs
//! meet in [`generation`]: each turns a request into a [`ChatInput`](generation::ChatInput) and writes the
//! [`Output`](generation::Output)s of what it starts in its own form.

#![forbid(unsafe_code)]

pub mod anthropic;
mod app;
mod auth;
pub mod body;
pub mod clock;
mod config;
mod connections;
mod cors;
pub mod error;
pub mod fields;
pub mod generation;
mod hosts;
pub mod ids;
mod limits;
mod memory;
mod metrics;
mod models;
mod observe;
pub mod ollama;
pub mod openai;
pub mod openapi;
mod page;
pub mod plain;
pub mod responses;
mod serve;
pub mod sse;
mod stalled;
mod unread;
mod work;

pub use app::{App, router};
pub use config::{Config, TlsFiles};
pub use limits::Limits;
pub use models::{Lease, Load, ModelSource, Unload};
pub use serve::{ServeError, Server};
