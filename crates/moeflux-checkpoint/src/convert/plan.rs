//! What a conversion is going to write, and where.

use super::{Error, Recipe, Target};
use crate::checkpoint::Checkpoint;
use crate::family;
use crate::matrix::{Expert, Matrix};
use crate::pack::manifest::{
    ALIGNMENT, Checksum, DenseEntry, ExpertsEntry, FORMAT, FileEntry, LARGE_PAGE, Manifest, MatrixEntry,
    PAGE, Source, TensorEntry, VERSION, tensor_bytes,
};
use crate::pack::names::{encoding_name, quantization_name};
use crate::quantization::ModuleQuantization;
use crate::stacked::{BlockLayout, MatrixKind};
use crate::tensor::{Dtype, Span, Tensor};
use crate::weights::{LinearMap, codebook};
use moeflux_kernels::{Encoding, Float};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use twox_hash::XxHash3_64;

/// The experts of one layer under their canonical name.
#[derive(Clone, Debug)]
pub struct Mixture {
    /// Such as `layers.3.mlp`.
    pub name: String,
    /// By index.
    pub experts: Vec<Expert>,
}

/// A small file that goes along as it is.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// Its path inside the pack.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// What a conversion is going to write: every byte's place is known before the first is read.
#[derive(Debug)]
pub struct Plan {
    /// The manifest as it will be, but for the checksums of dense tensors and experts.
    pub(crate) manifest: Manifest,
    pub(crate) sidecars: Vec<Sidecar>,
    pub(crate) units: Vec<Unit>,
    pub(crate) mixtures: Vec<PlannedMixture>,
    changes: Vec<Change>,
}

/// The experts of one mixture and the blocks that they become.
#[derive(Debug)]
pub(crate) struct PlannedMixture {
    pub(crate) experts: Vec<Expert>,
    pub(crate) layout: BlockLayout,
    pub(crate) stride: u64,
}

/// A piece of work that one thread does and the journal notes as a whole.
#[derive(Debug)]
pub(crate) enum Unit {
    /// A dense tensor's bytes as they are.
    Copy { tensor: usize, span: Span },
    /// A linear map's codes, scales and biases, the dense tensors from `tensor` on.
    Encode { tensor: usize, matrix: Matrix, encoding: Encoding },
    /// One expert.
    Block { mixture: usize, expert: usize },
}

/// So many linear maps that get another encoding, or stay in theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As they are, such as `bf16`.
    pub from: String,
    /// As they will be, such as `affine4g64-bf16`.
    pub to: String,
    /// How many: each expert has three.
    pub maps: u64,
    /// Bytes that they take now.
    pub bytes_before: u64,
    /// Bytes that they will take.
    pub bytes_after: u64,
}

