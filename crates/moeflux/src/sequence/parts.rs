//! A sequence taken apart, for what keeps parts of it elsewhere: blocks of caches that can be cut anywhere, checkpoints of
//! all other states.

use moeflux_kernels::KvBlock;

use super::restore_point::{Checkpoint, Checkpoints};
use super::positions::Positions;
use super::state::State;
use super::{Position, Sequence};

impl Sequence {
    /// What the full caches have in one block of positions: those of all states, in order.
    pub(super) fn block(&self, index: usize) -> Vec<KvBlock> {
        let caches = self.states.iter().flat_map(State::full_caches);
        caches.map(|blocks| blocks.kept(self.len()).1[index].clone()).collect()
    }

    /// The checkpoints, and one of the present states if it needs any.
    pub(super) fn points(&self) -> impl Iterator<Item = Checkpoint> {
        let here =
            (self.needs_checkpoints() && !self.is_empty() && self.checkpoints.at(self.len()).is_none())
                .then(|| Checkpoint::new(self.len(), &self.states));
        self.checkpoints.iter().cloned().chain(here)
    }

    /// An empty sequence like this one, but for its recurrent states: it has none.
    pub(super) fn shell(&self) -> Self {
        let mut shell = Sequence { tokens: Vec::new(), checkpoints: Checkpoints::default(), ..self.fork() };
        shell.states.iter_mut().for_each(State::hollow);
        shell.positions = Positions::default();
        shell
    }

    /// Puts together what was read of `tokens`: the full caches' blocks of positions, each as [`block`](Self::block) has
    /// it, and checkpoints, of which the last one is at the end if there must be any.
    pub(super) fn assemble<'a>(
        &self,
        tokens: Vec<u32>,
        positions: &[Position],
        blocks: impl Iterator<Item = &'a [KvBlock]> + Clone,
        checkpoints: impl Iterator<Item = Checkpoint>,
    ) -> Self {
        let mut sequence = self.shell();
        let len = tokens.len();
        let caches = sequence.states.iter_mut().flat_map(State::full_caches_mut);
        for (part, cache) in caches.enumerate() {
            cache.replace(0, blocks.clone().map(|parts| parts[part].clone()));
        }
        sequence.positions.extend(positions);
        sequence.tokens = tokens;
        for checkpoint in checkpoints {
            let at = checkpoint.len;
            if at == len {
                for (state, kept) in sequence.states.iter_mut().zip(&checkpoint.kept) {
                    state.restore(len, kept);
                }
            }
            sequence.checkpoints.insert(at, || checkpoint);
        }
        sequence
    }
}
