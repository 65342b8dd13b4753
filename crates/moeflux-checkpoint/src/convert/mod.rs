//! From any checkpoint to a [pack](crate::pack): [`Plan`] says what will be written where, [`run`] writes it.
//!
//! Linear maps get the encoding that a [`Recipe`] says; everything else, and every map that has its encoding already, is
//! copied byte for byte. Whatever the model's size, no more is held than a few experts or some megabytes of rows for
//! each thread. The same plan gives the same bytes, however often it was interrupted and whatever the number of
//! threads.

mod error;
mod journal;
mod plan;
mod recipe;
mod run;
mod source;
mod verify;

pub use error::Error;
pub use plan::{Change, Mixture, Plan, Sidecar};
pub use recipe::{DEFAULT_GROUP, NAMED, Recipe, RecipeError, Target};
pub use run::{Outcome, RunOptions, partial_folder, run};
pub use verify::{Damage, Difference, compare, verify};

use crate::checkpoint::Checkpoint;
use crate::gguf::header::without_tensors;
use crate::pack::GGUF_METADATA;
use std::path::Path;

/// Files beside the weights that a pack takes along, where they are there.
const SIDECARS: &[&str] = &[
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.bin",
    "vocab.bin",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "tiktoken.model",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/tool_use.jinja",
];

/// What a checkpoint has beside its weights and a model needs: config, tokenizer, templates.
pub fn sidecars(checkpoint: &Checkpoint) -> Result<Vec<Sidecar>, Error> {
    if let (Some(metadata), Some(file)) = (checkpoint.metadata(), checkpoint.files().first()) {
        let bytes = if checkpoint.is_pack() {
            let path = metadata.path();
            std::fs::read(path).map_err(Error::io(path))?
        } else {
            without_tensors(metadata, file.bytes())
        };
        return Ok(vec![Sidecar { name: GGUF_METADATA.to_owned(), bytes }]);
    }
    let mut found = Vec::new();
    if let Some(bytes) = checkpoint.config_json() {
        found.push(Sidecar { name: "config.json".to_owned(), bytes: bytes.to_vec() });
    } else {
        found.extend(sidecar(checkpoint.path(), "config.json")?);
    }
    for name in SIDECARS {
        found.extend(sidecar(checkpoint.text_folder(), name)?);
    }
    Ok(found)
}

/// A file of the folder, if it has it.
fn sidecar(folder: &Path, name: &str) -> Result<Option<Sidecar>, Error> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    Ok(Some(Sidecar { name: name.to_owned(), bytes }))
}
