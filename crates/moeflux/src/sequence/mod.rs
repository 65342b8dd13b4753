//! A sequence: its tokens and everything the model remembers of them.

mod bytes;
mod cache;
mod ids;
pub mod mflx;
mod parts;
mod positions;
mod prefix;
mod recurrent;
mod restore_point;
pub mod snapshot;
mod state;

use std::io;

pub use bytes::SequenceBytes;
pub use cache::{KvCache, LatentCache};
pub use ids::{Fingerprint, ModelId};
pub use moeflux_kernels::{KvBlock, KvType};
pub use prefix::PrefixCache;
pub use recurrent::{Held, Recurrent};
pub use restore_point::{RESTORE_POINT_BUDGET, RESTORE_POINT_INTERVAL};
pub use state::{State, StateMut};

use self::positions::Positions;
use self::restore_point::{RestorePoint, RestorePoints};
use crate::graph::{StateId, StateSpec};

/// Where a token stands on the axes that RoPE knows: time, height and width. Text has the same number on each.
pub type Position = [u32; 3];

/// Tokens that a model has read, and its states after them: KV caches, convolution tails, delta-rule states.
///
/// A step writes beside what is there and [`commit`](Self::commit) makes it current; a step that fails, or is
/// cancelled, leaves the sequence as it was.
///
/// Caches of full attention can be cut anywhere. Recurrent states and sliding windows can't, so a sequence that has any
/// keeps restore points of them: where it is [marked](Self::mark), and where a step ends at a multiple of
/// [`RESTORE_POINT_INTERVAL`]. To go back in between, the tokens from the restore point on are read again
/// ([`Engine::truncate`](crate::Engine::truncate)).
#[derive(Clone, Debug)]
pub struct Sequence {
    model: ModelId,
    kv_type: KvType,
    tokens: Vec<u32>,
    positions: Positions,
    states: Vec<State>,
    restore_points: RestorePoints,
    reserved: Reserved,
}

/// What the step about to run may write.
#[derive(Clone, Copy, Debug, Default)]
struct Reserved {
    rows: usize,
    /// Whether recurrent states are kept after each row, so that some of the rows may be committed.
    each: bool,
}

impl Sequence {
    /// An empty sequence for a model with these states, whose caches have elements of a type.
    pub fn new(model: ModelId, specs: &[StateSpec], kv_type: KvType) -> Self {
        Sequence {
            model,
            kv_type,
            tokens: Vec::new(),
            positions: Positions::default(),
            states: specs.iter().map(|spec| State::new(spec, kv_type)).collect(),
            restore_points: RestorePoints::default(),
            reserved: Reserved::default(),
        }
    }

    /// What the elements of its caches are.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// The tokens read so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of tokens read so far.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether no token has been read.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The model that it belongs to.
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// How many of these tokens at the start it has read, if one of them is to be left to read: what is to be kept of it to
    /// go on with them.
    pub fn reusable(&self, tokens: &[u32]) -> usize {
        let same = self.tokens.iter().zip(tokens).take_while(|(old, new)| old == new).count();
        same.min(tokens.len().saturating_sub(1))
    }

    /// The position of the next token of text: one past the largest so far.
    pub fn next_position(&self) -> u32 {
        self.positions.next()
    }

    /// The position of a token read.
    ///
    /// # Panics
    /// If there is no such token.
    pub fn position(&self, index: usize) -> Position {
        assert!(index < self.len(), "token {index} of {}", self.len());
        self.positions.get(index)
    }

    /// The states, in the order of the model's [`StateSpec`]s.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// Memory that the states hold, in bytes, shared with other sequences or not.
    pub fn state_bytes(&self) -> usize {
        self.states.iter().map(State::bytes).sum()
    }

    /// The part of [`state_bytes`](Self::state_bytes) that no other sequence, restore point or cache holds.
    pub fn own_bytes(&self) -> usize {
        self.states.iter().map(State::own_bytes).sum()
    }

    /// Memory that the restore points hold, in bytes, shared or not.
    pub fn restore_point_bytes(&self) -> usize {
        self.restore_points.bytes()
    }

    /// Memory that states and restore points hold, in bytes, shared or not.
    pub fn held_bytes(&self) -> usize {
        self.state_bytes() + self.restore_point_bytes()
    }

