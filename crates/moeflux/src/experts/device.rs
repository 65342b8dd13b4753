//! What becomes of experts on a GPU that has not room for all of them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What happened so far. Counts are of experts that a layer of a step wanted, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeviceCounters {
    /// Those that the GPU had.
    pub hits: u64,
    /// Those that were brought to it.
    pub misses: u64,
    /// Of those, the ones that took a place there.
    pub placed: u64,
    /// Bytes of those that were brought, as the GPU has them.
    pub bytes_uploaded: u64,
    /// Time in which they were packed for it; copies go on beside other work. None where it reads the host's copy.
    pub upload_time: Duration,
    /// Time that was waited for the host's experts, and for the device where it was behind with copies.
    pub stall_time: Duration,
    /// Places for experts.
    pub places: u64,
    /// Bytes of all places.
    pub bytes: u64,
    /// Bytes of the [copy](super::HostCopy) of all experts that the GPU reads by itself; 0 if there is none.
    pub host_copy: u64,
}

/// Counters that the backend writes and others read.
#[derive(Debug, Default)]
pub struct DeviceTally(Mutex<DeviceCounters>);

impl DeviceTally {
    /// What was counted.
    pub fn counters(&self) -> DeviceCounters {
        *self.lock()
    }

    #[cfg(feature = "gpu")]
    pub(crate) fn count(&self, change: impl FnOnce(&mut DeviceCounters)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, DeviceCounters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