impl Plan {
    /// Plans the conversion of a checkpoint whose model has these mixtures.
    pub fn new(
        checkpoint: &Checkpoint,
        mixtures: Vec<Mixture>,
        recipe: &Recipe,
        sidecars: Vec<Sidecar>,
    ) -> Result<Self, Error> {
        let weights = checkpoint.weights()?;
        let is_mtp = |module: &str| family::is_mtp(module, checkpoint.config().decoder());
        let target = |module: &str, matrix: &Matrix| stored(matrix, recipe.target(module, is_mtp(module)));
        let mut changes = Changes::default();

        let mut experts = Vec::new();
        let mut planned = Vec::new();
        let mut blocks = Vec::new();
        let mut in_blocks = BTreeSet::new();
        for mixture in mixtures {
            let module = weights.experts_module(&mixture.name);
            check_alike(&module, &mixture.experts)?;
            let Some(first) = mixture.experts.first() else { continue };
            let kinds: Vec<MatrixKind> = first
                .matrices()
                .map(|(part, matrix)| {
                    let is_bias = part.ends_with("bias");
                    let encoding =
                        if is_bias { matrix.encoding } else { target(&format!("{module}.{part}"), matrix)? };
                    Ok(MatrixKind { encoding, ..MatrixKind::of(matrix) })
                })
                .collect::<Result<_, Error>>()?;
            let maps = first.matrices().zip(&kinds).take(3);
            for ((_, matrix), kind) in maps {
                changes.count(matrix, kind.encoding, mixture.experts.len() as u64);
            }
            let too_large = || Error::TooLarge { tensor: module.clone() };
            let layout = BlockLayout::new(&kinds, ALIGNMENT).ok_or_else(too_large)?;
            let page = if layout.len() < 64 * LARGE_PAGE { PAGE } else { LARGE_PAGE };
            let stride = layout.len().next_multiple_of(page);
            for expert in &mixture.experts {
                in_blocks.extend(expert.matrices().flat_map(|(_, matrix)| matrix.spans()).map(start));
            }
            blocks.extend(
                (0..mixture.experts.len()).map(|expert| Unit::Block { mixture: planned.len(), expert }),
            );
            experts.push(ExpertsEntry {
                file: format!("experts/{}.bin", file_name(&mixture.name)),
                name: module,
                stride,
                matrices: kinds
                    .iter()
                    .map(|kind| MatrixEntry {
                        rows: kind.rows,
                        cols: kind.cols,
                        encoding: encoding_name(kind.encoding),
                    })
                    .collect(),
                checksums: vec![Checksum(0); mixture.experts.len()],
            });
            planned.push(PlannedMixture { experts: mixture.experts, layout, stride });
        }

        // Tensors that experts begin in are theirs alone.
        let is_expert = |tensor: &Tensor| {
            let Span { file, offset, len } = tensor.span;
            in_blocks.range((file, offset)..(file, offset + len)).next().is_some()
        };
        let dense: Vec<&Tensor> = checkpoint
            .tensors()
            .filter(|tensor| !is_expert(tensor) && !family::is_vision(&tensor.name))
            .filter(|tensor| !weights.is_input_scale(tensor))
            .collect();
        let mut maps: BTreeMap<(u32, u64), (LinearMap, Encoding)> = BTreeMap::new();
        let mut modules = BTreeMap::new();
        // Those of maps that stay as they are say how to read them.
        let mut states = Vec::new();
        for map in weights.linear_maps(&dense)? {
            let encoding = target(&map.module, &map.matrix)?;
            changes.count(&map.matrix, encoding, 1);
            let quantization =
                if encoding == map.matrix.encoding { map.quantization } else { quantization(encoding) };
            if let Some(quantization) = quantization {
                modules.insert(map.module.clone(), quantization_name(quantization));
            }
            if encoding == map.matrix.encoding {
                states.extend(codebook::state_of(checkpoint, &map.module).map(|(state, _)| state));
            } else {
                maps.extend(map.matrix.spans().map(|span| (start(span), (map.clone(), encoding))));
            }
        }

        // In the order of the source, so that it is read from start to end.
        let mut order = [dense, states].concat();
        order.sort_by_key(|tensor| start(tensor.span));
        let mut layout = DenseLayout::default();
        let mut units = Vec::new();
        for tensor in order {
            match maps.get(&start(tensor.span)) {
                None => {
                    units.push(Unit::Copy { tensor: layout.tensors.len(), span: tensor.span });
                    layout.add(&tensor.name, tensor.dtype, &tensor.shape)?;
                }
                Some((map, encoding)) if map.matrix.codes == tensor.span => {
                    let (tensor, matrix) = (layout.tensors.len(), map.matrix.clone());
                    units.push(Unit::Encode { tensor, matrix, encoding: *encoding });
                    layout.add_module(map, *encoding)?;
                }
                // Scales or biases of a map that gets new ones.
                Some(_) => {}
            }
        }
        units.extend(blocks);

        let mut manifest = Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            plan: String::new(),
            source: Source { name: file_stem(checkpoint.path()), layout: checkpoint.layout() },
            recipe: recipe.entries(),
            files: sidecars.iter().map(file_entry).collect(),
            modules,
            dense: DenseEntry { file: "dense.bin".to_owned(), bytes: layout.end, tensors: layout.tensors },
            experts,
        };
        manifest.plan = plan_id(&manifest, checkpoint)?;
        Ok(Plan { manifest, sidecars, units, mixtures: planned, changes: changes.into_list() })
    }

    /// Bytes of everything that will be written.
    pub fn bytes(&self) -> u64 {
        self.file_bytes().map(|(_, bytes)| bytes).sum::<u64>()
            + self.sidecars.iter().map(|file| file.bytes.len() as u64).sum::<u64>()
            // The manifest: a line or few for each tensor, one for each expert.
            + 256 * (self.units.len() as u64 + 16)
    }

    /// What becomes of the linear maps, by encoding.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The files of tensors and experts, with their lengths.
    pub(crate) fn file_bytes(&self) -> impl Iterator<Item = (&str, u64)> {
        let experts = self.manifest.experts.iter();
        let experts = experts.map(|entry| (entry.file.as_str(), entry.stride * entry.checksums.len() as u64));
        [(self.manifest.dense.file.as_str(), self.manifest.dense.bytes)].into_iter().chain(experts)
    }

    /// What a unit writes: a file's index in [`file_bytes`](Self::file_bytes), a place and a length, for each of its
    /// checksums.
    pub(crate) fn outputs(&self, unit: &Unit) -> Vec<(usize, u64, u64)> {
        let tensor = |index: usize| {
            let entry = &self.manifest.dense.tensors[index];
            (0, entry.offset, self.tensor_bytes(index))
        };
        match unit {
            Unit::Copy { tensor: index, .. } => vec![tensor(*index)],
            Unit::Encode { tensor: first, encoding, .. } => {
                (*first..first + tensors_of(*encoding)).map(tensor).collect()
            }
            Unit::Block { mixture, expert } => {
                let PlannedMixture { layout, stride, .. } = &self.mixtures[*mixture];
                vec![(1 + mixture, *expert as u64 * stride, layout.len())]
            }
        }
    }

    fn tensor_bytes(&self, index: usize) -> u64 {
        let entry = &self.manifest.dense.tensors[index];
        let dtype = crate::pack::names::parse_dtype(&entry.dtype);
        dtype.and_then(|dtype| tensor_bytes(dtype, &entry.shape)).unwrap_or_default()
    }
}

