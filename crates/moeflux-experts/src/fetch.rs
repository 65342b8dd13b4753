//! What a consumer holds: a fetch while experts are on their way, a lease while it uses one.

use crate::error::StoreError;
use crate::mapped::Mapped;
use crate::slots::Address;
use crate::store::Shared;
use crate::table::Taken;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// The experts that one layer of a step wants. May be dropped at any time: reads in flight then end as they would have.
pub struct Fetch<'s> {
    kind: Kind,
    store: PhantomData<&'s crate::ExpertStore>,
}

enum Kind {
    Slots { shared: Arc<Shared>, serial: u64 },
    Mapped { mapped: Arc<Mapped>, remaining: Vec<u32> },
    Failed(StoreError),
}

impl Fetch<'_> {
    pub(crate) fn of_slots(shared: &Arc<Shared>, serial: u64) -> Self {
        Self { kind: Kind::Slots { shared: shared.clone(), serial }, store: PhantomData }
    }

    pub(crate) fn of_mapped(mapped: &Arc<Mapped>, remaining: Vec<u32>) -> Self {
        Self { kind: Kind::Mapped { mapped: mapped.clone(), remaining }, store: PhantomData }
    }

    pub(crate) fn failed(error: StoreError) -> Self {
        Self { kind: Kind::Failed(error), store: PhantomData }
    }

    /// Experts that are ready and have not been given yet, in file order: at first those in memory, then those whose
    /// reads have come. Waits only if none is ready; `None` after the last.
    ///
    /// Where the budget has no room for all that is wanted, this gives some of what is ready, such that reads go on
    /// meanwhile. Whoever asks for more then must have dropped leases: if every slot is leased by fetches that wait,
    /// nothing would ever change, and this fails with [`StoreError::Starved`]; so it does when nobody dropped a lease
    /// for as long as [`StoreOptions::patience`](crate::StoreOptions::patience).
    ///
    /// After an error every further call gives it again.
    // Not an iterator: it fails, and what it gives must be dropped before the next call.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Vec<Lease>>, StoreError> {
        match &mut self.kind {
            Kind::Failed(error) => Err(error.clone()),
            Kind::Mapped { mapped, remaining } => {
                let ids = std::mem::take(remaining);
                if let Err(error) = ids.iter().try_for_each(|&id| mapped.check(id)) {
                    self.kind = Kind::Failed(error.clone());
                    return Err(error);
                }
                let lease = |id| Lease::new(&mapped.plan, id, Hold::Mapped(mapped.clone()));
                Ok(Some(ids.into_iter().map(lease).collect())
                    .filter(|leases: &Vec<Lease>| !leases.is_empty()))
            }
            Kind::Slots { shared, serial } => {
                let experts = wait_for_experts(shared, *serial)?;
                let lease = |(id, address)| {
                    let hold = Hold::Slot { shared: shared.clone(), serial: *serial, address };
                    Lease::new(&shared.plan, id, hold)
                };
                Ok(experts.map(|experts| experts.into_iter().map(lease).collect()))
            }
        }
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        if let Kind::Slots { shared, serial } = &self.kind {
            shared.update(|table| table.end_fetch(*serial));
        }
    }
}

fn wait_for_experts(shared: &Shared, serial: u64) -> Result<Option<Vec<(u32, Address)>>, StoreError> {
    let mut table = shared.lock();
    let mut since = None;
    let result = loop {
        match table.take(serial) {
            Taken::Experts(experts) => break Ok(Some(experts)),
            Taken::Done => break Ok(None),
            Taken::Failed(error) => break Err(error),
            Taken::NotYet => {}
        }
        if since.is_none() {
            since = Some(Instant::now());
        }
        table.set_waiting(serial, true);
        if table.deadlocked() {
            break Err(table.starve(serial));
        }
        if table.is_ready(serial) {
            continue;
        }
        let before = table.standstill();
        shared.wake(table.take_wakes());
        let waited =
            shared.fetches.wait_timeout(table, shared.patience).unwrap_or_else(PoisonError::into_inner);
        table = waited.0;
        if waited.1.timed_out() && before.is_some() && table.standstill() == before && !table.is_ready(serial)
        {
            break Err(table.starve(serial));
        }
    };
    if let Some(since) = since {
        table.set_waiting(serial, false);
        table.add_stall(since.elapsed());
    }
    shared.unlock(table);
    result
}

/// An expert's bytes, which stay where they are until this is dropped.
pub struct Lease {
    id: u32,
    expert: u32,
    hold: Hold,
}

enum Hold {
    Slot { shared: Arc<Shared>, serial: u64, address: Address },
    Mapped(Arc<Mapped>),
}

impl Lease {
    fn new(plan: &crate::plan::Plan, id: u32, hold: Hold) -> Self {
        Self { id, expert: plan.place(id).1, hold }
    }

    /// Which expert of its layer.
    pub fn expert(&self) -> u32 {
        self.expert
    }

    /// How many pieces it has.
    pub fn pieces(&self) -> usize {
        match &self.hold {
            Hold::Slot { shared, .. } => shared.plan.expert(self.id).pieces.len(),
            Hold::Mapped(mapped) => mapped.plan.expert(self.id).pieces.len(),
        }
    }

    /// The bytes of a piece, in the layout's order. Out of bounds it panics, as slices do.
    pub fn piece(&self, i: usize) -> &[u8] {
        match &self.hold {
            Hold::Slot { shared, address, .. } => {
                let (start, len) = shared.plan.expert(self.id).pieces[i];
                // SAFETY: plans place pieces inside their expert's slot, which is held, filled, and not written to
                // while this lease is out.
                unsafe { std::slice::from_raw_parts(address.0.add(start), len) }
            }
            Hold::Mapped(mapped) => mapped.piece(self.id, i),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Hold::Slot { shared, serial, .. } = &self.hold {
            shared.update(|table| table.end_lease(self.id, *serial));
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("expert", &self.expert).finish_non_exhaustive()
    }
}
