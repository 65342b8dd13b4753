//! A copy of `tests/data` in which the files that recipes describe are written out.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use twox_hash::XxHash3_64;

use crate::Result;
use crate::recipe::Recipe;

/// The repository's root.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// The folder or file that `path` is under `tests/data`, with its family's files written out; all of them for `""`.
/// They are kept in `target`, which is `env!("CARGO_TARGET_TMPDIR")` in an integration test.
///
/// # Panics
///
/// If a file cannot be written as its recipe says.
#[expect(clippy::panic, reason = "a test that has nothing to compare with has failed")]
pub fn data(target: &str, path: &str) -> PathBuf {
    /// What this process has looked at.
    static READY: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mirror = Path::new(target).join("data");
    let family = path.split('/').next().unwrap_or_default();
    let mut ready = READY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !ready.contains("") && !ready.contains(family) {
        refresh(&mirror, family, true).unwrap_or_else(|error| panic!("{error}"));
        ready.insert(family.to_owned());
    }
    mirror.join(path)
}

/// Copies what is under `tests/data/{path}` to `mirror/{path}`, and writes the files that recipes describe. What is
/// there already and has the right bytes stays.
pub fn write(mirror: &Path, path: &str) -> Result<()> {
    refresh(mirror, path, false)
}

fn refresh(mirror: &Path, path: &str, remove_others: bool) -> Result<()> {
    let context = |error: std::io::Error| format!("{}: {error}", mirror.display());
    fs::create_dir_all(mirror).map_err(context)?;
    // Of several processes one writes and the others find its files.
    let lock = File::create(mirror.with_extension("lock")).map_err(context)?;
    lock.lock().map_err(context)?;
    let (stored, target) = (root().join("tests/data").join(path), mirror.join(path));
    write_entry(&stored, &target)?;
    if remove_others {
        remove_others_than(&stored, &target).map_err(context)?;
    }
    Ok(())
}

/// Removes what an earlier `tests/data` had: some tests read whatever there is.
fn remove_others_than(stored: &Path, target: &Path) -> std::io::Result<()> {
    if !target.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(target)? {
        let target = entry?.path();
        let stored = stored.join(target.file_name().unwrap_or_default());
        if stored.exists() {
            remove_others_than(&stored, &target)?;
        } else if target.is_dir() {
            fs::remove_dir_all(target)?;
        } else if !stored.with_added_extension("recipe").exists() {
            fs::remove_file(target)?;
        }
    }
    Ok(())
}

fn write_entry(stored: &Path, target: &Path) -> Result<()> {
    let context = |error: std::io::Error| format!("{}: {error}", stored.display());
    if stored.is_dir() {
        fs::create_dir_all(target).map_err(context)?;
        let entries = fs::read_dir(stored).map_err(context)?;
        let names =
            entries.map(|entry| Ok(entry.map_err(context)?.file_name())).collect::<Result<Vec<_>>>()?;
        // A family's other files are made from those in `hf`.
        let (first, then): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name == "hf");
        return first
            .iter()
            .chain(&then)
            .try_for_each(|name| write_entry(&stored.join(name), &target.join(name)));
    }
    match stored.extension().and_then(OsStr::to_str) {
        Some("header") => Ok(()),
        Some("recipe") => write_described(stored, &target.with_extension("")),
        _ => {
            let bytes = read(stored)?;
            if fs::read(target).is_ok_and(|found| found == bytes) { Ok(()) } else { replace(target, &bytes) }
        }
    }
}

/// Writes the file that a recipe describes, unless it is there.
fn write_described(path: &Path, target: &Path) -> Result<()> {
    let context = |error: String| format!("{}: {error}", path.display());
    let recipe = Recipe::parse(&String::from_utf8_lossy(&read(path)?)).map_err(context)?;
    if fs::read(target).is_ok_and(|found| XxHash3_64::oneshot(&found) == recipe.checksum) {
        return Ok(());
    }
    let header = read(&path.with_extension("header"))?;
    let source = recipe.source(target)?;
    let bytes = recipe.file(target, header, source.as_ref()).map_err(context)?;
    let (found, expected) = (XxHash3_64::oneshot(&bytes), recipe.checksum);
    if found != expected {
        return Err(context(format!("the file has the checksum {found:016x}, expected {expected:016x}")));
    }
    replace(target, &bytes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Another process sees the old file or the new one, never a part.
fn replace(target: &Path, bytes: &[u8]) -> Result<()> {
    let part = target.with_added_extension("part");
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, target));
    written.map_err(|error| format!("{}: {error}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder and two files of a family in it.
    fn folder() -> (tempfile::TempDir, [PathBuf; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let files = ["mixtral/hf/model.safetensors", "mixtral/gguf-q8_0/model.gguf"];
        let files = files.map(|file| folder.path().join("data").join(file));
        (folder, files)
    }

    #[test]
    fn damaged_files_are_written_again() {
        let (folder, files) = folder();
        let mirror = folder.path().join("data");
        write(&mirror, "mixtral").unwrap();
        let whole = files.each_ref().map(|file| fs::read(file).unwrap());
        fs::write(&files[0], &whole[0][..1000]).unwrap();
        let mut damaged = whole[1].clone();
        damaged[500_000] ^= 1;
        fs::write(&files[1], damaged).unwrap();
        write(&mirror, "mixtral").unwrap();
        assert!(files.each_ref().map(|file| fs::read(file).unwrap()) == whole);
    }

    #[test]
    fn only_what_is_stored_stays() {
        let (folder, files) = folder();
        let mirror = folder.path().join("data");
        let others = ["mixtral/hf/old.json", "mixtral/old/model.safetensors"].map(|other| mirror.join(other));
        for other in &others {
            fs::create_dir_all(other.parent().unwrap()).unwrap();
            fs::write(other, "x").unwrap();
        }
        write(&mirror, "mixtral").unwrap();
        assert!(others.iter().all(|other| other.exists()));
        refresh(&mirror, "mixtral", true).unwrap();
        assert!(!others.iter().any(|other| other.exists()) && !mirror.join("mixtral/old").exists());
        assert!(files.iter().all(|file| file.exists()) && mirror.join("mixtral/hf/config.json").exists());
    }

    #[test]
    fn several_may_write_at_once() {
        let (folder, files) = folder();
        let mirror = folder.path().join("data");
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4).map(|_| scope.spawn(|| write(&mirror, "mixtral"))).collect();
            for writer in writers {
                writer.join().unwrap().unwrap();
                assert!(files.iter().all(|file| file.exists()));
            }
        });
    }

    #[test]
    fn another_checksum_is_an_error() {
        let stored = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        for name in ["model.safetensors.recipe", "model.safetensors.header"] {
            fs::copy(root().join("tests/data/mixtral/hf").join(name), stored.path().join(name)).unwrap();
        }
        write_entry(stored.path(), target.path()).unwrap();
        let file = target.path().join("model.safetensors");
        let whole = fs::read(&file).unwrap();

        let recipe = stored.path().join("model.safetensors.recipe");
        let text = fs::read_to_string(&recipe).unwrap();
        fs::write(
            &recipe,
            text.replace("lm_head.weight = draw normal 0.2", "lm_head.weight = draw normal 0.3"),
        )
        .unwrap();
        fs::remove_file(&file).unwrap();
        let error = write_entry(stored.path(), target.path()).unwrap_err();
        let expected = format!("{:016x}", XxHash3_64::oneshot(&whole));
        assert!(error.contains("model.safetensors.recipe") && error.contains(&expected), "{error}");
        assert!(!file.exists());
    }
}
