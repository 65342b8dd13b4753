//! Who wrote a checkpoint, as far as its files say: for people, also of one that does not open.

use crate::checkpoint::is_gguf;
use crate::config;
use crate::files::{File, any_with_extension, with_extension};
use crate::gguf::{self, Metadata};
use crate::hub_cache;
use crate::small_file::{self, LARGEST_CONFIG};
use serde_json::{Map, Value};
use std::path::Path;

/// What files say about themselves. Nothing here decides how they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provenance {
    /// The model's name: where it was loaded from when it was saved, or `general.name`.
    pub name: Option<String>,
    /// `model_type` or `general.architecture`, and the class that transformers has for it.
    pub family: Option<String>,
    /// Tools that left their mark, with versions.
    pub written_by: Vec<String>,
    /// How the weights are quantised, in the words of the tool that did it.
    pub quantization: Option<String>,
}

impl Provenance {
    /// Looks at the files of a checkpoint; `None` if there is nothing to look at. Files that cannot be read say nothing.
    pub fn of(path: &Path) -> Option<Self> {
        let path = &*hub_cache::resolve(path).ok()?;
        let config_path = path.join("config.json");
        if is_gguf(path) {
            return of_gguf(path);
        }
        let read = |path: &Path| small_file::read_object(path, LARGEST_CONFIG).ok().flatten();
        let Some(config) = read(&config_path) else {
            let ggufs = with_extension(path, "gguf").ok()?;
            return of_gguf(ggufs.first()?);
        };
        let mut found = of_config(&config);
        if let Some(file) = read(&path.join("hf_quant_config.json")) {
            found.written_by.extend(producer(file.get("producer")));
            let algorithm = file.get("quantization").and_then(|block| text(block.as_object()?, "quant_algo"));
            found.quantization = found.quantization.or(algorithm);
        }
        if let Some(format) = format_of_weights(path) {
            let tool = match format.as_str() {
                "pt" => "safetensors by PyTorch",
                "mlx" => "safetensors by MLX",
                _ => "safetensors",
            };
            found.written_by.push(tool.to_owned());
        }
        Some(found)
    }
}

fn text(map: &Map<String, Value>, name: &str) -> Option<String> {
    map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn of_config(config: &Map<String, Value>) -> Provenance {
    let class = config.get("architectures").and_then(|classes| classes.get(0)?.as_str());
    let family = match (text(config, "model_type"), class) {
        (Some(family), Some(class)) => Some(format!("{family} ({class})")),
        (family, class) => family.or(class.map(str::to_owned)),
    };
    let mut written_by = Vec::new();
    for (field, tool) in [
        ("transformers_version", "transformers"),
        ("unsloth_version", "unsloth"),
        ("mlx_lm_version", "mlx-lm"),
        ("mlx_vlm_version", "mlx-vlm"),
    ] {
        written_by.extend(text(config, field).map(|version| format!("{tool} {version}")));
    }
    let mut quantization = None;
    if let Some(block) = config.get("quantization_config").and_then(Value::as_object) {
        written_by.extend(producer(block.get("producer")));
        let method = text(block, "quant_method");
        let details = ["quant_algo", "format", "fmt"].iter().find_map(|name| text(block, name));
        quantization = match (method, details) {
            (Some(method), Some(details)) => Some(format!("{method}, {details}")),
            (method, details) => method.or(details),
        };
    }
    if let Some(block) = config.get("quantization").and_then(Value::as_object) {
        let mode = text(block, "mode").unwrap_or_else(|| "affine".to_owned());
        let bits = block.get("bits").map_or_else(String::new, |bits| format!(", {bits} bits"));
        quantization = Some(format!("MLX, {mode}{bits}"));
    }
    Provenance { name: text(config, "_name_or_path"), family, written_by, quantization }
}

/// `{"name": "modelopt", "version": "0.23.0"}`.
fn producer(value: Option<&Value>) -> Option<String> {
    let producer = value?.as_object()?;
    let name = text(producer, "name")?;
    Some(text(producer, "version").map_or(name.clone(), |version| format!("{name} {version}")))
}

/// What the first weight file says of itself: `format` of its `__metadata__`.
fn format_of_weights(folder: &Path) -> Option<String> {
    if !any_with_extension(folder, "safetensors") {
        return None;
    }
    let files = with_extension(folder, "safetensors").ok()?;
    let file = File::open(files.first()?).ok()?;
    let length = u64::from_le_bytes(*file.bytes().first_chunk::<8>()?);
    let end = usize::try_from(length.min(crate::safetensors::MAX_HEADER_LEN)).ok()?.checked_add(8)?;
    let header = config::object(file.path(), file.bytes().get(8..end)?).ok()?;
    text(header.get("__metadata__")?.as_object()?, "format")
}

fn of_gguf(path: &Path) -> Option<Provenance> {
    let file = File::open(path).ok()?;
    let (metadata, _) = gguf::header::parse_header(path, file.bytes()).ok()?;
    let text = |key: &str| Metadata::text(&metadata, key).ok().flatten().map(str::to_owned);
    let mut written_by: Vec<String> = Vec::new();
    written_by.extend(text("general.quantized_by").map(|who| format!("quantised by {who}")));
    if metadata.get("quantize.imatrix.file").is_some() {
        written_by.push("with an importance matrix".to_owned());
    }
    written_by.extend(
        metadata
            .whole("general.quantization_version")
            .ok()
            .flatten()
            .map(|version| format!("llama.cpp's quantisation, version {version}")),
    );
    Some(Provenance {
        name: text("general.name").or_else(|| text("general.basename")),
        family: text("general.architecture"),
        written_by,
        quantization: None,
    })
}
