//! Recurrent states: of a fixed size, replaced by each step.

use std::sync::Arc;

/// A state that each step replaces; kept twice, so that a failed step changes nothing.
#[derive(Debug)]
pub struct Recurrent {
    /// Shared with checkpoints and forks.
    current: Arc<[f32]>,
    /// `[rows, len]` of the step about to run, or more; nobody else's.
    next: Arc<[f32]>,
    /// After how many rows the step keeps its state: after each, or 1 for after the last.
    rows: usize,
}

/// Shares the state; what the next step writes to is not copied.
impl Clone for Recurrent {
    fn clone(&self) -> Self {
        Recurrent::from(Arc::clone(&self.current))
    }
}

impl From<Arc<[f32]>> for Recurrent {
    fn from(current: Arc<[f32]>) -> Self {
        Recurrent { current, next: Arc::default(), rows: 1 }
    }
}

impl Recurrent {
    /// Zeros.
    pub(super) fn new(len: usize) -> Self {
        Recurrent::from(zeros(len))
    }

    /// The state after the last committed token.
    pub fn current(&self) -> &[f32] {
        &self.current
    }

    /// The same, to share.
    pub(super) fn share(&self) -> Arc<[f32]> {
        Arc::clone(&self.current)
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        4 * (self.current.len() + self.next.len())
    }

    /// How much of that nobody else holds.
    pub(super) fn own_bytes(&self) -> usize {
        let shared = if Arc::strong_count(&self.current) > 1 { self.current.len() } else { 0 };
        self.bytes() - 4 * shared
    }

    /// Makes room for the states that a step keeps.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.rows = rows;
        let len = rows * self.current.len();
        if self.next.len() < len || Arc::get_mut(&mut self.next).is_none() {
            self.next = zeros(len);
        }
    }

    /// The present state, and room for those that a step writes, `[rows, len]`.
    pub(super) fn step(&mut self) -> (&[f32], &mut [f32]) {
        let len = self.rows * self.current.len();
        (&self.current, &mut Arc::make_mut(&mut self.next)[..len])
    }

    /// Makes what the step wrote current, of which the first `kept` rows count.
    pub(super) fn commit(&mut self, kept: usize) {
        let len = self.current.len();
        if self.next.len() == len {
            std::mem::swap(&mut self.current, &mut self.next);
            return;
        }
        let row = kept.min(self.rows) - 1;
        let state = &self.next[row * len..(row + 1) * len];
        match Arc::get_mut(&mut self.current) {
            Some(current) => current.copy_from_slice(state),
            None => self.current = state.into(),
        }
    }

    /// Back to zeros, and gives back what steps wrote to.
    pub(super) fn clear(&mut self) {
        *self = Recurrent::new(self.current.len());
    }
}

fn zeros(len: usize) -> Arc<[f32]> {
    std::iter::repeat_n(0.0, len).collect()
}
