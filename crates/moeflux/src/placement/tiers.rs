//! Tiers: which memory a model's experts live in. One decision for the host, one for a device, and one rule for what either
//! leaves to others.
//!
//! All of it is arithmetic on numbers alone: what the caller asks for ([`MemoryRequest`]), what the model needs
//! ([`Needs`]), and what the machine has ([`Machine`]).

use moeflux_experts::{ExpertStore, Io, StoreError};

use super::{HostSizes, Machine, MemoryRequest, Needs, PlacementError};
use crate::graph::GraphError;
use crate::model::Model;
use crate::options::EngineOptions;

/// Where the experts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// All read in place from the mapped files.
    Mapped,
    /// In slots that take this many bytes.
    Streamed {
        /// Bytes of slots.
        budget: u64,
    },
}

/// The limit leaves too little for experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given} bytes of memory are too few: the process holds {resident}, dense weights take {dense}, buffers {transient}, \
     sequences {sequence}, and experts need at least {least_experts}; allow {needed} bytes or more, shorten the prefill \
     chunk or the context"
)]
#[non_exhaustive]
pub struct MemoryError {
    /// What was asked for, or found free.
    pub given: u64,
    /// The least that would do.
    pub needed: u64,
    /// What the process held before the experts.
    pub resident: u64,
    /// See [`Needs`].
    pub dense: u64,
    /// See [`Needs`].
    pub transient: u64,
    /// See [`Needs`].
    pub sequence: u64,
    /// See [`Needs`].
    pub least_experts: u64,
}

/// Thread stacks, the allocator's slack, pages that are touched beside dense weights.
const RUNTIME: u64 = 48 << 20;

/// What a measured limit leaves to others: a share of what is free, and at least so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// One part in this many.
    pub part: u64,
    /// Bytes at least.
    pub least: u64,
}

impl Reserve {
    /// Of a system's memory, or a device's: others run there too.
    pub const SYSTEM: Reserve = Reserve { part: 20, least: 256 << 20 };
    /// Of a control group's memory, where there are few others beside the kernel's tables.
    pub const GROUP: Reserve = Reserve { part: 40, least: 64 << 20 };

    /// What is left of so many free bytes.
    pub fn usable(self, free: u64) -> u64 {
        free.saturating_sub((free / self.part).max(self.least))
    }
}

/// Decides where the experts live.
///
/// `limit` is what was asked for, or else `resident` and the lesser of `free − max(free / 20, 256 MiB)` of the system and
/// `free − max(free / 40, 64 MiB)` of the control groups. Everything but experts takes
/// `fixed = resident + dense + transient + sequence + 48 MiB`. If the experts fit in `limit − fixed`, they are mapped; if
/// not, that is their budget. Where nothing is asked for and nothing can be measured, they are mapped.
pub fn residence(
    request: &MemoryRequest,
    needs: &Needs,
    machine: &Machine,
) -> Result<Residence, MemoryError> {
    if let Some(budget) = request.experts {
        return Ok(Residence::Streamed { budget });
    }
    let Some(limit) = request.process.or_else(|| measured_limit(machine)) else {
        return Ok(Residence::Mapped);
    };
    let &Needs { dense, transient, sequence, staging: _, experts, least_experts } = needs;
    let resident = machine.resident;
    let fixed = [resident, dense, transient, sequence, RUNTIME].into_iter().fold(0, u64::saturating_add);
    let left = limit.saturating_sub(fixed);
    if experts <= left {
        Ok(Residence::Mapped)
    } else if least_experts <= left {
        Ok(Residence::Streamed { budget: left })
    } else {
        let needed = fixed.saturating_add(least_experts);
        Err(MemoryError { given: limit, needed, resident, dense, transient, sequence, least_experts })
    }
}

/// What the process may grow to: all that is free but a reserve.
fn measured_limit(machine: &Machine) -> Option<u64> {
    let system = machine.system_free.map(|free| Reserve::SYSTEM.usable(free));
    let group = machine.group_free.map(|free| Reserve::GROUP.usable(free));
    let free = system.into_iter().chain(group).min()?;
    Some(machine.resident.saturating_add(free))
}

/// Tokens of a prompt in one step where nobody says how many and experts are in memory: few visit each expert, so the
/// work of reading one is shared by more of them in larger steps.
const RESIDENT_CHUNK: usize = 1024;

/// The same where experts are streamed, if there is room for the buffers: a chunk reads nearly every expert.
const STREAMED_CHUNKS: [usize; 3] = [2048, 1024, 512];
/// And if there is not.
const SMALLEST_CHUNK: usize = 256;
/// What a larger chunk's buffers may take of the experts' budget.
const CHUNK_SHARE: u64 = 8;

