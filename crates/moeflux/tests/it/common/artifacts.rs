//! Writes flash-moe's artifacts, as its tools do, from an MLX checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use moeflux::Model;
use moeflux::checkpoint::{Checkpoint, Dtype, OpenOptions, Tensor};
use moeflux::text::Tokenizer;
use serde_json::{Map, Value, json};

/// The parts of an expert in the order in which they are packed.
const PARTS: [&str; 3] = ["weight", "scales", "biases"];
const PROJECTIONS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// `model_weights.bin` and `.json`: everything but experts, sorted by name; widths of codes noted or not.
pub(crate) fn write_dense(source: &Path, target: &Path, note_bits: bool) {
    let checkpoint = Checkpoint::open(source, &OpenOptions::default()).unwrap();
    let config: Map<String, Value> =
        serde_json::from_slice(&fs::read(source.join("config.json")).unwrap()).unwrap();
    let (mut bytes, mut tensors) = (Vec::new(), Map::new());
    let is_dense = |tensor: &&Tensor| !tensor.name.contains(".switch_mlp.");
    for tensor in checkpoint.tensors().filter(is_dense) {
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        let name = tensor.name.strip_prefix("language_model.").unwrap_or(&tensor.name);
        let mut entry = json!({
            "offset": bytes.len(), "size": tensor.span.len, "shape": tensor.shape,
            "dtype": tensor.dtype.to_string(),
        });
        if note_bits && tensor.dtype == Dtype::U32 {
            let eight = name.ends_with("mlp.gate.weight") || name.ends_with("shared_expert_gate.weight");
            // Four bits are what is understood when nothing is noted.
            if eight {
                entry["bits"] = json!(8);
            }
        }
        bytes.extend(checkpoint.bytes(tensor.span));
        tensors.insert(name.to_owned(), entry);
    }
    let sizes = [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "rms_norm_eps",
        "num_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
        "shared_expert_intermediate_size",
        "full_attention_interval",
        "linear_num_value_heads",
        "linear_num_key_heads",
        "linear_key_head_dim",
        "linear_value_head_dim",
        "linear_conv_kernel_dim",
        "layer_types",
    ];
    let text = config.get("text_config").and_then(Value::as_object).unwrap_or(&config);
    let mut copied: Map<String, Value> =
        sizes.into_iter().filter_map(|name| Some((name.to_owned(), text.get(name)?.clone()))).collect();
    copied.insert("rope_theta".into(), text["rope_parameters"]["rope_theta"].clone());
    copied.insert("partial_rotary_factor".into(), text["rope_parameters"]["partial_rotary_factor"].clone());
    let index = json!({
        "model": "mlx", "num_tensors": tensors.len(), "tensors": tensors, "config": copied,
    });
    fs::create_dir_all(target).unwrap();
    fs::write(target.join("model_weights.bin"), bytes).unwrap();
    fs::write(target.join("model_weights.json"), index.to_string()).unwrap();
}

/// `layer_00.bin` and so on: the experts of a model, one behind the other.
pub(crate) fn write_packed(model: &Model, target: &Path) {
    fs::create_dir_all(target).unwrap();
    for (layer, named) in model.weights().experts().iter().enumerate() {
        let mut bytes = Vec::new();
        for expert in &named.experts {
            for (_, matrix) in expert.matrices() {
                for span in [Some(matrix.codes), matrix.scales, matrix.biases] {
                    bytes.extend(model.checkpoint().bytes(span.unwrap()));
                }
            }
        }
        fs::write(target.join(format!("layer_{layer:02}.bin")), bytes).unwrap();
    }
}

/// `expert_index.json`: where the experts of an MLX checkpoint are.
pub(crate) fn write_index(source: &Path, target: &Path) {
    let checkpoint = Checkpoint::open(source, &OpenOptions::default()).unwrap();
    let mut reads: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        let Some((layer, part)) = tensor.name.split_once(".mlp.switch_mlp.") else { continue };
        let layer = layer.rsplit('.').next().unwrap();
        let size = tensor.span.len / tensor.shape[0] as u64;
        let file =
            checkpoint.files()[tensor.span.file as usize].path().file_name().unwrap().to_str().unwrap();
        let entry = json!({
            "file": file, "abs_offset": tensor.span.offset, "expert_stride": size, "expert_size": size,
            "total_size": tensor.span.len, "shape": tensor.shape,
        });
        reads.entry(layer.to_owned()).or_default().insert(part.to_owned(), entry);
    }
    assert!(reads.values().all(|reads| reads.len() == PARTS.len() * PROJECTIONS.len()));
    let index = json!({ "model_path": source.canonicalize().unwrap(), "expert_reads": reads });
    fs::write(target.join("expert_index.json"), index.to_string()).unwrap();
}

/// `vocab.bin` of a tokenizer: the bytes of each token by id.
pub(crate) fn write_vocab(tokenizer: &Tokenizer, target: &Path) {
    let tokens = tokenizer.token_bytes().unwrap();
    let mut out = (tokens.len() as u32).to_le_bytes().to_vec();
    out.extend((tokens.len() as u32 - 1).to_le_bytes());
    for token in tokens {
        out.extend((token.len() as u16).to_le_bytes());
        out.extend(token);
    }
    fs::write(target.join("vocab.bin"), out).unwrap();
}

/// `tokenizer.bin` of a `tokenizer.json`.
pub(crate) fn write_tokenizer(source: &Path, target: &Path) {
    let json: Value = serde_json::from_slice(&fs::read(source.join("tokenizer.json")).unwrap()).unwrap();
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u16).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let mut vocab: Vec<(&String, u64)> = json["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (token, id.as_u64().unwrap()))
        .collect();
    vocab.sort_by_key(|(_, id)| *id);
    let (merges, added) =
        (json["model"]["merges"].as_array().unwrap(), json["added_tokens"].as_array().unwrap());
    let mut out = b"BPET".to_vec();
    for number in [1, vocab.len(), merges.len(), added.len()] {
        out.extend((number as u32).to_le_bytes());
    }
    for (token, id) in vocab {
        out.extend((id as u32).to_le_bytes());
        text(&mut out, token);
    }
    for merge in merges {
        let (left, right) = match merge {
            Value::String(pair) => pair.split_once(' ').unwrap(),
            pair => (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        };
        text(&mut out, left);
        text(&mut out, right);
    }
    for token in added {
        out.extend((token["id"].as_u64().unwrap() as u32).to_le_bytes());
        text(&mut out, token["content"].as_str().unwrap());
    }
    fs::write(target.join("tokenizer.bin"), out).unwrap();
}
