//! What a sequence remembers in each layer.

use std::io;

use moeflux_kernels::{KvBlock, KvType};

use super::cache::{Blocks, KvCache, LatentCache};
use super::recurrent::{Held, Recurrent};
use crate::graph::StateSpec;

/// One state of a sequence. A clone shares what it holds; whoever writes gets a copy of what it writes to.
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
    /// A recurrent state of `len` floats.
    Recurrent {
        /// After the last committed token, `[len]`.
        current: &'a [f32],
        /// After the step's last token, `[1, len]`, or after each of its `n`, `[n, len]`, as it was reserved
        /// ([`reserve_each`](super::Sequence::reserve_each)); written whole.
        next: &'a mut [f32],
    },
}

/// What of a state can't be had back by dropping the end of it: kept by a restore point, sharing memory with the state.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// Nothing: a cache of every token can be cut anywhere.
    Nothing,
    /// What the window saw: keys and values from a block on.
    Window { first: usize, keys: Vec<KvBlock>, values: Vec<KvBlock> },
    /// The recurrent state.
    Recurrent(Held),
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

    /// Memory held, in bytes, shared or not.
    pub fn bytes(&self) -> usize {
        match self {
            State::Kv(cache) => cache.parts().map(Blocks::bytes).iter().sum(),
            State::Latent(cache) => cache.blocks.bytes(),
            State::Recurrent(recurrent) => recurrent.bytes(),
        }
    }

    /// Memory that nobody else holds, in bytes.
    pub(super) fn own_bytes(&self) -> usize {
        match self {
            State::Kv(cache) => cache.parts().map(Blocks::own_bytes).iter().sum(),
            State::Latent(cache) => cache.blocks.own_bytes(),
            State::Recurrent(recurrent) => recurrent.own_bytes(),
        }
    }

    /// Makes room for what a step writes, so that the sequence has `len` tokens; recurrent states are kept after the
    /// last of its rows, or after each of the first `rows`.
    pub(super) fn reserve(&mut self, len: usize, rows: usize) {
        match self {
            State::Kv(cache) => cache.parts_mut().into_iter().for_each(|blocks| blocks.reserve(len)),
            State::Latent(cache) => cache.blocks.reserve(len),
            State::Recurrent(recurrent) => recurrent.reserve(rows),
        }
    }

    /// Makes what a step wrote current, of which `kept` rows count; the sequence now has `len` tokens.
    pub(super) fn commit(&mut self, len: usize, kept: usize) {
        match self {
            State::Kv(cache) => cache.forget(len),
            State::Latent(_) => {}
            State::Recurrent(recurrent) => recurrent.commit(kept),
        }
    }

    /// For a step.
    pub(super) fn step(&mut self) -> StateMut<'_> {
        match self {
            State::Kv(cache) => StateMut::Kv(cache),
            State::Latent(cache) => StateMut::Latent(cache),
            State::Recurrent(recurrent) => {
                let (current, next) = recurrent.step();
                StateMut::Recurrent { current, next }
            }
        }
    }

    /// The same in the host's memory.
    pub(super) fn on_host(&self) -> io::Result<Self> {
        let mut state = self.clone();
        match &mut state {
            State::Kv(cache) => cache.parts_mut().into_iter().try_for_each(Blocks::bring_to_host)?,
            State::Latent(cache) => cache.blocks.bring_to_host()?,
            State::Recurrent(recurrent) => *recurrent = recurrent.on_host()?,
        }
        Ok(state)
    }

    /// The blocks of a cache that can be cut anywhere.
    pub(super) fn full_caches(&self) -> Vec<&Blocks> {
        match self {
            State::Kv(cache) if !cache.has_window() => cache.parts().into(),
            State::Latent(cache) => vec![&cache.blocks],
            State::Kv(_) | State::Recurrent(_) => Vec::new(),
        }
    }

    /// The same, to put together.
    pub(super) fn full_caches_mut(&mut self) -> Vec<&mut Blocks> {
        match self {
            State::Kv(cache) if !cache.has_window() => cache.parts_mut().into(),
            State::Latent(cache) => vec![&mut cache.blocks],
            State::Kv(_) | State::Recurrent(_) => Vec::new(),
        }
    }

    /// Whether there are lengths to which it can't be cut.
    pub(super) fn needs_restore_points(&self) -> bool {
        match self {
            State::Kv(cache) => cache.has_window(),
            State::Latent(_) => false,
            State::Recurrent(_) => true,
        }
    }

    /// Whether it can be cut to `len` tokens, fewer than it has.
    pub(super) fn can_cut(&self, len: usize) -> bool {
        match self {
            State::Kv(cache) => cache.can_cut(len),
            State::Latent(_) => true,
            State::Recurrent(_) => false,
        }
    }

    /// Drops all but the first `len` tokens; only where that can be done.
    pub(super) fn cut(&mut self, len: usize) {
        match self {
            State::Kv(cache) => cache.parts_mut().into_iter().for_each(|blocks| blocks.cut(len)),
            State::Latent(cache) => cache.blocks.cut(len),
            State::Recurrent(_) => unreachable!("a recurrent state is never cut"),
        }
    }

    /// What a restore point keeps of it, at the sequence's length.
    pub(super) fn keep(&self, len: usize) -> Kept {
        match self {
            State::Kv(cache) if cache.has_window() => {
                let [(first, keys), (_, values)] = cache.parts().map(|blocks| blocks.kept(len));
                Kept::Window { first, keys: keys.to_vec(), values: values.to_vec() }
            }
            State::Kv(_) | State::Latent(_) => Kept::Nothing,
            State::Recurrent(recurrent) => Kept::Recurrent(recurrent.share()),
        }
    }

    /// Back to what was kept at `len` tokens.
    pub(super) fn restore(&mut self, len: usize, kept: &Kept) {
        match (self, kept) {
            (State::Recurrent(recurrent), Kept::Recurrent(state)) => {
                *recurrent = Recurrent::from(state.clone());
            }
            (State::Kv(cache), Kept::Window { first, keys, values }) => {
                for (blocks, kept) in cache.parts_mut().into_iter().zip([keys, values]) {
                    blocks.replace(*first, kept.iter().cloned());
                }
            }
            (state, _) => state.cut(len),
        }
    }

    /// Without anything, not even the zeros of a recurrent state; only to be restored.
    pub(super) fn hollow(&mut self) {
        match self {
            State::Recurrent(recurrent) => *recurrent = Recurrent::new(0),
            state => state.clear(),
        }
    }

    /// Back to before the first token.
    pub(super) fn clear(&mut self) {
        match self {
            State::Kv(cache) => cache.parts_mut().into_iter().for_each(Blocks::clear),
            State::Latent(cache) => cache.blocks.clear(),
            State::Recurrent(recurrent) => recurrent.clear(),
        }
    }
}

impl Kept {
    /// Memory held, in bytes, shared or not.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Kept::Nothing => 0,
            Kept::Window { keys, values, .. } => keys.iter().chain(values).map(KvBlock::bytes).sum(),
            Kept::Recurrent(state) => 4 * state.count(),
        }
    }

    /// The same in the host's memory.
    pub(super) fn on_host(&self) -> io::Result<Self> {
        let side = |blocks: &[KvBlock]| blocks.iter().map(KvBlock::on_host).collect::<io::Result<_>>();
        Ok(match self {
            Kept::Nothing => Kept::Nothing,
            Kept::Window { first, keys, values } => {
                Kept::Window { first: *first, keys: side(keys)?, values: side(values)? }
            }
            Kept::Recurrent(state) => Kept::Recurrent(state.on_host()?),
        })
    }
}
