//! Every reference case against what transformers computed in float32: logits, hidden states, mixer and MLP outputs,
//! router choices, states, cached greedy decode, M-RoPE. One driver; a case is a checkpoint and its reference file.

use std::collections::HashMap;
use std::path::Path;

use crate::common::{Reference, argmax, copy_with, data, max_abs, max_diff, root};
use crate::table::{HEAD, RULE, Row};
use moeflux::backend::{Data, Observer};
use moeflux::engine::{Input, Outputs};
use moeflux::graph::{StateSpec, TensorInfo};
use moeflux::sequence::State;
use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision, Sequence};
use serde_json::{Value, json};

/// On logits, and relative to the tensor's magnitude on everything inside the model.
const TOLERANCE: f32 = 2e-4;
/// On router weights.
const ROUTER_TOLERANCE: f32 = 1e-5;

/// A checkpoint of a family, `tests/data/{family}/{checkpoint}`, and what transformers made of it,
/// `tests/data/{family}/ref_{checkpoint}.safetensors`.
struct Case {
    family: &'static str,
    checkpoint: &'static str,
}

const CASES: &[Case] = &[
    Case { family: "deepseek_v2", checkpoint: "hf" },
    Case { family: "deepseek_v2", checkpoint: "gguf-q8_0" },
    Case { family: "deepseek_v3", checkpoint: "hf" },
    Case { family: "deepseek_v3", checkpoint: "mlx-q4" },
    Case { family: "deepseek_v3", checkpoint: "fp8-block" },
    Case { family: "deepseek_v3", checkpoint: "gguf-q8_0" },
    Case { family: "glm4_moe", checkpoint: "hf" },
    Case { family: "glm4_moe", checkpoint: "gguf-q8_0" },
    Case { family: "gpt_oss", checkpoint: "hf" },
    Case { family: "gpt_oss", checkpoint: "gguf-q8_0" },
    Case { family: "llama", checkpoint: "hf" },
    Case { family: "mixtral", checkpoint: "hf" },
    Case { family: "mixtral", checkpoint: "gguf-q8_0" },
    Case { family: "olmoe", checkpoint: "hf" },
    Case { family: "olmoe", checkpoint: "gguf-q8_0" },
    Case { family: "qwen2", checkpoint: "hf" },
    Case { family: "qwen3", checkpoint: "hf" },
    Case { family: "qwen3_5", checkpoint: "hf" },
    Case { family: "qwen3_5_moe", checkpoint: "hf" },
    Case { family: "qwen3_5_moe", checkpoint: "mlx-q4" },
    Case { family: "qwen3_5_moe", checkpoint: "mlx-mixed" },
    Case { family: "qwen3_5_moe", checkpoint: "gguf-q8_0" },
    Case { family: "qwen3_moe", checkpoint: "hf" },
    Case { family: "qwen3_moe", checkpoint: "mlx-q4" },
    Case { family: "qwen3_moe", checkpoint: "fp8-channel" },
    Case { family: "qwen3_moe", checkpoint: "gguf-q8_0" },
    Case { family: "qwen3_next", checkpoint: "hf" },
    Case { family: "qwen3_next", checkpoint: "mlx-q4" },
    Case { family: "qwen3_next", checkpoint: "gguf-q8_0" },
];

