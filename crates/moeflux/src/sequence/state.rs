//! What a sequence remembers in each layer.

use moeflux_kernels::{AttentionShape, KV_BLOCK};

use crate::graph::StateSpec;

/// One state of a sequence.
#[derive(Clone, Debug)]
pub enum State {
    /// Keys and values of an attention layer.
    Kv(KvCache),
    /// The fixed-size state of a convolution or of a delta rule.
    Recurrent(Recurrent),
}

/// What a step may do with a state: append to a KV cache, or read the present recurrent state and write the next.
#[derive(Debug)]
pub enum StateMut<'a> {
    /// The cache; positions from the sequence's length on are free to write.
    Kv(&'a mut KvCache),
    /// A recurrent state.
    Recurrent {
        /// After the last committed token.
        current: &'a [f32],
        /// After the step's tokens; written whole.
        next: &'a mut [f32],
    },
}

impl State {
    /// The state before the first token.
    pub fn new(spec: &StateSpec) -> Self {
        match *spec {
            StateSpec::Kv { kv_heads, head_dim } => State::Kv(KvCache::new(kv_heads, head_dim)),
            StateSpec::Recurrent { len } => State::Recurrent(Recurrent::new(len)),
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        4 * match self {
            State::Kv(cache) => cache.keys.iter().chain(&cache.values).map(|block| block.len()).sum(),
            State::Recurrent(recurrent) => recurrent.current.len() + recurrent.next.len(),
        }
    }

    /// For a step.
    pub(super) fn step(&mut self) -> StateMut<'_> {
        match self {
            State::Kv(cache) => StateMut::Kv(cache),
            State::Recurrent(Recurrent { current, next }) => StateMut::Recurrent { current, next },
        }
    }

    /// Back to before the first token.
    pub(super) fn clear(&mut self) {
        match self {
            State::Kv(cache) => {
                cache.keys.clear();
                cache.values.clear();
            }
            State::Recurrent(recurrent) => recurrent.current.fill(0.0),
        }
    }
}

/// Keys or values of [`KV_BLOCK`] tokens, `[kv_heads, KV_BLOCK, head_dim]`.
pub type KvBlock = Box<[f32]>;

/// Keys (after RoPE) and values of every token.
#[derive(Clone, Debug)]
pub struct KvCache {
    block_len: usize,
    keys: Vec<KvBlock>,
    values: Vec<KvBlock>,
}

impl KvCache {
    fn new(kv_heads: usize, head_dim: usize) -> Self {
        let shape = AttentionShape { heads: kv_heads, kv_heads, head_dim };
        KvCache { block_len: shape.block_len(), keys: Vec::new(), values: Vec::new() }
    }

    /// Allocates blocks for `len` tokens.
    pub(super) fn reserve(&mut self, len: usize) {
        let blocks = len.div_ceil(KV_BLOCK);
        for side in [&mut self.keys, &mut self.values] {
            side.resize_with(blocks.max(side.len()), || vec![0.0; self.block_len].into_boxed_slice());
        }
    }

    /// Blocks of keys and of values.
    pub fn blocks_mut(&mut self) -> (&mut [KvBlock], &mut [KvBlock]) {
        (&mut self.keys, &mut self.values)
    }
}

/// A state that each step replaces; kept twice, so that a failed step changes nothing.
#[derive(Clone, Debug)]
pub struct Recurrent {
    current: Box<[f32]>,
    next: Box<[f32]>,
}

impl Recurrent {
    fn new(len: usize) -> Self {
        let zeros = vec![0.0; len].into_boxed_slice();
        Recurrent { current: zeros.clone(), next: zeros }
    }

    /// The state after the last committed token.
    pub fn current(&self) -> &[f32] {
        &self.current
    }

    /// Makes what the step wrote current.
    pub(super) fn commit(&mut self) {
        std::mem::swap(&mut self.current, &mut self.next);
    }
}
