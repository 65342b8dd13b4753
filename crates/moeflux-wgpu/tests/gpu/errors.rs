use std::time::{Duration, Instant};

use moeflux_wgpu::{Device, GpuError, Program};

use crate::support::Gpu;

pub(crate) fn a_shader_that_does_not_compile_is_named() {
    static WRONG: Program = Program {
        name: "wrong",
        entry: "main",
        source: &["@compute @workgroup_size(1) fn main() { let x: u32 = 1.0; }"],
    };
    let gpu = Gpu::new();
    let (a, y) = (gpu.up(&[1.0, 2.0]), gpu.out(2));
    let mut enc = gpu.0.encoder();
    enc.dispatch(&WRONG, &[], &[], &[], [1, 1, 1]);
    moeflux_wgpu::add(&mut enc, &a, &a, &y);
    match enc.submit() {
        Err(GpuError::Compile { op, cause }) => {
            assert_eq!(op, "wrong");
            assert!(!cause.is_empty());
        }
        other => panic!("{other:?}"),
    }
    // The device goes on.
    gpu.run(|enc| moeflux_wgpu::add(enc, &a, &a, &y));
    assert_eq!(gpu.down(&y), [2.0, 4.0]);
}

pub(crate) fn what_is_too_large_is_named() {
    let gpu = Gpu::new();
    let limit = gpu.0.info().binding_limit;
    match gpu.0.alloc("a matrix", limit as usize / 4 + 1) {
        Err(GpuError::BufferTooLarge { what, bytes, limit: found }) => {
            assert_eq!((what.as_str(), bytes, found), ("a matrix", limit / 4 * 4 + 4, limit));
        }
        other => panic!("{other:?}"),
    }
    gpu.0.alloc("a vector", 16).unwrap();
}

pub(crate) fn more_memory_than_allowed_is_none() {
    let gpu = Gpu::new();
    let before = gpu.0.held_bytes();
    let held = gpu.0.alloc("held", 1000).unwrap();
    assert_eq!(gpu.0.held_bytes(), before + 4000);
    gpu.0.limit_memory(before + 6000);
    match gpu.0.alloc("a cache", 1000) {
        Err(GpuError::OutOfMemory { what, bytes: 4000 }) => assert_eq!(what, "a cache"),
        other => panic!("{other:?}"),
    }
    drop(held);
    gpu.0.alloc("a cache", 1000).unwrap();
}

pub(crate) fn a_device_that_is_not_there() {
    match Device::open(99) {
        Err(GpuError::NoDevice { index: 99, found }) => assert_eq!(found, moeflux_wgpu::devices().len()),
        other => panic!("{:?}", other.map(|device| device.info().clone())),
    }
}

pub(crate) fn a_lost_device_is_an_error_and_no_hang() {
    let start = Instant::now();
    let gpu = Gpu::new();
    let (a, y) = (gpu.up(&[1.0]), gpu.out(1));
    gpu.0.destroy();
    let mut enc = gpu.0.encoder();
    moeflux_wgpu::add(&mut enc, &a, &a, &y);
    let outcome = enc.submit().and_then(|()| gpu.0.download::<f32>(&y).map(|_| ()));
    assert!(matches!(outcome, Err(GpuError::Lost { .. } | GpuError::Failed { .. })), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_mins(1));
}
