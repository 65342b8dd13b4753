//! Threads that read: each takes the next read from the table, makes it, and tells the outcome.

use crate::error::StoreError;
use crate::file::read_needed;
use crate::plan::{Plan, RangeRead};
use crate::store::Shared;
use crate::table::{Finished, ReadTask};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use twox_hash::XxHash3_64;

/// Starts a reader, which ends when the store is closing.
pub(crate) fn start(i: usize, shared: Arc<Shared>) -> Result<JoinHandle<()>, StoreError> {
    let thread = std::thread::Builder::new().name(format!("expert-reader-{i}"));
    thread.spawn(move || run(&shared)).map_err(|source| StoreError::System {
        what: "starting a reader of experts".to_owned(),
        source: Arc::new(source),
    })
}

fn run(shared: &Shared) {
    while let Some(task) = next_task(shared) {
        let started = Instant::now();
        let outcome = read(shared, &task);
        let time = started.elapsed();
        let finished = shared.update(|table| table.finished(&task, outcome, time));
        if let Finished::Check { address, range, expected } = finished {
            // SAFETY: all reads of this expert are finished, its slot is held, and nobody is given it before `checked`.
            let bytes = unsafe { std::slice::from_raw_parts(address.0, range.len as usize) };
            let outcome = check(&shared.plan, task.id, bytes, range, expected);
            shared.update(|table| table.checked(task.id, outcome));
        }
    }
}

/// Waits for something to read; `None` when the store is closing.
fn next_task(shared: &Shared) -> Option<ReadTask> {
    let mut table = shared.lock();
    loop {
        if table.closing {
            return None;
        }
        if let Some(task) = table.take_read() {
            return Some(task);
        }
        table = shared.reads.wait(table).unwrap_or_else(PoisonError::into_inner);
    }
}

fn read(shared: &Shared, task: &ReadTask) -> Result<(), StoreError> {
    // SAFETY: the range lies in the slot of an expert that is loading, no other read is given it, and nobody sees the
    // expert's bytes before it is resident. Slots are zeroes at first, so every byte is initialised.
    let bytes = unsafe { std::slice::from_raw_parts_mut(task.to.0, task.len) };
    let source = shared.files[task.file as usize].as_ref();
    read_needed(source, bytes, task.needed, task.offset).map_err(|source| {
        let (layer, expert) = shared.plan.place(task.id);
        StoreError::Read {
            layer: layer.name.clone(),
            expert,
            path: shared.plan.layout.files[task.file as usize].clone(),
            offset: task.offset,
            len: task.needed as u64,
            source: Arc::new(source),
        }
    })
}

/// Compares the checksum of an expert's one range.
pub(crate) fn check(
    plan: &Plan,
    id: u32,
    bytes: &[u8],
    range: RangeRead,
    expected: u64,
) -> Result<(), StoreError> {
    let (start, end) = range.used;
    let found = XxHash3_64::oneshot(&bytes[start as usize..end as usize]);
    if found == expected {
        return Ok(());
    }
    let (layer, expert) = plan.place(id);
    Err(StoreError::Checksum {
        layer: layer.name.clone(),
        expert,
        path: plan.layout.files[range.file as usize].clone(),
        offset: range.offset + start,
        len: end - start,
        expected,
        found,
    })
}
