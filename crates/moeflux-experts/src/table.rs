//! What a store knows under its one lock: where each expert is, which reads come next, who waits for what.
//!
//! An expert is absent, queued, loading into a slot, or resident. It gets its slot when its read starts, not when it
//! is asked for, so what is evicted is decided as late as possible, and a queue of any length fits any budget. Nothing
//! here blocks, reads or waits: readers and consumers call in, and [`Table::take_wakes`] says whom to wake.

mod schedule;

use crate::counters::Counters;
use crate::error::StoreError;
use crate::plan::{Plan, RangeRead};
use crate::policy::Ranking;
use crate::slots::{Address, Slot, Slots};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// See the module.
pub(crate) struct Table {
    plan: Arc<Plan>,
    slots: Slots,
    ranking: Ranking,
    experts: Vec<Expert>,
    /// Experts that are queued, by the class of their slots.
    queues: Vec<BTreeSet<Ticket>>,
    loads: Vec<Load>,
    fetches: Vec<FetchState>,
    budget: u64,
    readers: usize,
    chunk: u64,
    verify: bool,
    /// Fetches and hints so far.
    serial: u64,
    leased_bytes: u64,
    /// Whether an expert that a fetch wants found no slot.
    crowded: bool,
    /// Changes with every load that ends and every lease that is dropped.
    progress: u64,
    counters: Counters,
    busy_since: Option<Instant>,
    reads_in_flight: usize,
    wakes: Wakes,
    /// Set when the store is dropped.
    pub(crate) closing: bool,
}

/// Whom to wake after the lock is let go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wakes {
    /// So many reads can be taken.
    pub(crate) reads: usize,
    /// Something happened that a waiting fetch may want to see.
    pub(crate) fetches: bool,
}

#[derive(Clone, Default)]
struct Expert {
    place: Place,
    /// Leases that are out.
    leases: u32,
    /// Fetches that want it and have not been given it.
    wanted: u32,
    pinned: bool,
    /// Brought, or being brought, by a hint, and not wanted by a fetch so far.
    speculative: bool,
    /// For the heat file.
    uses: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Absent,
    Queued(Ticket),
    Loading,
    Resident(Slot),
}

/// A place in the queue: by urgency, then who asked first, then where it lies in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket {
    urgency: Urgency,
    serial: u64,
    file_order: (u32, u64),
    id: u32,
}

/// How much a read matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// A fetch wants it.
    Demand,
    /// It is on the pin list.
    Pin,
    /// A hint says that it will be wanted.
    Hint,
    /// It was hot in another run. Never evicts.
    Warm,
}

/// An expert on its way into a slot.
struct Load {
    ticket: Ticket,
    slot: Slot,
    /// Fetches after this one joined it on its way.
    began: u64,
    /// The next range, and how far into it reads were taken.
    range: usize,
    taken: u64,
    /// Reads taken and not finished.
    in_flight: usize,
    failed: Option<StoreError>,
}

struct FetchState {
    serial: u64,
    /// Wanted and not given yet, in file order.
    remaining: Vec<u32>,
    /// Bytes of slots that its leases keep.
    leased_bytes: u64,
    /// Its consumer is in `next`.
    waiting: bool,
    failed: Option<StoreError>,
}

/// A read for a reader to do.
pub(crate) struct ReadTask {
    pub(crate) id: u32,
    pub(crate) file: u32,
    pub(crate) offset: u64,
    /// Bytes to read, and how many of them must come.
    pub(crate) len: usize,
    pub(crate) needed: usize,
    pub(crate) to: Address,
}

/// What a finished read leaves to do.
pub(crate) enum Finished {
    Nothing,
    /// The expert is whole: compare its checksum, then call [`Table::checked`].
    Check {
        address: Address,
        range: RangeRead,
        expected: u64,
    },
}

/// What a fetch finds.
pub(crate) enum Taken {
    /// Experts with their slots' addresses.
    Experts(Vec<(u32, Address)>),
    /// All were given.
    Done,
    /// None is ready.
    NotYet,
    Failed(StoreError),
}

impl Table {
    pub(crate) fn new(
        plan: Arc<Plan>,
        mut ranking: Ranking,
        budget: u64,
        readers: usize,
        chunk: u64,
        verify: bool,
    ) -> Self {
        ranking.memory_holds(plan.experts_in(budget));
        Self {
            slots: Slots::new(&plan.classes),
            ranking,
            experts: vec![Expert::default(); plan.len()],
            queues: vec![BTreeSet::new(); plan.classes.len()],
            loads: Vec::new(),
            fetches: Vec::new(),
            budget,
            readers,
            chunk,
            verify,
            serial: 0,
            leased_bytes: 0,
            crowded: false,
            progress: 0,
            counters: Counters::default(),
            busy_since: None,
            reads_in_flight: 0,
            wakes: Wakes::default(),
            closing: false,
            plan,
        }
    }

