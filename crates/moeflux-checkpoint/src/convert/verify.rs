//! Whether a pack is what it was, and how far from what it was made of.

use super::Error;
use super::plan::Mixture;
use super::run::{checksum, in_parallel};
use super::source::{Scratch, Source, piece_rows};
use crate::checkpoint::Checkpoint;
use crate::family;
use crate::files::read;
use crate::matrix::Matrix;
use crate::pack::manifest::{Checksum, MANIFEST, Manifest, Parsed};
use crate::tensor::Tensor;
use crate::weights::LinearMap;
use moeflux_kernels::{Encoding, Float, ThreadPool};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A part of a pack that is not what its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The tensor, the expert or the file itself.
    pub part: String,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its checksum in the manifest.
    pub expected: Checksum,
    /// Its checksum.
    pub found: Checksum,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Damage { path, part, offset, expected, found } = self;
        write!(f, "{}: {part}, at byte {offset}: expected checksum {expected}, found {found}", path.display())
    }
}

/// Checks every checksum of a pack; `progress` is told how many bytes are done, and how many there are. The pack must
/// have been opened once, so that its files have their lengths.
pub fn verify(
    folder: &Path,
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Vec<Damage>, Error> {
    let path = folder.join(MANIFEST);
    if !path.is_file() {
        return Err(Error::NotAPack { path: folder.to_owned() });
    }
    let Parsed { manifest, dense, experts, .. } = Manifest::parse(&path, &read(&path)?)?;
    // File, part, place, length, checksum.
    let mut parts: Vec<(usize, String, u64, u64, Checksum)> = Vec::new();
    let mut files: Vec<PathBuf> = Vec::new();
    let mut file = |name: &str| {
        files.push(folder.join(name));
        files.len() - 1
    };
    for entry in &manifest.files {
        parts.push((file(&entry.name), "the file".to_owned(), 0, entry.bytes, entry.checksum));
    }
    let index = file(&manifest.dense.file);
    for (entry, tensor) in manifest.dense.tensors.iter().zip(dense) {
        parts.push((index, format!("tensor {}", entry.name), entry.offset, tensor.bytes, entry.checksum));
    }
    for (entry, layout) in manifest.experts.iter().zip(experts) {
        let index = file(&entry.file);
        for (expert, checksum) in entry.checksums.iter().enumerate() {
            let part = format!("{} expert {expert}", entry.name);
            parts.push((index, part, expert as u64 * entry.stride, layout.len(), *checksum));
        }
    }

    let open = |path: &PathBuf| File::open(path).map_err(Error::io(path));
    let opened: Vec<File> = files.iter().map(open).collect::<Result<_, _>>()?;
    let total = parts.iter().map(|(_, _, _, bytes, _)| bytes).sum();
    let done = AtomicU64::new(0);
    let damage = Mutex::new(Vec::new());
    let pool = ThreadPool::new(threads)?;
    in_parallel(&pool, parts.len(), threads, |task, (): &mut ()| {
        let (file, part, offset, bytes, expected) = &parts[task];
        let path = &files[*file];
        let found = checksum(&opened[*file], *offset, *bytes).map_err(Error::io(path))?;
        if found != *expected {
            let (path, part) = (path.clone(), part.clone());
            let damaged = Damage { path, part, offset: *offset, expected: *expected, found };
            damage.lock().unwrap_or_else(PoisonError::into_inner).push((task, damaged));
        }
        progress(done.fetch_add(*bytes, Ordering::Relaxed) + bytes, total);
        Ok(())
    })?;
    let mut damage = damage.into_inner().unwrap_or_else(PoisonError::into_inner);
    damage.sort_by_key(|(task, _)| *task);
    Ok(damage.into_iter().map(|(_, damage)| damage).collect())
}

/// How far the weights of one tensor are from those that it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The module, or a projection of a mixture's experts, such as `layers.3.mlp.experts.gate`.
    pub name: String,
    /// Its encoding in the source.
    pub from: String,
    /// Its encoding now.
    pub to: String,
    /// The largest difference of two weights.
    pub max: f64,
    /// Root of the mean square of differences, as a share of that of the source's weights.
    pub relative: f64,
}

