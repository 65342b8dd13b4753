//! Artifacts of flash-moe: dense tensors in `model_weights.bin`, listed in `model_weights.json`; experts packed, one file
//! a layer, or in place in the safetensors files that the artifacts were made from, listed in `expert_index.json`; the
//! tokenizer in a binary form.
//!
//! The files lie in one folder, or as the tools leave them: `artifacts/` with the dense part, `root/` with the packed
//! experts and `mlx/` with the original. Tensors are those of an MLX checkpoint, without `language_model.` in front.

mod expert_index;
mod experts;
pub mod tokenizer;
pub mod weights_json;

use crate::checkpoint::OpenOptions;
use crate::config::{self, Config};
use crate::error::Error;
use crate::files::{Contents, read};
use crate::quantization::{ModuleQuantization, Quantization};
use crate::tensor::{Span, Tensor};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use weights_json::Index;

const WEIGHTS: &str = "model_weights.json";

/// Where the dense part may lie.
const FOLDERS: [&str; 2] = ["", "artifacts"];
/// Where config and tokenizer may lie.
const PARTS: [&str; 3] = ["", "artifacts", "mlx"];

/// Whether a folder holds such artifacts.
pub(crate) fn is_artifacts(folder: &Path) -> bool {
    find(folder, &FOLDERS, WEIGHTS).is_some()
}

/// Opens a folder of artifacts.
pub(crate) fn open(folder: &Path, options: &OpenOptions) -> Result<(Contents, Config), Error> {
    let path = find(folder, &FOLDERS, WEIGHTS).unwrap_or_else(|| folder.join(WEIGHTS));
    let mut contents = Contents::default();
    let (file, mapped) = contents.map(&path.with_file_name("model_weights.bin"))?;
    let index = Index::parse(&path, &read(&path)?, mapped.len())?;

    let config_path = find(folder, &PARTS, "config.json");
    let fields = match &config_path {
        Some(path) => config::object(path, &read(path)?)?,
        None => embedded_config(&index),
    };
    let mut config = config::read(config_path.as_ref().unwrap_or(&path), &fields, options)?;
    // The dense tensors say it themselves: what the original's config says has its names.
    let default = ModuleQuantization::Affine { bits: 4, group_size: index.group_size };
    let modules = index.modules.into_iter().map(|(module, how)| (module, Some(how))).collect();
    config.quantization = Some(Quantization { default, modules });

    for entry in index.tensors {
        let span = Span { file, offset: entry.offset, len: entry.size };
        contents.add(Tensor { name: entry.name, dtype: entry.dtype, shape: entry.shape, span })?;
    }
    let sizes = experts::Sizes::read(config_path.as_ref().unwrap_or(&path), &fields, index.group_size)?;
    let how = experts::add(&mut contents, folder, sizes, options.packed_expert_bits)?;
    contents.layout = Some(format!("flash-moe artifacts, experts {how}"));
    if config_path.is_none_or(|path| path != folder.join("config.json")) {
        contents.config_json = serde_json::to_vec_pretty(&fields).ok();
    }
    let tokenizer =
        ["tokenizer.json", "tokenizer.bin", "vocab.bin"].iter().find_map(|name| find(folder, &PARTS, name));
    contents.text_folder = tokenizer.and_then(|path| path.parent().map(Path::to_owned));
    Ok((contents, config))
}

/// The first of the folders that has a file or folder of this name.
fn find(folder: &Path, within: &[&str], name: &str) -> Option<PathBuf> {
    within.iter().map(|part| folder.join(part).join(name)).find(|path| path.exists())
}

/// What `config.json` would say, from the copy of its sizes in `model_weights.json`. The copy is made for Qwen3.5 alone
/// and leaves out what all of its models share.
fn embedded_config(index: &Index) -> Map<String, Value> {
    let mut fields = index.config.clone();
    for of_the_index in ["default_bits", "default_group_size"] {
        fields.remove(of_the_index);
    }
    let has_head = index.tensors.iter().any(|entry| entry.name == "lm_head.weight");
    for (name, value) in [
        ("model_type", json!("qwen3_5_moe_text")),
        ("max_position_embeddings", json!(262_144)),
        ("tie_word_embeddings", json!(!has_head)),
    ] {
        fields.entry(name).or_insert(value);
    }
    fields
}