/// Steps of a prompt that are larger than the least, and what they take.
pub(super) struct LargerChunk {
    pub(super) needs: Needs,
    pub(super) prefill_chunk: usize,
    /// Bytes of buffers beyond those of the least steps.
    pub(super) extra: u64,
}

/// The largest steps of a prompt whose buffers the experts' budget has room for, if `fits` says so of the bytes that they
/// take of it: a step reads nearly every expert, so fewer steps read less.
pub(super) fn larger_chunk(
    model: &Model,
    budget: u64,
    least: &Needs,
    needs: impl Fn(usize) -> Result<Needs, GraphError>,
    mut fits: impl FnMut(u64) -> bool,
) -> Result<Option<LargerChunk>, GraphError> {
    for prefill_chunk in STREAMED_CHUNKS.into_iter().filter(|&chunk| chunk <= model.context_length()) {
        let needs = needs(prefill_chunk)?;
        let extra = needs.transient.saturating_sub(least.transient);
        if extra <= budget / CHUNK_SHARE && fits(extra) {
            return Ok(Some(LargerChunk { needs, prefill_chunk, extra }));
        }
    }
    Ok(None)
}

/// Where a model's experts live in the memory of the host, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// What the model needs in prefill steps of `prefill_chunk` tokens.
    pub needs: Needs,
    /// What the machine has.
    pub machine: Machine,
    /// Where the experts are to live.
    pub residence: Residence,
    /// Tokens of a prompt in one step.
    pub prefill_chunk: usize,
    /// Bytes that states and experts share; `None` where no limit of the process is to be kept.
    pub states: Option<StateBudget>,
}

impl Placement {
    /// Decides for a model on the CPU under the options.
    pub fn decide(model: &Model, options: &EngineOptions) -> Result<Self, PlacementError> {
        let machine = Machine::measure();
        let sizes = HostSizes { kv_type: options.precision.kv_type() };
        let experts = &options.experts;
        let needs = |chunk| Needs::of(model, &sizes, chunk, experts.context);
        let prefill_chunk = options.prefill_chunk.unwrap_or(RESIDENT_CHUNK.min(model.context_length()));
        let resident = needs(prefill_chunk)?;
        let (residence, states) = (Residence::Mapped, None);
        if resident.experts == 0
            || experts.store.io == Io::Mapped
            || self::residence(&experts.memory, &resident, &machine) == Ok(Residence::Mapped)
        {
            return Ok(Placement { needs: resident, machine, residence, prefill_chunk, states });
        }
        let prefill_chunk = options.prefill_chunk.unwrap_or(SMALLEST_CHUNK);
        let least = needs(prefill_chunk)?;
        let residence = self::residence(&experts.memory, &least, &machine)?;
        let Residence::Streamed { budget } = residence else {
            return Ok(Placement { needs: least, machine, residence, prefill_chunk, states });
        };
        let found = match options.prefill_chunk {
            Some(_) => None,
            None => larger_chunk(model, budget, &least, needs, |_| true)?,
        };
        Ok(match found {
            None => Placement { needs: least, machine, residence, prefill_chunk, states },
            Some(LargerChunk { needs, prefill_chunk, extra }) => {
                // A budget that was asked for is kept whole.
                let budget = if experts.memory.experts.is_some() { budget } else { budget - extra };
                Placement { needs, residence: Residence::Streamed { budget }, prefill_chunk, machine, states }
            }
        }
        .sharing(&experts.memory))
    }

    /// The same where states may take of the experts' budget, unless that was asked for.
    fn sharing(self, memory: &MemoryRequest) -> Self {
        let states = match self.residence {
            Residence::Streamed { budget } if memory.experts.is_none() => {
                Some(StateBudget { reserved: self.needs.sequence, budget })
            }
            _ => None,
        };
        Placement { states, ..self }
    }
}

/// Memory that experts and states of sequences share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateBudget {
    /// Bytes that are the states' own.
    reserved: u64,
    /// Bytes that are the experts' unless states need more than theirs.
    budget: u64,
}

impl StateBudget {
    /// What states may take in all: beyond that experts would have less than three quarters of their budget.
    pub fn most(&self) -> u64 {
        self.reserved + self.budget / 4
    }

    /// Has a store keep to what is left beside states of so many bytes.
    pub fn share(&self, store: &ExpertStore, states: u64) -> Result<(), StoreError> {
        store.resize(self.budget.saturating_sub(states.saturating_sub(self.reserved)))
    }
}

