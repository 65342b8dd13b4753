//! States on their way: to the device for a step, and back after it.

use std::sync::Arc;

use moeflux_gpu::{Device, GpuError, KvView, View};
use moeflux_kernels::{KV_BLOCK, KvBlock};

use crate::backend::Segment;
use crate::sequence::StateMut;

/// What a step writes to the states of its sequences, on the device until it has run.
#[derive(Debug, Default)]
pub(super) struct States(Vec<Written>);

/// A part of a state that a step writes.
#[derive(Debug)]
struct Written {
    segment: usize,
    state: usize,
    part: Part,
    view: View,
}

#[derive(Debug)]
enum Part {
    /// Blocks from this one on, of keys or latents.
    Keys(usize),
    /// The same of values.
    Values(usize),
    /// The next recurrent states.
    Next,
}

impl States {
    /// A KV cache with what the sequence has, and room for what the step appends.
    pub(super) fn kv(
        &mut self,
        device: &Device,
        segment: &mut Segment<'_>,
        index: usize,
        state: usize,
    ) -> Result<KvView, GpuError> {
        let first = segment.sequence.len() / KV_BLOCK;
        let StateMut::Kv(cache) = segment.sequence.state_mut(state) else {
            unreachable!("the loader made state {state} a KV cache")
        };
        let (keys, values) = cache.blocks_mut();
        let (keys, blocks, key_rest) = upload(device, keys, first)?;
        let (values, _, value_rest) = upload(device, values, first)?;
        self.0.push(Written { segment: index, state, part: Part::Keys(first), view: key_rest });
        self.0.push(Written { segment: index, state, part: Part::Values(first), view: value_rest });
        Ok(KvView { keys, values, blocks })
    }

    /// The same of a cache of latents.
    pub(super) fn latent(
        &mut self,
        device: &Device,
        segment: &mut Segment<'_>,
        index: usize,
        state: usize,
    ) -> Result<KvView, GpuError> {
        let first = segment.sequence.len() / KV_BLOCK;
        let StateMut::Latent(cache) = segment.sequence.state_mut(state) else {
            unreachable!("the loader made state {state} a latent cache")
        };
        let (keys, blocks, rest) = upload(device, cache.blocks_mut(), first)?;
        self.0.push(Written { segment: index, state, part: Part::Keys(first), view: rest });
        Ok(KvView { values: keys.clone(), keys, blocks })
    }

    /// A recurrent state before the step, and memory for those after it.
    pub(super) fn recurrent(
        &mut self,
        device: &Device,
        segment: &mut Segment<'_>,
        index: usize,
        state: usize,
    ) -> Result<[View; 2], GpuError> {
        let StateMut::Recurrent { current, next } = segment.sequence.state_mut(state) else {
            unreachable!("the loader made state {state} recurrent")
        };
        let current = device.upload("recurrent states", current)?;
        let next = device.alloc("recurrent states", next.len())?;
        self.0.push(Written { segment: index, state, part: Part::Next, view: next.clone() });
        Ok([current, next])
    }

    /// Writes to the sequences what the step wrote on the device. All of it is there before any sequence is touched.
    pub(super) fn bring_back(self, device: &Device, segments: &mut [Segment<'_>]) -> Result<(), GpuError> {
        let all: Vec<Vec<f32>> =
            self.0.iter().map(|written| device.download(&written.view)).collect::<Result<_, _>>()?;
        for (Written { segment, state, part, .. }, values) in self.0.into_iter().zip(all) {
            match (segments[segment].sequence.state_mut(state), part) {
                (StateMut::Kv(cache), Part::Keys(first)) => fill(&mut cache.blocks_mut().0[first..], &values),
                (StateMut::Kv(cache), Part::Values(first)) => {
                    fill(&mut cache.blocks_mut().1[first..], &values);
                }
                (StateMut::Latent(cache), Part::Keys(first)) => {
                    fill(&mut cache.blocks_mut()[first..], &values);
                }
                (StateMut::Recurrent { next, .. }, Part::Next) => next.copy_from_slice(&values),
                _ => unreachable!("state {state} is what it was before the step"),
            }
        }
        Ok(())
    }
}

/// The blocks that are kept, one after the other; where each block of the sequence is among them (those that are not kept
/// are not looked at); and the view of those from block `first` on.
fn upload(device: &Device, blocks: &[KvBlock], first: usize) -> Result<(View, View, View), GpuError> {
    let dropped = blocks.iter().take_while(|block| block.is_empty()).count();
    let mut values = Vec::new();
    for block in &blocks[dropped..] {
        match block {
            KvBlock::F32(block) => values.extend_from_slice(block),
            KvBlock::F16(_) => unreachable!("the engine gives this backend sequences with float32 caches"),
        }
    }
    let place: Vec<u32> = (0..blocks.len()).map(|block| block.saturating_sub(dropped) as u32).collect();
    let block_len = blocks.last().map_or(0, KvBlock::len);
    let view = device.upload("the cache of a sequence", &values)?;
    let rest = view.slice((first - dropped) * block_len..view.len());
    Ok((view, device.upload("the blocks of a sequence", &place)?, rest))
}

/// Blocks from values, one after the other.
fn fill(blocks: &mut [KvBlock], mut values: &[f32]) {
    for block in blocks {
        if let KvBlock::F32(block) = block {
            let (now, rest) = values.split_at(block.len());
            match Arc::get_mut(block) {
                Some(block) => block.copy_from_slice(now),
                None => *block = now.into(),
            }
            values = rest;
        }
    }
}