    /// A second sequence that goes on from here. It shares all memory with this one; each copies what it writes to:
    /// the last block of each cache at most.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.clone()
    }

    /// Makes room for `n` more tokens.
    pub fn reserve(&mut self, n: usize) {
        self.reserve_rows(n, false);
    }

    /// Makes room for `n` more tokens, of which the first few may be [committed](Self::commit): the step keeps recurrent
    /// states after each.
    pub fn reserve_each(&mut self, n: usize) {
        self.reserve_rows(n, true);
    }

    fn reserve_rows(&mut self, n: usize, each: bool) {
        let len = self.len() + n;
        for state in &mut self.states {
            state.reserve(len, if each { n } else { 1 });
        }
        self.reserved = Reserved { rows: n, each };
    }

    /// A state as a step reads and writes it.
    pub fn state_mut(&mut self, id: StateId) -> StateMut<'_> {
        self.states[id.0].step()
    }

    /// A recurrent state with where its memory is, for a backend that has its own.
    pub fn recurrent_mut(&mut self, id: StateId) -> Option<&mut Recurrent> {
        match &mut self.states[id.0] {
            State::Recurrent(recurrent) => Some(recurrent),
            State::Kv(_) | State::Latent(_) => None,
        }
    }

    /// A fork whose states and restore points are all in the host's memory, whatever device they are on.
    pub fn on_host(&self) -> io::Result<Self> {
        let states = self.states.iter().map(State::on_host).collect::<io::Result<_>>()?;
        Ok(Sequence { states, restore_points: self.restore_points.on_host()?, ..self.fork() })
    }

    /// Appends the tokens of a step whose states have all been written: all of them, or the first few, at least one, if
    /// the step was [reserved so](Self::reserve_each).
    ///
    /// # Panics
    /// If those are not the tokens that there was room for.
    pub fn commit(&mut self, tokens: &[u32], positions: &[Position]) {
        let Reserved { rows, each } = std::mem::take(&mut self.reserved);
        let kept = tokens.len();
        assert_eq!(positions.len(), kept, "a position for each token");
        assert!(kept == rows || (each && (1..rows).contains(&kept)), "{kept} rows of {rows} committed");
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(positions);
        for state in &mut self.states {
            state.commit(self.tokens.len(), kept);
        }
        if self.len().is_multiple_of(RESTORE_POINT_INTERVAL) {
            self.mark();
        }
    }

    /// Keeps a restore point here, to which the sequence can go back at no cost: worth while at a prompt's end and where a
    /// message ends. Models whose states can all be cut need none, and keep none.
    pub fn mark(&mut self) {
        if self.needs_restore_points() && !self.is_empty() {
            let (len, states) = (self.len(), &self.states);
            self.restore_points.insert(len, || RestorePoint::new(len, states));
        }
    }

    /// Most tokens of a step that is to go on towards `goal` tokens, at most `chunk` of them: where restore points are
    /// needed, it ends at the last multiple of [`RESTORE_POINT_INTERVAL`] in reach, unless the goal is.
    pub fn chunk_towards(&self, goal: usize, chunk: usize) -> usize {
        let (len, reach) = (self.len(), goal.min(self.len() + chunk));
        let multiple = reach - reach % RESTORE_POINT_INTERVAL;
        if reach < goal && multiple > len && self.needs_restore_points() {
            multiple - len
        } else {
            reach - len
        }
    }

    /// Has restore points take so many bytes at most; instead of [`RESTORE_POINT_BUDGET`].
    pub fn set_restore_point_budget(&mut self, bytes: usize) {
        self.restore_points.set_budget(bytes);
    }

    /// How many tokens are to be read again to go back to the first `len`: none where the states can be cut there or a
    /// restore point was kept. `None` if it has fewer than `len`.
    pub fn truncation_cost(&self, len: usize) -> Option<usize> {
        (len <= self.len()).then(|| len - self.nearest(len))
    }

    /// Goes back to the first `len` tokens, or to fewer if those can't be had without reading tokens again.
    pub fn rewind(&mut self, len: usize) {
        let len = self.nearest(len);
        if len == self.len() {
            return;
        }
        if len == 0 {
            self.clear();
            return;
        }
        match self.restore_points.at(len) {
            Some(restore_point) => {
                for (state, kept) in self.states.iter_mut().zip(&restore_point.kept) {
                    state.restore(len, kept);
                }
            }
            None => self.states.iter_mut().for_each(|state| state.cut(len)),
        }
        self.tokens.truncate(len);
        self.positions.truncate(len);
        self.restore_points.cut(len);
        self.reserved = Reserved::default();
    }

    /// The largest length up to `len` to which it can go back without reading tokens again.
    fn nearest(&self, len: usize) -> usize {
        if len >= self.len() {
            self.len()
        } else if self.states.iter().all(|state| state.can_cut(len)) {
            len
        } else {
            self.restore_points.before(len).map_or(0, |restore_point| restore_point.len)
        }
    }

    pub(crate) fn needs_restore_points(&self) -> bool {
        self.states.iter().any(State::needs_restore_points)
    }

    /// Forgets everything; the memory of the KV cache is given back.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions = Positions::default();
        self.restore_points.clear();
        self.reserved = Reserved::default();
        self.states.iter_mut().for_each(State::clear);
    }
}
