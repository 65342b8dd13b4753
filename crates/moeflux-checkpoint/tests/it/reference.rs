//! The reference checkpoints and the demo model: every tensor is found, and what hub and MLX files hold of the same
//! model agrees.

use crate::fixture::{Loaded, dequantize, load, open, qwen, reference, repository};
use moeflux_checkpoint::{Checkpoint, LayerType, Matrix};
use moeflux_kernels::{Encoding, Float};

fn both(variant: &str) -> (Checkpoint, Loaded) {
    let checkpoint = open(&reference(variant)).unwrap();
    let loaded = load(&checkpoint).unwrap();
    (checkpoint, loaded)
}

#[test]
fn hub_checkpoint_loads() {
    let (checkpoint, loaded) = both("hf");
    let config = qwen(&checkpoint);
    assert_eq!(
        config.layer_types,
        [
            LayerType::LinearAttention,
            LayerType::LinearAttention,
            LayerType::LinearAttention,
            LayerType::FullAttention
        ]
    );
    let rope = &config.attention.rope;
    assert_eq!((rope.mrope_section, rope.rotary_dim), ([3, 3, 2], 16));
    assert_eq!((config.moe.num_experts, config.moe.num_experts_per_tok), (16, 4));
    assert_eq!(checkpoint.layout(), "Hugging Face safetensors, experts fused");
    assert_eq!(loaded.matrices["lm_head"].encoding, Encoding::Float(Float::Bf16));
    assert!(checkpoint.mtp_tensors().any(|tensor| tensor.name == "mtp.fc.weight"));
    assert!(checkpoint.vision_tensors().any(|tensor| tensor.name == "model.visual.patch_embed.proj.bias"));
    let experts: u64 = loaded
        .experts
        .values()
        .flatten()
        .map(|expert| expert.gate.bytes() + expert.up.bytes() + expert.down.bytes())
        .sum();
    assert_eq!(experts, 4 * 16 * 3 * 64 * 128 * 2);
}

#[test]
fn mlx_q4_checkpoint_loads() {
    let (checkpoint, loaded) = both("mlx-q4");
    assert_eq!(checkpoint.layout(), "MLX safetensors, affine 4 bits, groups of 64, 8 modules otherwise");
    let affine = |bits| Encoding::Affine { bits, group: 64, params: Float::Bf16 };
    assert_eq!(loaded.matrices["layers.3.self_attn.q_proj"].encoding, affine(4));
    assert_eq!(loaded.matrices["layers.3.mlp.gate"].encoding, affine(8));
    assert_eq!(loaded.experts["layers.0.mlp"][5].down.encoding, affine(4));
}

#[test]
fn mlx_mixed_checkpoint_loads() {
    let (_, loaded) = both("mlx-mixed");
    let affine = |bits, group| Encoding::Affine { bits, group, params: Float::Bf16 };
    let expected = [
        ("embed_tokens", affine(4, 64)),
        ("layers.0.linear_attn.out_proj", affine(5, 128)),
        ("layers.1.mlp.shared_expert.up_proj", Encoding::Float(Float::Bf16)),
        ("lm_head", affine(6, 64)),
    ];
    for (name, encoding) in expected {
        assert_eq!(loaded.matrices[name].encoding, encoding, "{name}");
    }
    let down = |layer: &str| loaded.experts[&format!("layers.{layer}.mlp")][15].down.encoding;
    assert_eq!(down("0"), affine(6, 64));
    assert_eq!(down("1"), affine(3, 64));
    assert_eq!(down("2"), affine(5, 32));
    assert_eq!(down("3"), Encoding::Mxfp4);
}

/// mlx-lm stores `bf16(1 + w)` for zero-centred norms and moves the convolution's axes. What it made of the hub's
/// tensors must be what we make of them.
#[test]
fn vectors_agree_between_hub_and_mlx() {
    let (_, hub) = both("hf");
    for variant in ["mlx-q4", "mlx-mixed"] {
        let (_, mlx) = both(variant);
        assert_eq!(hub.vectors.len(), mlx.vectors.len());
        for (name, hub) in &hub.vectors {
            let rounded: Vec<f32> = hub.iter().copied().map(round_to_bf16).collect();
            // A_log and linear_attn.norm are float32 on the hub, and MLX keeps the former so.
            let same = mlx.vectors[name] == *hub || mlx.vectors[name] == rounded;
            assert!(same, "{variant} {name}: {:?} is not {hub:?}", mlx.vectors[name]);
        }
    }
}

/// Quantised weights are near the originals: no row, expert or projection has changed places.
#[test]
fn matrices_agree_between_hub_and_mlx() {
    let (hub_files, hub) = both("hf");
    // Error of the coarsest width in the file against the spread of the weights, for random numbers.
    for (variant, tolerance) in [("mlx-q4", 0.15), ("mlx-mixed", 0.6)] {
        let (mlx_files, mlx) = both(variant);
        let compare = |name: &str, a: &Matrix, b: &Matrix| {
            let (a, b) = (dequantize(&hub_files, a), dequantize(&mlx_files, b));
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x as f64 * x as f64).sum::<f64>().sqrt();
            let error = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied());
            assert!(error < tolerance, "{variant} {name}: relative error {error}");
        };
        assert_eq!(hub.matrices.len(), mlx.matrices.len());
        for (name, matrix) in &hub.matrices {
            compare(name, matrix, &mlx.matrices[name]);
        }
        for (name, experts) in &hub.experts {
            for (e, (a, b)) in experts.iter().zip(&mlx.experts[name]).enumerate() {
                compare(&format!("{name} expert {e} gate"), &a.gate, &b.gate);
                compare(&format!("{name} expert {e} up"), &a.up, &b.up);
                compare(&format!("{name} expert {e} down"), &a.down, &b.down);
            }
        }
    }
}

#[test]
fn demo_model_loads() {
    let checkpoint = open(&repository().join("models/demo")).unwrap();
    let loaded = load(&checkpoint).unwrap();
    assert_eq!(qwen(&checkpoint).decoder.num_hidden_layers, 8);
    assert_eq!(loaded.experts.len(), 8);
    assert_eq!(checkpoint.mtp_tensors().count(), 0);
}

fn round_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}
