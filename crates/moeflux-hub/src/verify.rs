//! Hashes of a model's files that are known without asking a hub: from the list of a pull, and from what the hub's own
//! library keeps beside files it downloaded.

use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::receipt::Receipt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file whose hash is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// Where it is.
    pub path: PathBuf,
    /// The hash that its content should have.
    pub digest: Digest,
    /// Its length now, in bytes.
    pub size: u64,
}

/// The files of a model's folder whose hashes are known, ordered by path; those that are not there are left out. Hashes come
/// from `pulled.json`, from `.cache/huggingface/download`, or from the names that a cache of the hub's library gives to
/// contents.
pub fn known_files(folder: &Path) -> Result<Vec<KnownFile>, Error> {
    let mut known = Vec::new();
    let mut add = |path: PathBuf, digest: Digest| {
        if let Ok(metadata) = fs::metadata(&path)
            && metadata.is_file()
            && !known.iter().any(|other: &KnownFile| other.path == path)
        {
            known.push(KnownFile { path, digest, size: metadata.len() });
        }
    };
    if let Some(receipt) = Receipt::read(folder)? {
        for file in receipt.plan.files {
            if let Some(digest) = file.digest {
                add(folder.join(&file.path), digest);
            }
        }
    }
    for entry in fs::read_dir(folder).map_err(Error::at(folder))? {
        let entry = entry.map_err(Error::at(folder))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let beside = folder.join(".cache/huggingface/download").join(format!("{name}.metadata"));
        if let Some(digest) = local_metadata(&beside).or_else(|| blob(&path)) {
            add(path, digest);
        }
    }
    known.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(known)
}

/// The second of three lines: commit, hash, time.
fn local_metadata(path: &Path) -> Option<Digest> {
    const LARGEST: u64 = 1 << 10;
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return None;
    }
    Digest::from_hex(fs::read_to_string(path).ok()?.lines().nth(1)?.trim())
}

/// The name of the file that a link of a snapshot leads to: `blobs/HASH`.
fn blob(path: &Path) -> Option<Digest> {
    let target = fs::read_link(path).ok()?;
    let is_blob = target.parent()?.file_name()? == "blobs";
    Digest::from_hex(target.file_name()?.to_str()?).filter(|_| is_blob)
}

impl KnownFile {
    /// Reads the file; whether its content has the hash. `progress` is told the bytes of each piece.
    pub fn is_whole(&self, progress: &mut dyn FnMut(u64)) -> Result<bool, Error> {
        let mut file = File::open(&self.path).map_err(Error::at(&self.path))?;
        let mut hasher = Hasher::like(&self.digest, self.size);
        let mut piece = vec![0; 1 << 20];
        let mut left = self.size;
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = file.read(&mut piece[..most]).map_err(Error::at(&self.path))?;
            if n == 0 {
                return Ok(false);
            }
            hasher.update(&piece[..n]);
            progress(n as u64);
            left -= n as u64;
        }
        Ok(hasher.finish() == self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    const SHA1: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    fn check(folder: &Path, name: &str) -> Option<bool> {
        let known = known_files(folder).expect("a folder");
        let file = known.iter().find(|file| file.path == folder.join(name))?;
        Some(file.is_whole(&mut |_| {}).expect("readable"))
    }

    #[test]
    fn hashes_beside_a_download() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let beside = path.join(".cache/huggingface/download");
        fs::create_dir_all(&beside).expect("a folder");
        for (name, hash) in [("a.safetensors", SHA256), ("config.json", SHA1), ("b.json", SHA1)] {
            fs::write(path.join(name), "hello\n").expect("written");
            fs::write(beside.join(format!("{name}.metadata")), format!("commit\n{hash}\n1.0\n"))
                .expect("written");
        }
        fs::write(path.join("b.json"), "hullo\n").expect("written");
        fs::write(path.join("c.json"), "{}").expect("written");
        let results = ["a.safetensors", "config.json", "b.json", "c.json"].map(|name| check(path, name));
        assert_eq!(results, [Some(true), Some(true), Some(false), None]);
    }

    #[cfg(unix)]
    #[test]
    fn hashes_in_the_names_of_blobs() {
        let folder = tempfile::tempdir().expect("a folder");
        let (blobs, snapshot) = (folder.path().join("blobs"), folder.path().join("snapshots/abc"));
        fs::create_dir_all(&blobs).expect("a folder");
        fs::create_dir_all(&snapshot).expect("a folder");
        fs::write(blobs.join(SHA256), "hello\n").expect("written");
        fs::write(blobs.join(SHA1), "hello").expect("written");
        for (name, hash) in [("model.safetensors", SHA256), ("config.json", SHA1)] {
            std::os::unix::fs::symlink(format!("../../blobs/{hash}"), snapshot.join(name)).expect("a link");
        }
        let results = ["model.safetensors", "config.json"].map(|name| check(&snapshot, name));
        assert_eq!(results, [Some(true), Some(false)]);
    }
}
