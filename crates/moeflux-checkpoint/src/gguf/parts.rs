//! Which files make a GGUF model: one, or the parts of one that was split.

use crate::error::Error;
use crate::files::{names, with_extension};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The first file of the only model in a folder.
pub(super) fn only_model(folder: &Path) -> Result<PathBuf, Error> {
    let found = with_extension(folder, "gguf")?;
    // By model the file to start with: the parts of a split one sort in order.
    let mut models: BTreeMap<PathBuf, &PathBuf> = BTreeMap::new();
    for path in &found {
        let model = PartName::of(path).map_or_else(|| path.clone(), |part| part.path(0));
        models.entry(model).or_insert(path);
    }
    match models.len() {
        1 => Ok(found[0].clone()),
        _ => Err(Error::GgufFiles { folder: folder.to_owned(), found: names(&found) }),
    }
}

/// The name of a part: `model-00001-of-00003.gguf`.
pub(super) struct PartName<'a> {
    path: &'a Path,
    stem: &'a str,
    count: usize,
}

impl<'a> PartName<'a> {
    /// Takes a path apart; `None` if it is not named like a part.
    pub(super) fn of(path: &'a Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        let count = count.parse().ok().filter(|_| digits(number) && digits(count))?;
        Some(PartName { path, stem, count })
    }

    /// How many parts there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Where part `index`, counted from 0, should be.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        self.path.with_file_name(format!("{}-{:05}-of-{:05}.gguf", self.stem, index + 1, self.count))
    }
}
