//! What only some families have: layers with a sliding window, layers that predict further tokens, two ways to store the
//! same experts.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{copy_with, data};
use moeflux::graph::StateSpec;
use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

const TOKENS: [u32; 24] = [
    39, 68, 360, 51, 402, 220, 393, 277, 74, 297, 315, 86, 77, 284, 78, 87, 503, 82, 88, 351, 68, 76, 198, 33,
];

fn open(folder: &Path) -> Model {
    Model::open(folder, &ModelOptions::default()).unwrap()
}

/// What is wrong with the checkpoint.
fn refusal(folder: &Path) -> String {
    Model::open(folder, &ModelOptions::default()).unwrap_err().to_string()
}

fn logits(folder: &Path) -> Vec<u32> {
    let mut engine =
        Engine::new(open(folder), &EngineOptions { precision: Precision::Exact, ..EngineOptions::default() })
            .unwrap();
    let mut sequence = engine.sequence();
    engine.eval_all(&mut sequence, &TOKENS).unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn sliding_layers_keep_their_window_only() {
    const BLOCK: usize = moeflux_kernels::KV_BLOCK;
    let model = open(&data("gpt_oss/hf"));
    let specs = model.weights().states().to_vec();
    for prefill_chunk in [1000, 50] {
        let options = EngineOptions { prefill_chunk: Some(prefill_chunk), ..EngineOptions::default() };
        let mut engine = Engine::new(open(&data("gpt_oss/hf")), &options).unwrap();
        let mut sequence = engine.sequence();
        for (n, blocks_kept) in [(200, 2), (BLOCK * 4 - 1 - 200, 1), (1, 1), (8, 2), (300, 1)] {
            engine.eval(&mut sequence, &vec![7; n]).unwrap();
            for (spec, state) in specs.iter().zip(sequence.states()) {
                let StateSpec::Kv { kv_heads, head_dim, window } = *spec else { panic!("{spec:?}") };
                let blocks = if window.is_some() { blocks_kept } else { sequence.len().div_ceil(BLOCK) };
                let bytes = blocks * 2 * sequence.kv_type().bytes() * BLOCK * kv_heads * head_dim;
                assert_eq!(state.bytes(), bytes, "{} tokens, {spec:?}", sequence.len());
            }
        }
        sequence.clear();
        assert_eq!(sequence.state_bytes(), 0);
    }
}

/// Tensors of a checkpoint's only file, and how to write them as another.
struct Tensors(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
        let owned = |view: &TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        Tensors(tensors.iter().map(|(name, view)| (name.clone(), owned(view))).collect())
    }

    fn write(&self, folder: &Path) {
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap())
            .unwrap();
    }
}

/// Every second of the rows along the second dimension.
fn every_second(shape: &[usize], bytes: &[u8], first: usize) -> Vec<u8> {
    let row = bytes.len() / shape[0] / shape[1];
    bytes.chunks(row).skip(first).step_by(2).flatten().copied().collect()
}

#[test]
fn gpt_oss_as_mlx_writes_it_gives_the_same_bits() {
    let mxfp4 = json!({"group_size": 32, "bits": 4, "mode": "mxfp4"});
    let changes = json!({"quantization_config": mxfp4, "quantization": mxfp4});
    let folder = copy_with(&data("gpt_oss/hf"), &changes);
    let mut tensors = Tensors::read(folder.path());
    for (name, (dtype, shape, bytes)) in std::mem::take(&mut tensors.0) {
        let Some((module, part)) = name.rsplit_once("_proj_") else {
            tensors.0.insert(name, (dtype, shape, bytes));
            continue;
        };
        let (part, dtype, last) = match part {
            "blocks" => ("weight", Dtype::U32, shape[2..].iter().product::<usize>() / 4),
            "scales" => ("scales", Dtype::U8, shape[2]),
            "bias" => ("bias", dtype, 1),
            other => panic!("{other}"),
        };
        let shape_of =
            |rows: usize| if part == "bias" { vec![shape[0], rows] } else { vec![shape[0], rows, last] };
        match module.strip_suffix("gate_up") {
            Some(experts) => {
                for (first, projection) in ["gate", "up"].into_iter().enumerate() {
                    let rows = every_second(&shape, &bytes, first);
                    let name = format!("{experts}{projection}_proj.{part}");
                    tensors.0.insert(name, (dtype, shape_of(shape[1] / 2), rows));
                }
            }
            None => {
                tensors.0.insert(format!("{module}_proj.{part}"), (dtype, shape_of(shape[1]), bytes));
            }
        }
    }
    tensors.write(folder.path());
    assert_eq!(logits(folder.path()), logits(&data("gpt_oss/hf")));
}

