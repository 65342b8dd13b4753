//! States of sequences on the device. A sequence holds them like any other memory: forks, checkpoints and caches of
//! prefixes share them, and a step that is to write to what is shared takes a copy first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use moeflux_kernels::{DeviceFloats, KvBlock};
use moeflux_wgpu::{Device, GpuError, KvView, View};

use super::inputs::Inputs;
use super::pool::Pool;
use crate::backend::Segment;
use crate::graph::StateId;
use crate::sequence::{Held, StateMut};

/// Which blocks share a buffer: those of one state, of keys (or latents) and of values, of a length.
type PoolKey = (StateId, bool, usize);

/// The memory of states.
#[derive(Debug, Default)]
pub(super) struct States(HashMap<PoolKey, Arc<Pool>>);

impl States {
    /// Of each segment the KV cache with what its sequence has, and room for what the step appends.
    pub(super) fn caches(
        &mut self,
        device: &Device,
        inputs: &mut Inputs,
        segments: &mut [Segment<'_>],
        state: StateId,
    ) -> Result<Vec<KvView>, GpuError> {
        let mut found = Vec::new();
        for segment in &mut *segments {
            let len = segment.sequence.len();
            let (keys, values): (&mut [KvBlock], &mut [KvBlock]) = match segment.sequence.state_mut(state) {
                StateMut::Kv(cache) => cache.blocks_mut(),
                StateMut::Latent(cache) => (cache.blocks_mut(), &mut []),
                StateMut::Recurrent { .. } => unreachable!("the loader made state {state} a cache"),
            };
            let (mut pools, mut table) = (Vec::new(), Vec::new());
            for (is_values, blocks) in [(false, keys), (true, values)] {
                let Some(block_len) = blocks.last().map(KvBlock::len) else { continue };
                let pool = self.pool(device, (state, is_values, block_len))?;
                pool.take(blocks, len)?;
                table.extend(pool.table(blocks));
                pools.push(Arc::clone(pool));
            }
            found.push((pools, table));
        }
        // No pool grows any more.
        found
            .into_iter()
            .map(|(pools, table)| {
                let (Some(keys), Some(values)) = (pools.first(), pools.last()) else {
                    unreachable!("a cache has room for what a step appends")
                };
                let blocks = inputs.add(device, &table)?;
                Ok(KvView { keys: keys.memory(), values: values.memory(), blocks })
            })
            .collect()
    }

    fn pool(&mut self, device: &Device, key: PoolKey) -> Result<&Arc<Pool>, GpuError> {
        Ok(match self.0.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Pool::new(device, key.2)?),
        })
    }
}

/// A recurrent state before the step, and memory for those after it.
pub(super) fn recurrent(
    device: &Device,
    segment: &mut Segment<'_>,
    state: StateId,
) -> Result<[View; 2], GpuError> {
    let Some(recurrent) = segment.sequence.recurrent_mut(state) else {
        unreachable!("the loader made state {state} recurrent")
    };
    let (current, next, rows) = recurrent.memory();
    let present = match view_of(device, current) {
        Some(view) => view,
        None => {
            let floats = match &*current {
                Held::Host(floats) => floats.to_vec(),
                Held::Device(floats, range) => {
                    floats.read(range.clone()).map_err(|error| GpuError::Failed {
                        op: "moving a state to another device".to_owned(),
                        cause: error.to_string(),
                    })?
                }
            };
            hold(device, current, device.upload("recurrent states", &floats)?)
        }
    };
    let len = rows * present.len();
    let after = match view_of(device, next) {
        Some(view) if view.len() == len && !next.is_shared() => view,
        _ => hold(device, next, device.alloc("recurrent states", len)?),
    };
    Ok([present, after])
}

/// A state's floats on a device.
#[derive(Debug)]
struct DeviceState {
    device: Device,
    view: View,
}

impl DeviceFloats for DeviceState {
    fn count(&self) -> usize {
        self.view.len()
    }

    fn read(&self, range: Range<usize>) -> io::Result<Vec<f32>> {
        self.device.download(&self.view.slice(range)).map_err(io::Error::other)
    }
}

/// Where they are, if they are on this device.
fn view_of(device: &Device, held: &Held) -> Option<View> {
    let Held::Device(floats, range) = held else { return None };
    let floats: &dyn std::any::Any = &**floats;
    let state = floats.downcast_ref::<DeviceState>()?;
    state.device.is(device).then(|| state.view.slice(range.clone()))
}

/// Has a state in a view.
fn hold(device: &Device, held: &mut Held, view: View) -> View {
    let range = 0..view.len();
    *held = Held::Device(Arc::new(DeviceState { device: device.clone(), view: view.clone() }), range);
    view
}
