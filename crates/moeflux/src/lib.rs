//! Runs mixture-of-experts language models that are larger than memory.
//!
//! [`Model::open`] reads a checkpoint in place; an [`Engine`] evaluates tokens on a backend and generates text;
//! a [`Sequence`] is what the model remembers of one conversation.
//!
//! ```no_run
//! use moeflux::{Engine, EngineOptions, Event, GenerateRequest, Model, ModelOptions};
//! # fn main() -> Result<(), moeflux::Error> {
//! let model = Model::open("models/demo".as_ref(), &ModelOptions::default())?;
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
mod options;
pub mod placement;
pub mod sampling;
pub mod sequence;
mod summary;
pub mod text;

pub use cancel::CancelToken;
pub use chat::{Chat, Delta};
pub use engine::{
    Embedding, Engine, EngineHandle, EngineStats, Event, GenerateRequest, Generation, Input, LastToken,
    Outcome, Outputs, Pending, PromptLogprob, RequestError, Restored, Saved, SchedulerOptions, Speculate,
    Speculated, StopReason, SubmitError, SubmitOptions, Ticket, Truncated,
};
pub use error::Error;
pub use model::{Model, ModelError, ModelOptions};
pub use moeflux_checkpoint as checkpoint;
#[cfg(feature = "gpu")]
pub use moeflux_gpu as gpu;
pub use moeflux_kernels as kernels;
pub use moeflux_kernels::Numbers;
pub use options::{ComputeOptions, EngineOptions, OptionError};
pub use sampling::SamplingOptions;
pub use sequence::{Position, Sequence};
pub use summary::*;

/// Compiles the examples of the documentation.
#[cfg(doctest)]
mod documentation {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/guide/library.md")]
    struct Library;
}
