//! What attention keeps of the past: blocks of [`KV_BLOCK`] absolute positions, of float32 or of half floats.

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Positions in a block of a cache.
pub const KV_BLOCK: usize = 64;

/// What a cache's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// float32.
    F32,
    /// IEEE half floats: values are rounded to nearest, ties to even, when they are written.
    F16,
}

impl KvType {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
        }
    }
}

/// A half float (IEEE 754 binary16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct F16(u16);

impl F16 {
    /// The nearest half float, ties to even; infinity from 65520 on.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let sign = (bits >> 16 & 0x8000) as u16;
        let magnitude = bits & 0x7fff_ffff;
        let half = if magnitude > 0x7f80_0000 {
            0x7e00 // NaN
        } else if magnitude >= 0x477f_f000 {
            0x7c00 // too large
        } else if magnitude >= 0x3880_0000 {
            // Normal: the exponent changes its bias; thirteen bits are rounded off, and a carry raises the exponent.
            let rebiased = magnitude - (112 << 23);
            ((rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13) as u16
        } else {
            // Subnormal: adding a half rounds to a multiple of 2^-24, which lands in the low bits of the significand.
            ((f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()) as u16
        };
        F16(sign | half)
    }

    /// The same number.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        crate::dequant::f16(self.0)
    }
}

/// float32 values in a device's memory, which only that device's backend writes.
pub trait DeviceFloats: Any + fmt::Debug + Send + Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// A copy of some of them.
    fn read(&self, range: Range<usize>) -> io::Result<Vec<f32>>;
}

/// One block of a cache; without elements where nothing is kept any more.
///
/// A clone shares the elements; whoever writes to a shared block gets a copy of its own first.
#[derive(Clone, Debug)]
pub enum KvBlock {
    /// float32 on a device; no kernel of the CPU may see it.
    Device(Arc<dyn DeviceFloats>),
    /// float32.
    F32(Arc<[f32]>),
    /// Half floats.
    F16(Arc<[F16]>),
}

