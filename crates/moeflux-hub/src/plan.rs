//! What pulling a model takes.

use crate::digest::Digest;
use crate::name::ModelName;
use serde::{Deserialize, Serialize};

/// A model's files at one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The model. Its file part names the chosen weights, where the repository could have several sets of them.
    pub name: ModelName,
    /// The hub's address.
    pub endpoint: String,
    /// The commit that the revision stood for, which all files are taken from.
    pub commit: String,
    /// The model's family, if the hub knows it: `model_type` of `config.json`, or a GGUF's architecture.
    pub family: Option<String>,
    /// The files, ordered by path.
    pub files: Vec<PlannedFile>,
}

impl Plan {
    /// Size of all files in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// One of a model's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFile {
    /// Path in the repository, and in the model's folder, with slashes.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// The content's hash, if the hub gives one.
    pub digest: Option<Digest>,
}

/// Whether a path from a hub or a list stays in the model's folder on every system.
pub(crate) fn is_safe(path: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let is_odd = |c: char| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    path.split('/').all(is_part) && !path.contains(is_odd)
}

#[cfg(test)]
mod tests {
    use super::is_safe;

    #[test]
    fn paths_stay_in_the_folder() {
        assert!(is_safe("config.json") && is_safe("experts/layer_00.bin") && is_safe("a b..c"));
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\\..\\b", "C:x", "a/", "a\0b"] {
            assert!(!is_safe(path), "{path:?}");
        }
    }
}
