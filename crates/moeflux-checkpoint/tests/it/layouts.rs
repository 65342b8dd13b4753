//! The same model in each way that checkpoints store it.

use crate::fixture::{Fixture, Loaded, dequantize, load, number, open, qwen};
use moeflux_checkpoint::{Checkpoint, LayerType, OpenOptions};
use moeflux_kernels::{Encoding, Float};
use safetensors::Dtype;
use serde_json::json;
use std::path::Path;

/// Everything a checkpoint holds, as numbers.
#[derive(Debug, PartialEq)]
struct Numbers {
    matrices: Vec<(String, Vec<f32>)>,
    vectors: Vec<(String, Vec<f32>)>,
}

fn numbers(folder: &Path) -> Numbers {
    let checkpoint = open(folder).unwrap();
    let Loaded { matrices, vectors, experts } = load(&checkpoint).unwrap();
    let mut matrices: Vec<_> = matrices.into_iter().collect();
    for (name, experts) in experts {
        for (e, expert) in experts.into_iter().enumerate() {
            let parts = [("gate", expert.gate), ("up", expert.up), ("down", expert.down)];
            matrices.extend(parts.map(|(part, matrix)| (format!("{name}.{e}.{part}"), matrix)));
        }
    }
    Numbers {
        matrices: matrices
            .into_iter()
            .map(|(name, matrix)| (name, dequantize(&checkpoint, &matrix)))
            .collect(),
        vectors: vectors.into_iter().collect(),
    }
}

fn assert_same_as_hub(fixture: &Fixture) {
    assert_eq!(numbers(fixture.write().path()), numbers(Fixture::hub().write().path()));
}

fn matrix(numbers: &Numbers, name: &str) -> Vec<f32> {
    numbers.matrices.iter().find(|(other, _)| other == name).unwrap().1.clone()
}

#[test]
fn hub_fused_experts_are_sliced_in_place() {
    let folder = Fixture::hub().write();
    let found = numbers(folder.path());
    let gate_up = |i| number("model.layers.0.mlp.experts.gate_up_proj", i);
    // Of expert 1, rows 0 to 3 are gate and rows 4 to 7 up, each 8 wide.
    assert_eq!(matrix(&found, "layers.0.mlp.1.gate"), (64..96).map(gate_up).collect::<Vec<_>>());
    assert_eq!(matrix(&found, "layers.0.mlp.1.up"), (96..128).map(gate_up).collect::<Vec<_>>());
    let down = |i| number("model.layers.0.mlp.experts.down_proj", i);
    assert_eq!(matrix(&found, "layers.0.mlp.1.down"), (32..64).map(down).collect::<Vec<_>>());
}

#[test]
fn zero_centred_norms_get_their_one_and_no_others() {
    let folder = Fixture::hub().write();
    let loaded = load(&open(folder.path()).unwrap()).unwrap();
    let stored = |name: &str| number(&format!("model.{name}.weight"), 3);
    for name in
        ["norm", "layers.0.input_layernorm", "layers.1.post_attention_layernorm", "layers.1.self_attn.q_norm"]
    {
        assert_eq!(loaded.vectors[name][3], 1.0 + stored(name), "{name}");
    }
    assert_eq!(loaded.vectors["layers.0.linear_attn.norm"][3], stored("layers.0.linear_attn.norm"));
    assert_eq!(
        loaded.vectors["layers.0.linear_attn.dt_bias"][1],
        number("model.layers.0.linear_attn.dt_bias", 1)
    );
}

#[test]
fn norms_of_the_mtp_head_are_zero_centred_too() {
    let mut fixture = Fixture::hub();
    fixture.add("mtp.pre_fc_norm_hidden.weight", &[8]);
    fixture.add("mtp.fc.weight", &[8, 16]);
    let folder = fixture.write();
    let checkpoint = open(folder.path()).unwrap();
    load(&checkpoint).unwrap();
    let weights = checkpoint.weights().unwrap();
    let norm = weights.vector("mtp.pre_fc_norm_hidden", 8).unwrap();
    assert_eq!(norm[0], 1.0 + number("mtp.pre_fc_norm_hidden.weight", 0));
    assert_eq!(weights.matrix("mtp.fc", 8, 16).unwrap().name, "mtp.fc.weight");
    let names: Vec<_> = checkpoint.mtp_tensors().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["mtp.fc.weight", "mtp.pre_fc_norm_hidden.weight"]);
}

#[test]
fn prefix_of_conditional_generation() {
    let mut fixture = Fixture::hub();
    fixture.add("visual.patch_embed.proj.weight", &[3, 3]);
    let text = fixture.config;
    fixture.config = json!({
        "model_type": "qwen3_5_moe", "text_config": text, "tie_word_embeddings": false,
        "architectures": ["Qwen3_5MoeForConditionalGeneration"], "vision_config": {"depth": 27},
        "image_token_id": 5, "transformers_version": "5.0.0",
    });
    let hub = numbers(Fixture::hub().write().path());
    fixture.rename("model.", "model.language_model.");
    let found = numbers(fixture.write().path());
    // The numbers were made from the names before they changed.
    assert_eq!(found, hub);
}

