//! A model of which a GPU holds some of the experts gives the bits of one that is there as a whole, and an expert that
//! cannot be read fails its step and nothing else.

use std::sync::Arc;

use crate::common::{Reference, data};
use crate::device;
use moeflux::backend::BackendError;
use moeflux::backend::gpu::{GpuMemory, HostCopyError, bytes_of_experts};
use moeflux::experts::faults::{Fault, Faults};
use moeflux::experts::{ExpertOptions, HostCopy, StoreError, StoreOptions, Through};
use moeflux::placement::{MemoryRequest, needs};
use moeflux::{Engine, EngineOptions, Error, Model, ModelOptions, Precision};
use moeflux_wgpu::Device;

const CASES: &[(&str, &str)] = &[
    ("deepseek_v2", "hf"),
    ("deepseek_v3", "mlx-q4"),
    ("deepseek_v3", "fp8-block"),
    ("glm4_moe", "hf"),
    ("gpt_oss", "hf"),
    ("mixtral", "hf"),
    ("olmoe", "hf"),
    ("qwen3_5_moe", "mlx-q4"),
    // Experts in several encodings.
    ("qwen3_5_moe", "mlx-mixed"),
    ("qwen3_moe", "hf"),
    ("qwen3_next", "gguf-q8_0"),
];

/// Tokens of a prompt in one step: enough that choices are grouped, and one token at a time comes after them.
const PROMPT: usize = 40;
const TOKENS: usize = 44;

fn model(family: &str, checkpoint: &str) -> Model {
    Model::open(data(family).join(checkpoint), &ModelOptions::default()).unwrap()
}

fn options(experts: ExpertOptions) -> EngineOptions {
    EngineOptions {
        precision: Precision::Exact,
        prefill_chunk: Some(PROMPT),
        experts,
        ..EngineOptions::default()
    }
}

fn tokens(family: &str, checkpoint: &str) -> Vec<u32> {
    let reference = Reference::open(&data(family).join(format!("ref_{checkpoint}.safetensors")));
    let ids = ["p1.ids", "p0.ids", "p2.ids"].into_iter().find_map(|name| reference.try_ints(name)).unwrap();
    ids.iter().copied().cycle().take(TOKENS).collect()
}

/// Bits of the logits of a prompt in one step and of each token after it.
fn logits(engine: &mut Engine, tokens: &[u32]) -> Vec<u32> {
    let mut sequence = engine.sequence();
    let mut logits = engine.eval_all(&mut sequence, &tokens[..PROMPT]).unwrap();
    for token in &tokens[PROMPT..] {
        logits.extend(engine.eval(&mut sequence, &[*token]).unwrap());
    }
    logits.into_iter().map(f32::to_bits).collect()
}

/// An engine with places for so many bytes of experts, or for those of one token if that is more.
fn streamed(family: &str, checkpoint: &str, bytes: u64, options: &EngineOptions) -> Engine {
    let open =
        |bytes| Engine::on_gpu(model(family, checkpoint), device(), GpuMemory::Experts(bytes), options);
    match open(bytes) {
        Err(Error::GpuMemory(least)) => {
            assert!(least.given < least.needed && least.needed == least.least_experts, "{least}");
            open(least.needed).unwrap()
        }
        opened => opened.unwrap(),
    }
}

/// Whether shaders read the other experts in the host's memory, or are sent them.
const WAYS: [HostCopy; 2] = [HostCopy::Always, HostCopy::Never];

