//! Which load starts next, and in which slot.

use super::{Load, Place, Table, Ticket, Urgency};
use crate::error::StoreError;
use crate::slots::Slot;
use std::io;
use std::ops::Range;
use std::sync::Arc;

impl Table {
    /// Queues an absent expert, or moves a queued one forward.
    pub(super) fn enqueue(&mut self, id: u32, urgency: Urgency) {
        let expert = &mut self.experts[id as usize];
        let ticket = Ticket { urgency, serial: self.serial, file_order: self.plan.file_order(id), id };
        let queue = &mut self.queues[self.plan.expert(id).class];
        match expert.place {
            Place::Absent => {}
            Place::Queued(queued) if ticket < queued => {
                queue.remove(&queued);
            }
            Place::Loading if urgency == Urgency::Demand => {
                // Its reads that are still to be made go first.
                let load = self.loads.iter_mut().find(|load| load.ticket.id == id);
                if let Some(load) = load.filter(|load| ticket < load.ticket) {
                    load.ticket = ticket;
                }
                return;
            }
            _ => return,
        }
        queue.insert(ticket);
        expert.place = Place::Queued(ticket);
    }

    pub(super) fn dequeue(&mut self, id: u32) {
        let expert = &mut self.experts[id as usize];
        if let Place::Queued(ticket) = expert.place {
            self.queues[self.plan.expert(id).class].remove(&ticket);
            expert.place = Place::Absent;
            if std::mem::take(&mut expert.speculative) {
                self.counters.hints_wasted += 1;
            }
        }
    }

    /// Forgets all that is queued of a class.
    fn drop_queued(&mut self, class: usize) {
        for ticket in std::mem::take(&mut self.queues[class]) {
            self.experts[ticket.id as usize].place = Place::Absent;
        }
    }

    /// A layer's router has answered: what hints wanted of it beyond that is not wanted now.
    pub(super) fn drop_stale_hints(&mut self, layer: Range<u32>) {
        for id in layer {
            let stale =
                matches!(self.experts[id as usize].place, Place::Queued(t) if t.urgency == Urgency::Hint);
            if stale {
                self.dequeue(id);
            }
        }
    }

    /// Starts as many loads as there are readers.
    pub(super) fn pump(&mut self) {
        self.shrink();
        self.crowded = false;
        while self.loads.len() < self.readers && self.start_load() {}
    }

    /// Gives memory back until the budget is kept, or until nothing more may go.
    fn shrink(&mut self) {
        while self.slots.held_bytes() > self.budget {
            if !self.slots.give_back(None) && !self.evict() {
                break;
            }
        }
    }

    fn start_load(&mut self) -> bool {
        // Who waits with nothing on its way goes first, alone: others would take the room that it needs.
        let starved = self.starved();
        if !starved.is_empty() {
            return starved.into_iter().any(|ticket| self.start_for_waiting(ticket));
        }
        let mut heads: Vec<Ticket> = self.queues.iter().filter_map(|queue| queue.first().copied()).collect();
        heads.sort_unstable();
        let speculative = self.loads.iter().filter(|load| load.ticket.urgency > Urgency::Pin).count();
        for ticket in heads {
            // Hints leave readers for what may be wanted any moment, and slots for what is wanted.
            let is_hint = ticket.urgency > Urgency::Pin;
            if is_hint && (self.crowded || speculative >= (self.readers / 2).max(1)) {
                continue;
            }
            let slot = self.obtain(self.plan.expert(ticket.id).class, ticket.urgency != Urgency::Warm);
            if self.start_in(ticket, slot) {
                return true;
            }
            self.crowded |= ticket.urgency == Urgency::Demand;
            if ticket.urgency == Urgency::Warm {
                // Memory is full: no more is warmed.
                self.drop_queued(self.plan.expert(ticket.id).class);
            }
        }
        false
    }