#[test]
fn experts_one_by_one() {
    let mut fixture = Fixture::hub();
    for layer in 0..2 {
        let experts = format!("model.layers.{layer}.mlp.experts");
        let gate_up = fixture.remove(&format!("{experts}.gate_up_proj"));
        let down = fixture.remove(&format!("{experts}.down_proj"));
        for e in 0..2 {
            let mut add = |part: &str, stored: &crate::fixture::Stored, shape: [usize; 2], slice: usize| {
                let len = shape[0] * shape[1] * 2;
                let mut own = stored.clone();
                own.shape = shape.to_vec();
                own.bytes = stored.bytes[slice * len..(slice + 1) * len].to_vec();
                fixture.tensors.insert(format!("{experts}.{e}.{part}.weight"), own);
            };
            add("gate_proj", &gate_up, [4, 8], 2 * e);
            add("up_proj", &gate_up, [4, 8], 2 * e + 1);
            add("down_proj", &down, [8, 4], e);
        }
    }
    assert_same_as_hub(&fixture);
    let folder = fixture.write();
    assert_eq!(open(folder.path()).unwrap().layout(), "Hugging Face safetensors, experts one by one");
}

#[test]
fn other_float_types() {
    for (dtype, float) in [(Dtype::F16, Float::F16), (Dtype::F32, Float::F32)] {
        let mut fixture = Fixture::hub();
        for (name, stored) in fixture.tensors.clone() {
            fixture.add_as(&name, &stored.shape, dtype);
        }
        assert_same_as_hub(&fixture);
        assert_eq!(fixture.load().unwrap().matrices["lm_head"].encoding, Encoding::Float(float));
    }
}

#[test]
fn shards() {
    let folder = Fixture::hub().write_sharded();
    assert_eq!(open(folder.path()).unwrap().files().len(), 2);
    assert_eq!(numbers(folder.path()), numbers(Fixture::hub().write().path()));
}

#[test]
fn the_only_weight_file_may_have_any_name() {
    let folder = Fixture::hub().write();
    std::fs::rename(folder.path().join("model.safetensors"), folder.path().join("weights.safetensors"))
        .unwrap();
    load(&open(folder.path()).unwrap()).unwrap();
}

#[test]
fn spans_are_offsets_in_the_file() {
    let folder = Fixture::hub().write_sharded();
    let checkpoint = open(folder.path()).unwrap();
    for tensor in checkpoint.tensors() {
        let file = std::fs::read(checkpoint.files()[tensor.span.file as usize].path()).unwrap();
        let start = tensor.span.offset as usize;
        assert_eq!(&file[start..start + tensor.span.len as usize], checkpoint.bytes(tensor.span));
    }
}

#[test]
fn tied_embeddings() {
    let mut fixture = Fixture::hub();
    fixture.remove("lm_head.weight");
    fixture.config["tie_word_embeddings"] = json!(true);
    let loaded = fixture.load().unwrap();
    assert_eq!(loaded.matrices["lm_head"], loaded.matrices["embed_tokens"]);

    // Said above the text model or in it, or in both.
    for (above, within) in
        [(json!(true), json!(false)), (json!(null), json!(true)), (json!(true), json!(true))]
    {
        let mut nested = fixture.clone();
        let mut text = nested.config.take();
        text["tie_word_embeddings"] = within;
        nested.config =
            json!({"model_type": "qwen3_5_moe", "text_config": text, "tie_word_embeddings": above});
        nested.load().unwrap();
    }
}

#[test]
fn mlx_affine() {
    let fixture = Fixture::mlx();
    let folder = fixture.write();
    let checkpoint = open(folder.path()).unwrap();
    let loaded = load(&checkpoint).unwrap();
    let affine = Encoding::Affine { bits: 4, group: 64, params: Float::Bf16 };
    assert_eq!(loaded.matrices["layers.1.self_attn.q_proj"].encoding, affine);
    // 4 wide, so MLX left it plain.
    assert_eq!(loaded.experts["layers.0.mlp"][0].down.encoding, Encoding::Float(Float::Bf16));
    let up = &loaded.experts["layers.1.mlp"][1].up;
    let file = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let stored = &fixture.tensors["language_model.model.layers.1.mlp.switch_mlp.up_proj.weight"];
    let half = stored.bytes.len() / 2;
    let start = up.codes.offset as usize;
    assert_eq!(&file[start..start + up.codes.len as usize], &stored.bytes[half..]);
    // Norms hold their 1 already.
    let norm = loaded.vectors["norm"][0];
    assert_eq!(norm, number("language_model.model.norm.weight", 0));
}

