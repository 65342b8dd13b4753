//! The store: what consumers call.

use crate::counters::Counters;
use crate::error::StoreError;
use crate::fetch::Fetch;
use crate::file::{DataFile, ReadAt};
use crate::heat::Heat;
use crate::layout::Layout;
use crate::mapped::Mapped;
use crate::options::{Io, StoreOptions};
use crate::plan::{ALIGNMENT, Plan};
use crate::policy::Ranking;
use crate::reader;
use crate::table::{Table, Urgency, Wakes, check_budget};
use crate::trace::Recorder;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Experts of a model larger than memory: each is read from its file when it is wanted, and stays while the budget has
/// room for it. The [crate's documentation](crate) says what is promised.
pub struct ExpertStore {
    backing: Backing,
    readers: Vec<JoinHandle<()>>,
    trace: Option<Recorder>,
}

pub(crate) enum Backing {
    Slots(Arc<Shared>),
    Mapped(Arc<Mapped>),
}

/// What readers, fetches and leases share.
pub(crate) struct Shared {
    pub(crate) plan: Arc<Plan>,
    pub(crate) files: Vec<Arc<dyn ReadAt>>,
    pub(crate) patience: Duration,
    table: Mutex<Table>,
    /// Readers wait here for reads.
    pub(crate) reads: Condvar,
    /// Consumers wait here for experts.
    pub(crate) fetches: Condvar,
}

impl ExpertStore {
    /// Opens the files of a layout, checks that it fits them, and starts the readers.
    pub fn open(layout: Layout, options: &StoreOptions) -> Result<Self, StoreError> {
        let trace = options.trace.clone();
        let (plan, files) = open_files(layout, options.io)?;
        let plan = Arc::new(plan);
        if options.io == Io::Mapped {
            let mapped = Mapped::new(plan, options.verify)?;
            return Ok(Self { backing: Backing::Mapped(Arc::new(mapped)), readers: Vec::new(), trace });
        }
        let pinned = options.pinned.iter().map(|&(layer, expert)| plan.id(layer, expert));
        let pinned = pinned.collect::<Result<HashSet<_>, _>>()?;
        check_budget(&plan, options.budget, |id| pinned.contains(&id))?;
        let policy = options.policy.policy(plan.len());
        let shared = Arc::new(Shared {
            table: Mutex::new(Table::new(
                plan.clone(),
                Ranking::new(policy, plan.len()),
                options.budget,
                options.readers.max(1),
                options.chunk.max(1).next_multiple_of(ALIGNMENT),
                options.verify,
            )),
            files: files.into_iter().map(|file| pass_through(file, options)).collect(),
            patience: options.patience,
            reads: Condvar::new(),
            fetches: Condvar::new(),
            plan,
        });
        // Readers end when the store is dropped, also if one of them does not start.
        let mut store = Self { backing: Backing::Slots(shared.clone()), readers: Vec::new(), trace };
        for i in 0..options.readers.max(1) {
            store.readers.push(reader::start(i, shared.clone())?);
        }
        if !pinned.is_empty() {
            shared.update(|table| table.ask(pinned, Urgency::Pin));
        }
        Ok(store)
    }

