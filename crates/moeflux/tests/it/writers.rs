//! Checkpoints as other tools write them compute the same: experts of gpt-oss in plain floats, dense models in GGUF with
//! llama.cpp's order of rows and factors, and fields of configs one by one.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::path::Path;

use crate::common::{copy_with, data, max_diff, pack};
use crate::gguf_file::{GgufFile, Stored};
use moeflux::checkpoint::gguf::Value as Meta;
use moeflux::checkpoint::{Checkpoint, OpenOptions};
use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

const TOKENS: [u32; 24] = [
    39, 68, 360, 51, 402, 220, 393, 277, 74, 297, 315, 86, 77, 284, 78, 87, 503, 82, 88, 351, 68, 76, 198, 33,
];

fn logits_of(model: Model) -> Vec<f32> {
    let options = EngineOptions { precision: Precision::Exact, threads: 1, ..EngineOptions::default() };
    let mut engine = Engine::new(model, &options).unwrap();
    let mut sequence = engine.sequence();
    engine.eval_all(&mut sequence, &TOKENS).unwrap()
}

fn logits(path: &Path) -> Vec<f32> {
    logits_of(Model::open(path, &ModelOptions::default()).unwrap())
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read(folder: &Path) -> Tensors {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let owned = |view: &TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    tensors.iter().map(|(name, view)| (name.clone(), owned(view))).collect()
}

fn write(tensors: &Tensors, folder: &Path) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The values of MXFP4 blocks `[count, rows, groups, 16]` with their scales, as `[count, cols, rows]` in BF16, which holds
/// them exactly.
fn unpacked(shape: &[usize], blocks: &[u8], scales: &[u8]) -> (Vec<usize>, Vec<u8>) {
    const VALUES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let (count, rows, cols) = (shape[0], shape[1], shape[2] * 32);
    let mut out = vec![0; 2 * count * rows * cols];
    for index in 0..count * rows * cols {
        let byte = blocks[index / 2];
        let code = if index % 2 == 0 { byte & 15 } else { byte >> 4 };
        let sign = if code & 8 == 0 { 1.0 } else { -1.0 };
        let scale = 2f32.powi(i32::from(scales[index / 32]) - 127);
        let value = sign * VALUES[usize::from(code & 7)] * scale;
        let (expert, row, col) = (index / (rows * cols), index / cols % rows, index % cols);
        let at = 2 * ((expert * cols + col) * rows + row);
        out[at..at + 2].copy_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes());
    }
    (vec![count, cols, rows], out)
}

/// gpt-oss as transformers saves it once it is trained: `[experts, inputs, outputs]` in BF16.
fn gpt_oss_in_bf16() -> tempfile::TempDir {
    let folder = copy_with(&data("gpt_oss/hf"), &json!({"quantization_config": null}));
    let mut tensors = read(folder.path());
    let packed: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix("_blocks")).map(str::to_owned).collect();
    for name in packed {
        let (_, shape, blocks) = tensors.remove(&format!("{name}_blocks")).unwrap();
        let (_, _, scales) = tensors.remove(&format!("{name}_scales")).unwrap();
        let (shape, bytes) = unpacked(&shape, &blocks, &scales);
        tensors.insert(name, (Dtype::BF16, shape, bytes));
    }
    write(&tensors, folder.path());
    folder
}

#[test]
fn gpt_oss_in_plain_floats() {
    let folder = gpt_oss_in_bf16();
    let expected = logits(&data("gpt_oss/hf"));
    let found = logits(folder.path());
    assert!(max_diff(&found, &expected) < 2e-4, "{}", max_diff(&found, &expected));

    let model = Model::open(folder.path(), &ModelOptions::default()).unwrap();
    assert!(model.checkpoint().notes().iter().any(|note| note.contains("transposed")));
    // A pack holds them in order, and every byte is the same.
    let (_folder, pack) = pack(folder.path());
    let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(logits(&pack)), bits(found));

    let mut options = EngineOptions::default();
    options.experts.memory.experts = Some(1 << 20);
    let error = Engine::new(model, &options).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("moeflux convert"), "{error}");
}

/// Rows of a head in the order of llama.cpp: the two that turn together side by side.
fn adjacent(rows: usize, head_dim: usize, bytes: &[u8]) -> Vec<u8> {
    let row = bytes.len() / rows;
    let mut out = Vec::with_capacity(bytes.len());
    for head in 0..rows / head_dim {
        for pair in 0..head_dim / 2 {
            for half in 0..2 {
                let from = (head * head_dim + half * head_dim / 2 + pair) * row;
                out.extend(&bytes[from..from + row]);
            }
        }
    }
    out
}

