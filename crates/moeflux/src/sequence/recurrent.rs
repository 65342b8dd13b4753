//! Recurrent states: of a fixed size, replaced by each step.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use moeflux_kernels::{DeltaRows, DeviceFloats};

/// A state that each step replaces; kept twice, so that a failed step changes nothing.
#[derive(Debug)]
pub struct Recurrent {
    /// Shared with restore points and forks.
    current: Held,
    /// `[rows, len]` of the step about to run, or more; nobody else's.
    next: Held,
    /// After how many rows the step keeps its state: after each, or 1 for after the last.
    rows: usize,
    /// The step's rows, if it keeps the state after the last alone and may have to go back to an earlier one.
    read: Option<DeltaRows>,
}

/// Floats of a state; clones share them.
#[derive(Clone, Debug)]
pub enum Held {
    /// In the host's memory.
    Host(Arc<[f32]>),
    /// Some of those in a device's memory.
    Device(Arc<dyn DeviceFloats>, Range<usize>),
}

impl Held {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Held::Host(floats) => floats.len(),
            Held::Device(_, range) => range.len(),
        }
    }

    /// Whether someone else has them too.
    pub fn is_shared(&self) -> bool {
        match self {
            Held::Host(floats) => Arc::strong_count(floats) > 1,
            Held::Device(floats, _) => Arc::strong_count(floats) > 1,
        }
    }

    /// The same in the host's memory.
    pub(super) fn on_host(&self) -> io::Result<Held> {
        match self {
            Held::Host(_) => Ok(self.clone()),
            Held::Device(floats, range) => Ok(Held::Host(floats.read(range.clone())?.into())),
        }
    }

    /// They themselves.
    pub(super) fn host(&self) -> &[f32] {
        match self {
            Held::Host(floats) => floats,
            Held::Device(..) => unreachable!("a state on a device is brought to the host before it is read"),
        }
    }
}

/// Shares the state; what the next step writes to is not copied.
impl Clone for Recurrent {
    fn clone(&self) -> Self {
        Recurrent::from(self.current.clone())
    }
}

impl From<Held> for Recurrent {
    fn from(current: Held) -> Self {
        Recurrent { current, next: Held::Host(Arc::default()), rows: 1, read: None }
    }
}

impl Recurrent {
    /// Zeros.
    pub(super) fn new(len: usize) -> Self {
        Recurrent::from(zeros(len))
    }

    /// The state after the last committed token.
    ///
    /// # Panics
    /// If it is on a device: [`Sequence::on_host`](super::Sequence::on_host) brings it back.
    pub fn current(&self) -> &[f32] {
        self.current.host()
    }

    /// Where the present state is, where the step's are to be, and how many it keeps: for a backend with memory of its
    /// own, which puts there what it has written, `[rows, len]`.
    pub fn memory(&mut self) -> (&mut Held, &mut Held, usize) {
        (&mut self.current, &mut self.next, self.rows)
    }

    /// The same, to share.
    pub(super) fn share(&self) -> Held {
        self.current.clone()
    }

    /// The same in the host's memory.
    pub(super) fn on_host(&self) -> io::Result<Self> {
        Ok(Recurrent::from(self.current.on_host()?))
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        4 * (self.current.count() + self.next.count())
    }

    /// How much of that nobody else holds.
    pub(super) fn own_bytes(&self) -> usize {
        let shared = if self.current.is_shared() { self.current.count() } else { 0 };
        self.bytes() - 4 * shared
    }

    /// Prepares for a step that keeps so many states; on a device its backend makes the room.
    pub(super) fn reserve(&mut self, rows: usize) {
        (self.rows, self.read) = (rows, None);
        if rows == 1 {
            self.make_room(1);
        }
    }

    /// The present state, and room for those that a step writes, `[rows, len]`.
    pub(super) fn step(&mut self) -> (&[f32], &mut [f32]) {
        self.make_room(self.rows);
        self.room(self.rows)
    }

    /// The present state, and room for the one after the step's last row. If the step is to keep the states after the rows
    /// before it too, they are computed again from `read` should they be wanted: they seldom are, and large.
    pub(crate) fn step_to_last(&mut self, read: impl FnOnce() -> DeltaRows) -> (&[f32], &mut [f32]) {
        self.read = (self.rows > 1).then(read);
        self.make_room(1);
        self.room(1)
    }

    fn make_room(&mut self, rows: usize) {
        let len = rows * self.current.count();
        if let (Held::Host(_), Held::Host(next)) = (&self.current, &mut self.next)
            // A state of one row is swapped in, one of several rows is copied: where one is enough, it has to be one.
            && (next.len() < len || (rows == 1 && next.len() > len) || Arc::get_mut(next).is_none())
        {
            self.next = zeros(len);
        }
    }

    fn room(&mut self, rows: usize) -> (&[f32], &mut [f32]) {
        let len = rows * self.current.count();
        let Held::Host(next) = &mut self.next else {
            unreachable!("a state on a device is only for that device's backend")
        };
        (self.current.host(), &mut Arc::make_mut(next)[..len])
    }

    /// Makes what the step wrote current, of which the first `kept` rows count.
    pub(super) fn commit(&mut self, kept: usize) {
        let len = self.current.count();
        if let Some(read) = self.read.take().filter(|_| kept < self.rows) {
            let (current, next) = self.room(1);
            read.state_after(kept, current, next);
        }
        if self.next.count() == len {
            std::mem::swap(&mut self.current, &mut self.next);
            return;
        }
        let row = kept.min(self.rows) - 1;
        match (&mut self.current, &self.next) {
            (current, Held::Device(next, range)) => {
                let first = range.start + row * len;
                *current = Held::Device(Arc::clone(next), first..first + len);
                self.next = Held::Host(Arc::default());
            }
            (Held::Host(current), Held::Host(next)) => {
                let state = &next[row * len..(row + 1) * len];
                match Arc::get_mut(current) {
                    Some(current) => current.copy_from_slice(state),
                    None => *current = state.into(),
                }
            }
            (Held::Device(..), Held::Host(_)) => unreachable!("a device's backend writes states there"),
        }
    }

    /// Back to zeros, and gives back what steps wrote to.
    pub(super) fn clear(&mut self) {
        *self = Recurrent::new(self.current.count());
    }
}

fn zeros(len: usize) -> Held {
    Held::Host(std::iter::repeat_n(0.0, len).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_several_rows_is_given_back() {
        let mut state = Recurrent::new(5);
        for (rows, kept, value) in [(3, 2, 11.0), (1, 1, 20.0), (4, 4, 33.0), (1, 1, 40.0), (1, 1, 50.0)] {
            state.reserve(rows);
            let (_, next) = state.step();
            for (row, next) in next.chunks_exact_mut(5).enumerate() {
                next.fill(10.0 * (value / 10.0_f32).floor() + row as f32);
            }
            state.commit(kept);
            assert_eq!(state.current(), [value; 5]);
            assert!(rows > 1 || state.bytes() == 4 * 2 * 5, "{} bytes", state.bytes());
        }
    }
}