#[test]
fn mlx_every_width_mode_and_parameter_type() {
    let module = "language_model.model.layers.1.mlp.gate";
    for bits in [2, 3, 4, 5, 6, 8] {
        for group in [32, 64] {
            let mut fixture = Fixture::mlx();
            fixture.config["quantization"][module] = json!({"bits": bits, "group_size": group});
            fixture.add_affine(module, &[2, 64], bits, group);
            let encoding = Encoding::Affine { bits: bits as u8, group, params: Float::Bf16 };
            assert_eq!(fixture.load().unwrap().matrices["layers.1.mlp.gate"].encoding, encoding);
        }
    }
    for (mode, bits, group, encoding) in [
        ("mxfp4", 4, 32, Encoding::Mxfp4),
        ("mxfp8", 8, 32, Encoding::Mxfp8),
        ("nvfp4", 4, 16, Encoding::Nvfp4),
    ] {
        let mut fixture = Fixture::mlx();
        fixture.config["quantization"][module] = json!({"mode": mode, "bits": bits, "group_size": group});
        fixture.add_codes(module, &[2, 64 * bits / 32]);
        fixture.add_as(&format!("{module}.scales"), &[2, 64 / group], Dtype::U8);
        fixture.remove(&format!("{module}.biases"));
        assert_eq!(fixture.load().unwrap().matrices["layers.1.mlp.gate"].encoding, encoding);
    }
    let mut fixture = Fixture::mlx();
    fixture.add_as(&format!("{module}.scales"), &[2, 1], Dtype::F32);
    fixture.add_as(&format!("{module}.biases"), &[2, 1], Dtype::F32);
    let encoding = Encoding::Affine { bits: 4, group: 64, params: Float::F32 };
    assert_eq!(fixture.load().unwrap().matrices["layers.1.mlp.gate"].encoding, encoding);
}

#[test]
fn mlx_modules_named_on_their_own() {
    // Not named with its mode: affine, even where the others are not.
    let module = "language_model.model.layers.1.mlp.gate";
    let mut fixture = Fixture::mlx();
    fixture.config["quantization"] = json!({"mode": "mxfp4", "bits": 4, "group_size": 32});
    let quantised: Vec<String> =
        fixture.tensors.keys().filter_map(|name| name.strip_suffix(".scales")).map(str::to_owned).collect();
    for module in &quantised {
        fixture.config["quantization"][module] = json!({"bits": 4, "group_size": 64});
    }
    let loaded = fixture.load().unwrap();
    let affine = Encoding::Affine { bits: 4, group: 64, params: Float::Bf16 };
    assert_eq!(loaded.matrices["layers.1.mlp.gate"].encoding, affine);

    // `true` stands for the default, `false` for plain floats.
    let mut fixture = Fixture::mlx();
    fixture.config["quantization"]["language_model.lm_head"] = json!(true);
    fixture.config["quantization"][module] = json!(false);
    fixture.remove(&format!("{module}.scales"));
    fixture.remove(&format!("{module}.biases"));
    fixture.add(&format!("{module}.weight"), &[2, 64]);
    let loaded = fixture.load().unwrap();
    assert_eq!(loaded.matrices["lm_head"].encoding, affine);
    assert_eq!(loaded.matrices["layers.1.mlp.gate"].encoding, Encoding::Float(Float::Bf16));
}

#[test]
fn layer_types_by_interval() {
    let config = |fixture: &Fixture| {
        let folder = fixture.write();
        let checkpoint = open(folder.path()).unwrap();
        qwen(&checkpoint).clone()
    };
    let mut fixture = Fixture::hub();
    fixture.config["full_attention_interval"] = json!(2);
    assert_eq!(config(&fixture), config(&Fixture::hub()));
    fixture.config.as_object_mut().unwrap().remove("layer_types");
    assert_eq!(config(&fixture), config(&Fixture::hub()));

    fixture.config.as_object_mut().unwrap().remove("full_attention_interval");
    fixture.config["num_hidden_layers"] = json!(8);
    let full: Vec<usize> = config(&fixture)
        .layer_types
        .iter()
        .enumerate()
        .filter(|(_, kind)| **kind == LayerType::FullAttention)
        .map(|(layer, _)| layer)
        .collect();
    assert_eq!(full, [3, 7]);
}

#[test]
fn rope_fields_beside_the_others() {
    let mut fixture = Fixture::hub();
    let mut rope = fixture.config["rope_parameters"].take();
    fixture.config["rope_theta"] = rope["rope_theta"].take();
    fixture.config["partial_rotary_factor"] = rope["partial_rotary_factor"].take();
    // null counts as absent
    fixture.config["rope_scaling"] = rope;
    let folder = fixture.write();
    let checkpoint = open(folder.path()).unwrap();
    let rope = &qwen(&checkpoint).attention.rope;
    assert_eq!((rope.theta, rope.rotary_dim, rope.mrope_section), (1e7, 4, [1, 1, 0]));
}

#[test]
fn fields_that_the_caller_ignores() {
    let mut fixture = Fixture::hub();
    fixture.config["novelty"] = json!(3);
    fixture.config["rope_parameters"]["twist"] = json!(true);
    let folder = fixture.write();
    let ignored_config_fields = vec!["novelty".into(), "rope_parameters.twist".into()];
    let options = OpenOptions { ignored_config_fields, ..OpenOptions::default() };
    Checkpoint::open(folder.path(), &options).unwrap();
}
