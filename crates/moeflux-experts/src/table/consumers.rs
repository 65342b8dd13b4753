//! What consumers do: they take what is ready, wait, and give leases back.

use super::{FetchState, Place, Table, Taken};
use crate::error::StoreError;

impl Table {
    /// Gives a fetch what is ready.
    pub(crate) fn take(&mut self, serial: u64) -> Taken {
        let Some(at) = self.fetches.iter().position(|fetch| fetch.serial == serial) else {
            return Taken::Done;
        };
        let fetch = &mut self.fetches[at];
        if let Some(error) = &fetch.failed {
            return Taken::Failed(error.clone());
        }
        if fetch.remaining.is_empty() {
            return Taken::Done;
        }
        // Where slots are short, half of them: reads go on in the others while these compute.
        let most = if self.crowded { self.budget / 2 } else { u64::MAX };
        let mut given = Vec::new();
        fetch.remaining.retain(|&id| {
            let expert = &mut self.experts[id as usize];
            let Place::Resident(slot) = expert.place else { return true };
            let bytes = self.slots.size(slot);
            if !given.is_empty() && fetch.leased_bytes + bytes > most {
                return true;
            }
            expert.wanted -= 1;
            expert.leases += 1;
            fetch.leased_bytes += bytes;
            self.leased_bytes += bytes;
            given.push((id, self.slots.address(slot, 0)));
            false
        });
        if given.is_empty() { Taken::NotYet } else { Taken::Experts(given) }
    }

    /// Says that a fetch's consumer waits now, or no more.
    pub(crate) fn set_waiting(&mut self, serial: u64, waiting: bool) {
        if let Some(fetch) = self.fetches.iter_mut().find(|fetch| fetch.serial == serial) {
            fetch.waiting = waiting;
            if waiting {
                self.pump();
            }
        }
    }

    /// Whether [`take`](Self::take) has an answer.
    pub(crate) fn is_ready(&self, serial: u64) -> bool {
        let fetch = self.fetches.iter().find(|fetch| fetch.serial == serial);
        fetch.is_none_or(|fetch| self.has_answer(fetch))
    }

    fn has_answer(&self, fetch: &FetchState) -> bool {
        let resident = |&id: &u32| matches!(self.experts[id as usize].place, Place::Resident(_));
        fetch.failed.is_some() || fetch.remaining.iter().any(resident)
    }

    /// Changes with everything that a fetch without a slot can hope for; `None` while reads are in flight.
    pub(crate) fn standstill(&self) -> Option<u64> {
        self.loads.is_empty().then_some(self.progress)
    }

    /// Whether nothing is in flight, nobody who waits has an answer, and all leases are theirs.
    pub(crate) fn deadlocked(&self) -> bool {
        let waiting = || self.fetches.iter().filter(|fetch| fetch.waiting);
        self.loads.is_empty()
            && waiting().map(|fetch| fetch.leased_bytes).sum::<u64>() == self.leased_bytes
            && !waiting().any(|fetch| self.has_answer(fetch))
    }

    /// Fails a fetch that finds no slot.
    pub(crate) fn starve(&mut self, serial: u64) -> StoreError {
        let fetch = self.fetches.iter().find(|fetch| fetch.serial == serial);
        let id = fetch.and_then(|fetch| fetch.remaining.first()).copied().unwrap_or_default();
        let (layer, expert) = self.plan.place(id);
        let error = StoreError::Starved {
            layer: layer.name.clone(),
            expert,
            leased: self.leased_bytes,
            budget: self.budget,
        };
        self.fail_fetches(|fetch| fetch.serial == serial, &error);
        error
    }

    /// Ends a fetch; its leases may live on.
    pub(crate) fn end_fetch(&mut self, serial: u64) {
        if let Some(at) = self.fetches.iter().position(|fetch| fetch.serial == serial) {
            let fetch = self.fetches.swap_remove(at);
            self.unwant(&fetch.remaining);
            self.pump();
        }
    }

    /// Takes a lease back that `serial` was given.
    pub(crate) fn end_lease(&mut self, id: u32, serial: u64) {
        let bytes = self.plan.slot_bytes(id);
        self.leased_bytes -= bytes;
        if let Some(fetch) = self.fetches.iter_mut().find(|fetch| fetch.serial == serial) {
            fetch.leased_bytes -= bytes;
        }
        self.experts[id as usize].leases -= 1;
        self.progress += 1;
        self.release_if_idle(id);
        self.pump();
        self.wakes.fetches |= self.loads.is_empty() && self.crowded;
    }
}