/// Bytes for the states of all sequences where no budget is shared with experts: half of the memory that would be left
/// beside the model's weights, or an eighth of what is free if that is more.
pub fn free_states(model: &Model) -> Result<u64, GraphError> {
    /// Where the system does not tell.
    const UNKNOWN: u64 = 4 << 30;
    let Some(free) = Machine::measure().free() else { return Ok(UNKNOWN) };
    let needs = super::needs(model, 1, 0)?;
    Ok((free.saturating_sub(needs.dense + needs.experts) / 2).max(free / 8))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test

    use super::*;

    const GIB: u64 = 1 << 30;

    const NEEDS: Needs = Needs {
        dense: 2 * GIB,
        transient: GIB / 4,
        sequence: GIB / 4,
        experts: 18 * GIB,
        least_experts: GIB / 64,
        staging: 0,
    };

    fn machine(system: Option<u64>, group: Option<u64>) -> Machine {
        Machine { resident: GIB / 8, system_free: system, group_free: group }
    }

    fn process(bytes: u64) -> MemoryRequest {
        MemoryRequest { process: Some(bytes), experts: None }
    }

    #[test]
    fn what_a_limit_leaves_is_the_budget() {
        let fixed = GIB / 8 + 2 * GIB + GIB / 4 + GIB / 4 + RUNTIME;
        for limit in [4 * GIB, 8 * GIB, fixed + NEEDS.least_experts] {
            // What is free does not matter where a limit is given.
            for free in [None, Some(GIB), Some(100 * GIB)] {
                let found = residence(&process(limit), &NEEDS, &machine(free, None));
                assert_eq!(found, Ok(Residence::Streamed { budget: limit - fixed }));
            }
        }
    }

    #[test]
    fn experts_that_fit_are_mapped() {
        let fixed = GIB / 8 + 2 * GIB + GIB / 4 + GIB / 4 + RUNTIME;
        let found = residence(&process(fixed + NEEDS.experts), &NEEDS, &machine(None, None));
        assert_eq!(found, Ok(Residence::Mapped));
        let found = residence(&process(fixed + NEEDS.experts - 1), &NEEDS, &machine(None, None));
        assert_eq!(found, Ok(Residence::Streamed { budget: NEEDS.experts - 1 }));
    }

    #[test]
    fn the_lesser_of_system_and_group_counts() {
        let auto = MemoryRequest::default();
        assert_eq!(residence(&auto, &NEEDS, &machine(Some(64 * GIB), None)), Ok(Residence::Mapped));
        assert_eq!(residence(&auto, &NEEDS, &machine(None, None)), Ok(Residence::Mapped));
        let budget = |system, group| match residence(&auto, &NEEDS, &machine(system, group)).unwrap() {
            Residence::Streamed { budget } => budget,
            Residence::Mapped => u64::MAX,
        };
        let others = 2 * GIB + GIB / 2 + RUNTIME;
        assert_eq!(budget(Some(64 * GIB), Some(8 * GIB)), 8 * GIB - 8 * GIB / 40 - others);
        assert_eq!(budget(Some(8 * GIB), Some(64 * GIB)), 8 * GIB - 8 * GIB / 20 - others);
        assert_eq!(budget(Some(8 * GIB), None), 8 * GIB - 8 * GIB / 20 - others);
        // Where little is free the reserves do not shrink with it.
        assert_eq!(budget(Some(4 * GIB), None), 4 * GIB - (256 << 20) - others);
        assert_eq!(budget(None, Some(3 * GIB)), 3 * GIB - 3 * GIB / 40 - others);
    }

    #[test]
    fn an_experts_budget_is_taken_as_it_is() {
        let request = MemoryRequest { process: Some(1), experts: Some(5) };
        let found = residence(&request, &NEEDS, &machine(Some(64 * GIB), None));
        assert_eq!(found, Ok(Residence::Streamed { budget: 5 }));
    }

    #[test]
    fn too_little_says_how_much_would_do() {
        for limit in [0, GIB, 2 * GIB + GIB / 2] {
            let error = residence(&process(limit), &NEEDS, &machine(None, None)).unwrap_err();
            assert_eq!(error.given, limit);
            let found = residence(&process(error.needed), &NEEDS, &machine(None, None));
            assert_eq!(found, Ok(Residence::Streamed { budget: NEEDS.least_experts }));
        }
    }

    #[test]
    fn sizes_that_overflow_are_too_much_not_wrong() {
        let needs = Needs { dense: u64::MAX, experts: u64::MAX, least_experts: u64::MAX, ..NEEDS };
        let error = residence(&process(GIB), &needs, &machine(None, None)).unwrap_err();
        assert_eq!(error.needed, u64::MAX);
    }
}
