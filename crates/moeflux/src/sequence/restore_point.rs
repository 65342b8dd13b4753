//! Points of a sequence to which it can go back, though its states can't be cut there.

use std::io;

use super::state::{Kept, State};

/// Tokens between the points at which a sequence keeps a restore point by itself, if a step ends there.
///
/// The recurrent states of a large hybrid model take as much memory as the KV caches of some thousand tokens, and 512
/// tokens are read again in less time than the answer takes.
pub const RESTORE_POINT_INTERVAL: usize = 512;

/// Memory for restore points of a sequence, in bytes, unless it is told otherwise.
pub const RESTORE_POINT_BUDGET: usize = 256 << 20;

/// The states after the first `len` tokens, as far as they can't be cut out of later ones.
#[derive(Clone, Debug)]
pub(super) struct RestorePoint {
    pub(super) len: usize,
    /// In the order of the states.
    pub(super) kept: Vec<Kept>,
    bytes: usize,
}

impl RestorePoint {
    /// Of the present states, after `len` tokens.
    pub(super) fn new(len: usize, states: &[State]) -> Self {
        RestorePoint::from_kept(len, states.iter().map(|state| state.keep(len)).collect())
    }

    /// Of what was kept of each state.
    pub(super) fn from_kept(len: usize, kept: Vec<Kept>) -> Self {
        let bytes = kept.iter().map(Kept::bytes).sum();
        RestorePoint { len, kept, bytes }
    }

    /// Memory held, in bytes, shared or not.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same in the host's memory.
    pub(super) fn on_host(&self) -> io::Result<Self> {
        let kept = self.kept.iter().map(Kept::on_host).collect::<io::Result<_>>()?;
        Ok(RestorePoint { len: self.len, kept, bytes: self.bytes })
    }
}

/// The restore points of a sequence under their budget, by length.
#[derive(Clone, Debug)]
pub(super) struct RestorePoints {
    kept: Vec<RestorePoint>,
    budget: usize,
}

impl Default for RestorePoints {
    fn default() -> Self {
        RestorePoints { kept: Vec::new(), budget: RESTORE_POINT_BUDGET }
    }
}

impl RestorePoints {
    /// By length.
    pub(super) fn iter(&self) -> impl Iterator<Item = &RestorePoint> {
        self.kept.iter()
    }

    /// Memory held, in bytes, shared or not.
    pub(super) fn bytes(&self) -> usize {
        self.kept.iter().map(RestorePoint::bytes).sum()
    }

    /// The last one at or before `len`.
    pub(super) fn before(&self, len: usize) -> Option<&RestorePoint> {
        self.kept[..self.kept.partition_point(|restore_point| restore_point.len <= len)].last()
    }

    /// The one of that length.
    pub(super) fn at(&self, len: usize) -> Option<&RestorePoint> {
        self.before(len).filter(|restore_point| restore_point.len == len)
    }

    /// Adds one that `make` makes, unless there is one of that length.
    pub(super) fn insert(&mut self, len: usize, make: impl FnOnce() -> RestorePoint) {
        if let Err(index) = self.kept.binary_search_by_key(&len, |restore_point| restore_point.len) {
            self.kept.insert(index, make());
            self.thin_out();
        }
    }

    /// The same in the host's memory.
    pub(super) fn on_host(&self) -> io::Result<Self> {
        let kept = self.kept.iter().map(RestorePoint::on_host).collect::<io::Result<_>>()?;
        Ok(RestorePoints { kept, budget: self.budget })
    }

    /// Drops those past `len`.
    pub(super) fn cut(&mut self, len: usize) {
        self.kept.retain(|restore_point| restore_point.len <= len);
    }

    /// Drops all.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Keeps to a budget from now on.
    pub(super) fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
        self.thin_out();
    }

    /// Drops restore points until the rest fit. The newest stays longest; among the others it is the one that leaves the
    /// smallest gap, in proportion to how far back it is: so gaps widen towards the start.
    fn thin_out(&mut self) {
        let mut bytes = self.bytes();
        while bytes > self.budget {
            let Some(newest) = self.kept.last().map(|restore_point| restore_point.len) else { return };
            let before = |index: usize| if index == 0 { 0 } else { self.kept[index - 1].len };
            let gap = |index: usize| {
                let gap = self.kept[index + 1].len - before(index);
                gap as f64 / (newest - self.kept[index].len) as f64
            };
            let least = (0..self.kept.len() - 1).min_by(|&a, &b| gap(a).total_cmp(&gap(b)));
            bytes -= self.kept.remove(least.unwrap_or(0)).bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sequence::recurrent::Held;

    fn restore_point(len: usize) -> RestorePoint {
        RestorePoint::from_kept(len, vec![Kept::Recurrent(Held::Host(Arc::from([0.0; 25])))])
    }

    #[test]
    fn old_gaps_widen_under_a_budget() {
        let mut restore_points = RestorePoints::default();
        restore_points.set_budget(800);
        for len in (512..=512 * 64).step_by(512) {
            restore_points.insert(len, || restore_point(len));
        }
        let lens: Vec<usize> = restore_points.iter().map(|restore_point| restore_point.len).collect();
        assert_eq!((lens.len(), restore_points.bytes()), (8, 800));
        assert_eq!(lens.last(), Some(&(512 * 64)));
        let gaps: Vec<usize> = lens.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[0] >= 4 * gaps[gaps.len() - 1], "{lens:?}");
        // No gap is out of proportion: none is more than half of what follows its start, twice over.
        for pair in lens.windows(2) {
            assert!(pair[1] - pair[0] <= (512 * 64 - pair[0]), "{lens:?}");
        }
        assert_eq!(restore_points.before(lens[3] + 1).map(|restore_point| restore_point.len), Some(lens[3]));
        assert!(restore_points.before(lens[0] - 1).is_none());
        restore_points.cut(lens[3] - 1);
        assert_eq!(restore_points.iter().count(), 3);
        restore_points.set_budget(0);
        assert_eq!(restore_points.iter().count(), 0);
    }
}
