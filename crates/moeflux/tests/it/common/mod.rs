//! Reads the reference tensors and compares with them.

pub(crate) mod artifacts;
pub(crate) mod engines;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use moeflux::convert::{self, RunOptions};
use moeflux::{Model, ModelOptions};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A folder or file under `tests/data`.
pub(crate) fn data(path: &str) -> PathBuf {
    moeflux_testing::data(env!("CARGO_TARGET_TMPDIR"), path)
}

/// A copy of a checkpoint folder with these fields of its config changed.
pub(crate) fn copy_with(folder: &Path, changes: &Value) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    std::fs::write(path, config.to_string()).unwrap();
    copy
}

/// A lossless pack of a checkpoint.
pub(crate) fn pack(source: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("pack");
    let model = Model::open(source, &ModelOptions::default()).unwrap();
    let plan = convert::plan(&model, &"".parse().unwrap()).unwrap();
    let options = RunOptions { threads: 2, restart: false };
    convert::run(&plan, model.checkpoint(), &target, &options, &|_, _| {}).unwrap();
    (folder, target)
}

/// All tensors of a reference file.
pub(crate) struct Reference {
    floats: HashMap<String, (Vec<usize>, Vec<f32>)>,
    ints: HashMap<String, (Vec<usize>, Vec<u32>)>,
}

impl Reference {
    pub(crate) fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut reference = Reference { floats: HashMap::new(), ints: HashMap::new() };
        for (name, view) in tensors.tensors() {
            let words = view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            let shape = view.shape().to_vec();
            match view.dtype() {
                Dtype::F32 => {
                    reference.floats.insert(name, (shape, words.map(f32::from_le_bytes).collect()));
                }
                Dtype::I32 => {
                    reference.ints.insert(name, (shape, words.map(u32::from_le_bytes).collect()));
                }
                other => panic!("{name}: unexpected dtype {other:?}"),
            }
        }
        reference
    }

    pub(crate) fn floats(&self, name: &str) -> &[f32] {
        self.try_floats(name).unwrap_or_else(|| panic!("the reference has no {name}"))
    }

    pub(crate) fn try_floats(&self, name: &str) -> Option<&[f32]> {
        self.floats.get(name).map(|(_, values)| values.as_slice())
    }

    pub(crate) fn ints(&self, name: &str) -> &[u32] {
        self.try_ints(name).unwrap_or_else(|| panic!("the reference has no {name}"))
    }

    pub(crate) fn try_ints(&self, name: &str) -> Option<&[u32]> {
        self.ints.get(name).map(|(_, values)| values.as_slice())
    }
}

/// The largest difference; NaN counts as infinite, and so does another length.
pub(crate) fn max_diff(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() {
        return f32::INFINITY;
    }
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |max, d| if d.is_nan() { f32::INFINITY } else { max.max(d) })
}

/// The largest magnitude.
pub(crate) fn max_abs(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, v| max.max(v.abs()))
}

/// Index of the largest logit, the lowest of equals.
pub(crate) fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (index, &logit)| {
        if logit > best.1 { (index, logit) } else { best }
    });
    best.0 as u32
}