/// A dense checkpoint as llama.cpp's converter writes it, with the tokenizer of `qwen3_moe`.
fn gguf(folder: &Path, architecture: &str) -> GgufFile {
    let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let mut file = GgufFile::read(&data("qwen3_moe/gguf-q8_0/model.gguf"));
    file.metadata.retain(|(key, _)| key.starts_with("tokenizer."));
    file.tensors.clear();
    file.set("general.architecture", Meta::Text(architecture.to_owned()));
    let whole = |field: &str| config[field].as_i64().unwrap();
    let head_dim =
        config["head_dim"].as_i64().unwrap_or_else(|| whole("hidden_size") / whole("num_attention_heads"));
    for (key, value) in [
        ("context_length", whole("max_position_embeddings")),
        ("embedding_length", whole("hidden_size")),
        ("block_count", whole("num_hidden_layers")),
        ("feed_forward_length", whole("intermediate_size")),
        ("attention.head_count", whole("num_attention_heads")),
        ("attention.head_count_kv", whole("num_key_value_heads")),
        ("attention.key_length", head_dim),
        ("attention.value_length", head_dim),
        ("rope.dimension_count", head_dim),
        ("vocab_size", whole("vocab_size")),
    ] {
        file.set(&format!("{architecture}.{key}"), Meta::Integer(value));
    }
    file.set(&format!("{architecture}.rope.freq_base"), Meta::Float(config["rope_theta"].as_f64().unwrap()));
    let eps = config["rms_norm_eps"].as_f64().unwrap();
    file.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Meta::Float(eps));
    for (name, (dtype, shape, bytes)) in read(folder) {
        assert_eq!(dtype, Dtype::BF16);
        let turned = architecture == "llama" && (name.contains("q_proj") || name.contains("k_proj"));
        let bytes = if turned { adjacent(shape[0], head_dim as usize, &bytes) } else { bytes };
        let mut name = name.replace("model.layers.", "blk.").replace("model.", "");
        for (from, to) in [
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("self_attn.q_norm", "attn_q_norm"),
            ("self_attn.k_norm", "attn_k_norm"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
            ("post_attention_layernorm", "ffn_norm"),
            ("input_layernorm", "attn_norm"),
            ("embed_tokens", "token_embd"),
            ("lm_head", "output"),
        ] {
            name = name.replace(from, to);
        }
        if name == "norm.weight" {
            "output_norm.weight".clone_into(&mut name);
        }
        // One-dimensional tensors are always F32 there.
        let (kind, bytes) = if shape.len() == 1 {
            (0, bytes.chunks(2).flat_map(|half| [0, 0, half[0], half[1]]).collect())
        } else {
            (30, bytes)
        };
        file.tensors.push(Stored { name, kind, shape, bytes });
    }
    file
}

fn written(file: &GgufFile) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), file.bytes()).unwrap();
    folder
}

#[test]
fn dense_models_in_gguf() {
    let plain = json!({"use_sliding_window": false, "layer_types": null});
    for (family, changes) in [("llama", json!({})), ("qwen3", json!({})), ("qwen2", plain)] {
        let source = copy_with(&data(family).join("hf"), &changes);
        let found = logits(written(&gguf(source.path(), family)).path());
        let difference = max_diff(&found, &logits(source.path()));
        assert!(difference < 1e-4, "{family}: {difference}");
    }
}

/// Llama 3.1's frequencies, which the converter writes as a factor each.
#[test]
fn factors_of_frequencies_in_gguf() {
    let (factor, low, high, original) = (8.0, 1.0, 4.0, 64.0);
    let scaling = json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                         "original_max_position_embeddings": 64});
    let source = copy_with(&data("llama/hf"), &json!({"rope_scaling": scaling}));
    let mut file = gguf(&data("llama/hf"), "llama");
    let unscaled = logits(written(&file).path());
    let factors: Vec<f32> = (0..16)
        .map(|j| {
            let wavelength = 2.0 * PI * 5e5f64.powf(f64::from(2 * j) / 32.0);
            if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor as f32
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            }
        })
        .collect();
    let bytes = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
    file.tensors.push(Stored { name: "rope_freqs.weight".to_owned(), kind: 0, shape: vec![16], bytes });
    let folder = written(&file);
    let (found, expected) = (logits(folder.path()), logits(source.path()));
    assert!(max_diff(&found, &expected) < 1e-4, "{}", max_diff(&found, &expected));
    assert!(max_diff(&found, &unscaled) > 1e-2);
    // Of a wrong number, or not above 0, they are refused.
    for (shape, bytes) in [(vec![8], vec![1; 32]), (vec![16], vec![0; 64])] {
        file.tensors.pop();
        file.tensors.push(Stored { name: "rope_freqs.weight".to_owned(), kind: 0, shape, bytes });
        let error = Checkpoint::open(written(&file).path(), &OpenOptions::default()).unwrap_err();
        assert!(error.to_string().contains("rope_freqs.weight"), "{error}");
    }
}

#[test]
fn qwen3_coders_keys_in_gguf() {
    let mut file = GgufFile::read(&data("qwen3_moe/gguf-q8_0/model.gguf"));
    let expected = logits(written(&file).path());
    file.set("qwen3moe.expert_shared_feed_forward_length", Meta::Integer(0));
    assert_eq!(logits(written(&file).path()), expected);
    file.set("qwen3moe.expert_shared_feed_forward_length", Meta::Integer(64));
    let error = Checkpoint::open(written(&file).path(), &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("expert_shared_feed_forward_length"), "{error}");
}
