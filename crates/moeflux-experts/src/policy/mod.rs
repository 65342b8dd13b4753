//! Which experts stay in memory.

mod lfru;
mod lru;
mod ranking;

pub(crate) use ranking::Ranking;

use lfru::Lfru;
use lru::Lru;

/// What the place of each expert in memory is worth.
///
/// A policy sees uses and gives numbers; who may be evicted at all (nobody's lease, wanted by no fetch, not pinned) is
/// the store's to know. It remembers experts that are not in memory just as those that are: their history is its ghost
/// list. Reads of most of a layer at once, as a prompt makes them, are not told to it: they say nothing of what is used
/// next, and must not push out what decoding uses.
pub trait Policy: Send {
    /// Tells that a step uses an expert.
    fn used(&mut self, expert: usize);

    /// What keeping an expert is worth: of those that may go, the least worth goes. Changes only when it is used.
    fn worth(&self, expert: usize) -> f64;

    /// What it would be worth if it were used now.
    fn worth_if_used(&self, expert: usize) -> f64;

    /// Tells how many experts memory holds, about: at first, and when the budget changes.
    fn memory_holds(&mut self, _experts: usize) {}
}

/// A policy by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyKind {
    /// The least recently used goes first.
    Lru,
    /// Uses count, and count for less as time passes.
    #[default]
    Lfru,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Lru, Self::Lfru];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfru => "lfru",
        }
    }

    /// A policy for so many experts.
    pub fn policy(self, experts: usize) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(Lru::new(experts)),
            Self::Lfru => Box::new(Lfru::new(experts)),
        }
    }
}

impl std::str::FromStr for PolicyKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("expected {}, found {name}", Self::ALL.map(Self::name).join(" or ")))
    }
}

impl std::fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a step reads a prompt as far as a layer's experts are concerned: it wants more than half of them, distinct ones.
/// That says nothing of what decoding will use, so it does not count as a use, and whole ranges are worth reading.
pub fn is_prompt_sized(wanted: usize, of_layer: usize) -> bool {
    2 * wanted > of_layer
}
