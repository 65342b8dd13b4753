//! The experts of a model that is larger than memory: where they lie for the store that streams them, and which ones are
//! read before a router has chosen. [`placement`](crate::placement) decides how much memory they get.

mod device;
mod hints;
mod layout;

pub use device::{DeviceCounters, DeviceTally};
pub(crate) use hints::Hints;
pub use layout::layout;
pub(crate) use layout::{bytes, weights};
pub use moeflux_experts::{
    Counters, DiskSpeed, ExpertStore, Heat, Io, Layout, PolicyKind, Recorder, Replayed, StoreError,
    StoreOptions, Trace, measure,
};
#[doc(hidden)]
pub use moeflux_experts::{Through, faults};

pub use crate::options::{ExpertOptions, HintMode, HostCopy};
