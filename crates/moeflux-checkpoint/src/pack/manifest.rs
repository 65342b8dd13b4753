//! `moeflux.json`: what a pack holds and where.

use super::names::{parse_dtype, parse_encoding, parse_quantization};
use crate::error::Error;
use crate::quantization::ModuleQuantization;
use crate::stacked::{BlockLayout, MatrixKind};
use crate::tensor::Dtype;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path};

/// The name of a pack's manifest.
pub const MANIFEST: &str = "moeflux.json";
/// What the manifest of a pack has as its `format`.
pub const FORMAT: &str = "moeflux-pack";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// Where tensors and the parts of experts start, in bytes.
pub const ALIGNMENT: u64 = 64;
/// Blocks of experts start at multiples of this: what direct reads need. Larger blocks start at multiples of
/// [`LARGE_PAGE`].
pub const PAGE: u64 = 4096;
/// The largest page among systems of today.
pub const LARGE_PAGE: u64 = 16384;

/// A manifest as it lies in the file. [`Manifest::parse`] gives only ones that fit together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`]
    pub format: String,
    /// [`VERSION`]
    pub version: u32,
    /// Which conversion made it: a hash of what it was made from, and how.
    pub plan: String,
    /// What it was made from.
    pub source: Source,
    /// How linear maps were encoded, by the entries that decided, in order; empty if everything was copied.
    pub recipe: Vec<String>,
    /// Files that lie beside it: config, tokenizer, templates.
    pub files: Vec<FileEntry>,
    /// The encoding of each module with codes and scales that is not one of an expert's, such as `affine4g64`.
    pub modules: BTreeMap<String, String>,
    /// Everything but experts.
    pub dense: DenseEntry,
    /// The experts of each mixture.
    pub experts: Vec<ExpertsEntry>,
}

/// What a pack was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The last part of its path.
    pub name: String,
    /// How it was stored, for people.
    pub layout: String,
}

/// A file beside the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its path inside the pack.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Of the whole file.
    pub checksum: Checksum,
}

/// The file of dense tensors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseEntry {
    /// Its path inside the pack.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// In the order of their data; names are those of the source.
    pub tensors: Vec<TensorEntry>,
}

/// A dense tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Its element type, such as `BF16`.
    pub dtype: String,
    /// Its dimensions, the slowest first.
    pub shape: Vec<usize>,
    /// Its first byte in the file, a multiple of [`ALIGNMENT`].
    pub offset: u64,
    /// Of its bytes.
    pub checksum: Checksum,
}

/// The experts of one mixture: a file of blocks, expert `e` at `e * stride`. A block holds gate, up and down, then
/// their biases if the model has any; each as codes, scales and biases, each part at a multiple of [`ALIGNMENT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertsEntry {
    /// The module that they are, such as `model.layers.3.mlp.experts`.
    pub name: String,
    /// Its path inside the pack.
    pub file: String,
    /// From one block's start to the next, in bytes.
    pub stride: u64,
    /// Gate, up, down and their biases.
    pub matrices: Vec<MatrixEntry>,
    /// Of each expert's block, from its start to the end of its last part.
    pub checksums: Vec<Checksum>,
}

/// A matrix that every expert has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixEntry {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// How it is encoded, such as `affine4g64-bf16`.
    pub encoding: String,
}

/// XXH3, 64 bits; in the file as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Checksum(pub u64);

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.to_string()
    }
}

impl TryFrom<String> for Checksum {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u64::from_str_radix(&text, 16).ok().filter(|_| digits);
        value.map(Checksum).ok_or("expected a checksum of 16 hexadecimal digits")
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A manifest that fits together, with what its words mean.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// As it lies in the file.
    pub manifest: Manifest,
    /// Of each dense tensor.
    pub(crate) dense: Vec<DenseTensor>,
    /// Of each mixture.
    pub(crate) experts: Vec<BlockLayout>,
    pub(crate) modules: BTreeMap<String, ModuleQuantization>,
}

/// A dense tensor's element type and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DenseTensor {
    pub(crate) dtype: Dtype,
    pub(crate) bytes: u64,
}

impl Manifest {
    /// Reads the bytes of a manifest and checks everything that needs no other file; `path` names it in errors.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, Error> {
        // The version first: another one may have other fields.
        #[derive(Deserialize)]
        struct Version {
            format: String,
            version: u32,
        }
        let json = |source| Error::Json { path: path.to_owned(), source };
        let Version { format, version } = serde_json::from_slice(bytes).map_err(json)?;
        let check = Check { path };
        check.that(format == FORMAT, "format", || (FORMAT.to_owned(), format.clone()))?;
        check.that(version == VERSION, "version", || {
            (format!("{VERSION}, the one this moeflux reads"), version.to_string())
        })?;
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
        Ok(Parsed {
            dense: check.dense(&manifest.dense)?,
            experts: check.experts(&manifest.experts)?,
            modules: check.modules(&manifest.modules)?,
            manifest: check.files(manifest)?,
        })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Bytes of a tensor in a file; `None` if the number overflows or is not whole.
pub(crate) fn tensor_bytes(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let elements = |shape: &[usize]| shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim as u64));
    let bits = match dtype {
        Dtype::Ggml(_) => {
            let (&cols, rows) = shape.split_last()?;
            let kind = MatrixKind { rows: 1, cols, encoding: dtype.encoding()? };
            return kind.part_bytes()?[0].checked_mul(elements(rows)?);
        }
        Dtype::F32 | Dtype::U32 => 32,
        Dtype::F16 | Dtype::BF16 => 16,
        Dtype::U8 | Dtype::F8E4M3 => 8,
        Dtype::Other(other) => other.bitsize() as u64,
    };
    let bits = elements(shape)?.checked_mul(bits)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Checks of one manifest.
