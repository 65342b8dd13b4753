//! What a device can do at most, measured.

use std::time::Instant;

use moeflux_kernels::ThreadPool;

use crate::device::Device;
use crate::{GpuError, Program, Uploads, View};

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
    let workgroup = 16 * LANES * EACH;
    let groups = most.min(info.binding_limit) as usize / workgroup;
    let from = device.alloc("the measurement of bandwidth", groups * workgroup / 4)?;
    let to = device.alloc("the measurement of bandwidth", groups)?;
    let bytes = groups * workgroup;
    seconds(device, &from, &to, groups, 1)?;
    let (mut times, mut best) = (1, f64::INFINITY);
    while times < 1 << 12 {
        let time = seconds(device, &from, &to, groups, times)?;
        best = best.min(time / times as f64);
        if time > LEAST_SECONDS {
            break;
        }
        times *= 2;
    }
    Ok(bytes as f64 / best)
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

fn seconds(device: &Device, from: &View, to: &View, groups: usize, times: usize) -> Result<f64, GpuError> {
    let mut enc = device.encoder();
    let constants = [("LANES", LANES as u32), ("EACH", EACH as u32)];
    let row = super::kernels::GRID_ROW as usize;
    for _ in 0..times {
        let grid = [groups.min(row) as u32, groups.div_ceil(row) as u32, 1];
        enc.dispatch(&READ, &constants, &[from, to], &[groups as u32, row as u32], grid);
    }
    let start = Instant::now();
    enc.submit()?;
    device.wait(READ.name)?;
    Ok(start.elapsed().as_secs_f64())
}
