//! The GPU backend against the exact CPU backend and what transformers computed, on every family.

use crate::common::{Reference, argmax, data, max_diff};
use crate::device;
use moeflux::backend::gpu::GpuBackend;
use moeflux::engine::{Input, Outputs};
use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision};

/// On logits.
const TOLERANCE: f32 = 5e-4;

const CASES: &[(&str, &str)] = &[
    ("deepseek_v2", "hf"),
    ("deepseek_v3", "hf"),
    ("deepseek_v3", "mlx-q4"),
    ("deepseek_v3", "fp8-block"),
    ("glm4_moe", "hf"),
    ("gpt_oss", "hf"),
    ("llama", "hf"),
    ("mixtral", "hf"),
    ("olmoe", "hf"),
    ("qwen3", "hf"),
    ("qwen3_5_moe", "hf"),
    ("qwen3_5_moe", "mlx-q4"),
    ("qwen3_moe", "hf"),
    ("qwen3_moe", "mlx-q4"),
    ("qwen3_next", "hf"),
    ("qwen3_next", "mlx-q4"),
    ("qwen3_next", "gguf-q8_0"),
];

fn engine(family: &str, checkpoint: &str, prefill_chunk: usize) -> Engine {
    let model = Model::open(data(family).join(checkpoint), &ModelOptions::default()).unwrap();
    let backend = GpuBackend::new(device()).unwrap();
    let options = EngineOptions {
        precision: Precision::Exact,
        prefill_chunk: Some(prefill_chunk),
        ..EngineOptions::default()
    };
    Engine::with_backend(model, Box::new(backend), &options).unwrap()
}

pub(crate) fn families_agree_with_transformers() {
    let mut failures = Vec::new();
    for &(family, checkpoint) in CASES {
        let reference = Reference::open(&data(family).join(format!("ref_{checkpoint}.safetensors")));
        let mut engine = engine(family, checkpoint, 512);
        for prompt in 0..3 {
            let key = |name: &str| format!("p{prompt}.{name}");
            let Some(expected) = reference.try_floats(&key("logits")) else { continue };
            let ids = reference.ints(&key("ids"));
            let mut sequence = engine.sequence();
            let logits = engine.eval_all(&mut sequence, ids).unwrap();
            let difference = max_diff(&logits, expected);
            println!("{family}/{checkpoint} p{prompt}: {difference:.1e}");
            if difference > TOLERANCE {
                failures.push(format!("{family}/{checkpoint} p{prompt}: {difference}"));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Any chunks, one token at a time, and two sequences in a step: the same bits.
pub(crate) fn bits_do_not_depend_on_chunks_or_batches() {
    for (family, checkpoint) in
        [("qwen3_next", "mlx-q4"), ("deepseek_v3", "mlx-q4"), ("gpt_oss", "hf"), ("qwen3_moe", "mlx-q4")]
    {
        let reference = Reference::open(&data(family).join(format!("ref_{checkpoint}.safetensors")));
        let ids = reference.ints("p1.ids");
        let ids = &ids[..ids.len().min(70)];
        let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let mut whole = engine(family, checkpoint, 512);
        let mut sequence = whole.sequence();
        let expected = whole.eval_all(&mut sequence, ids).unwrap();
        for chunk in [1, 13] {
            let mut engine = engine(family, checkpoint, chunk);
            let mut sequence = engine.sequence();
            let logits = engine.eval_all(&mut sequence, ids).unwrap();
            assert!(bits(&logits) == bits(&expected), "{family}/{checkpoint}: chunks of {chunk}");
        }
        let (mut a, mut b) = (whole.sequence(), whole.sequence());
        let inputs = &mut [&mut a, &mut b].map(|sequence| Input {
            sequence,
            tokens: ids,
            positions: None,
            outputs: Outputs::All,
        });
        let logits = whole.step(inputs, None).unwrap();
        assert!(bits(logits) == [bits(&expected), bits(&expected)].concat(), "{family}/{checkpoint}: two");
        let vocab = expected.len() / ids.len();
        let token = argmax(&expected[expected.len() - vocab..]);
        let next = whole.eval(&mut sequence, &[token]).unwrap();
        let again = whole.eval(&mut a, &[token]).unwrap();
        assert!(bits(&next) == bits(&again), "{family}/{checkpoint}: decode");
    }
}
