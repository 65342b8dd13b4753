//! How a disk is best read, measured once and kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use moeflux::experts::{self, DiskSpeed, Io};
use moeflux::placement::{Placement, Residence, needs};
use moeflux::{EngineOptions, Model};

use crate::store_args::cache_folder;

/// How long a measurement takes.
const TIME: Duration = Duration::from_millis(500);
/// Models whose experts have fewer bytes than this say little about a disk.
const LEAST_BYTES: u64 = 1 << 30;

/// Has the store read with as many readers, and in pieces as long, as the model's disk likes: as was measured on this disk
/// before, or is measured now. Models that are not streamed, or are small, are left alone.
pub(crate) fn tune(model: &Model, options: &mut EngineOptions) -> Result<()> {
    let store = &options.experts.store;
    if store.io == Io::Mapped || needs(model, 1, 0)?.experts < LEAST_BYTES {
        return Ok(());
    }
    // What is wrong with the options is for the engine to say.
    if !Placement::decide(model, options).is_ok_and(|found| found.residence != Residence::Mapped) {
        return Ok(());
    }
    let key = format!("{} {:?}", device(model), store.io);
    let cache = cache_folder().map(|folder| folder.join("moeflux/disks.json"));
    let mut known = cache.as_deref().map(load).unwrap_or_default();
    let speed = match known.get(&key) {
        Some(speed) => *speed,
        None => {
            let speed = experts::measure(&experts::layout(model), store.io, TIME)?;
            known.insert(key, speed);
            if let Some(path) = &cache {
                save(path, &known);
            }
            speed
        }
    };
    options.experts.store = store.clone().tuned(&speed);
    Ok(())
}

/// What tells the disk of a model's experts from others.
fn device(model: &Model) -> String {
    let path: PathBuf =
        model.checkpoint().files().last().map_or_else(PathBuf::new, |file| file.path().to_owned());
    #[cfg(unix)]
    if let Ok(metadata) = fs::metadata(&path) {
        return std::os::unix::fs::MetadataExt::dev(&metadata).to_string();
    }
    let folder = path.parent().map(fs::canonicalize).and_then(Result::ok);
    folder.unwrap_or_default().display().to_string()
}

/// What cannot be read is measured again.
fn load(path: &Path) -> BTreeMap<String, DiskSpeed> {
    let text = fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// What cannot be kept is measured again.
fn save(path: &Path, known: &BTreeMap<String, DiskSpeed>) {
    if let (Some(folder), Ok(text)) = (path.parent(), serde_json::to_vec_pretty(known)) {
        let _ = fs::create_dir_all(folder).and_then(|()| fs::write(path, text));
    }
}
