//! Choosing the next token from logits.
//!
//! The order is: logit bias, penalties, temperature, top-k, top-p, min-p, draw.

mod error;
mod options;
mod penalties;
mod sampler;
mod truncation;

pub use error::SamplingError;
pub use options::SamplingOptions;
pub use sampler::{Sampled, Sampler};
