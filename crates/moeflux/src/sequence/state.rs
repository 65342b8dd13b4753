//! What a sequence remembers in each layer.

use moeflux_kernels::{AttentionShape, KV_BLOCK, KvBlock, KvType, MlaShape};

use crate::graph::StateSpec;

/// One state of a sequence.
#[derive(Clone, Debug)]
pub enum State {
    /// Keys and values of an attention layer.
    Kv(KvCache),
    /// Latents and rotary keys of a multi-head latent attention.
    Latent(LatentCache),
    /// The fixed-size state of a convolution or of a delta rule.
    Recurrent(Recurrent),
}

/// What a step may do with a state: append to a cache, or read the present recurrent state and write the next.
#[derive(Debug)]
pub enum StateMut<'a> {
    /// The cache; positions from the sequence's length on are free to write.
    Kv(&'a mut KvCache),
    /// The same for latents.
    Latent(&'a mut LatentCache),
    /// A recurrent state.
    Recurrent {
        /// After the last committed token.
        current: &'a [f32],
        /// After the step's tokens; written whole.
        next: &'a mut [f32],
    },
}

impl State {
    /// The state before the first token; a cache's elements are of the type given.
    pub fn new(spec: &StateSpec, kv_type: KvType) -> Self {
        match *spec {
            StateSpec::Kv { kv_heads, head_dim, window } => {
                State::Kv(KvCache::new(kv_heads, head_dim, window, kv_type))
            }
            StateSpec::Latent { rank, rope_dim } => State::Latent(LatentCache::new(rank, rope_dim, kv_type)),
            StateSpec::Recurrent { len } => State::Recurrent(Recurrent::new(len)),
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            State::Kv(cache) => cache.keys.bytes() + cache.values.bytes(),
            State::Latent(cache) => cache.blocks.bytes(),
            State::Recurrent(recurrent) => 4 * (recurrent.current.len() + recurrent.next.len()),
        }
    }

    /// Makes room for what a step writes, so that the sequence has `len` tokens.
    pub(super) fn reserve(&mut self, len: usize) {
        match self {
            State::Kv(cache) => {
                cache.keys.reserve(len);
                cache.values.reserve(len);
            }
            State::Latent(cache) => cache.blocks.reserve(len),
            State::Recurrent(_) => {}
        }
    }

    /// Makes what a step wrote current; the sequence now has `len` tokens.
    pub(super) fn commit(&mut self, len: usize) {
        match self {
            State::Kv(cache) => cache.forget(len),
            State::Latent(_) => {}
            State::Recurrent(recurrent) => recurrent.commit(),
        }
    }

    /// For a step.
    pub(super) fn step(&mut self) -> StateMut<'_> {
        match self {
            State::Kv(cache) => StateMut::Kv(cache),
            State::Latent(cache) => StateMut::Latent(cache),
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
            State::Latent(cache) => cache.blocks.clear(),
            State::Recurrent(recurrent) => recurrent.current.fill(0.0),
        }
    }
}

/// Keys (after RoPE) and values of every token, or of those that a window still sees.
#[derive(Clone, Debug)]
pub struct KvCache {
    shape: AttentionShape,
    keys: Blocks,
    values: Blocks,
}

impl KvCache {
    fn new(kv_heads: usize, head_dim: usize, window: Option<usize>, kv_type: KvType) -> Self {
        let shape = AttentionShape { heads: kv_heads, kv_heads, head_dim, window };
        let blocks = || Blocks::new(shape.block_len(), kv_type);
        KvCache { shape, keys: blocks(), values: blocks() }
    }

    /// Blocks of keys and of values.
    pub fn blocks_mut(&mut self) -> (&mut [KvBlock], &mut [KvBlock]) {
        (&mut self.keys.blocks, &mut self.values.blocks)
    }

    /// Drops what token `len`, and so every later one, does not see.
    fn forget(&mut self, len: usize) {
        let first_seen = self.shape.first_seen(len);
        self.keys.forget_before(first_seen);
        self.values.forget_before(first_seen);
    }
}

/// Latents (normed) and rotary keys (turned) of every token.
#[derive(Clone, Debug)]
pub struct LatentCache {
    blocks: Blocks,
}

impl LatentCache {
    fn new(rank: usize, rope_dim: usize, kv_type: KvType) -> Self {
        LatentCache { blocks: Blocks::new(MlaShape { heads: 1, rank, rope_dim }.block_len(), kv_type) }
    }

    /// Its blocks.
    pub fn blocks_mut(&mut self) -> &mut [KvBlock] {
        &mut self.blocks.blocks
    }
}

/// Blocks of [`KV_BLOCK`] absolute positions; empty once no token to come sees any of them.
#[derive(Clone, Debug)]
struct Blocks {
    block_len: usize,
    kv_type: KvType,
    blocks: Vec<KvBlock>,
    /// How many at the start have been dropped.
    dropped: usize,
}

impl Blocks {
    fn new(block_len: usize, kv_type: KvType) -> Self {
        Blocks { block_len, kv_type, blocks: Vec::new(), dropped: 0 }
    }

    /// Memory held.
    fn bytes(&self) -> usize {
        (self.blocks.len() - self.dropped) * self.block_len * self.kv_type.bytes()
    }

    /// Allocates blocks for `len` tokens.
    fn reserve(&mut self, len: usize) {
        let blocks = len.div_ceil(KV_BLOCK).max(self.blocks.len());
        self.blocks.resize_with(blocks, || KvBlock::zeros(self.block_len, self.kv_type));
    }

    /// Gives back the memory of blocks that end before `position`.
    fn forget_before(&mut self, position: usize) {
        let end = (position / KV_BLOCK).min(self.blocks.len());
        for block in self.blocks.get_mut(self.dropped..end).unwrap_or_default() {
            *block = KvBlock::zeros(0, self.kv_type);
        }
        self.dropped = self.dropped.max(end);
    }

    fn clear(&mut self) {
        self.blocks.clear();
        self.dropped = 0;
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
    fn commit(&mut self) {
        std::mem::swap(&mut self.current, &mut self.next);
    }
}
