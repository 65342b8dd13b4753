//! Reads of the experts that are on their way: which comes next, and what their outcomes change.

use super::{Finished, Load, Place, ReadTask, Table};
use crate::error::StoreError;
use std::time::{Duration, Instant};

impl Table {
    /// The next read, if there is one: of the expert that comes first, so that readers together finish one expert after
    /// the other, and what waits for them can begin with the first.
    pub(crate) fn take_read(&mut self) -> Option<ReadTask> {
        let has_reads = |load: &&mut Load| {
            load.failed.is_none() && load.range < self.plan.expert(load.ticket.id).reads.len()
        };
        let load = self.loads.iter_mut().filter(has_reads).min_by_key(|load| load.ticket)?;
        let id = load.ticket.id;
        let range = self.plan.expert(id).reads[load.range];
        let len = (range.len - load.taken).min(self.chunk);
        let to = self.slots.address(load.slot, range.slot_offset + load.taken);
        let needed = range.used.1.saturating_sub(load.taken).min(len) as usize;
        let offset = range.offset + load.taken;
        load.taken += len;
        if load.taken == range.len {
            load.range += 1;
            load.taken = 0;
        }
        load.in_flight += 1;
        self.reads_in_flight += 1;
        self.busy_since.get_or_insert_with(Instant::now);
        Some(ReadTask { id, file: range.file, offset, len: len as usize, needed, to })
    }

    /// Takes the outcome of a read.
    pub(crate) fn finished(
        &mut self,
        task: &ReadTask,
        outcome: Result<(), StoreError>,
        time: Duration,
    ) -> Finished {
        self.counters.reads += 1;
        self.counters.read_time += time;
        self.counters.failed_reads += u64::from(outcome.is_err());
        self.counters.bytes_read += if outcome.is_ok() { task.needed as u64 } else { 0 };
        self.reads_in_flight -= 1;
        if self.reads_in_flight == 0 {
            self.counters.busy_time += self.busy_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        }
        let Some(at) = self.loads.iter().position(|load| load.ticket.id == task.id) else {
            return Finished::Nothing;
        };
        let plan = self.plan.clone();
        let plan = plan.expert(task.id);
        let load = &mut self.loads[at];
        load.in_flight -= 1;
        if let Err(error) = outcome {
            load.failed.get_or_insert(error);
        }
        if load.in_flight > 0 || (load.failed.is_none() && load.range < plan.reads.len()) {
            return Finished::Nothing;
        }
        if let (true, None, Some(expected)) = (self.verify, &load.failed, plan.checksum) {
            let address = self.slots.address(load.slot, 0);
            return Finished::Check { address, range: plan.reads[0], expected };
        }
        self.end_load(at);
        Finished::Nothing
    }

    /// Takes the outcome of [`Finished::Check`].
    pub(crate) fn checked(&mut self, id: u32, outcome: Result<(), StoreError>) {
        if let Some(at) = self.loads.iter().position(|load| load.ticket.id == id) {
            self.loads[at].failed = outcome.err();
            self.end_load(at);
        }
    }

    /// Makes a loaded expert resident, or fails whoever wants it.
    pub(super) fn end_load(&mut self, at: usize) {
        let Load { ticket, slot, began, failed, .. } = self.loads.swap_remove(at);
        let id = ticket.id;
        let expert = &mut self.experts[id as usize];
        match failed {
            None => {
                expert.place = Place::Resident(slot);
                let hinted = expert.speculative;
                self.ranking.loaded(id, hinted);
                self.release_if_idle(id);
            }
            Some(error) => {
                expert.place = Place::Absent;
                self.slots.free(slot);
                self.fail_expert(id, began, &error);
            }
        }
        self.progress += 1;
        self.wakes.fetches = true;
        self.pump();
    }

    /// Fails the fetches that wanted an absent expert when its read began. For those that came later, which may know
    /// of an earlier failure, the disk is tried again.
    pub(super) fn fail_expert(&mut self, id: u32, began: u64, error: &StoreError) {
        let speculative = std::mem::take(&mut self.experts[id as usize].speculative);
        self.counters.hints_wasted += u64::from(speculative);
        let failed = self.fail_fetches(|fetch| fetch.serial <= began && fetch.remaining.contains(&id), error);
        let later =
            self.fetches.iter().filter(|fetch| fetch.remaining.contains(&id)).map(|fetch| fetch.serial).min();
        if let Some(serial) = later {
            self.demand_again(id, serial);
        } else if !failed {
            tracing::warn!("an expert that no step waits for: {error}");
        }
    }
}
