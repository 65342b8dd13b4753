//! A checkpoint: its files, mapped, and the tensors in them.

use crate::config::{Config, IgnoredField, ModelConfig};
use crate::error::Error;
use crate::family::rope::RopeParameters;
use crate::family::{self, Conventions};
use crate::files::{Contents, Derived, File, any_with_extension};
use crate::flash_moe;
use crate::gguf;
use crate::hub_cache;
use crate::matrix::Matrix;
use crate::pack;
use crate::quantization::{ModuleQuantization, Quantization};
use crate::safetensors;
use crate::stacked::StackedExperts;
use crate::tensor::{Span, Tensor};
use crate::weights::Weights;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What the caller decides about reading a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Fields of `config.json`, with dots (`text_config.novelty`), that may be unknown: they are then ignored.
    pub ignored_config_fields: Vec<String>,
    /// Which of flash-moe's packed experts to read where there are several: those of 4 or of 2 bits. `None`: the best
    /// that is there.
    pub packed_expert_bits: Option<u8>,
}

/// A checkpoint, open. Nothing is copied: tensors are read from the mapped files as they are touched. The files must not
/// change while it is open.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    contents: Contents,
    config: Config,
    metadata: Option<gguf::Metadata>,
}

impl Checkpoint {
    /// Opens a folder with `config.json` and safetensors files, a GGUF file (any part of a split one will do, under any
    /// name), a folder with one GGUF model, or a folder of the hub's cache.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        let path = &*hub_cache::resolve(path)?;
        let (contents, config, metadata) = match Format::detect(path) {
            Format::Safetensors => {
                let (contents, config) = safetensors::open(path, options)?;
                (contents, config, None)
            }
            Format::Gguf => {
                let (contents, config, metadata) = gguf::open(path, options)?;
                (contents, config, Some(metadata))
            }
            Format::FlashMoe => {
                let (contents, config) = flash_moe::open(path, options)?;
                (contents, config, None)
            }
            Format::Pack => pack::open(path, options)?,
        };
        let (files, tensors) = (contents.files.len(), contents.tensors.len());
        tracing::debug!(path = %path.display(), files, tensors, "checkpoint opened");
        Ok(Checkpoint { path: path.to_owned(), contents, config, metadata })
    }

    /// Where it is: what it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's family and sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.config.model
    }

    /// How modules are quantised, as `config.json` says; `None` for plain floats.
    pub fn quantization(&self) -> Option<&Quantization> {
        self.config.quantization.as_ref()
    }

    /// A GGUF file's metadata, its tokenizer among it; `None` for other formats.
    pub fn metadata(&self) -> Option<&gguf::Metadata> {
        self.metadata.as_ref()
    }

    /// Whether it is a pack.
    pub fn is_pack(&self) -> bool {
        pack::is_pack(&self.path)
    }

    /// Where the tokenizer's files are: mostly in the checkpoint's folder.
    pub fn text_folder(&self) -> &Path {
        self.contents.text_folder.as_deref().unwrap_or(&self.path)
    }

    /// What stands for `config.json` where the folder has none.
    pub(crate) fn config_json(&self) -> Option<&[u8]> {
        self.contents.config_json.as_deref()
    }

    /// The weight files.
    pub fn files(&self) -> &[File] {
        &self.contents.files
    }

    /// Fields of the config that are there and change nothing, or are ignored because the caller asked for it.
    pub fn ignored_fields(&self) -> &[IgnoredField] {
        &self.config.ignored
    }

    /// Returns true if a tensor is read from its file as it lies there, and false if its rows are put in order in memory
    /// first.
    pub fn is_in_place(&self, span: Span) -> bool {
        self.contents.files[span.file as usize].is_in_place()
    }

    /// Checksums (XXH3, 64 bits) of the blocks of the experts that a file holds, by expert index, if the format has them:
    /// each of its [`block`](crate::Expert::block).
    pub fn expert_checksums(&self, file: u32) -> Option<&[u64]> {
        self.contents.expert_checksums.get(&file).map(Vec::as_slice)
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.contents.tensors.values()
    }

    /// The tensor that the files call `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.contents.tensors.get(name)
    }

    /// The tensors of the multi-token-prediction head; none if the checkpoint was stripped of it.
    pub fn mtp_tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors().filter(|tensor| self.is_mtp(tensor))
    }

    /// Whether a tensor belongs to the multi-token-prediction head.
    pub fn is_mtp(&self, tensor: &Tensor) -> bool {
        family::is_mtp(&tensor.name, self.config().decoder())
    }

    /// The tensors of the vision tower, which are not used.
    pub fn vision_tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors().filter(|tensor| family::is_vision(&tensor.name))
    }

    /// The bytes of a span.
    ///
    /// # Panics
    ///
    /// If the span is not one of this checkpoint's.
    pub fn bytes(&self, span: Span) -> &[u8] {
        self.contents.bytes(span)
    }

    /// Has the system begin to read a matrix that will be needed whole, rather than page by page as it is touched. Only
    /// advice: where the system takes none, nothing happens.
    pub fn will_need(&self, m: &Matrix) {
        m.spans().for_each(|span| self.contents.files[span.file as usize].will_need(span));
    }

    /// Reads a span that will be needed whole into memory, in the largest pages that the system has for it, and returns when
    /// it is there. Elsewhere than on Linux (5.14 or newer) it is [`will_need`](Self::will_need).
    ///
    /// # Panics
    ///
    /// If the file is not one of this checkpoint's.
    pub fn bring(&self, span: Span) {
        self.contents.files[span.file as usize].bring(span);
    }

    /// The bytes of a matrix, as the kernels take them.
    ///
    /// # Panics
    ///
    /// If the matrix is not one of this checkpoint's.
    #[expect(clippy::expect_used, reason = "lengths were checked when the matrix was made")]
    pub fn view<'a>(&'a self, m: &'a Matrix) -> moeflux_kernels::Matrix<'a> {
        let part = |span: Option<Span>| span.map_or(&[][..], |span| self.bytes(span));
        m.over(self.bytes(m.codes), part(m.scales), part(m.biases)).expect("a checked matrix")
    }

    /// The model's tensors under canonical names and in one convention.
    pub fn weights(&self) -> Result<Weights<'_>, Error> {
        let tensors = &self.contents.tensors;
        let conventions = match self.metadata {
            Some(_) => gguf::conventions(self.config(), tensors),
            None => Conventions::of(self.config(), tensors, &self.path)?,
        };
        Ok(Weights::new(self, conventions))
    }

    /// Notes for people on what is unusual about the checkpoint, one line each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let count = |is: &dyn Fn(&str) -> bool| self.contents.tensors.keys().filter(|name| is(name)).count();
        if let Some(scaling) = self.config.model.rope().note() {
            notes.push(scaling);
        }
        notes.extend(self.config.model.sliding_rope().map(RopeParameters::sliding_note));
        let has = |is: fn(&Derived) -> bool| {
            self.contents.files.iter().filter_map(File::derived).any(|derived| is(derived))
        };
        if has(|derived| matches!(derived, Derived::Nested(_))) {
            notes.push(
                "scales are quantised: they are widened in memory when they are first read, 4 bytes each; experts with such \
                 scales cannot be streamed, while those of a pack that `moeflux convert` makes can"
                    .to_owned(),
            );
        }
        if has(|derived| matches!(derived, Derived::Transposed(_))) {
            notes.push(
                "experts are stored transposed: they are put in order in memory when they are first read, and cannot be \
                 streamed; `moeflux convert` makes a pack, which can"
                    .to_owned(),
            );
        }
        let buffers = count(&family::is_buffer);
        if buffers > 0 {
            notes.push(format!("{buffers} tensors follow from the config or scale what is not rounded here"));
        }
        let input_scales = count(&|name| name.ends_with(".input_scale"));
        if input_scales > 0 {
            notes.push(format!("{input_scales} scales of activations: activations are not rounded here"));
        }
        let vision = self.vision_tensors().count();
        if vision > 0 {
            notes.push(format!("{vision} tensors of a vision tower: images are not read"));
        }
        notes
    }

    /// The format in one line, for people.
    pub fn layout(&self) -> String {
        let any = |part: &str| self.contents.tensors.keys().any(|name| name.contains(part));
        if let Some(layout) = &self.contents.layout {
            return layout.clone();
        }
        match self.quantization() {
            _ if self.metadata.is_some() => format!("GGUF, mostly {}", self.main_dtype()),
            Some(Quantization { default: how, .. })
                if how.is_packed() || matches!(how, ModuleQuantization::Fp8 { .. }) =>
            {
                format!("Hugging Face safetensors, {how}")
            }
            Some(quantization) => {
                let others = quantization.modules.values().filter(|how| **how != Some(quantization.default));
                format!("MLX safetensors, {}, {} modules otherwise", quantization.default, others.count())
            }
            None if any(".switch_mlp.") => "MLX safetensors, not quantised".to_owned(),
            None if any(".experts.gate_up_proj_blocks") => {
                "Hugging Face safetensors, experts in MXFP4".to_owned()
            }
            None if any(".experts.gate_up_proj") => "Hugging Face safetensors, experts fused".to_owned(),
            None => "Hugging Face safetensors, experts one by one".to_owned(),
        }
    }

    /// The dtype of most bytes.
    fn main_dtype(&self) -> String {
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for tensor in self.tensors() {
            *bytes.entry(tensor.dtype.to_string()).or_default() += tensor.span.len;
        }
        bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or_else(String::new, |(dtype, _)| dtype)
    }

    /// The experts of a module (`model.layers.3.mlp.experts`), if they lie in blocks.
    pub(crate) fn mixture(&self, module: &str) -> Option<&StackedExperts> {
        self.contents.mixtures.get(module)
    }

    /// The path of a tensor's file.
    pub(crate) fn file_path(&self, span: Span) -> PathBuf {
        self.contents.path(span)
    }
}

/// Returns true if a path is a regular file whose name ends in `.gguf` or whose first four bytes are `GGUF`.
pub fn is_gguf(path: &Path) -> bool {
    let begins_so = || {
        let mut magic = [0; 4];
        let file = std::fs::File::open(path);
        file.and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"GGUF"
    };
    // Nothing is read of what may have no end.
    path.is_file() && (path.extension().is_some_and(|extension| extension == "gguf") || begins_so())
}

/// How a checkpoint is stored.
enum Format {
    Safetensors,
    Gguf,
    FlashMoe,
    Pack,
}

impl Format {
    /// Looks at what is there. What is nothing that can be recognised counts as the usual: its reader says what it misses.
    fn detect(path: &Path) -> Self {
        if pack::is_pack(path) {
            return Format::Pack;
        }
        if flash_moe::is_artifacts(path) {
            return Format::FlashMoe;
        }
        if path.is_dir() {
            // Some repositories of GGUF files have the original's config.json beside them.
            let gguf_only = any_with_extension(path, "gguf") && !any_with_extension(path, "safetensors");
            return if gguf_only { Format::Gguf } else { Format::Safetensors };
        }
        if is_gguf(path) { Format::Gguf } else { Format::Safetensors }
    }
}
