//! Where transient tensors live: as few buffers as their lifetimes allow.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Element, Graph, TensorId};

/// The buffer of a tensor: an index among the buffers of its element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Element type.
    pub element: Element,
    /// Which of them.
    pub index: usize,
}

/// An assignment of buffers to a graph's tensors. Two tensors that are alive in the same operation never share one,
/// so an operation's outputs never alias its inputs.
#[derive(Clone, Debug)]
pub struct Plan {
    id: u64,
    slots: Vec<Slot>,
    f32_lens: Vec<usize>,
    u32_lens: Vec<usize>,
}

/// The operations between which a tensor must be kept, both included.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    first: usize,
    last: usize,
}

impl Plan {
    /// Colours the tensors' lifetimes greedily in order of their first write: the smallest free buffer that is large
    /// enough, else the largest free one, grown. The results live to the end.
    pub fn new(graph: &Graph) -> Self {
        let lifetimes = lifetimes(graph);
        let mut plan = Plan::empty(graph);
        let mut busy_until: Vec<(Slot, usize)> = Vec::new();
        for (tensor, lifetime) in lifetimes.iter().enumerate() {
            let (element, len) = (graph.tensors()[tensor].element, graph.tensors()[tensor].len());
            let free = busy_until
                .iter_mut()
                .filter(|(slot, last)| slot.element == element && *last < lifetime.first)
                .min_by_key(|(slot, _)| {
                    let held = plan.len(*slot);
                    if held >= len { (0, held - len, slot.index) } else { (1, len - held, slot.index) }
                });
            let slot = match free {
                Some((slot, last)) => {
                    *last = lifetime.last;
                    *slot
                }
                None => {
                    let slot = plan.add_buffer(element);
                    busy_until.push((slot, lifetime.last));
                    slot
                }
            };
            plan.assign(slot, len);
        }
        plan
    }

    /// A buffer for every tensor: what planned runs are compared with.
    pub fn unshared(graph: &Graph) -> Self {
        let mut plan = Plan::empty(graph);
        for info in graph.tensors() {
            let slot = plan.add_buffer(info.element);
            plan.assign(slot, info.len());
        }
        plan
    }

    /// No other plan of the process has it but its clones.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The tensor's buffer.
    pub fn slot(&self, id: TensorId) -> Slot {
        self.slots[id.0]
    }

    /// Lengths of the buffers of an element type, in elements.
    pub fn lens(&self, element: Element) -> &[usize] {
        match element {
            Element::F32 => &self.f32_lens,
            Element::U32 => &self.u32_lens,
        }
    }

    /// Size of all buffers.
    pub fn bytes(&self) -> usize {
        4 * (self.f32_lens.iter().sum::<usize>() + self.u32_lens.iter().sum::<usize>())
    }

    fn empty(graph: &Graph) -> Self {
        static PLANS: AtomicU64 = AtomicU64::new(0);
        let id = PLANS.fetch_add(1, Ordering::Relaxed);
        Plan { id, slots: Vec::with_capacity(graph.tensors().len()), f32_lens: vec![], u32_lens: vec![] }
    }

    fn len(&self, slot: Slot) -> usize {
        self.lens(slot.element)[slot.index]
    }

    fn lens_mut(&mut self, element: Element) -> &mut Vec<usize> {
        match element {
            Element::F32 => &mut self.f32_lens,
            Element::U32 => &mut self.u32_lens,
        }
    }

    fn add_buffer(&mut self, element: Element) -> Slot {
        let lens = self.lens_mut(element);
        lens.push(0);
        Slot { element, index: lens.len() - 1 }
    }

    /// Gives the next tensor, of `len` elements, its buffer.
    fn assign(&mut self, slot: Slot, len: usize) {
        let held = &mut self.lens_mut(slot.element)[slot.index];
        *held = (*held).max(len);
        self.slots.push(slot);
    }
}

/// Each tensor's lifetime. Tensors are numbered in the order of their first write.
fn lifetimes(graph: &Graph) -> Vec<Lifetime> {
    let mut lifetimes = vec![Lifetime { first: usize::MAX, last: 0 }; graph.tensors().len()];
    for (index, op) in graph.ops().iter().enumerate() {
        for id in op.reads().into_iter().chain(op.writes()) {
            let lifetime = &mut lifetimes[id.0];
            lifetime.first = lifetime.first.min(index);
            lifetime.last = index;
        }
    }
    for result in [Some(graph.logits()), graph.kept()].into_iter().flatten() {
        lifetimes[result.0].last = graph.ops().len();
    }
    lifetimes
}
