//! A sequence taken apart, for what keeps parts of it elsewhere: blocks of caches that can be cut anywhere, restore points of
//! all other states.

use moeflux_kernels::KvBlock;

use super::positions::Positions;
use super::restore_point::{RestorePoint, RestorePoints};
use super::state::State;
use super::{Position, Sequence};

impl Sequence {
    /// What the full caches have in one block of positions: those of all states, in order.
    pub(super) fn block(&self, index: usize) -> Vec<KvBlock> {
        let caches = self.states.iter().flat_map(State::full_caches);
        caches.map(|blocks| blocks.kept(self.len()).1[index].clone()).collect()
    }

    /// The restore points, and one of the present states if it needs any.
    pub(super) fn points(&self) -> impl Iterator<Item = RestorePoint> {
        let here =
            (self.needs_restore_points() && !self.is_empty() && self.restore_points.at(self.len()).is_none())
                .then(|| RestorePoint::new(self.len(), &self.states));
        self.restore_points.iter().cloned().chain(here)
    }

    /// An empty sequence like this one, but for its recurrent states: it has none.
    pub(super) fn shell(&self) -> Self {
        let mut shell =
            Sequence { tokens: Vec::new(), restore_points: RestorePoints::default(), ..self.fork() };
        shell.states.iter_mut().for_each(State::hollow);
        shell.positions = Positions::default();
        shell
    }

    /// Puts together what was read of `tokens`: the full caches' blocks of positions, each as [`block`](Self::block) has
    /// it, and restore points, of which the last one is at the end if there must be any.
    pub(super) fn assemble<'a>(
        &self,
        tokens: Vec<u32>,
        positions: &[Position],
        blocks: impl Iterator<Item = &'a [KvBlock]> + Clone,
        restore_points: impl Iterator<Item = RestorePoint>,
    ) -> Self {
        let mut sequence = self.shell();
        let len = tokens.len();
        let caches = sequence.states.iter_mut().flat_map(State::full_caches_mut);
        for (part, cache) in caches.enumerate() {
            cache.replace(0, blocks.clone().map(|parts| parts[part].clone()));
        }
        sequence.positions.extend(positions);
        sequence.tokens = tokens;
        for restore_point in restore_points {
            let at = restore_point.len;
            if at == len {
                for (state, kept) in sequence.states.iter_mut().zip(&restore_point.kept) {
                    state.restore(len, kept);
                }
            }
            sequence.restore_points.insert(at, || restore_point);
        }
        sequence
    }
}
