//! The library: against other implementations, and its promises one by one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::result_large_err)]

mod chat;
mod chat_template;
mod common;
mod demo;
mod examples;
mod families;
mod flash_moe;
mod float_gguf;
mod generation;
mod gguf;
#[path = "../../../moeflux-checkpoint/tests/it/gguf_file.rs"]
mod gguf_file;
#[cfg(feature = "grammar")]
mod grammar;
mod history;
mod invariance;
mod mflx;
mod mutations;
mod numbers;
mod pack;
mod pack_damage;
mod packages;
mod parity;
mod placement;
mod programs;
#[path = "../../../../tests/property.rs"]
mod property;
mod quantised_checkpoints;
mod reference;
mod sampling;
mod scheduler;
mod sequences;
mod snapshots;
mod speculation;
mod streaming;
mod table;
mod tokenizer;
mod writers;
