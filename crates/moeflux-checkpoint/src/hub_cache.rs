//! The folder that the hub's own library keeps a model in: `models--OWNER--NAME`, with the commits of branches under `refs`
//! and the files of each commit under `snapshots`.

use crate::error::Error;
use crate::small_file;
use std::borrow::Cow;
use std::path::Path;

/// The snapshot to open of such a folder: that of the branch `main`, or the only one. Other paths stay as they are.
pub(crate) fn resolve(path: &Path) -> Result<Cow<'_, Path>, Error> {
    /// A commit is 40 characters long.
    const LARGEST: u64 = 1 << 10;
    let snapshots = path.join("snapshots");
    if !snapshots.is_dir() || path.join("config.json").exists() {
        return Ok(Cow::Borrowed(path));
    }
    if let Some(commit) = small_file::read_text(&path.join("refs/main"), LARGEST)? {
        let commit = commit.trim();
        let is_name = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_name && snapshots.join(commit).is_dir() {
            return Ok(Cow::Owned(snapshots.join(commit)));
        }
    }
    let io = |source| Error::Io { path: snapshots.clone(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&snapshots).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.path().is_dir() {
            found.push(entry.file_name().display().to_string());
        }
    }
    found.sort();
    match &found[..] {
        [only] => Ok(Cow::Owned(snapshots.join(only))),
        _ => Err(Error::Snapshots { folder: path.to_owned(), found }),
    }
}
