//! The memory of a store: slots of a few sizes in arenas of anonymous memory.
//!
//! A slot is *held* from when it is first given until its memory goes back to the system; the bytes of held slots are
//! what a budget bounds. A slot whose expert was evicted stays held, so that the next expert finds its pages there.
//! Address space that no slot holds costs nothing, so slots of different sizes cannot fragment a budget.
//!
//! On a machine of several NUMA nodes, this is the place for them: arenas of each node (`mbind` after mapping), and
//! readers that fill slots of the node whose threads will compute the expert.

use memmap2::MmapMut;
use std::collections::BTreeSet;
use std::io;

/// Address space taken at once. Elsewhere than on Linux, where part of a mapping cannot be given back through the
/// same call, an arena is one slot.
const ARENA_BYTES: u64 = if cfg!(target_os = "linux") { 64 << 20 } else { 0 };

/// Memory for one expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    class: u32,
    index: u32,
}

/// All slots of a store.
pub(crate) struct Slots {
    classes: Vec<Class>,
    held_bytes: u64,
}

struct Class {
    size: u64,
    per_arena: u32,
    arenas: Vec<Option<Arena>>,
    /// Held, and without an expert.
    free: Vec<u32>,
    /// Not held: places in arenas, or in one that was given back.
    bare: BTreeSet<u32>,
}

struct Arena {
    memory: MmapMut,
    /// Slots of it that are held.
    held: u32,
}

impl Slots {
    /// No memory yet, for slots of these sizes.
    pub(crate) fn new(sizes: &[u64]) -> Self {
        let class = |&size: &u64| Class {
            size,
            per_arena: (ARENA_BYTES / size).max(1) as u32,
            arenas: Vec::new(),
            free: Vec::new(),
            bare: BTreeSet::new(),
        };
        Self { classes: sizes.iter().map(class).collect(), held_bytes: 0 }
    }

    /// Bytes of memory that slots hold, with or without an expert.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// The bytes of a slot.
    pub(crate) fn size(&self, slot: Slot) -> u64 {
        self.classes[slot.class as usize].size
    }

    /// A slot that is held and has no expert.
    pub(crate) fn take_free(&mut self, class: usize) -> Option<Slot> {
        let index = self.classes[class].free.pop()?;
        Some(Slot { class: class as u32, index })
    }

    /// A slot of new memory.
    pub(crate) fn take_new(&mut self, class: usize) -> io::Result<Slot> {
        let held = &mut self.classes[class];
        let index = held.take_bare()?;
        self.held_bytes += held.size;
        Ok(Slot { class: class as u32, index })
    }

    /// Takes back a slot whose expert is gone; its memory stays held.
    pub(crate) fn free(&mut self, slot: Slot) {
        self.classes[slot.class as usize].free.push(slot.index);
    }

    /// Gives the memory of one free slot back to the system, of another class than `but` if one is given; says
    /// whether there was one.
    pub(crate) fn give_back(&mut self, but: Option<usize>) -> bool {
        let mut classes = self.classes.iter_mut().enumerate();
        let found =
            classes.find_map(
                |(i, class)| if Some(i) == but { None } else { class.free.pop().map(|slot| (class, slot)) },
            );
        let Some((class, index)) = found else { return false };
        class.strip(index);
        self.held_bytes -= class.size;
        true
    }

    /// Where a byte of a held slot lies. The slot's [`size`](Self::size) bytes start at a page.
    pub(crate) fn address(&mut self, slot: Slot, offset: u64) -> Address {
        let class = &mut self.classes[slot.class as usize];
        assert!(offset < class.size, "byte {offset} of a slot of {}", class.size);
        let (arena, start) = class.locate(slot.index);
        match &mut class.arenas[arena] {
            // SAFETY: the byte lies inside the arena, which has `per_arena` slots.
            Some(arena) => Address(unsafe { arena.memory.as_mut_ptr().add(start + offset as usize) }),
            None => unreachable!("a held slot has an arena"),
        }
    }
}

/// Where a slot lies. Stays valid while the slot is held.
#[derive(Clone, Copy)]
pub(crate) struct Address(pub(crate) *mut u8);

// SAFETY: an address is only a number; whoever reads or writes through it says why that is right.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl Class {
    fn locate(&self, index: u32) -> (usize, usize) {
        ((index / self.per_arena) as usize, (index % self.per_arena) as usize * self.size as usize)
    }

    fn take_bare(&mut self) -> io::Result<u32> {
        if self.bare.is_empty() {
            let first = self.arenas.len() as u32 * self.per_arena;
            self.bare.extend(first..first + self.per_arena);
            self.arenas.push(None);
        }
        // The lowest, so that held slots lie together.
        let index = self.bare.first().copied().unwrap_or_default();
        let (arena, _) = self.locate(index);
        let arena = &mut self.arenas[arena];
        match arena {
            Some(arena) => arena.held += 1,
            None => *arena = Some(Arena { memory: map(self.size * u64::from(self.per_arena))?, held: 1 }),
        }
        self.bare.remove(&index);
        Ok(index)
    }

    fn strip(&mut self, index: u32) {
        let (place, start) = self.locate(index);
        self.bare.insert(index);
        let Some(arena) = &mut self.arenas[place] else { return };
        arena.held -= 1;
        if arena.held == 0 {
            self.arenas[place] = None;
        } else {
            discard(&mut arena.memory, start, self.size as usize);
        }
    }
}

pub(crate) fn map(bytes: u64) -> io::Result<MmapMut> {
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let memory = MmapMut::map_anon(bytes)?;
    #[cfg(target_os = "linux")]
    if let Err(error) = memory.advise(memmap2::Advice::HugePage) {
        // Kernels may be built without them; only speed depends on it.
        tracing::debug!("no huge pages for experts: {error}");
    }
    Ok(memory)
}

/// Gives pages inside a mapping back; they read as zeroes afterwards.
fn discard(memory: &mut MmapMut, start: usize, len: usize) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the range is a slot that no expert is in, and nothing refers to its bytes.
        let done = unsafe { memory.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len) };
        if let Err(error) = done {
            tracing::warn!("memory of experts was not given back: {error}");
        }
    }
    // An arena of one slot is unmapped instead.
    #[cfg(not(target_os = "linux"))]
    let _ = (memory, start, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_from_one_class_to_another() {
        let mut slots = Slots::new(&[40 << 20, 4096]);
        let large: Vec<Slot> = (0..3).map(|_| slots.take_new(0).unwrap()).collect();
        assert_eq!(slots.held_bytes(), 120 << 20);
        for &slot in &large {
            let Address(start) = slots.address(slot, 0);
            // SAFETY: a held slot of 40 MiB, used by this test alone.
            let bytes = unsafe { std::slice::from_raw_parts_mut(start, 40 << 20) };
            assert!((start as usize).is_multiple_of(4096) && bytes.iter().all(|&byte| byte == 0));
            bytes.fill(1);
        }
        slots.free(large[1]);
        assert!(!slots.give_back(Some(0)), "only class 0 has a free slot");
        assert!(slots.give_back(Some(1)) && !slots.give_back(None));
        assert_eq!(slots.held_bytes(), 80 << 20);
        let small = slots.take_new(1).unwrap();
        assert_eq!(slots.held_bytes(), (80 << 20) + 4096);
        slots.free(small);
        assert_eq!(slots.take_free(1), Some(small));
        assert_eq!(slots.take_new(0).unwrap(), large[1], "the lowest place is taken again");
    }
}