    /// Counts as a use of the experts `wanted` of a layer, and starts the reads of those that are missing, in file
    /// order; never blocks. An expert given twice counts once. Errors come from [`Fetch::next`].
    pub fn fetch(&self, layer: u32, wanted: &[u32]) -> Fetch<'_> {
        let ids = match ids_in_file_order(self.plan(), layer, wanted) {
            Ok(ids) => ids,
            Err(error) => return Fetch::failed(error),
        };
        if let Some(trace) = &self.trace {
            trace.record(layer, wanted);
        }
        match &self.backing {
            Backing::Slots(shared) => {
                let serial = shared.update(|table| table.fetch(layer, ids));
                Fetch::of_slots(shared, serial)
            }
            Backing::Mapped(mapped) => {
                mapped.will_need(&ids);
                mapped.count_uses(&ids);
                Fetch::of_mapped(mapped, ids)
            }
        }
    }

    /// Starts reads of experts that may be wanted soon, the most likely first. What fetches want goes before, and is
    /// never evicted for it; when the layer is fetched, what was not begun and is not wanted is forgotten. Experts
    /// that there are not are left out.
    pub fn hint(&self, layer: u32, experts: &[u32]) {
        let ids: Vec<u32> = experts.iter().filter_map(|&expert| self.plan().id(layer, expert).ok()).collect();
        match &self.backing {
            Backing::Slots(shared) => shared.update(|table| table.ask(ids, Urgency::Hint)),
            Backing::Mapped(mapped) => mapped.will_need(&ids),
        }
    }

    /// Fills memory that is free with the experts that were used most, the hottest first, when nothing else is to be
    /// read; evicts nothing. Half of the counts are taken over, so that [`heat`](Self::heat) goes on from them.
    pub fn warm(&self, heat: &Heat) -> Result<(), StoreError> {
        let Backing::Slots(shared) = &self.backing else { return Ok(()) };
        let hottest = heat.hottest_first(&shared.plan.layout)?;
        let before = heat.layers.iter().flat_map(|layer| &layer.uses);
        shared.update(|table| {
            table.uses().zip(before).for_each(|(uses, before)| *uses += before / 2);
            table.ask(hottest, Urgency::Warm);
        });
        Ok(())
    }

    /// How often each expert was used, but for the reads of prompts that wanted most of a layer.
    pub fn heat(&self) -> Heat {
        match &self.backing {
            Backing::Slots(shared) => {
                let uses = shared.update(|table| table.uses().map(|uses| *uses).collect::<Vec<_>>());
                Heat::new(&shared.plan.layout, uses)
            }
            Backing::Mapped(mapped) => Heat::new(&mapped.plan.layout, mapped.uses()),
        }
    }

    /// Sets the budget in bytes, at once: what is idle beyond it is given back before this returns, the rest as its
    /// leases are dropped.
    pub fn resize(&self, budget: u64) -> Result<(), StoreError> {
        match &self.backing {
            Backing::Slots(shared) => shared.update(|table| table.resize(budget)),
            Backing::Mapped(_) => Ok(()),
        }
    }

    /// The budget in bytes; of mapped experts 0, since there is none.
    pub fn budget(&self) -> u64 {
        match &self.backing {
            Backing::Slots(shared) => shared.lock().budget(),
            Backing::Mapped(_) => 0,
        }
    }

    /// The budget that holds all experts: the bytes of their slots.
    pub fn bytes_of_all(&self) -> u64 {
        let plan = self.plan();
        (0..plan.len() as u32).map(|id| plan.slot_bytes(id)).sum()
    }

    /// Whether every expert is in memory, so that no fetch will wait. Of mapped ones that is not known.
    pub fn holds_all(&self) -> bool {
        match &self.backing {
            Backing::Slots(shared) => shared.lock().holds_all(),
            Backing::Mapped(_) => false,
        }
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        match &self.backing {
            Backing::Slots(shared) => shared.lock().counters(),
            Backing::Mapped(mapped) => mapped.counters(),
        }
    }

    /// Begins to count anew.
    pub fn reset_counters(&self) {
        match &self.backing {
            Backing::Slots(shared) => shared.lock().reset_counters(),
            Backing::Mapped(mapped) => mapped.reset_counters(),
        }
    }

    fn plan(&self) -> &Plan {
        match &self.backing {
            Backing::Slots(shared) => &shared.plan,
            Backing::Mapped(mapped) => &mapped.plan,
        }
    }
}

impl Drop for ExpertStore {
    /// Waits for the reads in flight. Leases may live on.
    fn drop(&mut self) {
        if let Backing::Slots(shared) = &self.backing {
            shared.lock().closing = true;
            shared.reads.notify_all();
        }
        for reader in self.readers.drain(..) {
            if reader.join().is_err() {
                tracing::error!("a reader of experts panicked");
            }
        }
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table and wakes whom that concerns.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.lock();
        let result = change(&mut table);
        self.unlock(table);
        result
    }

    /// Lets go of the lock and wakes whom the changes concern.
    pub(crate) fn unlock(&self, mut table: MutexGuard<'_, Table>) {
        let wakes = table.take_wakes();
        drop(table);
        self.wake(wakes);
    }

    pub(crate) fn wake(&self, wakes: Wakes) {
        for _ in 0..wakes.reads {
            self.reads.notify_one();
        }
        if wakes.fetches {
            self.fetches.notify_all();
        }
    }
}

/// Opens the files of a layout and plans their reads.
pub(crate) fn open_files(layout: Layout, io: Io) -> Result<(Plan, Vec<DataFile>), StoreError> {
    let open = |path: &PathBuf| DataFile::open(path, io);
    let files = layout.files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let bytes = |(file, path): (&DataFile, &PathBuf)| {
        file.bytes().map_err(|source| StoreError::File {
            path: path.clone(),
            what: "asking for its length",
            source: Arc::new(source),
        })
    };
    let bytes = files.iter().zip(&layout.files).map(bytes).collect::<Result<Vec<_>, _>>()?;
    Ok((Plan::new(layout, &bytes)?, files))
}

fn pass_through(file: DataFile, options: &StoreOptions) -> Arc<dyn ReadAt> {
    let file: Arc<dyn ReadAt> = Arc::new(file);
    match &options.through {
        Some(through) => through(file),
        None => file,
    }
}

fn ids_in_file_order(plan: &Plan, layer: u32, wanted: &[u32]) -> Result<Vec<u32>, StoreError> {
    let mut ids = wanted.iter().map(|&expert| plan.id(layer, expert)).collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable_by_key(|&id| (plan.file_order(id), id));
    ids.dedup();
    Ok(ids)
}