pub(crate) fn budgets_change_no_bit() {
    let options_of = |host_copy| options(ExpertOptions { host_copy, ..ExpertOptions::default() });
    for &(family, checkpoint) in CASES {
        let tokens = tokens(family, checkpoint);
        let options = options_of(HostCopy::Auto);
        let open = Engine::on_gpu(model(family, checkpoint), device(), GpuMemory::Free, &options);
        let mut whole = open.unwrap();
        assert!(whole.device_experts().is_none());
        let expected = logits(&mut whole, &tokens);
        let all = bytes_of_experts(whole.model()).unwrap();
        drop(whole);
        for (percent, host_copy) in [10, 25, 50, 100].into_iter().flat_map(|of| WAYS.map(|way| (of, way))) {
            let what = format!("{family}/{checkpoint}, {percent} %, a copy on the host: {host_copy:?}");
            let mut engine = streamed(family, checkpoint, all * percent / 100, &options_of(host_copy));
            assert!(logits(&mut engine, &tokens) == expected, "{what}");
            let counters = engine.device_experts().unwrap().counters();
            assert_eq!(counters.host_copy > 0, host_copy == HostCopy::Always, "{what}");
            assert!(counters.misses > 0 && counters.bytes <= all, "{what}: {counters:?}");
            assert!(counters.bytes_uploaded >= counters.bytes.min(all / 2), "{what}: {counters:?}");
            assert!(counters.placed <= counters.misses, "{what}: {counters:?}");
            if percent == 100 {
                // Nothing comes twice.
                let once = all.max(counters.host_copy);
                assert!(
                    counters.hits > 0 && counters.bytes == all && counters.bytes_uploaded <= once,
                    "{what}: {counters:?}"
                );
                assert_eq!(counters.placed, counters.misses, "{what}: {counters:?}");
            }
        }
    }
}

/// A step that ends early leaves places of which nobody knows who is in them.
pub(crate) fn a_step_that_fails_midway_fails_alone() {
    let (family, checkpoint) = ("qwen3_next", "gguf-q8_0");
    let tokens = tokens(family, checkpoint);
    let experts = ExpertOptions { host_copy: HostCopy::Always, ..ExpertOptions::default() };
    let device = Device::open(0).unwrap();
    let open = model(family, checkpoint);
    let budget = bytes_of_experts(&open).unwrap() / 2;
    let mut engine =
        Engine::on_gpu(open, device.clone(), GpuMemory::Experts(budget), &options(experts)).unwrap();
    let expected = logits(&mut engine, &tokens);
    let mut failed = 0;
    for more in 8.. {
        // Memory ends with a state of this layer or that.
        device.limit_memory(device.held_bytes() + (1 << more));
        let mut sequence = engine.sequence();
        let step = engine.eval(&mut sequence, &tokens[..2]);
        device.limit_memory(u64::MAX);
        match step {
            Err(Error::Backend(BackendError::Gpu(_))) => failed += 1,
            Err(other) => panic!("{other:?}"),
            Ok(_) => break,
        }
        assert_eq!(sequence.len(), 0);
        assert!(logits(&mut engine, &tokens) == expected, "after 2^{more} bytes");
    }
    assert!(failed > 2, "{failed}");
}

