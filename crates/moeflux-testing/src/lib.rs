//! What the tests compare with: `tests/data`, with the files written that can be made again.
//!
//! Of a large file of `tests/data` two small ones are stored: `FILE.header`, the bytes before its tensors, and
//! `FILE.recipe`, which says how each tensor is made ([`recipe`]) and what the checksum of the whole file is. So a test
//! reads the very bytes that another project's tool once wrote.
//!
//! The files are written under the build's folder when a test first asks for them.

#![forbid(unsafe_code)]

mod encode;
pub mod file;
mod mirror;
mod random;
pub mod recipe;
pub mod scripted;
mod tensor;

pub use mirror::{data, root, write};

/// What went wrong, to be read by a person.
pub type Result<T, E = String> = std::result::Result<T, E>;
