//! Reads a mixture-of-experts checkpoint, in place: files are mapped, never copied, and what they say is checked once,
//! here, with an error that names the file, the tensor or field, what was expected and what was found.
//!
//! - [`Checkpoint::open`] maps the weight files and lists their tensors under the names the files give them, and reads
//!   `config.json`, or the metadata that stands for it, into a [`ModelConfig`].
//! - [`Checkpoint::weights`] hands the tensors out under one set of names and conventions, whichever tool wrote the
//!   files; what a family needs for that is in [`family`].
//!
//! Formats: safetensors as the Hugging Face hub has them (F32, F16, BF16, FP8 with scales) and as MLX writes them (affine 2, 3, 4, 5, 6
//! and 8 bits, mxfp4, mxfp8, nvfp4, mixed at will), one file or shards with an index; GGUF ([`gguf`]), one file or split;
//! the artifacts of flash-moe ([`flash_moe`]); packs ([`pack`]), the layout made for streaming experts, which
//! [`convert`] makes of any of them. The crate knows nothing of what a model computes, nor of devices.

mod bus_error;
mod checkpoint;
pub mod config;
pub mod convert;
mod error;
pub mod family;
mod files;
pub mod flash_moe;
pub mod gguf;
mod hub_cache;
mod matrix;
mod nested;
pub mod pack;
mod provenance;
mod quantization;
pub mod safetensors;
pub mod small_file;
mod stacked;
mod tensor;
mod transposed;
mod weights;

pub use bus_error::report as report_bus_errors;
pub use checkpoint::{Checkpoint, OpenOptions, is_gguf};
pub use config::{IgnoredField, ModelConfig};
pub use error::Error;
pub use family::RowOrder;
pub use family::deepseek::{DeepseekConfig, DeepseekRouterConfig, LatentAttentionConfig};
pub use family::dense::DenseConfig;
pub use family::glm4_moe::Glm4MoeConfig;
pub use family::gpt_oss::GptOssConfig;
pub use family::mixtral::MixtralConfig;
pub use family::olmoe::OlmoeConfig;
pub use family::parts::{AttentionConfig, DecoderConfig, GroupedRouterConfig, MlpType, MoeConfig};
pub use family::qwen3_moe::Qwen3MoeConfig;
pub use family::qwen3_next::{DeltaNetConfig, LayerType, Qwen3NextConfig};
pub use family::rope::{Llama3, Longrope, RopeParameters, RopeScaling, Yarn};
pub use files::File;
pub use matrix::{Expert, ExpertBiases, Matrix};
pub use provenance::Provenance;
pub use quantization::{ModuleQuantization, Quantization};
pub use tensor::{Dtype, Span, Tensor};
pub use weights::{LatentDims, LatentHeads, Weights};
