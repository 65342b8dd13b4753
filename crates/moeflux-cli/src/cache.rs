//! Files that keep what was measured, in the user's cache folder.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store_args::cache_folder;

/// Contents of a file of the cache; the default, so that it is measured again, if the file cannot be read.
pub(crate) fn load<T: DeserializeOwned + Default>(name: &str) -> T {
    let text = path(name).map(fs::read).and_then(Result::ok).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Writes a file of the cache. What cannot be kept is measured again.
pub(crate) fn save<T: Serialize>(name: &str, content: &T) {
    let Some(path) = path(name) else { return };
    if let (Some(folder), Ok(text)) = (path.parent(), serde_json::to_vec_pretty(content)) {
        let _ = fs::create_dir_all(folder).and_then(|()| fs::write(&path, text));
    }
}

fn path(name: &str) -> Option<PathBuf> {
    Some(cache_folder()?.join("moeflux").join(name))
}
