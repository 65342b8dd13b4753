//! A tiny checkpoint to write in any layout, and to break; and a reader that asks for every tensor of a model.

use moeflux_checkpoint::{
    Checkpoint, Error, Expert, LayerType, Matrix, ModelConfig, OpenOptions, Qwen3NextConfig,
};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A checkpoint in memory: `config.json` and the tensors of `model.safetensors`.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, Stored>,
}

/// A tensor with its bytes.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Fixture {
    /// Two layers, linear and full attention, hidden size 8, two experts of width 4: hub names, fused experts, bf16.
    pub(crate) fn hub() -> Self {
        let config = json!({
            "model_type": "qwen3_5_moe_text",
            "vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "full_attention"],
            "rms_norm_eps": 1e-6, "max_position_embeddings": 64,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
            "linear_num_key_heads": 1, "linear_num_value_heads": 2,
            "linear_key_head_dim": 4, "linear_value_head_dim": 4, "linear_conv_kernel_dim": 4,
            "num_experts": 2, "num_experts_per_tok": 1,
            "moe_intermediate_size": 4, "shared_expert_intermediate_size": 4,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000000, "partial_rotary_factor": 0.5,
                "mrope_interleaved": true, "mrope_section": [1, 1, 0],
            },
        });
        let mut fixture = Fixture { config, tensors: BTreeMap::new() };
        fixture.add("lm_head.weight", &[16, 8]);
        for (name, shape) in [("embed_tokens.weight", &[16, 8][..]), ("norm.weight", &[8])] {
            fixture.add(&format!("model.{name}"), shape);
        }
        for layer in 0..2 {
            for (name, shape) in [
                ("input_layernorm.weight", &[8][..]),
                ("post_attention_layernorm.weight", &[8]),
                ("mlp.gate.weight", &[2, 8]),
                ("mlp.experts.gate_up_proj", &[2, 8, 8]),
                ("mlp.experts.down_proj", &[2, 8, 4]),
                ("mlp.shared_expert.gate_proj.weight", &[4, 8]),
                ("mlp.shared_expert.up_proj.weight", &[4, 8]),
                ("mlp.shared_expert.down_proj.weight", &[8, 4]),
                ("mlp.shared_expert_gate.weight", &[1, 8]),
            ] {
                fixture.add(&format!("model.layers.{layer}.{name}"), shape);
            }
        }
        for (name, shape) in [
            ("A_log", &[2][..]),
            ("dt_bias", &[2]),
            ("conv1d.weight", &[16, 1, 4]),
            ("norm.weight", &[4]),
            ("in_proj_qkv.weight", &[16, 8]),
            ("in_proj_z.weight", &[8, 8]),
            ("in_proj_a.weight", &[2, 8]),
            ("in_proj_b.weight", &[2, 8]),
            ("out_proj.weight", &[8, 8]),
        ] {
            fixture.add(&format!("model.layers.0.linear_attn.{name}"), shape);
        }
        for (name, shape) in [
            ("q_proj.weight", &[32, 8][..]),
            ("k_proj.weight", &[8, 8]),
            ("v_proj.weight", &[8, 8]),
            ("o_proj.weight", &[8, 16]),
            ("q_norm.weight", &[8]),
            ("k_norm.weight", &[8]),
        ] {
            fixture.add(&format!("model.layers.1.self_attn.{name}"), shape);
        }
        fixture
    }

    /// The same model with hidden size 64, as MLX writes it: 4 bits in groups of 64, but plain where maps are not 64 wide.
    pub(crate) fn mlx() -> Self {
        let mut config = Fixture::hub().config;
        config["hidden_size"] = json!(64);
        config["quantization"] = json!({"group_size": 64, "bits": 4, "mode": "affine"});
        let mut fixture = Fixture { config, tensors: BTreeMap::new() };
        fixture.add_affine("language_model.lm_head", &[16, 64], 4, 64);
        fixture.add_affine("language_model.model.embed_tokens", &[16, 64], 4, 64);
        fixture.add("language_model.model.norm.weight", &[64]);
        for layer in ["language_model.model.layers.0", "language_model.model.layers.1"] {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                fixture.add(&format!("{layer}.{norm}.weight"), &[64]);
            }
            for (module, rows) in [
                ("gate", &[2, 64][..]),
                ("shared_expert_gate", &[1, 64]),
                ("shared_expert.gate_proj", &[4, 64]),
                ("shared_expert.up_proj", &[4, 64]),
                ("switch_mlp.gate_proj", &[2, 4, 64]),
                ("switch_mlp.up_proj", &[2, 4, 64]),
            ] {
                fixture.add_affine(&format!("{layer}.mlp.{module}"), rows, 4, 64);
            }
            fixture.add(&format!("{layer}.mlp.shared_expert.down_proj.weight"), &[64, 4]);
            fixture.add(&format!("{layer}.mlp.switch_mlp.down_proj.weight"), &[2, 64, 4]);
        }
        let linear = "language_model.model.layers.0.linear_attn";
        for (module, rows) in [("in_proj_qkv", 16), ("in_proj_z", 8), ("in_proj_a", 2), ("in_proj_b", 2)] {
            fixture.add_affine(&format!("{linear}.{module}"), &[rows, 64], 4, 64);
        }
        for (name, shape) in [
            ("A_log", &[2][..]),
            ("dt_bias", &[2]),
            ("conv1d.weight", &[16, 4, 1]),
            ("norm.weight", &[4]),
            ("out_proj.weight", &[64, 8]),
        ] {
            fixture.add(&format!("{linear}.{name}"), shape);
        }
        let attention = "language_model.model.layers.1.self_attn";
        for (module, rows) in [("q_proj", 32), ("k_proj", 8), ("v_proj", 8)] {
            fixture.add_affine(&format!("{attention}.{module}"), &[rows, 64], 4, 64);
        }
        for (name, shape) in
            [("o_proj.weight", &[64, 16][..]), ("q_norm.weight", &[8]), ("k_norm.weight", &[8])]
        {
            fixture.add(&format!("{attention}.{name}"), shape);
        }
        fixture
    }

    /// Adds a bf16 tensor of small numbers that differ with name and place.
    pub(crate) fn add(&mut self, name: &str, shape: &[usize]) {
        self.add_as(name, shape, Dtype::BF16);
    }

    pub(crate) fn add_as(&mut self, name: &str, shape: &[usize], dtype: Dtype) {
        let count: usize = shape.iter().product();
        let bytes = (0..count).flat_map(|i| encode(dtype, number(name, i))).collect();
        self.tensors.insert(name.to_owned(), Stored { dtype, shape: shape.to_owned(), bytes });
    }

    /// Adds a module quantised with affine codes, all of its bits arbitrary.
    pub(crate) fn add_affine(&mut self, module: &str, shape: &[usize], bits: usize, group: usize) {
        let with_last = |last| [&shape[..shape.len() - 1], &[last]].concat();
        let cols = *shape.last().unwrap();
        self.add_codes(module, &with_last(cols * bits / 32));
        self.add(&format!("{module}.scales"), &with_last(cols / group));
        self.add(&format!("{module}.biases"), &with_last(cols / group));
    }

    /// Adds the codes `module.weight`.
    pub(crate) fn add_codes(&mut self, module: &str, shape: &[usize]) {
        let bytes = (0..4 * shape.iter().product::<usize>()).map(|i| (i * 37 + module.len()) as u8).collect();
        let codes = Stored { dtype: Dtype::U32, shape: shape.to_owned(), bytes };
        self.tensors.insert(format!("{module}.weight"), codes);
    }

    pub(crate) fn remove(&mut self, name: &str) -> Stored {
        self.tensors.remove(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Gives every tensor whose name contains `from` a name with `to` there.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let old = std::mem::take(&mut self.tensors);
        self.tensors = old.into_iter().map(|(name, tensor)| (name.replace(from, to), tensor)).collect();
    }

    /// The bytes of a safetensors file with all tensors, by the format's own writer.
    pub(crate) fn weight_file(&self) -> Vec<u8> {
        weight_file(self.tensors.iter())
    }

    /// Writes `config.json` and `model.safetensors`.
    pub(crate) fn write(&self) -> TempDir {
        let folder = self.write_config();
        std::fs::write(folder.path().join("model.safetensors"), self.weight_file()).unwrap();
        folder
    }

    /// Writes `config.json`, two shards with every second tensor, and their index.
    pub(crate) fn write_sharded(&self) -> TempDir {
        let folder = self.write_config();
        let mut weight_map = BTreeMap::new();
        for (k, shard) in SHARDS.into_iter().enumerate() {
            let tensors: Vec<_> = self.tensors.iter().skip(k).step_by(2).collect();
            weight_map.extend(tensors.iter().map(|(name, _)| ((*name).clone(), shard)));
            std::fs::write(folder.path().join(shard), weight_file(tensors.into_iter())).unwrap();
        }
        write_index(folder.path(), &json!({ "metadata": {}, "weight_map": weight_map }));
        folder
    }

    pub(crate) fn write_config(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), self.config.to_string()).unwrap();
        folder
    }

    /// Opens the checkpoint and asks for every tensor.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        let folder = self.write();
        load(&open(folder.path())?)
    }
}