/// The weights of a family's hub checkpoint with other values in its config; the references are made by
/// `tools/reference/variant.py`.
fn variants() -> [(&'static str, &'static str, Value); 5] {
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    let groups = json!({
        "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5,
    });
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    });
    let mistral = json!({
        "model_type": "mistral", "sliding_window": 24, "rope_scaling": {"type": "linear", "factor": 2.0},
    });
    let layer_types = json!({
        "use_sliding_window": true, "sliding_window": 24,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_theta": null,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    });
    [
        ("llama", "llama3", json!({ "rope_scaling": llama3 })),
        ("llama", "mistral", mistral),
        ("qwen3", "layer-types", layer_types),
        ("qwen3_moe", "yarn", json!({ "rope_scaling": yarn })),
        ("deepseek_v2", "groups", groups),
    ]
}

/// Every case, and the table in `docs/reference/correctness.md` is what they came to. To renew it, copy what this prints.
#[test]
fn cases_agree_with_transformers() {
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for Case { family, checkpoint } in CASES {
        let folder = data(family).join(checkpoint);
        rows.push(compare(&folder, family, checkpoint, checkpoint, &mut failures));
        if *checkpoint == "gguf-q8_0" {
            // The same weights, written as F32.
            let folder = crate::float_gguf::folder(&folder.join("model.gguf"));
            rows.push(compare(folder.path(), family, "gguf-f32", checkpoint, &mut failures));
        }
    }
    for (family, name, changes) in variants() {
        let folder = copy_with(&data(family).join("hf"), &changes);
        rows.push(compare(folder.path(), family, name, name, &mut failures));
    }
    println!("\n{HEAD}\n{RULE}");
    for row in &rows {
        println!("{row}");
    }
    let documented = std::fs::read_to_string(root().join("docs/reference/correctness.md")).unwrap();
    failures.extend(crate::table::differences(&rows, &documented));
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Compares all prompts of the checkpoint in `folder` with the reference of this name.
fn compare(folder: &Path, family: &str, name: &str, reference: &str, failures: &mut Vec<String>) -> Row {
    let reference = Reference::open(&data(family).join(format!("ref_{reference}.safetensors")));
    let model = Model::open(folder, &ModelOptions::default()).unwrap();
    let mut engine =
        Engine::new(model, &EngineOptions { precision: Precision::Exact, ..EngineOptions::default() })
            .unwrap();
    let mut row = Row::new(family, name);
    let mut prompts: Vec<String> = (0..5).map(|prompt| format!("p{prompt}")).collect();
    prompts.extend(reference.try_ints("mrope.ids").map(|_| "mrope".to_owned()));
    for prompt in prompts {
        let (name, key) = (format!("{family}/{name} {prompt}"), format!("{prompt}."));
        Prompt { name, key, reference: &reference }.run(&mut engine, &mut row, failures);
    }
    row
}

/// One prompt of a case; its tensors begin with `key`.
struct Prompt<'a> {
    name: String,
    key: String,
    reference: &'a Reference,
}

impl Prompt<'_> {
    fn run(&self, engine: &mut Engine, row: &mut Row, failures: &mut Vec<String>) {
        let ids = self.reference.ints(&self.key("ids"));
        let positions = self.positions(ids.len());
        let mut sequence = engine.sequence();
        let mut tensors = Recorder::default();
        let input = Input {
            sequence: &mut sequence,
            tokens: ids,
            positions: positions.as_deref(),
            outputs: Outputs::All,
        };
        let logits = engine.step(&mut [input], Some(&mut tensors)).unwrap().to_vec();

        // Of the longest prompt some references keep only what is chosen after it.
        let expected = self.reference.try_floats(&self.key("logits"));
        assert!(
            expected.is_some() || self.reference.try_ints(&self.key("greedy")).is_some(),
            "{}",
            self.name
        );
        let prefill = expected.map(|expected| max_diff(&logits, expected));
        let inside = self.compare_inside(engine, &tensors, &sequence, failures);
        let decode = self.compare_decode(engine, &mut sequence, &logits, row, failures);
        for (what, found, worst) in [
            ("prefill logits", prefill, &mut row.prefill),
            ("decode logits", decode, &mut row.decode),
            ("inside", inside, &mut row.inside),
        ] {
            let Some(found) = found else { continue };
            *worst = Some(worst.unwrap_or(0.0).max(found));
            if found > TOLERANCE {
                failures.push(format!("{}: {what} differ by {found:e}", self.name));
            }
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.key)
    }

    /// The reference has `[3, n_tokens]`, and only where they are not text's.
    fn positions(&self, n: usize) -> Option<Vec<[u32; 3]>> {
        let axes = self.reference.try_ints(&self.key("position_ids"))?;
        Some((0..n).map(|t| [axes[t], axes[n + t], axes[2 * n + t]]).collect())
    }

    /// The worst difference of any tensor between the layers, relative to the reference's magnitude (at least 1), if
    /// the reference has any.
    fn compare_inside(
        &self,
        engine: &Engine,
        tensors: &Recorder,
        sequence: &Sequence,
        failures: &mut Vec<String>,
    ) -> Option<f32> {
        let mut worst: Option<f32> = None;
        let mut compare = |name: &str, found: &[f32], failures: &mut Vec<String>| {
            if let Some(expected) = self.reference.try_floats(&self.key(name)) {
                let relative = max_diff(found, expected) / max_abs(expected).max(1.0);
                worst = Some(worst.unwrap_or(0.0).max(relative));
                if relative > TOLERANCE {
                    failures.push(format!("{}: {name} differs by {relative:e}", self.name));
                }
            }
        };
        compare("final_norm", tensors.floats("final_norm"), failures);
        compare("embed", tensors.floats("hidden"), failures);
        let layers = engine.model().config().num_hidden_layers();
        for layer in 0..layers {
            for name in ["hidden", "mixer_out", "mlp_out", "router_logits"] {
                let found = tensors.floats(&format!("layers.{layer}.{name}"));
                compare(&format!("layer{layer}.{name}"), found, failures);
            }
            self.compare_router(layer, tensors, failures);
        }
        for (layer, states) in recurrent_states(engine, sequence) {
            let [conv, delta] = states;
            compare(&format!("layer{layer}.recurrent_states"), delta, failures);
            let expected = self.reference.try_floats(&self.key(&format!("layer{layer}.conv_states")));
            if let Some(expected) = expected {
                let found = conv_as_reference(conv, expected);
                compare(&format!("layer{layer}.conv_states"), &found, failures);
            }
        }
        worst
    }

    /// Choices as sets, and the weight of each.
    fn compare_router(&self, layer: usize, tensors: &Recorder, failures: &mut Vec<String>) {
        let Some(expected) = self.reference.try_ints(&self.key(&format!("layer{layer}.router_indices")))
        else {
            return;
        };
        let found = tensors.ints(&format!("layers.{layer}.router_indices"));
        let found_weights = tensors.floats(&format!("layers.{layer}.router_weights"));
        let expected_weights = self.reference.try_floats(&self.key(&format!("layer{layer}.router_weights")));
        assert_eq!(found.len(), expected.len(), "{}: layer {layer}: number of choices", self.name);
        let k = tensors.cols(&format!("layers.{layer}.router_indices"));
        for token in 0..found.len() / k {
            let row = token * k..(token + 1) * k;
            let by_expert = |ids: &[u32], weights: Option<&[f32]>| {
                let weight = |slot: usize| weights.map_or(0.0, |weights| weights[row.start + slot]);
                let mut choice: Vec<_> =
                    ids[row.clone()].iter().enumerate().map(|(slot, &id)| (id, weight(slot))).collect();
                choice.sort_by_key(|&(id, _)| id);
                choice
            };
            let found = by_expert(found, expected_weights.map(|_| found_weights));
            let expected = by_expert(expected, expected_weights);
            let same = found.len() == expected.len()
                && found
                    .iter()
                    .zip(&expected)
                    .all(|(f, e)| f.0 == e.0 && (f.1 - e.1).abs() <= ROUTER_TOLERANCE);
            if !same {
                failures.push(format!(
                    "{}: layer {layer}, token {token}: the router chose {found:?}, expected {expected:?}",
                    self.name
                ));
            }
        }
    }

    /// Sixteen greedy tokens with the cache; the worst difference of their logits where the reference has them.
    fn compare_decode(
        &self,
        engine: &mut Engine,
        sequence: &mut Sequence,
        logits: &[f32],
        row: &mut Row,
        failures: &mut Vec<String>,
    ) -> Option<f32> {
        let expected = self.reference.try_ints(&self.key("greedy"))?;
        let vocab_size = engine.model().vocab_size();
        let mut token = argmax(&logits[logits.len() - vocab_size..]);
        let (mut tokens, mut rows) = (Vec::new(), Vec::new());
        for _ in expected {
            tokens.push(token);
            let logits = engine.eval(sequence, &[token]).unwrap();
            token = argmax(&logits);
            rows.extend(logits);
        }
        row.greedy.1 += 1;
        if tokens == expected {
            row.greedy.0 += 1;
        } else {
            failures.push(format!("{}: greedy tokens {tokens:?}, expected {expected:?}", self.name));
        }
        self.reference.try_floats(&self.key("greedy_logits")).map(|expected| max_diff(&rows, expected))
    }
}

