//! What a device can do at most, measured.

use std::time::Instant;

use moeflux_kernels::ThreadPool;

use crate::device::Device;
use crate::{Encoder, GpuError, Program, Uploads, View};

static READ: Program =
    Program { name: "read_bandwidth", entry: "main", source: &[include_str!("limits.wgsl")] };

/// Bytes that are read, of which no cache holds many; less where they cannot be bound.
const BYTES: u64 = 1 << 30;
const LEAST_SECONDS: f64 = 0.05;
const LANES: usize = 256;
/// Vectors of four words that an invocation reads.
const EACH: usize = 16;

/// Bytes a second that shaders read from the device's memory.
pub fn read_bandwidth(device: &Device) -> Result<f64, GpuError> {
    let info = device.info();
    // A processor has less to spare.
    let most = if info.is_cpu { BYTES / 16 } else { BYTES.min(info.memory.unwrap_or(BYTES) / 4) };
    let from = device.alloc(WHAT, words(device, most))?;
    by_shaders(device, &from)
}

/// What comes from the host's memory to the device's, in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkBandwidth {
    /// What shaders read.
    pub read: f64,
    /// What copies bring.
    pub copied: f64,
}

impl LinkBandwidth {
    /// What the link is able to.
    pub fn most(&self) -> f64 {
        self.read.max(self.copied)
    }
}

/// Bytes a second that a device has from [memory of the host](Device::alloc_on_host).
pub fn link_bandwidth(device: &Device) -> Result<LinkBandwidth, GpuError> {
    let most = if device.info().is_cpu { LINK_BYTES / 4 } else { LINK_BYTES };
    let from = device.alloc_on_host(WHAT, words(device, most))?;
    let read = by_shaders(device, &from)?;
    let to = device.alloc(WHAT, from.len())?;
    let seconds = fastest(|times| {
        let mut enc = device.encoder();
        for _ in 0..times {
            enc.copy(&from, &to);
        }
        seconds(device, enc)
    })?;
    Ok(LinkBandwidth { read, copied: 4.0 * from.len() as f64 / seconds })
}

/// Bytes a second that go from the host's memory to the device's, as [`Uploads`] bring them.
pub fn upload_bandwidth(device: &Device, pool: &ThreadPool) -> Result<f64, GpuError> {
    let words: Vec<u32> = (0..UPLOAD_BYTES as u32 / 4).collect();
    let to = device.alloc("the measurement of bandwidth", words.len())?;
    let mut uploads = Uploads::new(device, UPLOAD_BYTES as u64);
    let mut best = f64::INFINITY;
    for _ in 0..UPLOAD_ROUNDS {
        let start = Instant::now();
        for _ in 0..UPLOADS {
            let mut enc = device.encoder();
            uploads.record_words(&mut enc, pool, &to, &words);
            uploads.submit(device, enc)?;
        }
        device.wait("an upload")?;
        best = best.min(start.elapsed().as_secs_f64() / UPLOADS as f64);
    }
    Ok(UPLOAD_BYTES as f64 / best)
}

/// Bytes of one upload, uploads that are timed together, and how often.
const UPLOAD_BYTES: usize = 16 << 20;
const UPLOADS: usize = 16;
const UPLOAD_ROUNDS: usize = 4;

/// What the memory is for.
const WHAT: &str = "the measurement of bandwidth";
/// Bytes that come from the host.
const LINK_BYTES: u64 = 256 << 20;

/// Words that workgroups read in whole, at most so many bytes.
fn words(device: &Device, most: u64) -> usize {
    let workgroup = 16 * LANES * EACH;
    most.min(device.info().binding_limit) as usize / workgroup * workgroup / 4
}

fn by_shaders(device: &Device, from: &View) -> Result<f64, GpuError> {
    let groups = from.len() / (4 * LANES * EACH);
    let to = device.alloc(WHAT, groups)?;
    let constants = [("LANES", LANES as u32), ("EACH", EACH as u32)];
    let row = super::kernels::GRID_ROW as usize;
    let grid = [groups.min(row) as u32, groups.div_ceil(row) as u32, 1];
    let seconds = fastest(|times| {
        let mut enc = device.encoder();
        for _ in 0..times {
            enc.dispatch(&READ, &constants, &[from, &to], &[groups as u32, row as u32], grid);
        }
        seconds(device, enc)
    })?;
    Ok(4.0 * from.len() as f64 / seconds)
}

/// The least seconds of one time, of more and more times together.
fn fastest(seconds: impl Fn(usize) -> Result<f64, GpuError>) -> Result<f64, GpuError> {
    seconds(1)?;
    let (mut times, mut best) = (1, f64::INFINITY);
    while times < 1 << 12 {
        let time = seconds(times)?;
        best = best.min(time / times as f64);
        if time > LEAST_SECONDS {
            break;
        }
        times *= 2;
    }
    Ok(best)
}

fn seconds(device: &Device, enc: Encoder<'_>) -> Result<f64, GpuError> {
    let start = Instant::now();
    enc.submit()?;
    device.wait(READ.name)?;
    Ok(start.elapsed().as_secs_f64())
}
