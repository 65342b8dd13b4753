//! Tensors that are not what the config implies.

use crate::fixture::{Fixture, assert_says};
use moeflux_checkpoint::Error;
use safetensors::Dtype;
use serde_json::json;

const Q_PROJ: &str = "model.layers.1.self_attn.q_proj.weight";
const MLX_GATE: &str = "language_model.model.layers.1.mlp.gate";

/// The error of a hub checkpoint after `change`.
fn hub(change: impl FnOnce(&mut Fixture)) -> Error {
    let mut fixture = Fixture::hub();
    change(&mut fixture);
    fixture.load().unwrap_err()
}

/// The error of an MLX checkpoint after `change`.
fn mlx(change: impl FnOnce(&mut Fixture)) -> Error {
    let mut fixture = Fixture::mlx();
    change(&mut fixture);
    fixture.load().unwrap_err()
}

#[test]
fn another_shape() {
    for (name, shape, expected) in [
        (Q_PROJ, &[16, 8][..], "[32, 8]"),
        ("model.norm.weight", &[9], "[8]"),
        ("model.layers.0.linear_attn.conv1d.weight", &[16, 1, 3], "[16, 1, 4]"),
        ("model.layers.0.linear_attn.A_log", &[2, 1], "[2]"),
        ("model.layers.1.mlp.experts.gate_up_proj", &[2, 4, 8], "[2, 8, 8]"),
        ("model.layers.1.mlp.experts.down_proj", &[2, 4, 8], "[2, 8, 4]"),
    ] {
        let error = hub(|fixture| fixture.add(name, shape));
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        assert_says(
            &error,
            &["model.safetensors", name, &format!("expected shape {expected}"), &format!("found {shape:?}")],
        );
    }
}

#[test]
fn a_convolution_in_the_other_layout() {
    // Only the second of two linear layers: the first decides the layout.
    let error = hub(|fixture| {
        fixture.config["num_hidden_layers"] = json!(3);
        fixture.config["layer_types"] = json!(["linear_attention", "full_attention", "linear_attention"]);
        let copies: Vec<_> = fixture
            .tensors
            .iter()
            .map(|(name, t)| (name.replace("layers.0.", "layers.2."), t.clone()))
            .collect();
        fixture.tensors.extend(copies);
        fixture.add("model.layers.2.linear_attn.conv1d.weight", &[16, 4, 1]);
    });
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    assert_says(&error, &["layers.2.linear_attn.conv1d.weight", "[16, 1, 4]", "[16, 4, 1]"]);
}

#[test]
fn another_dtype() {
    for name in [Q_PROJ, "model.norm.weight", "model.layers.0.mlp.experts.down_proj"] {
        let error = hub(|fixture| {
            let shape = fixture.tensors[name].shape.clone();
            fixture.add_as(name, &shape, Dtype::I32);
        });
        assert!(
            matches!(error, Error::Dtype { found: moeflux_checkpoint::Dtype::Other(Dtype::I32), .. }),
            "{error}"
        );
        assert_says(&error, &["model.safetensors", name, "expected dtype F32, F16 or BF16", "found I32"]);
    }
}

#[test]
fn missing() {
    for name in [
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.norm.weight",
        "model.layers.0.linear_attn.dt_bias",
        "model.layers.0.linear_attn.conv1d.weight",
        Q_PROJ,
        "model.layers.1.mlp.experts.down_proj",
    ] {
        let error = hub(|fixture| drop(fixture.remove(name)));
        assert!(matches!(error, Error::MissingTensor { .. }), "{error}");
        let named = name.trim_start_matches("model.");
        assert_says(&error, &[named, "is missing"]);
    }
    let error = hub(|fixture| drop(fixture.remove("model.layers.1.mlp.experts.gate_up_proj")));
    assert_says(&error, &["model.layers.1.mlp.experts.0.gate_proj.weight", "is missing"]);
}

#[test]
fn unexpected() {
    let error = hub(|fixture| fixture.add("model.layers.1.self_attn.q_proj.bias", &[32]));
    assert!(matches!(error, Error::UnexpectedTensors { count: 1, .. }), "{error}");
    assert_says(&error, &["model.safetensors", "found 1: model.layers.1.self_attn.q_proj.bias"]);

    // A layer more than the config has.
    let error = hub(|fixture| {
        for k in 0..9 {
            fixture.add(&format!("model.layers.2.tensor_{k}"), &[4]);
        }
    });
    assert!(matches!(error, Error::UnexpectedTensors { count: 9, .. }), "{error}");

    // An output projection of its own beside a tied embedding.
    let error = hub(|fixture| fixture.config["tie_word_embeddings"] = json!(true));
    assert!(matches!(error, Error::Untied { .. }), "{error}");
    assert_says(&error, &["tensor lm_head.weight", "the same bytes as model.embed_tokens.weight"]);
}

