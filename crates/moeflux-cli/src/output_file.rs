//! Files that are written at the end: whether that will work is found out at the beginning.

use std::fs::{self, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Checks that the file of a flag can be written, without changing what is there.
pub(crate) fn check(flag: &str, path: &Path) -> Result<()> {
    if path.is_dir() {
        bail!("{flag} {}: expected a file, found a folder", path.display());
    }
    let named = || format!("{flag} {}: the file cannot be written", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What is written goes beside the file first, and then takes its place.
    let probe = folder.join(format!(".moeflux-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe).with_context(named)?;
    fs::remove_file(&probe).with_context(named)
}