pub(crate) fn a_copy_on_the_host_needs_room_and_whole_files() {
    let (family, checkpoint) = ("qwen3_moe", "hf");
    let all = bytes_of_experts(&model(family, checkpoint)).unwrap();
    let open = |host_copy, memory, store| {
        let experts = ExpertOptions { host_copy, memory, store, ..ExpertOptions::default() };
        let memory = GpuMemory::Experts(all / 2);
        Engine::on_gpu(model(family, checkpoint), device(), memory, &options(experts))
    };
    let little = MemoryRequest { process: None, experts: Some(all / 2) };
    assert!(open(HostCopy::Auto, little, StoreOptions::new(0)).unwrap().experts().is_some());
    match open(HostCopy::Always, little, StoreOptions::new(0)) {
        Err(Error::HostCopy(HostCopyError::NoRoom { needed })) => assert!(needed >= all),
        other => panic!("{other:?}"),
    }
    for host_copy in [HostCopy::Auto, HostCopy::Always] {
        let faults = Faults::new(|read| (read >= 7).then_some(Fault::Error(5)));
        let through: Through = Arc::new(move |file| faults.clone().before(file));
        let store = StoreOptions { through: Some(through), ..StoreOptions::new(0) };
        match open(host_copy, MemoryRequest::default(), store) {
            Err(Error::Experts(error)) => match *error {
                StoreError::Read { layer, path, source, .. } => {
                    assert!(layer.contains("experts") && path.exists(), "{layer}");
                    assert_eq!(source.raw_os_error(), Some(5));
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    assert!(open(HostCopy::Always, MemoryRequest::default(), StoreOptions::new(0)).is_ok());
}

/// GPU, the host's memory, files: each holds some of the experts.
pub(crate) fn three_tiers_change_no_bit_and_a_fault_fails_its_step_alone() {
    for (family, checkpoint) in [("qwen3_5_moe", "mlx-q4"), ("qwen3_moe", "hf")] {
        let tokens = tokens(family, checkpoint);
        let open = model(family, checkpoint);
        let all = bytes_of_experts(&open).unwrap();
        let expected = {
            let whole = Engine::on_gpu(open, device(), GpuMemory::Free, &options(ExpertOptions::default()));
            logits(&mut whole.unwrap(), &tokens)
        };
        let faults = Faults::new(|_| None);
        let through: Through = {
            let faults = faults.clone();
            Arc::new(move |file| faults.clone().before(file))
        };
        let store = StoreOptions { through: Some(through), ..StoreOptions::new(0) };
        let budget = needs(&model(family, checkpoint), 8, 0).unwrap().least_experts;
        let memory = MemoryRequest { process: None, experts: Some(budget) };
        let experts = ExpertOptions { memory, store, ..ExpertOptions::default() };
        let mut engine = streamed(family, checkpoint, all / 4, &options(experts));
        assert!(engine.experts().is_some());
        assert!(logits(&mut engine, &tokens) == expected, "{family}/{checkpoint}");
        let reads = faults.reads();
        assert!(reads > 20, "{reads}");
        for nth in [0, 1, 7, reads / 4] {
            let first = faults.reads();
            faults.set(move |read| (read - first >= nth).then_some(Fault::Error(5)));
            let mut sequence = engine.sequence();
            match engine.eval(&mut sequence, &tokens[..PROMPT]).unwrap_err() {
                Error::Backend(BackendError::Experts(error)) => match *error {
                    StoreError::Read { layer, path, source, .. } => {
                        assert!(layer.contains("experts") && path.exists(), "{layer}");
                        assert_eq!(source.raw_os_error(), Some(5));
                    }
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
            assert_eq!(sequence.len(), 0);
            faults.set(|_| None);
            assert!(
                logits(&mut engine, &tokens) == expected,
                "{family}/{checkpoint}: after read {nth} failed"
            );
        }
    }
}

/// All that the backend holds, not only experts.
pub(crate) fn memory_that_is_allowed_is_kept() {
    let (family, checkpoint) = ("qwen3_5_moe", "hf");
    let tokens = tokens(family, checkpoint);
    for host_copy in WAYS {
        let options = options(ExpertOptions { context: 1024, host_copy, ..ExpertOptions::default() });
        let device = Device::open(0).unwrap();
        let open = |bytes| {
            Engine::on_gpu(model(family, checkpoint), device.clone(), GpuMemory::Bytes(bytes), &options)
        };
        let expected = logits(&mut open(u64::MAX / 2).unwrap(), &tokens);
        let error = match open(1 << 20) {
            Err(Error::GpuMemory(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(error.given, 1 << 20);
        let parts = error.dense + error.transient + error.sequence + error.least_experts;
        assert!(error.needed == parts && error.to_string().contains(&error.needed.to_string()), "{error}");
        assert!(
            matches!(open(error.needed - 1), Err(Error::GpuMemory(again)) if again.needed == error.needed)
        );
        let mut engine = open(error.needed).unwrap();
        assert!(logits(&mut engine, &tokens) == expected);
        let counters = engine.device_experts().unwrap().counters();
        assert!(counters.bytes <= error.least_experts, "{counters:?}");
        assert!(counters.misses > counters.places && device.held_bytes() <= error.needed, "{counters:?}");
    }
}
