//! A device, random data, and how results are compared.

use std::sync::LazyLock;

use moeflux_kernels::ThreadPool;
use moeflux_wgpu::{Device, Encoder, View};

use crate::translate::translate;

pub(crate) static POOL: LazyLock<ThreadPool> = LazyLock::new(|| ThreadPool::new(1).unwrap());

/// The first device.
pub(crate) struct Gpu(pub(crate) Device);

impl Gpu {
    pub(crate) fn new() -> Self {
        Gpu(Device::open(0).unwrap())
    }

    pub(crate) fn up(&self, x: &[f32]) -> View {
        self.0.upload("test", x).unwrap()
    }

    pub(crate) fn up_u32(&self, x: &[u32]) -> View {
        self.0.upload("test", x).unwrap()
    }

    /// Memory with NaN in it: what is not written must not matter.
    pub(crate) fn out(&self, n: usize) -> View {
        self.up(&vec![f32::NAN; n])
    }

    pub(crate) fn run(&self, record: impl FnOnce(&mut Encoder<'_>)) {
        let mut enc = self.0.encoder();
        record(&mut enc);
        enc.submit().unwrap();
        self.0.wait("test").unwrap();
    }

    pub(crate) fn down(&self, x: &View) -> Vec<f32> {
        self.0.download(x).unwrap()
    }

    pub(crate) fn down_u32(&self, x: &View) -> Vec<u32> {
        self.0.download(x).unwrap()
    }
}

/// Whatever a test has run is translated for every API too.
impl Drop for Gpu {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for (program, source) in self.0.shaders() {
                translate(program, &source);
            }
        }
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Between -scale and scale.
    pub(crate) fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| ((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale).collect()
    }
}

/// The largest difference, relative to the largest value, is at most 1e-5.
pub(crate) fn assert_close(name: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let mut worst = 0.0f32;
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let difference = (a - e).abs();
        assert!(difference <= 1e-5 * largest, "{name}: {a} for {e} at {i} of {}", actual.len());
        worst = worst.max(difference);
    }
    println!("{name}: {:.1e}", worst / largest.max(f32::MIN_POSITIVE));
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}