/// The dense file as it grows.
#[derive(Default)]
struct DenseLayout {
    tensors: Vec<TensorEntry>,
    end: u64,
}

impl DenseLayout {
    fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<(), Error> {
        let too_large = || Error::TooLarge { tensor: name.to_owned() };
        let offset = self.end.checked_next_multiple_of(ALIGNMENT).ok_or_else(too_large)?;
        let bytes = tensor_bytes(dtype, shape).ok_or_else(too_large)?;
        self.end = offset.checked_add(bytes).ok_or_else(too_large)?;
        let (name, dtype, shape) = (name.to_owned(), dtype.to_string(), shape.to_vec());
        self.tensors.push(TensorEntry { name, dtype, shape, offset, checksum: Checksum(0) });
        Ok(())
    }

    /// The tensors of a module as MLX names and shapes them.
    fn add_module(&mut self, map: &LinearMap, encoding: Encoding) -> Result<(), Error> {
        let LinearMap { module, shape, .. } = map;
        let (cols, outer) = shape.split_last().map_or((1, &[][..]), |(&cols, outer)| (cols, outer));
        let with_last = |last: usize| [outer, &[last]].concat();
        let groups = with_last(cols / encoding.group());
        let weight = format!("{module}.weight");
        let [scales, biases] = ["scales", "biases"].map(|part| format!("{module}.{part}"));
        match encoding {
            Encoding::Affine { params, .. } => {
                self.add(&weight, Dtype::U32, &with_last(cols * encoding.bits() / 32))?;
                self.add(&scales, dtype(params), &groups)?;
                self.add(&biases, dtype(params), &groups)
            }
            Encoding::Float(float) => self.add(&weight, dtype(float), shape),
            _ => {
                self.add(&weight, Dtype::U32, &with_last(cols * encoding.bits() / 32))?;
                self.add(&scales, Dtype::U8, &groups)
            }
        }
    }
}

/// Tensors that a module of an encoding that can be written has.
fn tensors_of(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Affine { .. } => 3,
        Encoding::Float(_) => 1,
        _ => 2,
    }
}

fn dtype(float: Float) -> Dtype {
    match float {
        Float::F32 => Dtype::F32,
        Float::F16 => Dtype::F16,
        Float::Bf16 => Dtype::BF16,
    }
}