/// Convolution and delta-rule state of each linear layer after the last step.
fn recurrent_states<'a>(engine: &Engine, sequence: &'a Sequence) -> Vec<(usize, [&'a [f32]; 2])> {
    let specs = engine.model().weights().states();
    let mut layers = Vec::new();
    let (mut layer, mut index) = (0, 0);
    while index < specs.len() {
        match (&specs[index], &sequence.states()[index..]) {
            (StateSpec::Recurrent { .. }, [State::Recurrent(conv), State::Recurrent(delta), ..]) => {
                layers.push((layer, [conv.current(), delta.current()]));
                index += 2;
            }
            _ => index += 1,
        }
        layer += 1;
    }
    layers
}

/// The reference keeps four inputs a channel, `[channels, 4]`, of which the oldest is never read again; ours is
/// `[3, channels]`.
fn conv_as_reference(conv: &[f32], expected: &[f32]) -> Vec<f32> {
    let channels = expected.len() / 4;
    let mut found = expected.to_vec();
    for channel in 0..channels {
        for tap in 0..3 {
            found[channel * 4 + 1 + tap] = conv[tap * channels + channel];
        }
    }
    found
}

/// Keeps every tensor of a run by its label.
#[derive(Default)]
struct Recorder {
    floats: HashMap<String, Vec<f32>>,
    ints: HashMap<String, Vec<u32>>,
    cols: HashMap<String, usize>,
}

impl Observer for Recorder {
    fn wrote(&mut self, tensor: &TensorInfo, data: Data<'_>) {
        self.cols.insert(tensor.label.clone(), tensor.cols);
        match data {
            Data::F32(values) => drop(self.floats.insert(tensor.label.clone(), values.to_vec())),
            Data::U32(values) => drop(self.ints.insert(tensor.label.clone(), values.to_vec())),
        }
    }
}

impl Recorder {
    /// Nothing if the graph has no such tensor, which then differs from any that the reference has.
    fn floats(&self, label: &str) -> &[f32] {
        self.floats.get(label).map_or(&[], Vec::as_slice)
    }

    fn ints(&self, label: &str) -> &[u32] {
        self.ints.get(label).unwrap_or_else(|| panic!("the graph has no {label}"))
    }

    fn cols(&self, label: &str) -> usize {
        self.cols[label]
    }
}
