//! A checkpoint folder: its files, mapped, and the tensors in them.

use crate::config::{self, Config, ModelConfig};
use crate::error::Error;
use crate::family::{self, Conventions, Tensors};
use crate::matrix::Matrix;
use crate::quantization::Quantization;
use crate::safetensors::parse_header;
use crate::tensor::{Span, Tensor};
use crate::weights::Weights;
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// What the caller decides about reading a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Fields of `config.json`, with dots (`text_config.novelty`), that may be unknown: they are then ignored.
    pub ignored_config_fields: Vec<String>,
}

/// One of a checkpoint's weight files, mapped.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    map: Mmap,
}

impl File {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a weight file holds at least a header")]
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }
}

/// A checkpoint folder, open. Nothing is copied: tensors are read from the mapped files as they are touched. The files
/// must not change while it is open.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    files: Vec<File>,
    tensors: Tensors,
    config: Config,
}

impl Checkpoint {
    /// Opens a folder with `config.json` and safetensors files: `model.safetensors.index.json` and the shards that it
    /// names, or `model.safetensors`, or the only `*.safetensors` file. Reads the config and the files' headers.
    pub fn open(folder: &Path, options: &OpenOptions) -> Result<Self, Error> {
        let config_path = folder.join("config.json");
        let config = config::parse(&config_path, &read(&config_path)?, options)?;

        let mut files = Vec::new();
        let mut tensors = Tensors::new();
        let index_path = folder.join("model.safetensors.index.json");
        if index_path.exists() {
            let index = Index::read(&index_path)?;
            for shard in index.shards()? {
                add_file(&mut files, &mut tensors, shard)?;
            }
            index.check(&files, &tensors)?;
        } else {
            add_file(&mut files, &mut tensors, only_file(folder)?)?;
        }
        tracing::debug!(folder = %folder.display(), files = files.len(), tensors = tensors.len(), "checkpoint opened");
        Ok(Checkpoint { folder: folder.to_owned(), files, tensors, config })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model's family and sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.config.model
    }

    /// How modules are quantised, as `config.json` says; `None` for plain floats.
    pub fn quantization(&self) -> Option<&Quantization> {
        self.config.quantization.as_ref()
    }

    /// The weight files.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.values()
    }

    /// The tensor that the files call `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The tensors of the multi-token-prediction head; none if the checkpoint was stripped of it.
    pub fn mtp_tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors().filter(|tensor| family::is_mtp(&tensor.name))
    }

    /// The tensors of the vision tower, which are not used.
    pub fn vision_tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors().filter(|tensor| family::is_vision(&tensor.name))
    }

    /// The bytes of a span.
    ///
    /// # Panics
    ///
    /// If the span is not one of this checkpoint's.
    pub fn bytes(&self, span: Span) -> &[u8] {
        let start = span.offset as usize;
        &self.files[span.file as usize].map[start..start + span.len as usize]
    }

    /// The bytes of a matrix, as the kernels take them.
    ///
    /// # Panics
    ///
    /// If the matrix is not one of this checkpoint's.
    #[expect(clippy::expect_used, reason = "lengths were checked when the matrix was made")]
    pub fn view(&self, m: &Matrix) -> moeflux_kernels::Matrix<'_> {
        let part = |span: Option<Span>| span.map_or(&[][..], |span| self.bytes(span));
        moeflux_kernels::Matrix::new(
            m.rows,
            m.cols,
            m.encoding,
            self.bytes(m.codes),
            part(m.scales),
            part(m.biases),
        )
        .expect("a checked matrix")
    }

    /// The model's tensors under canonical names and in one convention.
    pub fn weights(&self) -> Result<Weights<'_>, Error> {
        let conventions = Conventions::of(self.config(), &self.tensors, &self.folder)?;
        Ok(Weights::new(self, conventions))
    }

    /// The format in one line, for people.
    pub fn layout(&self) -> String {
        let any = |part: &str| self.tensors.keys().any(|name| name.contains(part));
        match self.quantization() {
            Some(quantization) => {
                let others = quantization.modules.values().filter(|how| **how != Some(quantization.default));
                format!("MLX safetensors, {}, {} modules otherwise", quantization.default, others.count())
            }
            None if any(".switch_mlp.") => "MLX safetensors, not quantised".to_owned(),
            None if any(".experts.gate_up_proj") => "Hugging Face safetensors, experts fused".to_owned(),
            None => "Hugging Face safetensors, experts one by one".to_owned(),
        }
    }

    /// The path of a tensor's file.
    pub(crate) fn path(&self, span: Span) -> PathBuf {
        self.files[span.file as usize].path.clone()
    }
}