/// Compares two checkpoints of the same model, weight by weight; `progress` is told how many comparisons are done, and
/// how many there are.
pub fn compare(
    (ours, our_mixtures): (&Checkpoint, &[Mixture]),
    (theirs, their_mixtures): (&Checkpoint, &[Mixture]),
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Vec<Difference>, Error> {
    let unlike = |tensor: &str, problem: &str| Error::Unlike {
        tensor: tensor.to_owned(),
        problem: problem.to_owned(),
    };
    let mut pairs: Vec<(String, Matrix, Matrix)> = Vec::new();

    let [ours_maps, theirs_maps] = [linear_maps(ours)?, linear_maps(theirs)?];
    for (name, map) in &ours_maps {
        let other = theirs_maps.get(name).ok_or_else(|| unlike(name, "the source has no such linear map"))?;
        if map.shape != other.shape {
            return Err(unlike(
                name,
                &format!("the source has shape {:?}, not {:?}", other.shape, map.shape),
            ));
        }
        pairs.push((name.clone(), map.matrix.clone(), other.matrix.clone()));
    }
    for mixture in our_mixtures {
        let name = &mixture.name;
        let other = their_mixtures.iter().find(|other| other.name == *name);
        let other = other.ok_or_else(|| unlike(name, "the source has no such mixture"))?;
        if other.experts.len() != mixture.experts.len() {
            return Err(unlike(name, "the source has another number of experts"));
        }
        for (ours, theirs) in mixture.experts.iter().zip(&other.experts) {
            for ((part, a), (_, b)) in ours.matrices().zip(theirs.matrices()) {
                if (a.rows, a.cols) != (b.rows, b.cols) {
                    return Err(unlike(name, "the source's experts have another shape"));
                }
                pairs.push((format!("{name}.experts.{part}"), a.clone(), b.clone()));
            }
        }
    }
    check_vectors(ours, theirs, &ours_maps)?;

    let [our_files, their_files] = [Source::open(ours)?, Source::open(theirs)?];
    let sums: Mutex<BTreeMap<usize, Sums>> = Mutex::default();
    let done = AtomicU64::new(0);
    let pool = ThreadPool::new(threads)?;
    in_parallel(&pool, pairs.len(), threads, |task, buffers: &mut Buffers| {
        let (_, a, b) = &pairs[task];
        let found = buffers.compare((&our_files, a), (&their_files, b))?;
        sums.lock().unwrap_or_else(PoisonError::into_inner).insert(task, found);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, pairs.len() as u64);
        Ok(())
    })?;

    // Experts of one mixture count as one. Sums go in the order of tasks, so that they do not depend on threads.
    let mut order: Vec<&str> = Vec::new();
    let mut by_name: BTreeMap<&str, (Sums, &Matrix, &Matrix)> = BTreeMap::new();
    for (task, found) in sums.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let (name, a, b) = &pairs[task];
        by_name.entry(name).and_modify(|(sums, _, _)| sums.add(&found)).or_insert_with(|| {
            order.push(name);
            (found, a, b)
        });
    }
    let difference = |name: &str| {
        let (sums, a, b) = &by_name[name];
        Difference {
            name: name.to_owned(),
            from: crate::pack::names::encoding_name(b.encoding),
            to: crate::pack::names::encoding_name(a.encoding),
            max: sums.max,
            relative: if sums.squares == 0.0 { sums.errors } else { (sums.errors / sums.squares).sqrt() },
        }
    };
    Ok(order.into_iter().map(difference).collect())
}

/// The linear maps that lie by themselves, by name.
fn linear_maps(checkpoint: &Checkpoint) -> Result<BTreeMap<String, LinearMap>, Error> {
    let is_expert = |name: &str| name.contains(".experts.") || name.contains(".switch_mlp.");
    let tensors: Vec<&Tensor> = checkpoint
        .tensors()
        .filter(|tensor| !is_expert(&tensor.name) && !family::is_vision(&tensor.name))
        .collect();
    let maps = checkpoint.weights()?.linear_maps(&tensors)?;
    Ok(maps.into_iter().map(|map| (map.module.clone(), map)).collect())
}

/// Everything that is no linear map and no expert is the same, byte for byte.
fn check_vectors(
    ours: &Checkpoint,
    theirs: &Checkpoint,
    maps: &BTreeMap<String, LinearMap>,
) -> Result<(), Error> {
    for tensor in ours.tensors() {
        let module = tensor.name.rsplit_once('.').map_or("", |(module, _)| module);
        if maps.contains_key(module) || ours.mixture(&tensor.name).is_some() {
            continue;
        }
        let same = theirs.tensor(&tensor.name).is_some_and(|other| {
            other.dtype == tensor.dtype
                && other.shape == tensor.shape
                && theirs.bytes(other.span) == ours.bytes(tensor.span)
        });
        if !same {
            let problem = "the source does not hold the same bytes under this name".to_owned();
            return Err(Error::Unlike { tensor: tensor.name.clone(), problem });
        }
    }
    Ok(())
}

/// Sums over weights and over their differences.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    max: f64,
    errors: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, other: &Sums) {
        self.max = self.max.max(other.max);
        self.errors += other.errors;
        self.squares += other.squares;
    }
}

/// Rows of either side.
#[derive(Default)]
struct Buffers {
    scratch: Scratch,
    bytes: Vec<u8>,
    rows: [Vec<f32>; 2],
}

impl Buffers {
    /// Sums over two matrices of one shape, row by row and from left to right.
    fn compare(&mut self, ours: (&Source, &Matrix), theirs: (&Source, &Matrix)) -> Result<Sums, Error> {
        let mut sums = Sums::default();
        let (rows, cols) = (ours.1.rows, ours.1.cols);
        let piece = piece_rows(ours.1).min(piece_rows(theirs.1));
        let plain = Encoding::Float(Float::F32);
        for start in (0..rows).step_by(piece) {
            let rows = start..rows.min(start + piece);
            for (values, (source, matrix)) in self.rows.iter_mut().zip([ours, theirs]) {
                self.bytes.resize(4 * rows.len() * cols, 0);
                let out = [self.bytes.as_mut_slice(), &mut [], &mut []];
                source.encode(matrix, rows.clone(), plain, out, &mut self.scratch)?;
                values.resize(rows.len() * cols, 0.0);
                moeflux_kernels::decode_floats(Float::F32, &self.bytes, values);
            }
            for (a, b) in self.rows[0].iter().zip(&self.rows[1]) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                sums.max = sums.max.max((a - b).abs());
                sums.errors += (a - b) * (a - b);
                sums.squares += b * b;
            }
        }
        Ok(sums)
    }
}
