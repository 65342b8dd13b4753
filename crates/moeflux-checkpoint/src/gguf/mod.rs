//! GGUF: one file, or the parts of one, with metadata, tokenizer and tensors together.
//!
//! [`header`] reads a file's metadata and tensor list, `parts` finds the files, `config` turns metadata into the fields of
//! `config.json`, and `names` knows what the files call a tensor. The conventions that differ from the hub's are
//! applied where tensors are handed out, in [`Weights`](crate::Weights).

pub(crate) mod config;
pub mod header;
mod metadata;
mod names;
mod parts;

pub use metadata::{Metadata, Value};
pub(crate) use names::{conventions, is_behind};

use crate::checkpoint::OpenOptions;
use crate::config::Config;
use crate::error::Error;
use crate::family::rope::RopeScaling;
use crate::files::Contents;
use crate::tensor::{Dtype, Span, Tensor};
use header::Entry;
use moeflux_kernels::{Float, decode_floats};
use parts::PartName;
use std::path::{Path, PathBuf};

/// Opens a GGUF file, with the other parts if it is one of several, or the only model in a folder.
pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<(Contents, Config, Metadata), Error> {
    let first = if path.is_dir() { parts::only_model(path)? } else { path.to_owned() };
    let (mut contents, mut metadata) = (Contents::default(), add_file(&mut Contents::default(), &first)?);
    let parts = part_paths(&first, &metadata)?;
    for (index, part) in parts.iter().enumerate() {
        let of_part = add_file(&mut contents, part)?;
        check_part(&of_part, index, parts.len())?;
        if index == 0 {
            metadata = of_part;
        }
    }
    let found = contents.tensors.len() as u64;
    if metadata.whole(SPLIT_TENSORS)?.is_some_and(|expected| expected != found) {
        return Err(metadata.wrong(SPLIT_TENSORS, &format!("{found}, the number of tensors in all parts")));
    }
    let mut config = config::read(&metadata, &contents.tensors, options)?;
    read_rope_factors(&mut config, &contents)?;
    Ok((contents, config, metadata))
}

const SPLIT_COUNT: &str = "split.count";
const SPLIT_INDEX: &str = "split.no";
const SPLIT_TENSORS: &str = "split.tensors.count";

/// The files of the model that `first` belongs to, all of which are there.
fn part_paths(first: &Path, metadata: &Metadata) -> Result<Vec<PathBuf>, Error> {
    let count = metadata.whole(SPLIT_COUNT)?.unwrap_or(1);
    if count <= 1 {
        return Ok(vec![first.to_owned()]);
    }
    let name = PartName::of(first).filter(|name| name.count() as u64 == count).ok_or_else(|| {
        metadata
            .wrong(SPLIT_COUNT, "what the file's name says (name-00001-of-00003.gguf is the first of three)")
    })?;
    let paths: Vec<PathBuf> = (0..name.count()).map(|index| name.path(index)).collect();
    match paths.iter().find(|path| !path.exists()) {
        Some(part) => {
            Err(Error::MissingPart { path: first.to_owned(), part: part.clone(), count: name.count() })
        }
        None => Ok(paths),
    }
}

/// Checks that a file is the part that its name says.
fn check_part(metadata: &Metadata, index: usize, count: usize) -> Result<(), Error> {
    if count == 1 {
        return Ok(());
    }
    for (key, expected) in [(SPLIT_INDEX, index), (SPLIT_COUNT, count)] {
        if metadata.whole(key)? != Some(expected as u64) {
            return Err(metadata.wrong(key, &format!("{expected}, as the file's name says")));
        }
    }
    Ok(())
}

/// What divides the frequencies of the rotary embedding, one by one.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Gives the config the factors that a tensor of the file holds: Llama 3.1's scaling, as llama.cpp's converter writes it.
pub(crate) fn read_rope_factors(config: &mut Config, contents: &Contents) -> Result<(), Error> {
    let Some(tensor) = contents.tensors.get(ROPE_FACTORS) else { return Ok(()) };
    // A family without that scaling has no place for the tensor, which is refused later.
    let Some(rope) = config.model.rope_mut() else { return Ok(()) };
    let path = contents.path(tensor.span);
    let expected = vec![rope.rotary_dim / 2];
    if tensor.shape != expected || tensor.dtype != Dtype::F32 || rope.scaling != RopeScaling::None {
        return Err(Error::Shape {
            path,
            tensor: tensor.name.clone(),
            expected,
            found: tensor.shape.clone(),
        });
    }
    let mut factors = vec![0.0; rope.rotary_dim / 2];
    decode_floats(Float::F32, contents.bytes(tensor.span), &mut factors);
    if let Some(&found) = factors.iter().find(|factor| !factor.is_finite() || **factor <= 0.0) {
        let (tensor, expected) = (tensor.name.clone(), "finite numbers above 0");
        return Err(Error::Value { path, tensor, expected, found });
    }
    rope.scaling = RopeScaling::Factors(factors);
    Ok(())
}

/// Maps a file and lists its tensors.
fn add_file(contents: &mut Contents, path: &Path) -> Result<Metadata, Error> {
    let (index, file) = contents.map(path)?;
    let (metadata, entries) = header::parse_header(path, file.bytes())?;
    for entry in entries {
        contents.add(tensor(index, entry))?;
    }
    Ok(metadata)
}

fn tensor(file: u32, entry: Entry) -> Tensor {
    let Entry { name, dtype, shape, offset, len } = entry;
    Tensor { name, dtype, shape, span: Span { file, offset, len } }
}

/// Reads the config of the model in the file `bytes`; `path` names it in errors.
pub fn parse(path: &Path, bytes: &[u8], options: &OpenOptions) -> Result<Config, Error> {
    let (metadata, entries) = header::parse_header(path, bytes)?;
    let tensors = entries.into_iter().map(|entry| (entry.name.clone(), tensor(0, entry))).collect();
    config::read(&metadata, &tensors, options)
}