struct Check<'a> {
    path: &'a Path,
}

impl Check<'_> {
    fn that(
        &self,
        holds: bool,
        field: &str,
        expected_and_found: impl Fn() -> (String, String),
    ) -> Result<(), Error> {
        if holds {
            return Ok(());
        }
        let (expected, found) = expected_and_found();
        Err(Error::Field { path: self.path.to_owned(), field: field.to_owned(), expected, found })
    }

    /// A value that must be there.
    fn some<T>(&self, value: Option<T>, field: &str, expected: &str, found: &str) -> Result<T, Error> {
        value.ok_or_else(|| Error::Field {
            path: self.path.to_owned(),
            field: field.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        })
    }

    /// Tensors follow each other, aligned, with less than an alignment between them, and end where the file does.
    fn dense(&self, dense: &DenseEntry) -> Result<Vec<DenseTensor>, Error> {
        let mut tensors = Vec::with_capacity(dense.tensors.len());
        let mut names = HashSet::new();
        let mut end = 0u64;
        for entry in &dense.tensors {
            let field = |name: &str| format!("dense.tensors.{}.{name}", entry.name);
            let new = names.insert(&entry.name);
            self.that(new, &field("name"), || ("a name given once".to_owned(), "it twice".to_owned()))?;
            let dtype =
                self.some(parse_dtype(&entry.dtype), &field("dtype"), "an element type", &entry.dtype)?;
            let shape = format!("{:?}", entry.shape);
            let bytes = tensor_bytes(dtype, &entry.shape);
            let bytes = self.some(bytes, &field("shape"), "a shape of a whole number of bytes", &shape)?;
            let start = end.next_multiple_of(ALIGNMENT);
            self.that(entry.offset == start, &field("offset"), || {
                (format!("{start}, where the tensor before it ends, aligned"), entry.offset.to_string())
            })?;
            // Far from overflow, so that later sums are.
            let ends = start.checked_add(bytes).filter(|end| *end <= dense.bytes && *end < 1 << 62);
            let within = format!("a tensor inside the {} bytes of {}", dense.bytes, dense.file);
            end = self.some(ends, &field("shape"), &within, &shape)?;
            tensors.push(DenseTensor { dtype, bytes });
        }
        self.that(end == dense.bytes, "dense.bytes", || {
            (format!("{end}, where the last tensor ends"), dense.bytes.to_string())
        })?;
        Ok(tensors)
    }

    fn experts(&self, mixtures: &[ExpertsEntry]) -> Result<Vec<BlockLayout>, Error> {
        let mut names = HashSet::new();
        let mut layouts = Vec::with_capacity(mixtures.len());
        for entry in mixtures {
            let field = |name: &str| format!("experts.{}.{name}", entry.name);
            let new = names.insert(&entry.name);
            self.that(new, &field("name"), || ("a name given once".to_owned(), "it twice".to_owned()))?;
            let mut kinds = Vec::with_capacity(entry.matrices.len());
            for MatrixEntry { rows, cols, encoding: name } in &entry.matrices {
                let encoding = self.some(
                    parse_encoding(name),
                    &field("matrices"),
                    "an encoding such as affine4g64-bf16",
                    name,
                )?;
                kinds.push(MatrixKind { rows: *rows, cols: *cols, encoding });
            }
            let layout = self.some(
                BlockLayout::new(&kinds, ALIGNMENT),
                &field("matrices"),
                "gate, up and down of shapes that fit together, and their biases or none",
                &format!("{:?}", kinds.iter().map(|kind| (kind.rows, kind.cols)).collect::<Vec<_>>()),
            )?;
            let stride_fits = entry.stride >= layout.len() && entry.stride.is_multiple_of(PAGE);
            self.that(stride_fits, &field("stride"), || {
                (format!("a multiple of {PAGE}, at least {}", layout.len()), entry.stride.to_string())
            })?;
            let bytes = entry.stride.checked_mul(entry.checksums.len() as u64);
            let count_fits = !entry.checksums.is_empty() && bytes.is_some_and(|bytes| bytes < 1 << 62);
            self.that(count_fits, &field("checksums"), || {
                ("one for each expert".to_owned(), entry.checksums.len().to_string())
            })?;
            layouts.push(layout);
        }
        Ok(layouts)
    }

    fn modules(
        &self,
        modules: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, ModuleQuantization>, Error> {
        let read = |(module, name): (&String, &String)| {
            let field = format!("modules.{module}");
            let how =
                self.some(parse_quantization(name), &field, "a quantisation such as affine4g64", name)?;
            Ok((module.clone(), how))
        };
        modules.iter().map(read).collect()
    }

    /// Files lie inside the pack, and no two are the same.
    fn files(&self, manifest: Manifest) -> Result<Manifest, Error> {
        let mut names = HashSet::from([MANIFEST]);
        let beside = manifest.files.iter().map(|file| ("files", &file.name));
        let experts = manifest.experts.iter().map(|experts| ("experts.file", &experts.file));
        for (field, name) in beside.chain([("dense.file", &manifest.dense.file)]).chain(experts) {
            let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            self.that(inside && !name.is_empty() && names.insert(name), field, || {
                ("a file inside the pack, named once".to_owned(), format!("{name:?}"))
            })?;
        }
        Ok(manifest)
    }
}
