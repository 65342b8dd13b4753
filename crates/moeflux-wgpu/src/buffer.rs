//! Memory on a device, as words of 32 bits.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Elements of 32 bits (floats or integers) in a buffer on a device. Clones share the memory.
#[derive(Clone, Debug)]
pub struct View {
    buffer: Arc<Buffer>,
    offset: usize,
    len: usize,
}

/// One allocation, which tells its device when it goes.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) raw: wgpu::Buffer,
    /// No other buffer of the process has it.
    pub(crate) id: u64,
    /// That it takes of the device's memory.
    bytes: u64,
    dropped: Dropped,
}

/// The buffers that are gone, so that what refers to them can be let go of, and the device's bytes of those that are there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dropped {
    ids: Arc<Mutex<Vec<u64>>>,
    held_bytes: Arc<AtomicU64>,
}

impl Dropped {
    /// Those since the last call.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes of all buffers that have not gone.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.dropped.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.dropped.ids.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
    }
}

impl View {
    /// A buffer that takes so many `bytes` of the device's memory.
    pub(crate) fn new(raw: wgpu::Buffer, id: u64, len: usize, bytes: u64, dropped: Dropped) -> Self {
        dropped.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        View { buffer: Arc::new(Buffer { raw, id, bytes, dropped }), offset: 0, len }
    }

    /// Some of the elements.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> View {
        assert!(range.start <= range.end && range.end <= self.len);
        View { buffer: Arc::clone(&self.buffer), offset: self.offset + range.start, len: range.len() }
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Where the first element is in its buffer, in elements.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Where the elements are in their buffer, in bytes.
    pub(crate) fn bytes(&self) -> Range<u64> {
        self.offset as u64 * 4..(self.offset + self.len) as u64 * 4
    }
}
