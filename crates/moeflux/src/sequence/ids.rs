//! Numbers that tell which model a sequence belongs to.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a model for the lifetime of the process, so that a sequence can't be run on another model's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelId(u64);

impl ModelId {
    /// An id that no other model of this process has.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ModelId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a model is, in two numbers that are the same on every machine and for every format that holds the same weights
/// in the same encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Names and shapes of all weights, and what its sequences remember.
    pub architecture: u64,
    /// Encodings, all vectors and the first row of each dense matrix: differs between quantisations of a model, and
    /// between models of the same shape that were trained apart. It is no proof against somebody who wants it to be equal.
    pub weights: u64,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.architecture, self.weights)
    }
}
