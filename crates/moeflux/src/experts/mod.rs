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
#[cfg(feature = "gpu")]
pub(crate) use place::check_in_place;
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
    /// Whether a GPU that has not room for all experts has them in memory of the host that it reads by itself.
    pub host_copy: HostCopy,
    /// How the store of streamed experts works. Its budget is replaced by what the memory allows; [`Io::Mapped`] maps all
    /// experts, whatever the memory.
    pub store: StoreOptions,
}

/// Whether all experts are copied to memory of the host that a GPU reads by itself. It is locked there, and filling it takes a
/// while when a model is opened; then no layer waits for the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostCopy {
    /// Where the host has room for it.
    #[default]
    Auto,
    /// Always: where there is no room, no model is opened.
    Always,
    /// Never: experts are packed and sent as routers ask for them.
    Never,
}

impl Default for ExpertOptions {
    /// What is free, less a reserve; 4,096 tokens of context; the store's defaults; hints where they help.
    fn default() -> Self {
        ExpertOptions {
            memory: MemoryRequest::default(),
            context: 4096,
            hints: HintMode::default(),
            host_copy: HostCopy::default(),
            store: StoreOptions::new(0),
        }
    }
}

impl fmt::Debug for ExpertOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExpertOptions { memory, context, hints, host_copy, store } = self;
        f.debug_struct("ExpertOptions")
            .field("memory", memory)
            .field("context", context)
            .field("hints", hints)
            .field("host_copy", host_copy)
            .field("io", &store.io)
            .field("policy", &store.policy)
            .finish_non_exhaustive()
    }
}
