//! Weight files, mapped, and the tensors in them: what reading any format comes to.

use crate::error::Error;
use crate::nested::NestedScales;
use crate::stacked::StackedExperts;
use crate::tensor::{Dtype, Span, Tensor};
use crate::transposed::Transposed;
use crate::{bus_error, small_file};
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Tensors by their names in the files.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// One of a checkpoint's weight files, mapped; or a tensor of one that lies in it in another order.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Mapped(Arc<Map>),
    Derived(Arc<Derived>),
}

/// A tensor that is computed with in another form than a file has it in.
#[derive(Debug)]
pub(crate) enum Derived {
    /// Its rows are columns in the file.
    Transposed(Transposed),
    /// Its float32 are bytes in the file.
    Nested(NestedScales),
}

impl Derived {
    fn len(&self) -> u64 {
        match self {
            Derived::Transposed(tensor) => tensor.len(),
            Derived::Nested(scales) => scales.len(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Derived::Transposed(tensor) => tensor.bytes(),
            Derived::Nested(scales) => scales.bytes(),
        }
    }

    /// Bytes from `offset` on, whole elements.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) {
        match self {
            Derived::Transposed(tensor) => tensor.read(offset, out),
            Derived::Nested(scales) => scales.read(offset, out),
        }
    }
}

/// A mapped file.
#[derive(Debug)]
pub(crate) struct Map {
    map: Mmap,
    /// Names the file if the system cannot give its bytes.
    _named: bus_error::Named,
}

impl std::ops::Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl File {
    /// Maps the file, which must be a regular one: others have no end, or wait for somebody to write.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        small_file::check_regular(path, &std::fs::metadata(path).map_err(io)?)?;
        let file = std::fs::File::open(path).map_err(io)?;
        // SAFETY: mapped bytes must not change while they are borrowed. No one here writes them; that no one else does
        // is what `Checkpoint` asks of its user, as every reader of mapped files must.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        if small_file::is_lfs_pointer(&map) {
            return Err(Error::LfsPointer { path: path.to_owned() });
        }
        let named = bus_error::Named::new(&map, path);
        Ok(File { path: path.to_owned(), data: Data::Mapped(Arc::new(Map { map, _named: named })) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a weight file holds at least a header")]
    pub fn len(&self) -> u64 {
        match &self.data {
            Data::Mapped(map) => map.len() as u64,
            Data::Derived(tensor) => tensor.len(),
        }
    }

    /// Whether it is a file on disk as it lies there: what can be read from [`path`](Self::path). Otherwise it is a tensor
    /// of that file, of which a copy in the form that products read is made in memory when it is first read.
    pub fn is_in_place(&self) -> bool {
        matches!(self.data, Data::Mapped(_))
    }

    /// The tensor, if it is not read in place.
    pub(crate) fn derived(&self) -> Option<&Arc<Derived>> {
        match &self.data {
            Data::Mapped(_) => None,
            Data::Derived(tensor) => Some(tensor),
        }
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Mapped(map) => map,
            Data::Derived(tensor) => tensor.bytes(),
        }
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
        if let Data::Derived(tensor) = &self.data {
            tensor.bytes();
            return;
        }
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
        match &self.data {
            Data::Mapped(map) => {
                map.map.advise_range(advice, span.offset as usize, span.len as usize).is_ok()
            }
            Data::Derived(_) => false,
        }
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

    /// Has a stack of matrices `[count, cols, rows]` of floats, as a file holds it, stand as `[count, rows, cols]`: with
    /// each row in one piece, as products read it.
    pub(crate) fn transpose(&mut self, name: &str) {
        let Some(tensor) = self.tensors.get_mut(name) else { return };
        let file = &self.files[tensor.span.file as usize];
        let (Data::Mapped(map), &[_, cols, rows], Some(float)) =
            (&file.data, &tensor.shape[..], tensor.dtype.float())
        else {
            return;
        };
        let transposed = Transposed::new(map.clone(), tensor.span, [rows, cols], float.bytes());
        let derived = Derived::Transposed(transposed);
        let file = File { path: file.path.clone(), data: Data::Derived(Arc::new(derived)) };
        tensor.shape.swap(1, 2);
        tensor.span = Span { file: self.files.len() as u32, offset: 0, len: tensor.span.len };
        self.files.push(file);
    }

    /// Replaces a tensor of quantised scales, a byte each, by the same scales in float32: see [`NestedScales`]. `absmax` must
    /// have a value for each `block` of them.
    pub(crate) fn widen(&mut self, name: &str, table: Vec<f32>, absmax: Vec<f32>, block: usize, offset: f32) {
        let Some(tensor) = self.tensors.get_mut(name) else { return };
        let file = &self.files[tensor.span.file as usize];
        let Data::Mapped(map) = &file.data else { return };
        let (source, codes, widened) = (map.clone(), tensor.span, OnceLock::new());
        let derived = Derived::Nested(NestedScales { source, codes, table, absmax, block, offset, widened });
        tensor.dtype = Dtype::F32;
        tensor.span = Span { file: self.files.len() as u32, offset: 0, len: derived.len() };
        let file = File { path: file.path.clone(), data: Data::Derived(Arc::new(derived)) };
        self.files.push(file);
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

    /// The bytes of a span.
    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        let start = span.offset as usize;
        &self.files[span.file as usize].bytes()[start..start + span.len as usize]
    }

    /// The path of a tensor's file.
    pub(crate) fn path(&self, span: Span) -> PathBuf {
        self.files[span.file as usize].path.clone()
    }
}

/// A small file's bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    small_file::read(path, small_file::LARGEST)?.ok_or_else(|| Error::MissingFile { path: path.to_owned() })
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