    /// Starts a load if there is a slot, or fails it if there is an error.
    fn start_in(&mut self, ticket: Ticket, slot: io::Result<Option<Slot>>) -> bool {
        match slot {
            Ok(None) => false,
            Ok(Some(slot)) => {
                self.queues[self.plan.expert(ticket.id).class].remove(&ticket);
                self.experts[ticket.id as usize].place = Place::Loading;
                self.loads.push(Load {
                    ticket,
                    slot,
                    began: self.serial,
                    range: 0,
                    taken: 0,
                    in_flight: 0,
                    failed: None,
                });
                let reads = self.plan.expert(ticket.id).reads.iter();
                self.wakes.reads += reads.map(|read| read.len.div_ceil(self.chunk) as usize).sum::<usize>();
                true
            }
            Err(source) => {
                let what = format!("memory for an expert of {} bytes", self.plan.slot_bytes(ticket.id));
                let error = StoreError::System { what, source: Arc::new(source) };
                self.dequeue(ticket.id);
                self.fail_expert(ticket.id, self.serial, &error);
                true
            }
        }
    }

    /// A slot: free, new, or of an expert that may be evicted.
    fn obtain(&mut self, class: usize, may_evict: bool) -> io::Result<Option<Slot>> {
        let size = self.plan.classes[class];
        loop {
            let over = self.slots.held_bytes() > self.budget;
            let free = if over { None } else { self.slots.take_free(class) };
            if free.is_some() {
                return Ok(free);
            }
            if self.slots.held_bytes() + size <= self.budget {
                return self.slots.take_new(class).map(Some);
            }
            // Free slots of this class are of no use only where the budget was made smaller.
            let keep = if over { None } else { Some(class) };
            let freed = self.slots.give_back(keep) || (may_evict && self.evict());
            if !freed {
                return Ok(None);
            }
        }
    }

    fn evict(&mut self) -> bool {
        let Some(id) = self.ranking.evict() else { return false };
        self.vacate(id);
        self.counters.evictions += 1;
        true
    }

    /// Takes the slot of a resident expert.
    fn vacate(&mut self, id: u32) {
        let expert = &mut self.experts[id as usize];
        if let Place::Resident(slot) = std::mem::take(&mut expert.place) {
            self.slots.free(slot);
        }
        if std::mem::take(&mut expert.speculative) {
            self.counters.hints_wasted += 1;
        }
    }

    /// Of each fetch that waits with nothing on its way, the first expert that it wants.
    fn starved(&self) -> Vec<Ticket> {
        let place = |id: u32| self.experts[id as usize].place;
        let waiting = self.fetches.iter().filter(|fetch| fetch.waiting);
        let first = waiting.filter_map(|fetch| {
            let on_its_way = |&id: &u32| matches!(place(id), Place::Loading | Place::Resident(_));
            if fetch.remaining.iter().any(on_its_way) {
                return None;
            }
            fetch.remaining.iter().find_map(|&id| match place(id) {
                Place::Queued(ticket) => Some(ticket),
                _ => None,
            })
        });
        first.collect()
    }

    /// Starts a load for a fetch that waits. If all slots are leased, or wanted, it takes those of experts that only
    /// fetches want which do not wait; they are read again later.
    fn start_for_waiting(&mut self, ticket: Ticket) -> bool {
        let class = self.plan.expert(ticket.id).class;
        let slot = self.obtain(class, true);
        if self.start_in(ticket, slot) {
            return true;
        }
        self.crowded = true;
        while let Some((id, serial)) = self.wanted_by_idle_fetch() {
            self.vacate(id);
            self.demand_again(id, serial);
            let slot = self.obtain(class, true);
            if self.start_in(ticket, slot) {
                return true;
            }
        }
        false
    }

    /// Queues an absent expert for a fetch that wanted it before.
    pub(super) fn demand_again(&mut self, id: u32, serial: u64) {
        let ticket = Ticket { urgency: Urgency::Demand, serial, file_order: self.plan.file_order(id), id };
        self.experts[id as usize].place = Place::Queued(ticket);
        self.queues[self.plan.expert(id).class].insert(ticket);
    }

    /// A resident expert that is wanted, but by no fetch that waits.
    fn wanted_by_idle_fetch(&self) -> Option<(u32, u64)> {
        let movable = |id: &u32| {
            let expert = &self.experts[*id as usize];
            let wanted_now =
                || self.fetches.iter().any(|fetch| fetch.waiting && fetch.remaining.contains(id));
            matches!(expert.place, Place::Resident(_))
                && expert.leases == 0
                && !expert.pinned
                && !wanted_now()
        };
        let idle = self.fetches.iter().filter(|fetch| !fetch.waiting);
        idle.rev().find_map(|fetch| {
            fetch.remaining.iter().rev().copied().find(movable).map(|id| (id, fetch.serial))
        })
    }
}
