//! What `generation_config.json` says: the model's own sampling defaults and when it stops.

use std::path::Path;

use moeflux_checkpoint::small_file::{self, LARGEST_CONFIG};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::TextError;

/// The sampling settings that a checkpoint recommends; absent fields are `None`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct GenerationDefaults {
    /// Whether to sample at all; without it the reference implementation decodes greedily.
    pub do_sample: Option<bool>,
    /// Divisor of the logits.
    pub temperature: Option<f32>,
    /// Number of most likely tokens to sample from.
    pub top_k: Option<usize>,
    /// Probability mass to sample from.
    pub top_p: Option<f32>,
    /// Least probability, relative to the most likely token's.
    pub min_p: Option<f32>,
    /// Penalty for tokens that occurred before.
    pub repetition_penalty: Option<f32>,
}

impl GenerationDefaults {
    /// Reads `generation_config.json` of a checkpoint folder; all `None` where there is no such file.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, TextError> {
        let folder = folder.as_ref();
        let path = folder.join("generation_config.json");
        let object = Value::Object(read_object(&path)?.unwrap_or_default());
        Self::deserialize(&object).map_err(|source| TextError::Json { path, source })
    }
}

/// End-of-sequence ids: from `generation_config.json`, else from `config.json` or its `text_config`, else
/// none.
pub(super) fn eos_token_ids(folder: &Path) -> Result<Option<Vec<u32>>, TextError> {
    for file in ["generation_config.json", "config.json"] {
        let path = folder.join(file);
        let Some(config) = read_object(&path)? else { continue };
        let text_config = config.get("text_config").and_then(Value::as_object);
        for object in [Some(&config), text_config].into_iter().flatten() {
            match object.get("eos_token_id") {
                None | Some(Value::Null) => {}
                Some(ids) => {
                    let expected = "a token id or a list of token ids";
                    return token_ids(ids)
                        .map(Some)
                        .ok_or_else(|| TextError::field(&path, "eos_token_id", expected, ids));
                }
            }
        }
    }
    Ok(None)
}

fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    }
}

/// The JSON object in a file, or `None` where there is no such file.
pub(super) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, TextError> {
    small_file::read_object(path, LARGEST_CONFIG).map_err(TextError::of_file)
}

/// A file's text, or `None` where there is no such file.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, TextError> {
    small_file::read_text(path, LARGEST_CONFIG).map_err(TextError::of_file)
}
