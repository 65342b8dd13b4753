//! A sequence: its tokens and everything the model remembers of them.

mod state;

use std::sync::atomic::{AtomicU64, Ordering};

pub use moeflux_kernels::{KvBlock, KvType};
pub use state::{KvCache, LatentCache, Recurrent, State, StateMut};

use crate::graph::StateSpec;

/// Where a token stands on the axes that RoPE knows: time, height and width. Text has the same number on each.
pub type Position = [u32; 3];

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

/// Tokens that a model has read, and its states after them: KV caches, convolution tails, delta-rule states.
///
/// A step writes beside what is there and [`commit`](Self::commit) makes it current; a step that fails, or is
/// cancelled, leaves the sequence as it was.
#[derive(Clone, Debug)]
pub struct Sequence {
    model: ModelId,
    kv_type: KvType,
    tokens: Vec<u32>,
    next_position: u32,
    states: Vec<State>,
}

impl Sequence {
    /// An empty sequence for a model with these states, whose caches have elements of a type.
    pub fn new(model: ModelId, specs: &[StateSpec], kv_type: KvType) -> Self {
        let states = specs.iter().map(|spec| State::new(spec, kv_type)).collect();
        Sequence { model, kv_type, tokens: Vec::new(), next_position: 0, states }
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

    /// The position of the next token of text: one past the largest so far.
    pub fn next_position(&self) -> u32 {
        self.next_position
    }

    /// The states, in the order of the model's [`StateSpec`]s.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// Memory that the states hold, in bytes.
    pub fn state_bytes(&self) -> usize {
        self.states.iter().map(State::bytes).sum()
    }

    /// Makes room for `n` more tokens.
    pub fn reserve(&mut self, n: usize) {
        let len = self.len() + n;
        for state in &mut self.states {
            state.reserve(len);
        }
    }

    /// A state as a step reads and writes it.
    pub fn state_mut(&mut self, index: usize) -> StateMut<'_> {
        self.states[index].step()
    }

    /// Appends the tokens of a step whose states have all been written.
    pub fn commit(&mut self, tokens: &[u32], positions: &[Position]) {
        self.tokens.extend_from_slice(tokens);
        let past = positions.iter().flatten().map(|p| p + 1).max().unwrap_or(0);
        self.next_position = self.next_position.max(past);
        for state in &mut self.states {
            state.commit(self.tokens.len());
        }
    }

    /// Forgets everything; the memory of the KV cache is given back.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.next_position = 0;
        for state in &mut self.states {
            state.clear();
        }
    }
}
