//! Models on a GPU: against other implementations, against the CPU, and with some of the experts only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::result_large_err)]

#[path = "../it/common/mod.rs"]
#[allow(dead_code, reason = "shared with the other binaries")]
mod common;
#[path = "../it/demo.rs"]
#[allow(dead_code, unused_imports, reason = "its tests on the CPU are in the other binary")]
mod demo;
mod families;
#[path = "../../../moeflux-wgpu/tests/harness/mod.rs"]
mod harness;
#[path = "../it/programs.rs"]
#[allow(dead_code, unused_imports, reason = "its tests on the CPU are in the other binary")]
mod programs;
#[path = "../../../../tests/property.rs"]
mod property;
mod streaming;

use std::sync::OnceLock;

use moeflux::backend::gpu::{GpuBackend, GpuMemory, bytes_of_experts};
use moeflux::experts::{ExpertOptions, HostCopy};
use moeflux::{Engine, EngineOptions};
use moeflux_wgpu::Device;

use common::engines::model;
use harness::test;

fn main() -> std::process::ExitCode {
    harness::run(vec![
        test!(families::families_agree_with_transformers),
        test!(families::bits_do_not_depend_on_chunks_or_batches),
        test!(streaming::budgets_change_no_bit),
        test!(streaming::a_step_that_fails_midway_fails_alone),
        test!(streaming::a_copy_on_the_host_needs_room_and_whole_files),
        test!(streaming::three_tiers_change_no_bit_and_a_fault_fails_its_step_alone),
        test!(streaming::memory_that_is_allowed_is_kept),
        test!(programs_change_no_bit),
        test!(ten_questions),
    ])
}

/// One device for all tests: its shaders are compiled once.
fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| Device::open(0).unwrap()).clone()
}

/// The random programs of the CPU's tests where states are in a device's memory: recurrent states, latents, sliding
/// windows; then with half of the experts there, while shaders read the others in the host's memory.
fn programs_change_no_bit() {
    for name in ["qwen3_next/mlx-q4", "deepseek_v3/mlx-q4", "gpt_oss/hf"] {
        let backend = GpuBackend::new(device()).unwrap();
        let options = EngineOptions { prefill_chunk: Some(40), ..EngineOptions::default() };
        let engine = Engine::with_backend(model(name), Box::new(backend), &options).unwrap();
        programs::programs_change_no_bit_of(engine, &format!("{name} on a GPU"), 3);
    }
    let name = "qwen3_next/mlx-q4";
    let memory = GpuMemory::Experts(bytes_of_experts(&model(name)).unwrap() / 2);
    let experts = ExpertOptions { host_copy: HostCopy::Always, ..ExpertOptions::default() };
    let options = EngineOptions { prefill_chunk: Some(40), experts, ..EngineOptions::default() };
    let engine = Engine::on_gpu(model(name), device(), memory, &options).unwrap();
    programs::programs_change_no_bit_of(engine, &format!("{name} with half of its experts on a GPU"), 3);
}

/// The demo's ten questions, with half of its experts on the GPU.
fn ten_questions() -> Result<(), Box<dyn std::error::Error>> {
    let memory = GpuMemory::Experts(bytes_of_experts(&demo::model()?)? / 2);
    let mut engine = Engine::on_gpu(demo::model()?, device(), memory, &EngineOptions::default())?;
    demo::seven_without_thinking(&mut engine)?;
    demo::two_with_thinking(&mut engine)?;
    demo::one_with_a_tool(&mut engine)?;
    let counters = engine.device_experts().map(|tally| tally.counters());
    assert!(counters.is_some_and(|counters| counters.hits > 0 && counters.misses > 0), "{counters:?}");
    Ok(())
}
