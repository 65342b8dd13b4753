//! Engines on small models, and what a sequence is compared with.

use moeflux::{Engine, EngineOptions, Model, ModelOptions, Numbers, Sequence};

use super::{data, root};

/// `demo`, or a folder under `tests/data`.
pub(crate) fn model(name: &str) -> Model {
    let folder = if name == "demo" { root().join("models/demo") } else { data(name) };
    Model::open(&folder, &ModelOptions::default()).unwrap()
}

/// On one thread.
pub(crate) fn engine(name: &str, numbers: Numbers, prefill_chunk: usize) -> Engine {
    let prefill_chunk = Some(prefill_chunk);
    let options = EngineOptions { threads: 1, numbers, prefill_chunk, ..EngineOptions::default() };
    Engine::new(model(name), &options).unwrap()
}

/// On the first GPU.
#[cfg(feature = "gpu")]
pub(crate) fn on_gpu(name: &str, prefill_chunk: usize) -> Engine {
    let device = moeflux_gpu::Device::open(0).unwrap();
    let backend = moeflux::backend::gpu::GpuBackend::new(device).unwrap();
    let options = EngineOptions { prefill_chunk: Some(prefill_chunk), ..EngineOptions::default() };
    Engine::with_backend(model(name), Box::new(backend), &options).unwrap()
}

/// The same with half of the experts there; its shaders read the others in the host's memory.
#[cfg(feature = "gpu")]
pub(crate) fn on_small_gpu(name: &str, prefill_chunk: usize) -> Engine {
    use moeflux::backend::gpu::{GpuMemory, bytes_of_experts};
    use moeflux::experts::{ExpertOptions, HostCopy};
    let device = moeflux_gpu::Device::open(0).unwrap();
    let model = model(name);
    let memory = GpuMemory::Experts(bytes_of_experts(&model).unwrap() / 2);
    let experts = ExpertOptions { host_copy: HostCopy::Always, ..ExpertOptions::default() };
    let options = EngineOptions { prefill_chunk: Some(prefill_chunk), experts, ..EngineOptions::default() };
    Engine::on_gpu(model, device, memory, &options).unwrap()
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