/// How a manifest lists a module of an encoding that can be written.
fn quantization(encoding: Encoding) -> Option<ModuleQuantization> {
    match encoding {
        Encoding::Affine { bits, group: group_size, .. } => {
            Some(ModuleQuantization::Affine { bits, group_size })
        }
        Encoding::Mxfp4 => Some(ModuleQuantization::Mxfp4),
        _ => None,
    }
}

/// Experts are one kind of block: each is stored as the first is.
fn check_alike(mixture: &str, experts: &[Expert]) -> Result<(), Error> {
    let kinds =
        |expert: &Expert| expert.matrices().map(|(_, matrix)| MatrixKind::of(matrix)).collect::<Vec<_>>();
    let names = |kinds: &[MatrixKind]| {
        kinds.iter().map(|kind| encoding_name(kind.encoding)).collect::<Vec<_>>().join(", ")
    };
    let Some(first) = experts.first().map(kinds) else { return Ok(()) };
    let other = experts.iter().map(kinds).enumerate().find(|(_, other)| *other != first);
    other.map_or(Ok(()), |(expert, found)| {
        Err(Error::UnlikeExperts {
            mixture: mixture.to_owned(),
            expert,
            expected: names(&first),
            found: names(&found),
        })
    })
}

const PLAIN: Encoding = Encoding::Float(Float::F32);

/// The encoding in which a pack has a matrix. What does not lie row by row is laid out anew, with the very same values; if
/// it cannot be, it is as good as plain floats to the recipe, which must not keep it.
fn stored(matrix: &Matrix, target: Target) -> Result<Encoding, Error> {
    let Encoding::Packed { .. } = matrix.encoding else {
        return Ok(target.encoding(matrix.encoding, matrix.cols));
    };
    if let Some(repacked) = matrix.encoding.repacked().filter(|_| matrix.groups.is_none()) {
        let encoding = target.encoding(matrix.encoding, matrix.cols);
        return Ok(if encoding == matrix.encoding { repacked } else { encoding });
    }
    match target.encoding(PLAIN, matrix.cols) {
        PLAIN => Err(Error::NotKept { tensor: matrix.name.clone() }),
        encoding => Ok(encoding),
    }
}

fn start(span: Span) -> (u32, u64) {
    (span.file, span.offset)
}

/// `layers.3.mlp` → `layer_03`, others with dots as they are.
fn file_name(mixture: &str) -> String {
    let layer = mixture.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
    match layer.and_then(|(layer, _)| layer.parse::<u32>().ok()) {
        Some(layer) => format!("layer_{layer:02}"),
        None => mixture.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_"),
    }
}

fn file_stem(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn file_entry(file: &Sidecar) -> FileEntry {
    FileEntry {
        name: file.name.clone(),
        bytes: file.bytes.len() as u64,
        checksum: Checksum(XxHash3_64::oneshot(&file.bytes)),
    }
}

/// A hash of what is to be written and of the source's tensors and their places.
fn plan_id(manifest: &Manifest, checkpoint: &Checkpoint) -> Result<String, Error> {
    let json = |source| Error::Json { path: checkpoint.path().to_owned(), source };
    let mut bytes = manifest.to_bytes().map_err(json)?;
    for tensor in checkpoint.tensors() {
        bytes.extend(
            format!("{} {} {:?} {:?}\n", tensor.name, tensor.dtype, tensor.shape, tensor.span).bytes(),
        );
    }
    Ok(Checksum(XxHash3_64::oneshot(&bytes)).to_string())
}

/// Counts of linear maps by what becomes of them.
#[derive(Default)]
struct Changes(BTreeMap<(String, String), (u64, u64, u64)>);

impl Changes {
    fn count(&mut self, matrix: &Matrix, encoding: Encoding, times: u64) {
        let key = (encoding_name(matrix.encoding), encoding_name(encoding));
        let after = MatrixKind { encoding, ..MatrixKind::of(matrix) }.part_bytes();
        let entry = self.0.entry(key).or_default();
        entry.0 += times;
        entry.1 += times * matrix.bytes();
        entry.2 += times * after.map_or(0, |parts| parts.iter().sum());
    }

    fn into_list(self) -> Vec<Change> {
        let change = |((from, to), (maps, bytes_before, bytes_after))| Change {
            from,
            to,
            maps,
            bytes_before,
            bytes_after,
        };
        self.0.into_iter().map(change).collect()
    }
}
