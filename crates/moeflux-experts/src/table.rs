//! What a store knows under its one lock: where each expert is, which reads come next, who waits for what.
//!
//! An expert is absent, queued, loading into a slot, or resident. It gets its slot when its read starts, not when it
//! is asked for, so what is evicted is decided as late as possible, and a queue of any length fits any budget. Nothing
//! here blocks, reads or waits: readers and consumers call in, and [`Table::take_wakes`] says whom to wake.

mod consumers;
mod loads;
mod schedule;

use crate::counters::Counters;
use crate::error::StoreError;
use crate::plan::{Plan, RangeRead};
use crate::policy::{Ranking, is_prompt_sized};
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
        let scan = is_prompt_sized(wanted.len(), of_layer.len());
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

    /// Sets the budget; what cannot go at once goes when its leases do.
    pub(crate) fn resize(&mut self, budget: u64) -> Result<(), StoreError> {
        check_budget(&self.plan, budget, |id| self.experts[id as usize].pinned)?;
        self.budget = budget;
        self.ranking.memory_holds(self.plan.experts_in(budget));
        self.pump();
        Ok(())
    }

    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    pub(crate) fn holds_all(&self) -> bool {
        self.experts.iter().all(|expert| matches!(expert.place, Place::Resident(_)))
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
