//! A pack: the layout made for streaming experts.
//!
//! A folder with
//! - `moeflux.json`, the [`Manifest`]: every tensor and block with its place and checksum, and what
//!   the pack was made from;
//! - `dense.bin`, everything but experts, each tensor at a multiple of 64 bytes, under the name and in the convention
//!   of the checkpoint that it was made from;
//! - `experts/layer_NN.bin`, one block an expert at a multiple of the page size, so that an expert is one read, direct
//!   if need be;
//! - `config.json`, untouched, and the tokenizer's files; of a GGUF file its metadata instead, as `metadata.gguf`.

pub mod manifest;
pub(crate) mod names;

use crate::checkpoint::OpenOptions;
use crate::config::{self, Config};
use crate::error::Error;
use crate::files::{Contents, read};
use crate::gguf::header::parse_header;
use crate::gguf::{self, Metadata};
use crate::quantization::{ModuleQuantization, Quantization};
use crate::tensor::{Dtype, Span, Tensor};
use manifest::{MANIFEST, Manifest, Parsed};
use std::io::ErrorKind;
use std::path::Path;

/// The file of metadata in a pack that was made from a GGUF file.
pub(crate) const GGUF_METADATA: &str = "metadata.gguf";

/// Whether a folder is a pack.
pub(crate) fn is_pack(folder: &Path) -> bool {
    folder.join(MANIFEST).is_file()
}

/// Opens a pack: reads manifest and config, maps the files, checks their lengths. Checksums are for
/// [`verify`](crate::verify) to check, since that reads everything.
pub(crate) fn open(
    folder: &Path,
    options: &OpenOptions,
) -> Result<(Contents, Config, Option<Metadata>), Error> {
    let path = folder.join(MANIFEST);
    let Parsed { manifest, dense, experts, modules } = Manifest::parse(&path, &read(&path)?)?;
    let mut contents = Contents::default();
    let file = map(&mut contents, &folder.join(&manifest.dense.file), manifest.dense.bytes)?;
    for (entry, tensor) in manifest.dense.tensors.into_iter().zip(dense) {
        let span = Span { file, offset: entry.offset, len: tensor.bytes };
        contents.add(Tensor { name: entry.name, dtype: tensor.dtype, shape: entry.shape, span })?;
    }
    for (entry, layout) in manifest.experts.into_iter().zip(experts) {
        let count = entry.checksums.len();
        let bytes = entry.stride * count as u64;
        let file = map(&mut contents, &folder.join(&entry.file), bytes)?;
        contents.add(Tensor {
            name: entry.name.clone(),
            dtype: Dtype::U8,
            shape: vec![count, entry.stride as usize],
            span: Span { file, offset: 0, len: bytes },
        })?;
        let checksums = entry.checksums.iter().map(|checksum| checksum.0).collect();
        contents.expert_checksums.insert(file, checksums);
        contents.mixtures.insert(entry.name, layout.stack(file, count, entry.stride));
    }
    contents.layout = Some(format!("moeflux pack, made from {}", manifest.source.layout));

    let metadata_path = folder.join(GGUF_METADATA);
    let metadata = if metadata_path.is_file() {
        Some(parse_header(&metadata_path, &read(&metadata_path)?)?.0)
    } else {
        None
    };
    let config_path = folder.join("config.json");
    let mut config = match &metadata {
        Some(metadata) => {
            let mut config = gguf::config::read(metadata, &contents.tensors, options)?;
            gguf::read_rope_factors(&mut config, &contents)?;
            config
        }
        None => config::parse(&config_path, &read(&config_path)?, options)?,
    };
    // What the source's config says of quantisation holds for the source alone. Every module that has scales is named,
    // so that the default is never asked for.
    let default = ModuleQuantization::Affine { bits: 4, group_size: 64 };
    let modules = modules.into_iter().map(|(module, how)| (module, Some(how))).collect();
    config.quantization = Some(Quantization { default, modules });
    Ok((contents, config, metadata))
}

/// Maps a file that must have so many bytes.
fn map(contents: &mut Contents, path: &Path, expected: u64) -> Result<u32, Error> {
    let found = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(source) if source.kind() == ErrorKind::NotFound => {
            return Err(Error::MissingPackFile { path: path.to_owned() });
        }
        Err(source) => return Err(Error::Io { path: path.to_owned(), source }),
    };
    if found != expected {
        return Err(Error::PackFileLength { path: path.to_owned(), expected, found });
    }
    Ok(contents.map(path)?.0)
}
