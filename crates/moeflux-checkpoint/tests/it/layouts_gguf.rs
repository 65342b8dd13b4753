//! GGUF files made by llama.cpp's converter, against the checkpoints that they were made from.

use crate::fixture::{data, dequantize, load, open};
use crate::gguf_file::GgufFile;
use moeflux_checkpoint::gguf::Value;
use moeflux_checkpoint::{Checkpoint, Matrix, ModelConfig, OpenOptions, RopeScaling};
use moeflux_kernels::{Encoding, Float, Ggml};
use std::path::PathBuf;

/// `tests/data/{family}/gguf-q8_0/model.gguf`.
pub(crate) fn reference(family: &str) -> PathBuf {
    data(family).join("gguf-q8_0/model.gguf")
}

fn hub(family: &str) -> Checkpoint {
    open(&data(family).join("hf")).unwrap()
}

/// What the metadata says is what `config.json` says, but for what the format cannot say or the family does not need.
#[test]
fn configs_are_those_of_the_hub() {
    for family in [
        "deepseek_v2",
        "deepseek_v3",
        "glm4_moe",
        "gpt_oss",
        "mixtral",
        "olmoe",
        "qwen3_5_moe",
        "qwen3_moe",
        "qwen3_next",
    ] {
        let (found, hub) = (open(&reference(family)).unwrap(), hub(family));
        let mut expected = hub.config().clone();
        // One number for both; the checkpoint differs from all published ones here.
        if let ModelConfig::DeepseekV3(config) = &mut expected {
            let RopeScaling::Yarn(yarn) = &mut config.attention.rope.scaling else { panic!() };
            assert_ne!(yarn.mscale, yarn.mscale_all_dim);
            yarn.mscale = yarn.mscale_all_dim;
        }
        assert_eq!(*found.config(), expected, "{family}");
    }
}

#[test]
fn encodings_and_names() {
    let checkpoint = open(&reference("qwen3_5_moe")).unwrap();
    let loaded = load(&checkpoint).unwrap();
    assert_eq!(checkpoint.layout(), "GGUF, mostly Q8_0");
    assert_eq!(loaded.matrices["lm_head"].encoding, Encoding::Ggml(Ggml::Q8_0));
    assert_eq!(loaded.matrices["lm_head"].name, "output.weight");
    assert_eq!(loaded.matrices["layers.0.mlp.gate"].encoding, Encoding::Float(Float::F32));
    assert_eq!(loaded.experts["layers.0.mlp"][5].down.name, "blk.0.ffn_down_exps.weight");
    assert_eq!(checkpoint.mtp_tensors().count(), 4);
    // The folder will do as well as the file.
    assert_eq!(open(reference("qwen3_5_moe").parent().unwrap()).unwrap().files().len(), 1);
}

/// Zero-centred norms have their 1, logarithms are taken back, and value heads are in tiled order: with two key heads
/// and four value heads 0, 2, 1, 3.
#[test]
fn vectors_agree_with_the_hub() {
    let (hub, gguf) =
        (load(&hub("qwen3_5_moe")).unwrap(), load(&open(&reference("qwen3_5_moe")).unwrap()).unwrap());
    assert_eq!(hub.vectors.keys().collect::<Vec<_>>(), gguf.vectors.keys().collect::<Vec<_>>());
    for (name, hub) in &hub.vectors {
        let expected: Vec<f32> = match name.rsplit('.').next().unwrap() {
            "A_log" | "dt_bias" => [0, 2, 1, 3].map(|head| hub[head]).to_vec(),
            // Channels of queries and keys, then of values; four taps each.
            "conv1d" => {
                let (keys, values) = hub.split_at(2 * 2 * 64 * 4);
                let heads = [0, 2, 1, 3].map(|head| &values[head * 64 * 4..][..64 * 4]);
                [keys, &heads.concat()].concat()
            }
            _ => hub.clone(),
        };
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        assert!(
            gguf.vectors[name].iter().zip(&expected).all(close),
            "{name}: {:?} {expected:?}",
            gguf.vectors[name]
        );
    }
}

/// Of rows that are not reordered each is near the hub's.
#[test]
fn matrices_agree_with_the_hub() {
    let (hub_files, gguf_files) = (hub("qwen3_5_moe"), open(&reference("qwen3_5_moe")).unwrap());
    let (hub, gguf) = (load(&hub_files).unwrap(), load(&gguf_files).unwrap());
    let compare = |name: &str, a: &Matrix, b: &Matrix| {
        let (a, b) = (dequantize(&hub_files, a), dequantize(&gguf_files, b));
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x as f64 * x as f64).sum::<f64>().sqrt();
        let error = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied());
        assert!(error < 0.01, "{name}: relative error {error}");
    };
    for (name, matrix) in hub.matrices.iter().filter(|(name, _)| !name.contains("linear_attn")) {
        compare(name, matrix, &gguf.matrices[name]);
    }
    for (name, experts) in &hub.experts {
        for (a, b) in experts.iter().zip(&gguf.experts[name]) {
            compare(name, &a.gate, &b.gate);
            compare(name, &a.up, &b.up);
            compare(name, &a.down, &b.down);
        }
    }
}

