//! `expert_index.json`: where experts lie in the safetensors files that artifacts were made from.

use super::experts::{Sizes, add_mixture};
use crate::error::Error;
use crate::files::{Contents, read};
use crate::safetensors::parse_header;
use crate::stacked::{MatrixKind, StackedExperts, StackedMatrix, Strided};
use crate::tensor::Span;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

pub(super) const NAME: &str = "expert_index.json";

#[derive(Deserialize)]
struct Json {
    #[serde(default)]
    model_path: PathBuf,
    expert_reads: BTreeMap<u32, BTreeMap<String, Reads>>,
}

/// One part of every expert of a layer.
#[derive(Deserialize)]
struct Reads {
    file: String,
    abs_offset: u64,
    expert_stride: u64,
    expert_size: u64,
}

/// Adds the experts of every layer in the index at `path`, in the artifacts' `folder`.
pub(super) fn add(contents: &mut Contents, folder: &Path, path: &Path, sizes: Sizes) -> Result<(), Error> {
    let json: Json = serde_json::from_slice(&read(path)?)
        .map_err(|source| Error::Json { path: path.to_owned(), source })?;
    // The path in the index may be that of the machine where it was made.
    let index_folder = path.parent().unwrap_or(folder).to_owned();
    let sources = [index_folder.join(&json.model_path), folder.join("mlx"), folder.to_owned()];
    let mut shards = Shards { path, sources: &sources, open: HashMap::new() };
    for (layer, reads) in json.expert_reads {
        let mut parts = LayerParts { path, layer, reads: &reads, sizes, shards: &mut shards, contents };
        // The width of codes is not noted, but follows from their length.
        let codes = reads.get("gate_proj.weight").map_or(0, |reads| reads.expert_size);
        let kinds = [2, 3, 4, 5, 6, 8].map(|bits| sizes.kinds(bits));
        let fitting =
            kinds.into_iter().find(|kinds| kinds[0].part_bytes().is_some_and(|parts| parts[0] == codes));
        let [gate, up, down] = fitting.ok_or_else(|| {
            parts.wrong("gate_proj.weight.expert_size", "the length of codes of 2 to 8 bits", codes)
        })?;
        let (gate, up, down) = (
            parts.matrix("gate_proj", gate)?,
            parts.matrix("up_proj", up)?,
            parts.matrix("down_proj", down)?,
        );
        // The tensor of gates stands for all of them.
        let Strided { file, offset, stride } = gate.parts[0];
        let span = Span { file, offset, len: stride * (sizes.count as u64 - 1) + codes };
        add_mixture(
            contents,
            layer,
            span,
            StackedExperts { count: sizes.count, gate, up, down, biases: None },
        )?;
    }
    Ok(())
}

/// One layer of the index, being read.
struct LayerParts<'a, 'b> {
    path: &'a Path,
    layer: u32,
    reads: &'a BTreeMap<String, Reads>,
    sizes: Sizes,
    shards: &'a mut Shards<'b>,
    contents: &'a mut Contents,
}

impl LayerParts<'_, '_> {
    fn matrix(&mut self, name: &str, kind: MatrixKind) -> Result<StackedMatrix, Error> {
        let [codes, scales, biases] = kind.part_bytes().unwrap_or_default();
        Ok(StackedMatrix {
            kind,
            parts: [
                self.part(&format!("{name}.weight"), codes)?,
                self.part(&format!("{name}.scales"), scales)?,
                self.part(&format!("{name}.biases"), biases)?,
            ],
        })
    }

    /// One part, which must be as long as its matrix needs and begin where a tensor does: an index that leaves out the
    /// length of the file's header would otherwise read shifted numbers.
    fn part(&mut self, name: &str, bytes: u64) -> Result<Strided, Error> {
        let Some(Reads { file, abs_offset, expert_stride, expert_size }) = self.reads.get(name) else {
            return Err(self.wrong(name, "where this part of the experts is", "nothing"));
        };
        if *expert_size != bytes {
            return Err(self.wrong(&format!("{name}.expert_size"), &bytes.to_string(), expert_size));
        }
        let (index, starts) = self.shards.open(self.contents, file)?;
        if !starts.contains(abs_offset) {
            let expected = format!("the place of a tensor in {file}, its header counted");
            return Err(self.wrong(&format!("{name}.abs_offset"), &expected, abs_offset));
        }
        let len = self.contents.files[index as usize].len();
        let last = expert_stride.checked_mul(self.sizes.count as u64 - 1);
        let end = last.and_then(|last| abs_offset.checked_add(last)?.checked_add(bytes));
        if *expert_stride < bytes || end.is_none_or(|end| end > len) {
            let expected = format!("at least {bytes}, and {} experts inside {file}", self.sizes.count);
            return Err(self.wrong(&format!("{name}.expert_stride"), &expected, expert_stride));
        }
        Ok(Strided { file: index, offset: *abs_offset, stride: *expert_stride })
    }

    fn wrong(&self, field: &str, expected: &str, found: impl ToString) -> Error {
        Error::Field {
            path: self.path.to_owned(),
            field: format!("expert_reads.{}.{field}", self.layer),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }
}

/// The safetensors files of an index, opened as they are named, with the places where tensors begin.
struct Shards<'a> {
    path: &'a Path,
    sources: &'a [PathBuf],
    open: HashMap<String, (u32, HashSet<u64>)>,
}

impl Shards<'_> {
    fn open(&mut self, contents: &mut Contents, name: &str) -> Result<(u32, &HashSet<u64>), Error> {
        if !self.open.contains_key(name) {
            let mut parts = Path::new(name).components();
            let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            let candidates = self.sources.iter().map(|folder| folder.join(name));
            let path =
                candidates.filter(|_| is_name).find(|path| path.is_file()).ok_or_else(|| Error::Field {
                    path: self.path.to_owned(),
                    field: "file".to_owned(),
                    expected: "a file in model_path, in mlx/ or beside the artifacts".to_owned(),
                    found: name.to_owned(),
                })?;
            let (index, file) = contents.map(&path)?;
            let tensors = parse_header(&path, file.len(), file.bytes())?;
            let starts = tensors.into_iter().map(|tensor| tensor.offset).collect();
            self.open.insert(name.to_owned(), (index, starts));
        }
        let (index, starts) = &self.open[name];
        Ok((*index, starts))
    }
}
