//! Runs mixture-of-experts language models that are larger than memory.
//!
//! [`Model::open`] reads a checkpoint in place; an [`Engine`] evaluates tokens on a backend and generates text;
//! a [`Sequence`] is what the model remembers of one conversation.
//!
//! ```no_run
//! use moeflux::{Engine, EngineOptions, Event, GenerateRequest, Model, ModelOptions};
//! # fn main() -> Result<(), moeflux::Error> {
//! let model = Model::open("models/demo", &ModelOptions::default())?;
//! let prompt = model.tokenizer().encode("Once upon a time")?;
//! let mut engine = Engine::new(model, &EngineOptions::default())?;
//! let mut sequence = engine.sequence();
//! let request = GenerateRequest { prompt, max_tokens: 50, ..GenerateRequest::default() };
//! for event in engine.generate(&mut sequence, request)? {
//!     if let Event::Token { text, .. } = event? {
//!         print!("{text}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A token's logits depend on its sequence alone: they are the same bits for any chunking of the prompt, any batch
//! around it and any number of threads.

#![forbid(unsafe_code)]

pub mod backend;
pub mod background;
mod cancel;
pub mod chat;
pub mod convert;
pub mod devices;
pub mod engine;
mod error;
pub mod experts;
pub mod graph;
pub mod model;
pub mod options;
pub mod placement;
pub mod sampling;
pub mod sequence;
pub mod summary;
pub mod text;

#[doc(inline)]
pub use moeflux_checkpoint as checkpoint;
#[doc(inline)]
pub use moeflux_kernels as kernels;
#[cfg(feature = "gpu")]
#[doc(inline)]
pub use moeflux_wgpu as gpu;

pub use cancel::CancelToken;
pub use chat::{Chat, Delta};
pub use engine::{Engine, EngineHandle, Event, GenerateRequest, StopReason};
pub use error::Error;
pub use model::{Model, ModelOptions};
pub use moeflux_kernels::Precision;
pub use options::EngineOptions;
pub use sampling::SamplingOptions;
pub use sequence::Sequence;

/// Compiles the examples of the documentation.
#[cfg(doctest)]
mod documentation {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/guide/library.md")]
    struct Library;
}
