//! The kernels: against plain references, against other implementations, and against themselves.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::single_range_in_vec_init,
    reason = "a test fails by panicking"
)]

mod attention;
mod checkpoint_formats;
mod experts;
mod formulas;
mod ggml_vectors;
mod instruction_sets;
mod int8;
mod invariance;
mod linear;
mod mla;
mod ops;
#[path = "../../../../tests/property.rs"]
mod property;
mod quant_vectors;
mod quantize;
mod support;