/// A part of a block.
#[derive(Clone, Copy)]
pub(crate) enum Floats<'a> {
    F32(&'a [f32]),
    F16(&'a [F16]),
}

impl KvBlock {
    /// A block of zeros.
    pub fn zeros(len: usize, kv_type: KvType) -> Self {
        match kv_type {
            KvType::F32 => KvBlock::F32(vec![0.0; len].into()),
            KvType::F16 => KvBlock::F16(vec![F16::default(); len].into()),
        }
    }

    /// What its elements are.
    pub fn kv_type(&self) -> KvType {
        match self {
            KvBlock::F32(_) | KvBlock::Device(_) => KvType::F32,
            KvBlock::F16(_) => KvType::F16,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            KvBlock::F32(block) => block.len(),
            KvBlock::F16(block) => block.len(),
            KvBlock::Device(block) => block.count(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of its elements.
    pub fn bytes(&self) -> usize {
        self.len() * self.kv_type().bytes()
    }

    /// Whether another block has the same elements in the same memory.
    pub fn is_shared(&self) -> bool {
        match self {
            KvBlock::F32(block) => Arc::strong_count(block) > 1,
            KvBlock::F16(block) => Arc::strong_count(block) > 1,
            KvBlock::Device(block) => Arc::strong_count(block) > 1,
        }
    }

    /// The same block with its elements in the host's memory.
    pub fn on_host(&self) -> io::Result<KvBlock> {
        match self {
            KvBlock::Device(block) => Ok(KvBlock::F32(block.read(0..block.count())?.into())),
            block => Ok(block.clone()),
        }
    }

    /// Makes each element what `value` gives next, rounded as it must be.
    pub fn fill_with(&mut self, mut value: impl FnMut() -> f32) {
        match self {
            KvBlock::F32(block) => Arc::make_mut(block).fill_with(value),
            KvBlock::F16(block) => Arc::make_mut(block).fill_with(|| F16::from_f32(value())),
            KvBlock::Device(block) => *self = KvBlock::F32((0..block.count()).map(|_| value()).collect()),
        }
    }

    /// Its elements as they lie in files, little-endian.
    ///
    /// # Panics
    /// If it is on a device, as the kernels do: [`on_host`](Self::on_host) brings it back.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            KvBlock::F32(block) => block.iter().flat_map(|x| x.to_le_bytes()).collect(),
            KvBlock::F16(block) => block.iter().flat_map(|x| x.0.to_le_bytes()).collect(),
            KvBlock::Device(_) => on_a_device(),
        }
    }

    /// The block that lies in these bytes; a rest that is no whole element is left out.
    pub fn from_le_bytes(bytes: &[u8], kv_type: KvType) -> Self {
        match kv_type {
            KvType::F32 => {
                KvBlock::F32(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
            }
            KvType::F16 => KvBlock::F16(
                bytes.as_chunks().0.iter().map(|&bytes| F16(u16::from_le_bytes(bytes))).collect(),
            ),
        }
    }

    /// Writes `x` to the elements `at`, `at + step`, and so on.
    pub(crate) fn write(&mut self, at: usize, step: usize, x: &[f32]) {
        match self {
            KvBlock::F32(block) => {
                for (to, x) in Arc::make_mut(block)[at..].iter_mut().step_by(step).zip(x) {
                    *to = *x;
                }
            }
            KvBlock::F16(block) => {
                for (to, x) in Arc::make_mut(block)[at..].iter_mut().step_by(step).zip(x) {
                    *to = F16::from_f32(*x);
                }
            }
            KvBlock::Device(_) => on_a_device(),
        }
    }

    /// Reads the elements `at`, `at + step`, and so on into `x`.
    pub(crate) fn read(&self, at: usize, step: usize, x: &mut [f32]) {
        match self {
            KvBlock::F32(block) => {
                for (x, from) in x.iter_mut().zip(block[at..].iter().step_by(step)) {
                    *x = *from;
                }
            }
            KvBlock::F16(block) => {
                for (x, from) in x.iter_mut().zip(block[at..].iter().step_by(step)) {
                    *x = from.to_f32();
                }
            }
            KvBlock::Device(_) => on_a_device(),
        }
    }

    /// Some of its elements.
    pub(crate) fn part(&self, range: Range<usize>) -> Floats<'_> {
        match self {
            KvBlock::F32(block) => Floats::F32(&block[range]),
            KvBlock::F16(block) => Floats::F16(&block[range]),
            KvBlock::Device(_) => on_a_device(),
        }
    }
}

/// Blocks on a device are those of sequences that only a device's backend runs.
fn on_a_device() -> ! {
    unreachable!("a block on a device is brought to the host before the CPU reads it")
}

/// By the elements; on a device, by the memory.
impl PartialEq for KvBlock {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (KvBlock::F32(one), KvBlock::F32(other)) => one == other,
            (KvBlock::F16(one), KvBlock::F16(other)) => one == other,
            (KvBlock::Device(one), KvBlock::Device(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_float_survives() {
        for bits in 0..=u16::MAX {
            let x = F16(bits).to_f32();
            let back = F16::from_f32(x);
            assert!(back == F16(bits) || (x.is_nan() && back.to_f32().is_nan()), "{bits:#x}");
        }
    }

    #[test]
    fn numbers_between_half_floats_go_to_the_nearest() {
        for bits in 0..0x7c00u16 {
            let (below, above) = (F16(bits).to_f32(), F16(bits + 1).to_f32());
            // The half after the largest would be 65536.
            let above = if bits == 0x7bff { 65536.0 } else { above };
            let middle = f32::midpoint(below, above);
            let even = F16(bits + (bits & 1));
            for (x, nearest) in
                [(middle.next_down(), F16(bits)), (middle, even), (middle.next_up(), F16(bits + 1))]
            {
                assert_eq!(F16::from_f32(x), nearest, "{x}");
                assert_eq!(F16::from_f32(-x), F16(nearest.0 | 0x8000), "-{x}");
            }
        }
    }
}