/// Gate and up in one tensor, experts one by one as in files of old, a shared expert's gate as a vector, and no output.
#[test]
fn other_ways_to_write_the_same() {
    let whole = GgufFile::read(&reference("qwen3_5_moe"));
    let expected = load(&open(&reference("qwen3_5_moe")).unwrap()).unwrap();
    let bytes_of = |checkpoint: &Checkpoint, matrix: &Matrix| checkpoint.bytes(matrix.codes).to_vec();
    let original = open(&reference("qwen3_5_moe")).unwrap();

    let mut file = whole.clone();
    // 64 rows of four blocks an expert.
    let expert_bytes = 64 * 4 * 34;
    let (gate, up) =
        (file.tensor("blk.0.ffn_gate_exps.weight").clone(), file.tensor("blk.0.ffn_up_exps.weight").clone());
    let mut fused = gate.clone();
    fused.name = "blk.0.ffn_gate_up_exps.weight".to_owned();
    fused.shape = vec![16, 128, 128];
    let pairs = gate.bytes.chunks(expert_bytes).zip(up.bytes.chunks(expert_bytes));
    fused.bytes = pairs.flat_map(|(gate, up)| [gate, up].concat()).collect();
    file.tensors.retain(|tensor| ![&gate.name, &up.name].contains(&&tensor.name));
    file.tensors.push(fused);
    for part in ["gate", "up", "down"] {
        let all = file.tensor(&format!("blk.1.ffn_{part}_exps.weight")).clone();
        file.tensors.retain(|tensor| tensor.name != all.name);
        for (expert, bytes) in all.bytes.chunks(expert_bytes).enumerate() {
            let mut one = all.clone();
            one.name = format!("blk.1.ffn_{part}.{expert}.weight");
            one.shape.remove(0);
            one.bytes = bytes.to_vec();
            file.tensors.push(one);
        }
    }
    file.tensor("blk.2.ffn_gate_inp_shexp.weight").shape = vec![128];
    file.tensors.retain(|tensor| tensor.name != "output.weight");

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), file.bytes()).unwrap();
    let checkpoint = open(folder.path()).unwrap();
    let loaded = load(&checkpoint).unwrap();
    for (name, experts) in &expected.experts {
        for (a, b) in experts.iter().zip(&loaded.experts[name]) {
            assert_eq!(bytes_of(&original, &a.gate), bytes_of(&checkpoint, &b.gate), "{name}");
            assert_eq!(bytes_of(&original, &a.up), bytes_of(&checkpoint, &b.up), "{name}");
            assert_eq!(bytes_of(&original, &a.down), bytes_of(&checkpoint, &b.down), "{name}");
        }
    }
    assert_eq!(loaded.matrices["lm_head"].codes, loaded.matrices["embed_tokens"].codes);
}

#[test]
fn stretched_frequencies() {
    let mut file = GgufFile::read(&reference("qwen3_moe"));
    let text = |text: &str| Value::Text(text.to_owned());
    file.set("qwen3moe.rope.scaling.type", text("yarn"));
    file.set("qwen3moe.rope.scaling.factor", Value::Float(4.0));
    file.set("qwen3moe.rope.scaling.original_context_length", Value::Integer(32));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), file.bytes()).unwrap();
    let checkpoint = open(folder.path()).unwrap();
    let ModelConfig::Qwen3Moe(config) = checkpoint.config() else { panic!() };
    let yarn = config.attention.rope.yarn().unwrap();
    assert_eq!((yarn.factor, yarn.original_max_position_embeddings, yarn.truncate), (4.0, 32, true));
}

#[test]
fn ignored_keys() {
    let mut file = GgufFile::read(&reference("qwen3_moe"));
    file.set("qwen3moe.novelty", Value::Flag(true));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), file.bytes()).unwrap();
    assert!(open(folder.path()).is_err());
    let options =
        OpenOptions { ignored_config_fields: vec!["qwen3moe.novelty".to_owned()], ..OpenOptions::default() };
    assert!(Checkpoint::open(folder.path(), &options).is_ok());
}

/// Files that were made of modelopt's NVFP4 have a scale beside each matrix.
#[test]
fn scales_beside_blocks_are_multiplied_with() {
    let plain = open(&reference("qwen3_5_moe")).unwrap();
    let expected = load(&plain).unwrap();
    let mut file = GgufFile::read(&reference("qwen3_5_moe"));
    let count = expected.experts["layers.0.mlp"].len();
    let scale = |name: &str, scales: &[f32]| crate::gguf_file::Stored {
        name: name.to_owned(),
        kind: 0,
        shape: vec![scales.len()],
        bytes: scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(),
    };
    let of_experts: Vec<f32> = (0..count).map(|expert| 0.5 + expert as f32).collect();
    file.tensors.push(scale("output.scale", &[0.25]));
    file.tensors.push(scale("output.input_scale", &[3.0]));
    file.tensors.push(scale("blk.0.ffn_down_exps.scale", &of_experts));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    let checkpoint = open(&path).unwrap();
    let loaded = load(&checkpoint).unwrap();
    let compare = |found: &Matrix, expected: &Matrix, scale: f32| {
        assert_eq!(found.encoding, Encoding::GgmlScaled(Ggml::Q8_0));
        let scaled: Vec<f32> = dequantize(&plain, expected).into_iter().map(|value| value * scale).collect();
        assert!(dequantize(&checkpoint, found) == scaled, "{}", found.name);
    };
    compare(&loaded.matrices["lm_head"], &expected.matrices["lm_head"], 0.25);
    let experts = loaded.experts["layers.0.mlp"].iter().zip(&expected.experts["layers.0.mlp"]);
    for ((found, expected), scale) in experts.zip(of_experts) {
        compare(&found.down, &expected.down, scale);
        assert_eq!(found.up.encoding, Encoding::Ggml(Ggml::Q8_0));
    }
    file.tensors.push(scale("blk.0.ffn_up_exps.scale", &[1.0]));
    std::fs::write(&path, file.bytes()).unwrap();
    let error = load(&open(&path).unwrap()).unwrap_err();
    crate::fixture::assert_says(&error, &["blk.0.ffn_up_exps.scale", "found [1]"]);
}
