//! Blocks of caches on a device: slots of one buffer, which grows.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moeflux_kernels::{DeviceFloats, KvBlock};
use moeflux_wgpu::{Device, GpuError, View};

/// Slots for blocks of one length.
#[derive(Debug)]
pub(super) struct Pool {
    device: Device,
    block_len: usize,
    slots: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    memory: View,
    count: usize,
    /// Those that hold no block.
    free: Vec<u32>,
}

/// A block, which gives its slot back when nobody has it any more. What was submitted before still finds it there: a device
/// runs submissions in order.
#[derive(Debug)]
struct Slot {
    pool: Arc<Pool>,
    index: u32,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.slots().free.push(self.index);
    }
}

impl DeviceFloats for Slot {
    fn count(&self) -> usize {
        self.pool.block_len
    }

    fn read(&self, range: Range<usize>) -> io::Result<Vec<f32>> {
        let view = self.pool.view_of(self.index).slice(range);
        self.pool.device.download(&view).map_err(io::Error::other)
    }
}

/// Slots that a pool begins with.
const FIRST_SLOTS: usize = 16;

impl Pool {
    pub(super) fn new(device: &Device, block_len: usize) -> Result<Arc<Self>, GpuError> {
        let memory = device.alloc("caches", FIRST_SLOTS * block_len)?;
        let slots = Slots { memory, count: FIRST_SLOTS, free: (0..FIRST_SLOTS as u32).rev().collect() };
        Ok(Arc::new(Pool { device: device.clone(), block_len, slots: Mutex::new(slots) }))
    }

    /// All slots.
    pub(super) fn memory(&self) -> View {
        self.slots().memory.clone()
    }

    /// Has the kept blocks of a sequence of `len` tokens in slots, and those that the next token and later ones go to in
    /// slots of its own. Changes nothing that a sequence has.
    pub(super) fn take(self: &Arc<Self>, blocks: &mut [KvBlock], len: usize) -> Result<(), GpuError> {
        for (index, block) in blocks.iter_mut().enumerate().filter(|(_, block)| !block.is_empty()) {
            let positions = index * moeflux_kernels::KV_BLOCK..(index + 1) * moeflux_kernels::KV_BLOCK;
            let is_written = positions.end > len;
            let here = self.index_of(block);
            if here.is_some() && !(is_written && block.is_shared()) {
                continue;
            }
            let slot = self.slot()?;
            if positions.start < len {
                let target = self.view_of(slot.index);
                match (here, &*block) {
                    (Some(source), _) => self.copy(source, &target)?,
                    (None, KvBlock::F32(floats)) => self.device.write(&target, floats),
                    (None, KvBlock::Device(floats)) => {
                        let failed = |cause: io::Error| GpuError::Failed {
                            op: "moving a state to another device".to_owned(),
                            cause: cause.to_string(),
                        };
                        self.device.write(&target, &floats.read(0..floats.count()).map_err(failed)?);
                    }
                    (None, KvBlock::F16(_)) => {
                        unreachable!("the engine gives this backend sequences with float32 caches")
                    }
                }
            }
            *block = KvBlock::Device(Arc::new(slot));
        }
        Ok(())
    }

    /// Where the blocks are; what is no longer kept is not looked at.
    pub(super) fn table(self: &Arc<Self>, blocks: &[KvBlock]) -> Vec<u32> {
        blocks.iter().map(|block| self.index_of(block).unwrap_or(0)).collect()
    }

    /// The slot that a block has here.
    fn index_of(self: &Arc<Self>, block: &KvBlock) -> Option<u32> {
        let KvBlock::Device(floats) = block else { return None };
        let floats: &dyn std::any::Any = &**floats;
        let slot = floats.downcast_ref::<Slot>()?;
        Arc::ptr_eq(&slot.pool, self).then_some(slot.index)
    }

    fn slot(self: &Arc<Self>) -> Result<Slot, GpuError> {
        let mut slots = self.slots();
        if slots.free.is_empty() {
            self.grow(&mut slots)?;
        }
        let index = slots.free.pop().unwrap_or_default();
        drop(slots);
        Ok(Slot { pool: Arc::clone(self), index })
    }

    /// Doubles it, or takes what can be bound; the blocks keep their slots.
    fn grow(&self, slots: &mut Slots) -> Result<(), GpuError> {
        let most = self.device.info().binding_limit as usize / 4 / self.block_len;
        let count = (2 * slots.count).min(most).max(slots.count + 1);
        let memory = self.device.alloc("caches", count * self.block_len)?;
        let mut enc = self.device.encoder();
        enc.copy(&slots.memory, &memory.slice(0..slots.memory.len()));
        enc.submit()?;
        slots.free.extend((slots.count as u32..count as u32).rev());
        (slots.memory, slots.count) = (memory, count);
        Ok(())
    }

    /// Copies a block. A buffer is not copied to itself, so it goes by another.
    fn copy(&self, source: u32, target: &View) -> Result<(), GpuError> {
        let between = self.device.alloc("a block of a cache", self.block_len)?;
        let mut enc = self.device.encoder();
        enc.copy(&self.view_of(source), &between);
        enc.copy(&between, target);
        enc.submit()
    }

    fn view_of(&self, index: u32) -> View {
        let first = index as usize * self.block_len;
        self.slots().memory.slice(first..first + self.block_len)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
