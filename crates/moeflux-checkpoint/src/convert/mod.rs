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

use std::path::Path;

/// Files beside the weights that a pack takes along, where they are there.
const SIDECARS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/tool_use.jinja",
];

/// The small files of a checkpoint folder that belong to its model: config, tokenizer, templates.
pub fn sidecars(folder: &Path) -> Result<Vec<Sidecar>, Error> {
    let mut found = Vec::new();
    for name in SIDECARS {
        let path = folder.join(name);
        if path.is_file() {
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            found.push(Sidecar { name: (*name).to_owned(), bytes });
        }
    }
    Ok(found)
}
