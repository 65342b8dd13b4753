//! Where the experts live: all of them mapped, or as many as a budget allows in slots of an expert store.
//!
//! The arithmetic is [`residence`], a function of numbers alone: of what the caller asks for ([`MemoryRequest`]), of what
//! the model needs besides experts ([`Needs`]), and of what the machine has ([`Machine`]).

mod loading;
mod machine;

pub(crate) use loading::Loading;
pub use machine::Machine;

/// How much memory the caller allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryRequest {
    /// Bytes for the whole process. `None`: what is free, less a reserve for everyone else.
    pub process: Option<u64>,
    /// Bytes for the slots of experts; the experts are then streamed even if they would fit. `None`: what the process's
    /// limit leaves.
    pub experts: Option<u64>,
}

/// What a model needs, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Weights that every token reads; they are mapped.
    pub dense: u64,
    /// Tensors between operations, in the largest step.
    pub transient: u64,
    /// KV cache and recurrent states of a context of ordinary length.
    pub sequence: u64,
    /// All routed experts.
    pub experts: u64,
    /// The smallest budget that the experts can be streamed in.
    pub least_experts: u64,
}

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
/// What a measured limit leaves to others on the machine: a part in so many, and at least so many bytes.
const LEFT_TO_SYSTEM: (u64, u64) = (20, 256 << 20);
/// The same in a control group, where there are few others and the kernel's tables.
const LEFT_TO_GROUP: (u64, u64) = (40, 64 << 20);

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
    let &Needs { dense, transient, sequence, experts, least_experts } = needs;
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
    let usable = |free: u64, (part, least): (u64, u64)| free.saturating_sub((free / part).max(least));
    let system = machine.system_free.map(|free| usable(free, LEFT_TO_SYSTEM));
    let group = machine.group_free.map(|free| usable(free, LEFT_TO_GROUP));
    let free = system.into_iter().chain(group).min()?;
    Some(machine.resident.saturating_add(free))
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
