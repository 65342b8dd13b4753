//! The least recently used goes first.

use super::Policy;

/// Worth is the time of the last use.
pub(crate) struct Lru {
    last: Vec<f64>,
    now: f64,
}

impl Lru {
    pub(crate) fn new(experts: usize) -> Self {
        Self { last: vec![f64::NEG_INFINITY; experts], now: 0.0 }
    }
}

impl Policy for Lru {
    fn used(&mut self, expert: usize) {
        self.now += 1.0;
        self.last[expert] = self.now;
    }

    fn worth(&self, expert: usize) -> f64 {
        self.last[expert]
    }

    fn worth_if_used(&self, _expert: usize) -> f64 {
        self.now
    }
}
