//! Experts in memory that may be evicted, the least worth first.

use super::Policy;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;

/// A policy's worth put into order, over the experts that may go.
pub(crate) struct Ranking {
    policy: Box<dyn Policy>,
    idle: BTreeSet<Rank>,
    experts: Vec<Ranked>,
    loads: u64,
}

#[derive(Clone, Default)]
struct Ranked {
    /// Its place in `idle`.
    rank: Option<Rank>,
    /// When it was loaded, by count of loads.
    loaded: u64,
    /// What a hint promised that it will be worth, until it is used.
    promised: Option<f64>,
}

/// Of equal worth, the one that was loaded last goes first: experts without a use came by a prompt, which reads all
/// layers over and over, and of a cycle that is larger than memory it is best to keep the beginning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    worth: Worth,
    loaded: Reverse<u64>,
    id: u32,
}

#[derive(Clone, Copy)]
struct Worth(f64);

impl Ranking {
    /// No expert is in memory yet.
    pub(crate) fn new(policy: Box<dyn Policy>, experts: usize) -> Self {
        Self { policy, idle: BTreeSet::new(), experts: vec![Ranked::default(); experts], loads: 0 }
    }

    /// A step uses an expert, which is not to be evicted at the moment.
    pub(crate) fn used(&mut self, id: u32) {
        self.hold(id);
        self.policy.used(id as usize);
        self.experts[id as usize].promised = None;
    }

    /// An expert has come into memory, and is not to be evicted yet; `hinted` if nobody but a hint asked for it.
    pub(crate) fn loaded(&mut self, id: u32, hinted: bool) {
        self.loads += 1;
        let promised = hinted.then(|| self.policy.worth_if_used(id as usize));
        self.experts[id as usize] = Ranked { rank: None, loaded: self.loads, promised };
    }

    /// Tells the policy how many experts memory holds.
    pub(crate) fn memory_holds(&mut self, experts: usize) {
        self.policy.memory_holds(experts);
    }

    /// From now on an expert in memory may be evicted.
    pub(crate) fn release(&mut self, id: u32) {
        self.hold(id);
        let expert = &mut self.experts[id as usize];
        let worth = expert.promised.unwrap_or_else(|| self.policy.worth(id as usize));
        let rank = Rank { worth: Worth(worth), loaded: Reverse(expert.loaded), id };
        expert.rank = Some(rank);
        self.idle.insert(rank);
    }

    /// From now on it may not.
    pub(crate) fn hold(&mut self, id: u32) {
        if let Some(rank) = self.experts[id as usize].rank.take() {
            self.idle.remove(&rank);
        }
    }

    /// Those that may be evicted, as they would be.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = u32> {
        self.idle.iter().map(|rank| rank.id)
    }

    /// Takes out the one to evict next.
    pub(crate) fn evict(&mut self) -> Option<u32> {
        let Rank { id, .. } = self.idle.pop_first()?;
        self.experts[id as usize].rank = None;
        Some(id)
    }
}

impl Ord for Worth {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Worth {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Worth {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Worth {}
