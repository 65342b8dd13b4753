//! A folder with `config.json` and safetensors files.

use super::parse_header;
use crate::checkpoint::OpenOptions;
use crate::config::{self, Config};
use crate::error::Error;
use crate::files::{Contents, names, read, with_extension};
use crate::tensor::{Span, Tensor};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Opens a folder with `config.json` and safetensors files: `model.safetensors.index.json` and the shards that it
/// names, or `model.safetensors`, or the only `*.safetensors` file. Reads the config and the files' headers.
pub(crate) fn open(folder: &Path, options: &OpenOptions) -> Result<(Contents, Config), Error> {
    let config_path = folder.join("config.json");
    let config = config::parse(&config_path, &read(&config_path)?, options)?;

    let mut contents = Contents::default();
    let index_path = folder.join("model.safetensors.index.json");
    if index_path.exists() {
        let index = Index::read(&index_path)?;
        for shard in index.shards()? {
            add_file(&mut contents, &shard)?;
        }
        index.check(&contents)?;
    } else {
        add_file(&mut contents, &only_file(folder)?)?;
    }
    Ok((contents, config))
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
    fn check(&self, contents: &Contents) -> Result<(), Error> {
        for (tensor, shard) in &self.weight_map {
            let found = contents.tensors.get(tensor).map(|tensor| contents.path(tensor.span));
            if found != Some(self.path.with_file_name(shard)) {
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
    let found = with_extension(folder, "safetensors")?;
    match &found[..] {
        [only] => Ok(only.clone()),
        _ => Err(Error::WeightFiles { folder: folder.to_owned(), found: names(&found) }),
    }
}

/// Maps a weight file and lists its tensors.
fn add_file(contents: &mut Contents, path: &Path) -> Result<(), Error> {
    let (index, file) = contents.map(path)?;
    for entry in parse_header(path, file.len(), file.bytes())? {
        contents.add(Tensor {
            span: Span { file: index, offset: entry.offset, len: entry.len },
            dtype: entry.dtype.into(),
            name: entry.name,
            shape: entry.shape,
        })?;
    }
    Ok(())
}