pub(crate) const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

fn weight_file<'a>(tensors: impl Iterator<Item = (&'a String, &'a Stored)>) -> Vec<u8> {
    let views = tensors.map(|(name, Stored { dtype, shape, bytes })| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    serialize(views, None).unwrap()
}

pub(crate) fn write_index(folder: &Path, index: &Value) {
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// A multiple of 1/8 between -2 and 2, exact in every float type.
pub(crate) fn number(name: &str, index: usize) -> f32 {
    let seed = name.bytes().fold(index * 7, |sum, byte| sum * 3 % 10007 + byte as usize);
    (seed % 32) as f32 / 8.0 - 2.0
}

/// The little-endian bytes of a number that the float type holds exactly.
fn encode(dtype: Dtype, x: f32) -> Vec<u8> {
    let bits = x.to_bits();
    match dtype {
        Dtype::F32 => bits.to_le_bytes().to_vec(),
        Dtype::BF16 => ((bits >> 16) as u16).to_le_bytes().to_vec(),
        Dtype::F16 if x == 0.0 => vec![0, 0],
        // Exponent bias 15 instead of 127, ten bits of fraction.
        Dtype::F16 => {
            let half = (bits >> 16 & 0x8000) | ((bits >> 23 & 0xff) - 112) << 10 | (bits >> 13 & 0x3ff);
            (half as u16).to_le_bytes().to_vec()
        }
        other => vec![1; other.bitsize() / 8],
    }
}

/// `tests/data/qwen3_5_moe/{variant}`.
pub(crate) fn reference(variant: &str) -> PathBuf {
    data("qwen3_5_moe").join(variant)
}

/// `tests/data/{path}`.
pub(crate) fn data(path: &str) -> PathBuf {
    moeflux_testing::data(env!("CARGO_TARGET_TMPDIR"), path)
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn open(folder: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::open(folder, &OpenOptions::default())
}

/// Every tensor of a model, under canonical names.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) matrices: BTreeMap<String, Matrix>,
    pub(crate) vectors: BTreeMap<String, Vec<f32>>,
    pub(crate) experts: BTreeMap<String, Vec<Expert>>,
}

/// The config of a checkpoint of Qwen3.5.
pub(crate) fn qwen(checkpoint: &Checkpoint) -> &Qwen3NextConfig {
    match checkpoint.config() {
        ModelConfig::Qwen3_5Moe(config) => config,
        other => panic!("not Qwen3.5: {other:?}"),
    }
}

/// Asks for every tensor that the config implies, and that there be no other.
pub(crate) fn load(checkpoint: &Checkpoint) -> Result<Loaded, Error> {
    let config = qwen(checkpoint);
    let (decoder, attention, delta_net) = (&config.decoder, &config.attention, &config.delta_net);
    let weights = checkpoint.weights()?;
    let mut loaded = Loaded::default();
    let Loaded { matrices, vectors, experts } = &mut loaded;
    let mut matrix = |name: String, rows, cols| {
        weights.matrix(&name, rows, cols).map(|matrix| matrices.insert(name, matrix)).map(drop)
    };
    let mut vector =
        |name: String, len| weights.vector(&name, len).map(|vector| vectors.insert(name, vector)).map(drop);

    let hidden = decoder.hidden_size;
    matrix("embed_tokens".into(), decoder.vocab_size, hidden)?;
    matrix("lm_head".into(), decoder.vocab_size, hidden)?;
    vector("norm".into(), hidden)?;
    let mut convolutions = Vec::new();
    for (i, layer_type) in config.layer_types.iter().enumerate() {
        let layer = |name: &str| format!("layers.{i}.{name}");
        vector(layer("input_layernorm"), hidden)?;
        vector(layer("post_attention_layernorm"), hidden)?;
        match layer_type {
            LayerType::LinearAttention => {
                let part = |name: &str| layer(&format!("linear_attn.{name}"));
                let heads = delta_net.linear_num_value_heads;
                let keys = delta_net.linear_num_key_heads * delta_net.linear_key_head_dim;
                let values = heads * delta_net.linear_value_head_dim;
                matrix(part("in_proj_qkv"), 2 * keys + values, hidden)?;
                matrix(part("in_proj_z"), values, hidden)?;
                matrix(part("in_proj_a"), heads, hidden)?;
                matrix(part("in_proj_b"), heads, hidden)?;
                matrix(part("out_proj"), hidden, values)?;
                vector(part("A_log"), heads)?;
                vector(part("dt_bias"), heads)?;
                vector(part("norm"), delta_net.linear_value_head_dim)?;
                let (name, kernel) = (part("conv1d"), delta_net.linear_conv_kernel_dim);
                convolutions.push((name.clone(), weights.conv1d(&name, 2 * keys + values, kernel)?));
            }
            LayerType::FullAttention => {
                let part = |name: &str| layer(&format!("self_attn.{name}"));
                let queries = attention.num_attention_heads * attention.head_dim;
                let keys = attention.num_key_value_heads * attention.head_dim;
                matrix(part("q_proj"), 2 * queries, hidden)?;
                matrix(part("k_proj"), keys, hidden)?;
                matrix(part("v_proj"), keys, hidden)?;
                matrix(part("o_proj"), hidden, queries)?;
                vector(part("q_norm"), attention.head_dim)?;
                vector(part("k_norm"), attention.head_dim)?;
            }
        }
        matrix(layer("mlp.gate"), config.moe.num_experts, hidden)?;
        matrix(layer("mlp.shared_expert_gate"), 1, hidden)?;
        let shared = config.shared_expert_intermediate_size;
        matrix(layer("mlp.shared_expert.gate_proj"), shared, hidden)?;
        matrix(layer("mlp.shared_expert.up_proj"), shared, hidden)?;
        matrix(layer("mlp.shared_expert.down_proj"), hidden, shared)?;
        let mlp = layer("mlp");
        let routed =
            weights.experts(&mlp, config.moe.num_experts, hidden, config.moe.moe_intermediate_size)?;
        experts.insert(mlp, routed);
    }
    vectors.extend(convolutions);
    weights.finish()?;
    Ok(loaded)
}

/// A matrix, dequantised, `[rows * cols]`.
pub(crate) fn dequantize(checkpoint: &Checkpoint, matrix: &Matrix) -> Vec<f32> {
    let view = checkpoint.view(matrix);
    let mut values = vec![0.0; matrix.rows * matrix.cols];
    for (row, out) in values.chunks_mut(matrix.cols).enumerate() {
        view.dequantize_row(row, out);
    }
    values
}

/// Checks that a message names all of `parts`.
#[track_caller]
pub(crate) fn assert_says(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