/// `model.safetensors.index.json`: which shard holds which tensor.
struct Index {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn read(path: &Path) -> Result<Self, Error> {
        #[derive(serde::Deserialize)]
        struct Json {
            weight_map: BTreeMap<String, String>,
        }
        let Json { weight_map } = serde_json::from_slice(&read(path)?)
            .map_err(|source| Error::Json { path: path.to_owned(), source })?;
        Ok(Index { path: path.to_owned(), weight_map })
    }

    /// The paths of the shards, which are there.
    fn shards(&self) -> Result<Vec<PathBuf>, Error> {
        // Of each shard the first tensor, to name in an error.
        let shards: BTreeMap<&String, &String> =
            self.weight_map.iter().rev().map(|(tensor, shard)| (shard, tensor)).collect();
        let path = |(shard, tensor): (&String, &String)| {
            let (index, tensor, shard) = (self.path.clone(), tensor.clone(), shard.clone());
            let path = index.with_file_name(&shard);
            let mut parts = Path::new(&shard).components();
            match (parts.next(), parts.next()) {
                (Some(Component::Normal(_)), None) if path.exists() => Ok(path),
                (Some(Component::Normal(_)), None) => Err(Error::MissingShard { index, tensor, shard }),
                _ => Err(Error::ShardName { index, tensor, shard }),
            }
        };
        shards.into_iter().map(path).collect()
    }

    /// Checks that every tensor lies in the shard that the index names.
    fn check(&self, files: &[File], tensors: &Tensors) -> Result<(), Error> {
        for (tensor, shard) in &self.weight_map {
            let found = tensors.get(tensor).map(|tensor| files[tensor.span.file as usize].path.as_path());
            if found != Some(&self.path.with_file_name(shard)) {
                return Err(Error::NotInShard {
                    index: self.path.clone(),
                    tensor: tensor.clone(),
                    shard: shard.clone(),
                });
            }
        }
        Ok(())
    }
}

/// The weight file of a folder without an index.
fn only_file(folder: &Path) -> Result<PathBuf, Error> {
    let usual = folder.join("model.safetensors");
    if usual.exists() {
        return Ok(usual);
    }
    let io = |source| Error::Io { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            found.push(path);
        }
    }
    found.sort();
    match &found[..] {
        [only] => Ok(only.clone()),
        _ => Err(Error::WeightFiles {
            folder: folder.to_owned(),
            found: found
                .iter()
                .filter_map(|path| path.file_name())
                .map(|name| name.display().to_string())
                .collect(),
        }),
    }
}

/// Maps a weight file and lists its tensors.
fn add_file(files: &mut Vec<File>, tensors: &mut Tensors, path: PathBuf) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.clone(), source };
    let file = std::fs::File::open(&path).map_err(io)?;
    // SAFETY: mapped bytes must not change while they are borrowed. No one here writes them; that no one else does is
    // what `Checkpoint` asks of its user, as every reader of mapped files must.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    if is_lfs_pointer(&map) {
        return Err(Error::LfsPointer { path });
    }

    let index = files.len() as u32;
    for entry in parse_header(&path, map.len() as u64, &map)? {
        let span = Span { file: index, offset: entry.offset, len: entry.len };
        let tensor = Tensor { name: entry.name, dtype: entry.dtype, shape: entry.shape, span };
        if let Some(first) = tensors.get(&tensor.name) {
            // An earlier file: within one, names differ.
            let first = files[first.span.file as usize].path.clone();
            return Err(Error::DuplicateTensor { path, tensor: tensor.name, first });
        }
        tensors.insert(tensor.name.clone(), tensor);
    }
    files.push(File { path, map });
    Ok(())
}

/// A small file's bytes.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::MissingFile { path: path.to_owned() },
        _ => Error::Io { path: path.to_owned(), source },
    })?;
    if is_lfs_pointer(&bytes) {
        return Err(Error::LfsPointer { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Whether a file is a git-lfs pointer in place of the content that belongs there.
fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs")
}