#[test]
fn unpacked_experts_of_gpt_oss_must_be_whole() {
    let folder = copy_with(&data("gpt_oss/hf"), &json!({"quantization_config": null}));
    let mut tensors = Tensors::read(folder.path());
    let unpacked = (Dtype::BF16, vec![16, 128, 128], vec![0; 16 * 128 * 128 * 2]);
    tensors.0.insert("model.layers.0.mlp.experts.gate_up_proj".to_owned(), unpacked);
    tensors.write(folder.path());
    let message = refusal(folder.path());
    assert!(message.contains("model.layers.0.mlp.experts.down_proj is missing"), "{message}");
}

#[test]
fn layers_that_predict_further_tokens_are_kept_and_not_run() {
    let hub = data("deepseek_v3/hf");
    let folder = copy_with(&hub, &json!({"num_nextn_predict_layers": 1}));
    let mut tensors = Tensors::read(folder.path());
    let layers: BTreeMap<_, _> =
        tensors.0.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    for (name, tensor) in layers.into_iter().filter(|(name, _)| name.contains("layers.3.")) {
        tensors.0.insert(name.replace("layers.3.", "layers.4."), tensor);
    }
    tensors.write(folder.path());
    let model = open(folder.path());
    let kept = model.checkpoint().mtp_tensors().count();
    assert_eq!(kept, tensors.0.keys().filter(|name| name.contains("layers.4.")).count());
    assert!(kept > 10, "{kept}");
    assert_eq!(logits(folder.path()), logits(&hub));

    // Without a word about them in the config they are tensors that nobody expects.
    tensors.write(folder.path());
    let config = folder.path().join("config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json["num_nextn_predict_layers"] = json!(0);
    std::fs::write(config, json.to_string()).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains("model.layers.4."), "{message}");
}

#[test]
fn summaries_know_every_part() {
    for (checkpoint, kinds, active) in [
        ("deepseek_v2/hf", vec![("latent_attention", 3)], 4),
        ("deepseek_v3/mlx-q4", vec![("latent_attention", 4)], 4),
        ("glm4_moe/hf", vec![("full_attention", 3)], 4),
        ("gpt_oss/hf", vec![("sliding_attention", 2), ("full_attention", 2)], 4),
        ("olmoe/hf", vec![("full_attention", 3)], 4),
        ("qwen3_moe/mlx-q4", vec![("full_attention", 4)], 4),
        ("qwen3_next/hf", vec![("linear_attention", 2), ("full_attention", 2)], 4),
    ] {
        let summary = open(&data(checkpoint)).summary().unwrap();
        let found: Vec<_> = summary.layers.iter().map(|layer| (layer.kind, layer.count)).collect();
        assert_eq!(found, kinds, "{checkpoint}");
        assert_eq!((summary.experts.total, summary.experts.active), (16, active), "{checkpoint}");
        let ignored = summary.parts.iter().any(|part| part.part == moeflux::summary::Part::Ignored);
        assert!(!ignored, "{checkpoint}: {:?}", summary.parts);
    }
    // Latents and rotary keys alone are kept of a token: 64 + 64 floats in each of 4 layers.
    let summary = open(&data("deepseek_v3/hf")).summary().unwrap();
    assert_eq!(summary.sequence.kv_per_token, 4 * 4 * (64 + 64));
    // Both halves of kv_b_proj count, once.
    let model = open(&data("deepseek_v3/hf"));
    let stored: u64 =
        model.checkpoint().tensors().map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum();
    assert_eq!(summary.parameters.total, stored);
    // A byte of MXFP4 blocks is two of gpt_oss's, a scale none; biases count.
    let model = open(&data("gpt_oss/hf"));
    let stored = model.checkpoint().tensors().map(|tensor| {
        let len = tensor.shape.iter().product::<usize>() as u64;
        if tensor.name.ends_with("_scales") {
            0
        } else {
            len * (1 + u64::from(tensor.name.ends_with("_blocks")))
        }
    });
    assert_eq!(model.summary().unwrap().parameters.total, stored.sum::<u64>());
    // Of gpt_oss the sliding layers keep 16 tokens, whatever the length.
    let summary = open(&data("gpt_oss/hf")).summary().unwrap();
    assert_eq!(
        (summary.sequence.kv_per_token, summary.sequence.windows),
        (2 * 2 * 4 * 128, 2 * 2 * 4 * 128 * 16)
    );
}
