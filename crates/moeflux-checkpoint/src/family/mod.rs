//! What differs between model families: the fields of `config.json`, and the names and conventions of tensors.
//!
//! A family is one file here: its config, and a function that looks at a checkpoint's tensors and says which
//! conventions its writer followed.

pub mod qwen3_5_moe;

use crate::config::ModelConfig;
use crate::error::Error;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// Tensors by their names in the files.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// Whose tool wrote a checkpoint: they differ in how they store some tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As trained and published: convolutions `[channels, 1, kernel]`, zero-centred norms as `w`.
    HuggingFace,
    /// As `mlx_lm.convert` writes it: convolutions `[channels, kernel, 1]`, zero-centred norms as `1 + w`.
    Mlx,
}

/// How a checkpoint names and stores a family's tensors. Canonical names are those of the hub without what stands in
/// front of them: `embed_tokens`, `norm`, `lm_head`, `layers.3.self_attn.q_proj`, `mtp.fc`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conventions {
    pub(crate) layout: Layout,
    /// What stands in front of `embed_tokens`, `norm` and `layers` in the files.
    pub(crate) prefix: &'static str,
    /// What `lm_head` is called in the files.
    pub(crate) lm_head: &'static str,
    /// Whether `lm_head` is the embedding instead.
    pub(crate) tied: bool,
    /// Whether the norm of this canonical name multiplies by `1 + w`.
    pub(crate) is_zero_centred: fn(&str) -> bool,
    /// Whether the tensor of this canonical name is a parameter of its own, without `.weight` behind it.
    pub(crate) is_bare: fn(&str) -> bool,
}

impl Conventions {
    /// Looks at the tensors of the checkpoint in `folder`.
    pub(crate) fn of(config: &ModelConfig, tensors: &Tensors, folder: &Path) -> Result<Self, Error> {
        match config {
            ModelConfig::Qwen3_5Moe(config) => qwen3_5_moe::conventions(config, tensors, folder),
        }
    }

    /// The module of a canonical name, as the files call it.
    pub(crate) fn module(&self, name: &str) -> String {
        match name {
            "lm_head" if self.tied => self.module("embed_tokens"),
            "lm_head" => self.lm_head.to_owned(),
            _ if name.starts_with("mtp.") => name.to_owned(),
            _ => format!("{}{name}", self.prefix),
        }
    }

    /// The tensor of a canonical name that is not a linear map, as the files call it.
    pub(crate) fn tensor(&self, name: &str) -> String {
        let suffix = if (self.is_bare)(name) { "" } else { ".weight" };
        self.module(name) + suffix
    }

    /// Whether 1 has to be added to the stored norm of this canonical name.
    pub(crate) fn adds_one(&self, name: &str) -> bool {
        self.layout == Layout::HuggingFace && (self.is_zero_centred)(name)
    }
}

/// Whether a tensor of this name in the files belongs to a vision tower, which text does not need.
pub(crate) fn is_vision(name: &str) -> bool {
    ["model.visual.", "visual.", "vision_tower.", "model.vision_tower."]
        .iter()
        .any(|tower| name.starts_with(tower))
}

/// Whether a tensor of this name in the files belongs to a multi-token-prediction head.
pub(crate) fn is_mtp(name: &str) -> bool {
    ["mtp.", "model.mtp.", "language_model.mtp."].iter().any(|head| name.starts_with(head))
}
