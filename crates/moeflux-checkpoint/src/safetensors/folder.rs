//! A folder with `config.json` and safetensors files.

use super::parse_header;
use crate::checkpoint::OpenOptions;
use crate::config::{self, Config, ModelConfig, modelopt};
use crate::error::Error;
use crate::files::{Contents, names, read, with_extension};
use crate::quantization::ModuleQuantization;
use crate::tensor::{Span, Tensor};
use crate::weights::codebook;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Opens a folder with `config.json` and safetensors files: an index (`model.safetensors.index.json`) and the shards that it
/// names, or `model.safetensors`, or shards whose names say how many there are, or the only `*.safetensors` file. Reads
/// the config and the files' headers.
pub(crate) fn open(folder: &Path, options: &OpenOptions) -> Result<(Contents, Config), Error> {
    let config_path = folder.join("config.json");
    let mut map = config::object(&config_path, &read(&config_path)?)?;
    modelopt::complete(folder, &mut map)?;
    let config = config::read(&config_path, &map, options)?;

    let mut contents = Contents::default();
    if let Some(index_path) = index_path(folder)? {
        let index = Index::read(&index_path)?;
        for shard in index.shards()? {
            add_file(&mut contents, &shard)?;
        }
        index.check(&contents)?;
    } else {
        for path in weight_files(folder)? {
            add_file(&mut contents, &path)?;
        }
    }
    if let ModelConfig::GptOss(_) = config.model {
        order_experts(&mut contents);
    }
    let how = config.quantization.as_ref().map(|quantization| quantization.default);
    if how == Some(ModuleQuantization::Bitsandbytes) {
        codebook::widen(&mut contents)?;
    }
    Ok((contents, config))
}

/// Has the experts of gpt-oss that are plain floats stand as they multiply.
fn order_experts(contents: &mut Contents) {
    let names = contents.tensors.keys().filter(|name| {
        [".experts.gate_up_proj", ".experts.down_proj"].iter().any(|part| name.ends_with(part))
    });
    for name in names.cloned().collect::<Vec<_>>() {
        contents.transpose(&name);
    }
}

/// The index, whatever variant of the weights it is of, if there is only one.
fn index_path(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let usual = folder.join("model.safetensors.index.json");
    if usual.exists() {
        return Ok(Some(usual));
    }
    let mut found = with_extension(folder, "json")?;
    found.retain(|path| path.to_str().is_some_and(|path| path.ends_with(".safetensors.index.json")));
    Ok(found.pop().filter(|_| found.is_empty()))
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

/// The weight files of a folder without an index.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let usual = folder.join("model.safetensors");
    if usual.exists() {
        return Ok(vec![usual]);
    }
    let mut found = with_extension(folder, "safetensors")?;
    let name = |path: &PathBuf| path.file_name().map(|name| name.display().to_string()).unwrap_or_default();
    // Copies under other names, and what is added to a model.
    let is_other =
        |path: &PathBuf| ["consolidated", "adapter_"].iter().any(|other| name(path).starts_with(other));
    if !found.iter().all(is_other) {
        found.retain(|path| !is_other(path));
    }
    let shards: Option<Vec<Shard>> = found.iter().map(|path| Shard::of(&name(path))).collect();
    match (shards.as_deref(), &found[..]) {
        (Some([first, rest @ ..]), _) if rest.iter().all(|other| other.is_beside(first)) => {
            let paths = (1..=first.count).map(|number| folder.join(first.name(number)));
            let paths: Vec<PathBuf> = paths.collect();
            match paths.iter().find(|path| !path.exists()) {
                Some(shard) => Err(Error::MissingFileOfSeveral {
                    folder: folder.to_owned(),
                    file: name(shard),
                    count: first.count,
                }),
                None => Ok(paths),
            }
        }
        (_, [only]) => Ok(vec![only.clone()]),
        (_, []) => Err(Error::WeightFiles { folder: folder.to_owned(), found: pickles(folder)? }),
        _ => Err(Error::WeightFiles { folder: folder.to_owned(), found: names(&found) }),
    }
}

/// The names of a folder's pickles, which older checkpoints and HQQ's have instead of safetensors.
fn pickles(folder: &Path) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for extension in ["bin", "pt", "pth"] {
        found.extend(names(&with_extension(folder, extension)?));
    }
    if let Some(last) = found.last_mut() {
        last.push_str(", which are PyTorch's pickles: save the model as safetensors");
    }
    Ok(found)
}

/// The name of a shard, which says how many there are: `model-00001-of-00003.safetensors`.
struct Shard {
    stem: String,
    /// Digits of the numbers.
    width: usize,
    count: usize,
}

impl Shard {
    fn of(name: &str) -> Option<Self> {
        /// More than any model has.
        const MOST: usize = 100_000;
        let (rest, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let is_number = |text: &str| text.len() >= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let count_of = count.parse().ok().filter(|count| (1..=MOST).contains(count))?;
        let fits = is_number(number) && is_number(count) && number.len() == count.len();
        fits.then(|| Shard { stem: stem.to_owned(), width: count.len(), count: count_of })
    }

    fn is_beside(&self, other: &Shard) -> bool {
        (&self.stem, self.width, self.count) == (&other.stem, other.width, other.count)
    }

    fn name(&self, number: usize) -> String {
        let Shard { stem, width, count } = self;
        format!("{stem}-{number:0width$}-of-{count:0width$}.safetensors")
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