#[test]
fn scales_without_quantization() {
    let error = mlx(|fixture| drop(fixture.config.as_object_mut().unwrap().remove("quantization")));
    assert!(matches!(error, Error::ModuleQuantization { .. }), "{error}");
    assert_says(&error, &["model.safetensors", ".scales", "expected no scales", "found BF16"]);

    let error = mlx(|fixture| fixture.config["quantization"][MLX_GATE] = json!(false));
    assert!(matches!(error, Error::ModuleQuantization { .. }), "{error}");
    assert_says(&error, &[MLX_GATE, "expected no scales"]);
}

#[test]
fn quantised_module_without_its_parts() {
    let scales = format!("{MLX_GATE}.scales");
    let error = mlx(|fixture| drop(fixture.remove(&scales)));
    assert!(matches!(error, Error::MissingTensor { .. }), "{error}");
    assert_says(&error, &["model.safetensors", &scales]);

    let error = mlx(|fixture| drop(fixture.remove(&format!("{MLX_GATE}.biases"))));
    assert_says(&error, &[&format!("{MLX_GATE}.biases"), "is missing"]);

    // Named as quantised, stored as floats.
    let error = mlx(|fixture| {
        fixture.config["quantization"][MLX_GATE] = json!({"bits": 8, "group_size": 64});
        fixture.remove(&scales);
        fixture.remove(&format!("{MLX_GATE}.biases"));
        fixture.add(&format!("{MLX_GATE}.weight"), &[2, 64]);
    });
    assert!(matches!(error, Error::MissingTensor { .. }), "{error}");
    assert_says(&error, &[&scales]);
}

#[test]
fn quantised_module_of_another_width() {
    // Codes of 4 bits where the config says 8.
    let error =
        mlx(|fixture| fixture.config["quantization"][MLX_GATE] = json!({"bits": 8, "group_size": 64}));
    assert!(matches!(error, Error::ModuleQuantization { .. }), "{error}");
    assert_says(
        &error,
        &[
            "model.safetensors",
            &format!("{MLX_GATE}.weight"),
            "expected shape [2, 16] for affine 8 bits",
            "found [2, 8]",
        ],
    );

    // Groups of 32 in the config, of 64 in the file.
    let error =
        mlx(|fixture| fixture.config["quantization"][MLX_GATE] = json!({"bits": 4, "group_size": 32}));
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    assert_says(&error, &[&format!("{MLX_GATE}.scales"), "expected shape [2, 2]", "found [2, 1]"]);

    let error = mlx(|fixture| fixture.add(&format!("{MLX_GATE}.biases"), &[1, 1]));
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    assert_says(&error, &[&format!("{MLX_GATE}.biases"), "expected shape [2, 1]", "found [1, 1]"]);

    // Groups wider than a row.
    let error =
        mlx(|fixture| fixture.config["quantization"][MLX_GATE] = json!({"bits": 4, "group_size": 128}));
    assert!(matches!(error, Error::ModuleQuantization { .. }), "{error}");
    assert_says(&error, &[MLX_GATE, "a multiple of 128 columns", "found 64 columns"]);
}

#[test]
fn quantised_module_of_other_dtypes() {
    let part = |part: &str| format!("{MLX_GATE}.{part}");
    for (name, shape, dtype, says) in [
        ("weight", [2, 8], Dtype::I32, "expected dtype U32, found I32"),
        ("scales", [2, 1], Dtype::U8, "expected dtype F32, F16 or BF16, found U8"),
        ("biases", [2, 1], Dtype::F32, "expected dtype the same as its scales, found F32"),
    ] {
        let error = mlx(|fixture| fixture.add_as(&part(name), &shape, dtype));
        assert!(matches!(error, Error::Dtype { .. }), "{error}");
        assert_says(&error, &["model.safetensors", &part(name), says]);
    }
    let error = mlx(|fixture| fixture.config["quantization"][MLX_GATE] = json!({"mode": "mxfp4"}));
    assert_says(&error, &[&part("scales"), "expected dtype U8, found BF16"]);
}

#[test]
fn biases_that_a_mode_has_not() {
    let error = mlx(|fixture| {
        fixture.config["quantization"][MLX_GATE] = json!({"mode": "mxfp4"});
        fixture.add_as(&format!("{MLX_GATE}.scales"), &[2, 2], Dtype::U8);
    });
    assert!(matches!(error, Error::UnexpectedTensors { .. }), "{error}");
    assert_says(&error, &[&format!("{MLX_GATE}.biases")]);
}
