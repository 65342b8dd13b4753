//! Weight files, mapped, and the tensors in them: what reading any format comes to.

use crate::error::Error;
use crate::stacked::StackedExperts;
use crate::tensor::{Span, Tensor};
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Tensors by their names in the files.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// One of a checkpoint's weight files, mapped.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    map: Mmap,
}

impl File {
    /// Maps the file.
    fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        // SAFETY: mapped bytes must not change while they are borrowed. No one here writes them; that no one else does
        // is what `Checkpoint` asks of its user, as every reader of mapped files must.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        if is_lfs_pointer(&map) {
            return Err(Error::LfsPointer { path: path.to_owned() });
        }
        Ok(File { path: path.to_owned(), map })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a weight file holds at least a header")]
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Has the system begin to read a range, if it takes advice.
    pub(crate) fn will_need(&self, span: Span) {
        #[cfg(unix)]
        self.advise(memmap2::Advice::WillNeed, span);
        #[cfg(not(unix))]
        let _ = span;
    }

    /// Reads a range, if the system can be asked for it; on Linux in pages as large as the file system has.
    pub(crate) fn bring(&self, span: Span) {
        #[cfg(target_os = "linux")]
        {
            // Not in the pages of 4 KiB that advice of what will be needed brings.
            self.advise(memmap2::Advice::HugePage, span);
            if self.advise(memmap2::Advice::PopulateRead, span) {
                return;
            }
        }
        self.will_need(span);
    }

    #[cfg(unix)]
    fn advise(&self, advice: memmap2::Advice, span: Span) -> bool {
        self.map.advise_range(advice, span.offset as usize, span.len as usize).is_ok()
    }
}

/// The files of a checkpoint and their tensors.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) files: Vec<File>,
    pub(crate) tensors: Tensors,
    /// Experts that lie in blocks, by their module (`model.layers.3.mlp.experts`); a tensor of that name stands for
    /// their bytes.
    pub(crate) mixtures: BTreeMap<String, StackedExperts>,
    /// Checksums (XXH3, 64 bits) of the blocks of experts, by the file that holds one layer's.
    pub(crate) expert_checksums: BTreeMap<u32, Vec<u64>>,
    /// The format in words, if the tensors do not tell it.
    pub(crate) layout: Option<String>,
    /// Where the tokenizer's files are, if not in the checkpoint's folder.
    pub(crate) text_folder: Option<PathBuf>,
    /// What `config.json` says, or would say, if it is not in the checkpoint's folder.
    pub(crate) config_json: Option<Vec<u8>>,
}

impl Contents {
    /// Maps one more file; its index is what spans call it by.
    pub(crate) fn map(&mut self, path: &Path) -> Result<(u32, &File), Error> {
        let index = self.files.len();
        self.files.push(File::open(path)?);
        Ok((index as u32, &self.files[index]))
    }

    /// Adds a tensor, unless an earlier one has its name.
    pub(crate) fn add(&mut self, tensor: Tensor) -> Result<(), Error> {
        if let Some(first) = self.tensors.get(&tensor.name) {
            let (path, first) = (self.path(tensor.span), self.path(first.span));
            return Err(Error::DuplicateTensor { path, tensor: tensor.name, first });
        }
        self.tensors.insert(tensor.name.clone(), tensor);
        Ok(())
    }

    /// The path of a tensor's file.
    pub(crate) fn path(&self, span: Span) -> PathBuf {
        self.files[span.file as usize].path.clone()
    }
}

/// A small file's bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::MissingFile { path: path.to_owned() },
        _ => Error::Io { path: path.to_owned(), source },
    })?;
    if is_lfs_pointer(&bytes) {
        return Err(Error::LfsPointer { path: path.to_owned() });
    }
    Ok(bytes)
}

/// The files in a folder whose names end in `.{extension}`, sorted.
pub(crate) fn with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let io = |source| Error::Io { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a folder holds such a file.
pub(crate) fn any_with_extension(folder: &Path, extension: &str) -> bool {
    with_extension(folder, extension).is_ok_and(|found| !found.is_empty())
}

/// The last components of paths, for reading.
pub(crate) fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().filter_map(|path| path.file_name()).map(|name| name.display().to_string()).collect()
}

/// Whether a file is a git-lfs pointer in place of the content that belongs there. Longer files are not touched: of those that
/// are mapped the system would read megabytes.
fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.len() < 1024 && bytes.starts_with(b"version https://git-lfs")
}
