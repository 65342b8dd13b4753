//! The folder that a model is downloaded into, until it is whole.

use crate::download::part_path;
use crate::error::Error;
use crate::plan::{Plan, PlannedFile};
use crate::receipt::Receipt;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The places of one model, held against other processes.
pub(crate) struct Stage {
    /// Where the model belongs.
    target: PathBuf,
    /// Where its files are gathered.
    folder: PathBuf,
    /// Where what was there before waits for its deletion.
    old: PathBuf,
    /// The file that is locked. It stays: removing it would let two processes hold two files of this name.
    _lock: File,
}

impl Stage {
    /// Takes hold of the model that belongs at `target` and is gathered in `folder`. What a killed process left between
    /// two steps is put right.
    pub(crate) fn hold(target: PathBuf, folder: PathBuf, name: &str) -> Result<Self, Error> {
        let beside = |mark: &str| -> PathBuf {
            let mut path = OsString::from(&folder);
            path.push(mark);
            path.into()
        };
        let (lock_path, old) = (beside("~lock"), beside("~old"));
        for place in [&folder, &target] {
            let parent = place.parent().unwrap_or(place);
            fs::create_dir_all(parent).map_err(Error::at(parent))?;
        }
        let lock = File::create(&lock_path).map_err(Error::at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { name: name.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(Error::at(&lock_path)(error)),
        }
        if old.exists() && target.exists() {
            remove(&old)?;
        } else if old.exists() {
            rename(&old, &target)?;
        }
        Ok(Self { target, folder, old, _lock: lock })
    }

    /// The path of one of the files.
    pub(crate) fn path(&self, file: &PlannedFile) -> PathBuf {
        self.folder.join(&file.path)
    }

    /// Makes the folder ready for a plan: keeps files and parts with the content that the plan wants, takes those that the
    /// model has already, and removes all others.
    pub(crate) fn prepare(&self, plan: &Plan) -> Result<(), Error> {
        match Receipt::read(&self.folder) {
            Ok(Some(staged)) => {
                for file in staged.plan.files.iter().filter(|file| !is_wanted(file, &staged.plan, plan)) {
                    remove(&self.path(file))?;
                    remove(&part_path(&self.path(file)))?;
                }
            }
            // Nobody knows what it holds.
            Ok(None) | Err(Error::Receipt { .. }) => remove(&self.folder)?,
            Err(error) => return Err(error),
        }
        fs::create_dir_all(&self.folder).map_err(Error::at(&self.folder))?;
        Receipt::begun(plan).write(&self.folder)?;
        for file in &plan.files {
            if self.path(file).exists() && !is_whole(&self.folder, file) {
                remove(&self.path(file))?;
            }
        }
        self.link_from_target(plan)
    }

    /// Takes files that an earlier revision of the model has, without copying them. Where the file system cannot do that,
    /// they are downloaded.
    fn link_from_target(&self, plan: &Plan) -> Result<(), Error> {
        let Ok(Some(receipt)) = Receipt::read(&self.target) else { return Ok(()) };
        for file in receipt.plan.files.iter().filter(|file| is_wanted(file, &receipt.plan, plan)) {
            let path = self.path(file);
            if path.exists() || !is_whole(&self.target, file) {
                continue;
            }
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(Error::at(folder))?;
            }
            if fs::hard_link(self.target.join(&file.path), &path).is_ok() {
                remove(&part_path(&path))?;
            }
        }
        Ok(())
    }

    /// Gives the whole model its place.
    pub(crate) fn install(&self, plan: &Plan) -> Result<(), Error> {
        Receipt::finished(plan).write(&self.folder)?;
        sync(&self.folder);
        if self.target.exists() {
            rename(&self.target, &self.old)?;
        }
        rename(&self.folder, &self.target)?;
        if let Some(parent) = self.target.parent() {
            sync(parent);
        }
        remove(&self.old)
    }

    /// Removes the model, and what is there of a download.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        // After this one step it is gone, whatever becomes of the others.
        if self.target.exists() {
            rename(&self.target, &self.old)?;
        }
        remove(&self.old)?;
        remove(&self.folder)
    }
}

/// Bytes of a planned file that are there, in a folder whose list is `receipt`.
pub(crate) fn bytes_there(folder: &Path, receipt: &Receipt, plan: &Plan, file: &PlannedFile) -> u64 {
    if !receipt.plan.files.contains(file) || !is_wanted(file, &receipt.plan, plan) {
        return 0;
    }
    let len = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.len());
    let path = folder.join(&file.path);
    len(&path).or_else(|| len(&part_path(&path))).unwrap_or(0).min(file.size)
}

/// Whether a file has the size that it should have.
pub(crate) fn is_whole(folder: &Path, file: &PlannedFile) -> bool {
    fs::metadata(folder.join(&file.path)).is_ok_and(|metadata| metadata.len() == file.size)
}

/// Whether a file of one plan has the content that another plan wants. Without a hash only the commit can tell.
fn is_wanted(file: &PlannedFile, of: &Plan, by: &Plan) -> bool {
    by.files.contains(file) && (file.digest.is_some() || of.commit == by.commit)
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::at(from))
}

/// Removes a file or a folder, if it is there.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::at(path)(error)),
        _ => Ok(()),
    }
}

/// Brings a folder's entries to the disk, on systems where a folder can be opened.
fn sync(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}
