//! How fast a disk gives experts, and with how many reads at once.

use crate::error::StoreError;
use crate::file::{DataFile, ReadAt};
use crate::layout::Layout;
use crate::options::Io;
use crate::plan::{ALIGNMENT, Plan};
use crate::slots;
use crate::store::open_files;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a measurement found; keep it in a file and give it to [`StoreOptions::tuned`](crate::StoreOptions::tuned).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskSpeed {
    /// Bytes per second of experts read in random order.
    pub bytes_per_second: f64,
    /// Reads in flight that gave it.
    pub readers: usize,
    /// The length of reads that gave it, in bytes.
    pub chunk: u64,
    /// Whether reads went past the page cache. If not, the number may be that of the cache.
    pub direct: bool,
}

/// Reads random experts for so long in all, a part of it with each of several numbers of readers and lengths of reads,
/// and says what was fastest; of what is within 3 %, what has the fewest bytes in flight.
pub fn measure(layout: &Layout, io: Io, time: Duration) -> Result<DiskSpeed, StoreError> {
    let (plan, files) = open_files(layout.clone(), io)?;
    let direct = files.iter().all(DataFile::is_direct);
    let mut best = DiskSpeed { bytes_per_second: 0.0, readers: 1, chunk: ALIGNMENT, direct };
    let time = time / SETTINGS.len() as u32;
    // Memory like that of slots, touched before: reads into small pages, or into new ones, are slower.
    let most = SETTINGS.iter().map(|(readers, _)| *readers).max().unwrap_or(1);
    let mut memory = slots::map(most as u64 * LONGEST).map_err(|source| StoreError::System {
        what: format!("memory for reads of {most} times {LONGEST} bytes"),
        source: Arc::new(source),
    })?;
    memory.fill(0);
    for (seed, (readers, chunk)) in (0..).zip(SETTINGS) {
        let bytes_per_second = read_for(&plan, &files, readers, chunk, time, seed, &mut memory)?;
        tracing::debug!("{readers} readers of {chunk} bytes: {:.2} GB/s", bytes_per_second / 1e9);
        if bytes_per_second > best.bytes_per_second * 1.03 {
            best = DiskSpeed { bytes_per_second, readers, chunk, direct };
        }
    }
    Ok(best)
}

/// Readers and the length of their reads, those first under which a first expert comes soonest.
const SETTINGS: [(usize, u64); 6] =
    [(4, 256 << 10), (4, 512 << 10), (8, 512 << 10), (8, LONGEST), (16, 512 << 10), (16, LONGEST)];

/// No read is longer.
const LONGEST: u64 = 1 << 20;

fn read_for(
    plan: &Plan,
    files: &[DataFile],
    readers: usize,
    chunk: u64,
    time: Duration,
    seed: u64,
    memory: &mut [u8],
) -> Result<f64, StoreError> {
    let next = AtomicUsize::new(0);
    let bytes_read = AtomicU64::new(0);
    let experts = random_experts(plan, seed);
    let reads: Vec<(u32, u64, u64)> = experts.iter().flat_map(|&id| reads_of(plan, id, chunk)).collect();
    let started = Instant::now();
    let reader = |memory: &mut [u8]| -> Result<(), StoreError> {
        while started.elapsed() < time {
            let (file, offset, len) = reads[next.fetch_add(1, Ordering::Relaxed) % reads.len()];
            // A file may end inside the last block.
            let read = files[file as usize].read_at(&mut memory[..len as usize], offset);
            let read = read.map_err(|source| StoreError::File {
                path: plan.layout.files[file as usize].clone(),
                what: "measuring reads",
                source: Arc::new(source),
            })?;
            bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let parts = memory.chunks_mut(LONGEST as usize).take(readers);
        let threads: Vec<_> = parts.map(|part| scope.spawn(|| reader(part))).collect();
        let panicked = |_| unreachable!("measuring has no panic");
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))
    })?;
    Ok(bytes_read.into_inner() as f64 / started.elapsed().as_secs_f64())
}

/// Reads of one expert, none longer than `chunk`.
fn reads_of(plan: &Plan, id: u32, chunk: u64) -> impl Iterator<Item = (u32, u64, u64)> {
    plan.expert(id).reads.iter().flat_map(move |range| {
        let starts = (0..range.len).step_by(chunk as usize);
        starts.map(move |start| (range.file, range.offset + start, (range.len - start).min(chunk)))
    })
}

/// Some experts, each as likely as any other (Steele et al., "Fast splittable pseudorandom number generators", 2014).
fn random_experts(plan: &Plan, seed: u64) -> Vec<u32> {
    let random = |i: u64| {
        let mut z = (seed << 32 | i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (1..=1000).map(|i| (random(i) % plan.len() as u64) as u32).collect()
}
