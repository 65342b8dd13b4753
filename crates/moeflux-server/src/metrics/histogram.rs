//! A histogram with fixed bounds.

use std::sync::{Mutex, PoisonError};

/// Counts of values below each bound.
pub(crate) struct Histogram {
    bounds: &'static [f64],
    counts: Mutex<Counts>,
}

/// What a histogram has seen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counts {
    /// For each bound, and beyond the last, the values that are at most that and over the one before.
    pub(super) buckets: Vec<u64>,
    pub(super) sum: f64,
}

impl Histogram {
    /// Bounds in order.
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: Mutex::new(Counts { buckets: vec![0; bounds.len() + 1], sum: 0.0 }) }
    }

    pub(crate) fn add(&self, value: f64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.buckets[self.bounds.partition_point(|&bound| bound < value)] += 1;
        counts.sum += value;
    }

    pub(super) fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
