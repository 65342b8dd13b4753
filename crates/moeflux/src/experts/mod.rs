//! The experts of a model that is larger than memory: how much memory they get, and where they lie for the store that
//! streams them.

mod device;
mod hints;
mod layout;
mod place;

pub use device::{DeviceCounters, DeviceTally};
pub use hints::HintMode;
pub(crate) use hints::Hints;
pub use layout::layout;
pub(crate) use layout::weights;
pub use moeflux_experts::{
    Counters, DiskSpeed, ExpertStore, Heat, Io, Layout, PolicyKind, Recorder, StoreError, StoreOptions,
    Through, faults, measure,
};
pub use place::{Decision, decide, needs};
pub(crate) use place::{Placement, StateRoom, place};

use std::fmt;

use crate::memory::MemoryRequest;

/// How experts are kept. None of it changes the output.
#[derive(Clone)]
pub struct ExpertOptions {
    /// How much memory there is: what decides whether experts are mapped or streamed.
    pub memory: MemoryRequest,
    /// Tokens of context whose state is counted against the memory.
    pub context: usize,
    /// Whether reads begin before the router has spoken.
    pub hints: HintMode,
    /// How the store of streamed experts works. Its budget is replaced by what the memory allows; [`Io::Mapped`] maps all
    /// experts, whatever the memory.
    pub store: StoreOptions,
}

impl Default for ExpertOptions {
    /// What is free, less a reserve; 4,096 tokens of context; the store's defaults; hints where they help.
    fn default() -> Self {
        ExpertOptions {
            memory: MemoryRequest::default(),
            context: 4096,
            hints: HintMode::default(),
            store: StoreOptions::new(0),
        }
    }
}

impl fmt::Debug for ExpertOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExpertOptions { memory, context, hints, store } = self;
        f.debug_struct("ExpertOptions")
            .field("memory", memory)
            .field("context", context)
            .field("hints", hints)
            .field("io", &store.io)
            .field("policy", &store.policy)
            .finish_non_exhaustive()
    }
}
