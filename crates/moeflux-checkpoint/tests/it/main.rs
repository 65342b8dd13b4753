//! What opens, and what must not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_config;
mod bad_files;
mod bad_gguf;
mod bad_tensors;
mod damage;
mod deepseek_and_gpt_oss;
mod families;
mod fixture;
mod fp8;
mod fuzz_seeds;
mod gguf_file;
mod header;
mod layouts;
mod layouts_gguf;
mod odd_files;
mod packed;
#[path = "../../../../tests/property.rs"]
mod property;
mod published;
mod reference;
mod writers;
