//! Conversations: prompts, and what answers say.

mod calls;
mod conversation;
#[cfg(feature = "grammar")]
mod formats;
mod parser;
mod prefill;

use std::path::PathBuf;

use moeflux::text::Tokenizer;
use tempfile::TempDir;

use crate::common::root;

fn demo() -> PathBuf {
    root().join("models/demo")
}

/// The demo's tokenizer with another template.
fn with_template(template: &str) -> (TempDir, Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(demo().join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    (folder, tokenizer)
}