    /// Begins a fetch of experts of one layer, which are distinct and in file order. Returns its serial.
    pub(crate) fn fetch(&mut self, layer: u32, wanted: Vec<u32>) -> u64 {
        let of_layer = self.plan.layer(layer);
        // A prompt reads most of a layer: that says nothing of what decoding will use.
        let scan = wanted.len() * 2 > of_layer.len();
        self.serial += 1;
        for &id in &wanted {
            let expert = &mut self.experts[id as usize];
            expert.wanted += 1;
            let resident = matches!(expert.place, Place::Resident(_));
            if resident {
                self.counters.hits += 1;
            } else {
                self.counters.misses += 1;
            }
            if std::mem::take(&mut expert.speculative) {
                self.counters.hints_used += 1;
                self.counters.late_hints += u64::from(!resident);
            }
            if scan {
                self.ranking.hold(id);
            } else {
                expert.uses += 1;
                self.ranking.used(id);
            }
            self.enqueue(id, Urgency::Demand);
        }
        self.drop_stale_hints(of_layer);
        let serial = self.serial;
        self.fetches.push(FetchState {
            serial,
            remaining: wanted,
            leased_bytes: 0,
            waiting: false,
            failed: None,
        });
        self.pump();
        serial
    }

    /// Asks for experts that no fetch wants so far, in this order of importance.
    pub(crate) fn ask(&mut self, ids: impl IntoIterator<Item = u32>, urgency: Urgency) {
        self.serial += 1;
        for id in ids {
            if urgency == Urgency::Warm {
                // The order given is the order of heat, not of files.
                self.serial += 1;
            }
            let expert = &mut self.experts[id as usize];
            match urgency {
                Urgency::Pin => expert.pinned = true,
                Urgency::Hint if expert.place == Place::Absent => {
                    expert.speculative = true;
                    self.counters.hints_issued += 1;
                }
                _ => {}
            }
            self.enqueue(id, urgency);
        }
        self.pump();
    }

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

    /// Sets the budget; what cannot go at once goes when its leases do.
    pub(crate) fn resize(&mut self, budget: u64) -> Result<(), StoreError> {
        check_budget(&self.plan, budget, |id| self.experts[id as usize].pinned)?;
        self.budget = budget;
        self.ranking.memory_holds(self.plan.experts_in(budget));
        self.pump();
        Ok(())
    }

    pub(crate) fn add_stall(&mut self, time: Duration) {
        self.counters.stall_time += time;
    }

    pub(crate) fn counters(&self) -> Counters {
        let resident = |expert: &&Expert| matches!(expert.place, Place::Resident(_));
        let busy = self.busy_since.map_or(Duration::ZERO, |since| since.elapsed());
        Counters {
            busy_time: self.counters.busy_time + busy,
            slots_used: (self.loads.len() + self.experts.iter().filter(resident).count()) as u64,
            bytes_used: self.slots.held_bytes(),
            budget: self.budget,
            ..self.counters
        }
    }

    pub(crate) fn reset_counters(&mut self) {
        self.counters = Counters::default();
        if let Some(since) = &mut self.busy_since {
            *since = Instant::now();
        }
    }

    /// Uses of each expert, and the way to change them.
    pub(crate) fn uses(&mut self) -> impl Iterator<Item = &mut u64> {
        self.experts.iter_mut().map(|expert| &mut expert.uses)
    }

    /// Whom to wake for what was done since the last call.
    pub(crate) fn take_wakes(&mut self) -> Wakes {
        std::mem::take(&mut self.wakes)
    }

    /// Makes a loaded expert resident, or fails whoever wants it.
    fn end_load(&mut self, at: usize) {
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
    fn fail_expert(&mut self, id: u32, began: u64, error: &StoreError) {
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

    /// Fails some fetches, which then want nothing any more; says whether there were any.
    fn fail_fetches(&mut self, which: impl Fn(&FetchState) -> bool, error: &StoreError) -> bool {
        let mut unwanted = Vec::new();
        let mut any = false;
        for fetch in self.fetches.iter_mut().filter(|fetch| which(fetch)) {
            any = true;
            fetch.failed = Some(error.clone());
            unwanted.append(&mut fetch.remaining);
        }
        self.unwant(&unwanted);
        self.wakes.fetches |= any;
        any
    }

    fn unwant(&mut self, ids: &[u32]) {
        for &id in ids {
            let expert = &mut self.experts[id as usize];
            expert.wanted -= 1;
            if expert.wanted == 0 && !expert.pinned {
                self.dequeue(id);
            }
            self.release_if_idle(id);
        }
    }

    fn release_if_idle(&mut self, id: u32) {
        let expert = &self.experts[id as usize];
        let idle = expert.leases == 0 && expert.wanted == 0 && !expert.pinned;
        if idle && matches!(expert.place, Place::Resident(_)) {
            self.ranking.release(id);
        }
    }
}

/// A budget must hold what is pinned and the largest expert beside it.
pub(crate) fn check_budget(plan: &Plan, budget: u64, pinned: impl Fn(u32) -> bool) -> Result<(), StoreError> {
    let ids = 0..plan.len() as u32;
    let kept: u64 = ids.clone().filter(|&id| pinned(id)).map(|id| plan.slot_bytes(id)).sum();
    let largest = ids.filter(|&id| !pinned(id)).map(|id| plan.slot_bytes(id)).max().unwrap_or(0);
    let needed = kept + largest;
    if budget < needed { Err(StoreError::BudgetTooSmall { needed, given: budget }) } else { Ok(()) }
}
