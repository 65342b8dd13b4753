//! Engines on small models, and what a sequence is compared with.

use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision, Sequence};

use super::{data, root};

/// `demo`, or a folder under `tests/data`.
pub(crate) fn model(name: &str) -> Model {
    let folder = if name == "demo" { root().join("models/demo") } else { data(name) };
    Model::open(&folder, &ModelOptions::default()).unwrap()
}

/// On one thread.
pub(crate) fn engine(name: &str, precision: Precision, prefill_chunk: usize) -> Engine {
    let prefill_chunk = Some(prefill_chunk);
    let options = EngineOptions { threads: 1, precision, prefill_chunk, ..EngineOptions::default() };
    Engine::new(model(name), &options).unwrap()
}

/// Noise.
pub(crate) fn prompt(n: usize, seed: u32) -> Vec<u32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % 500
        })
        .collect()
}

/// To compare.
pub(crate) fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// The logits after one token more, which tell of all states; the sequence stays.
pub(crate) fn probe(engine: &mut Engine, sequence: &Sequence) -> Vec<u32> {
    bits(&engine.eval(&mut sequence.fork(), &[3]).unwrap())
}

/// The same of a sequence that read these tokens only, at once.
pub(crate) fn fresh(engine: &mut Engine, tokens: &[u32]) -> Vec<u32> {
    let mut sequence = engine.sequence();
    bits(&engine.eval(&mut sequence, &[tokens, &[3]].concat()).unwrap())
}
