//! The buffers behind a plan.

use crate::backend::Data;
use crate::graph::{Element, Graph, Plan, TensorId};

/// Buffers that grow to fit each plan and are kept between runs.
#[derive(Debug, Default)]
pub(super) struct Arena {
    f32: Vec<Vec<f32>>,
    u32: Vec<Vec<u32>>,
}

impl Arena {
    /// Makes every buffer of the plan at least as long as the plan says.
    pub(super) fn fit(&mut self, plan: &Plan) {
        grow(&mut self.f32, plan.lens(Element::F32), 0.0);
        grow(&mut self.u32, plan.lens(Element::U32), 0);
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let f32: usize = self.f32.iter().map(Vec::capacity).sum();
        let u32: usize = self.u32.iter().map(Vec::capacity).sum();
        4 * (f32 + u32)
    }

    /// A float tensor.
    pub(super) fn f32(&self, graph: &Graph, plan: &Plan, id: TensorId) -> &[f32] {
        &self.f32[plan.slot(id).index][..graph.tensor(id).len()]
    }

    /// Any tensor.
    pub(super) fn data(&self, graph: &Graph, plan: &Plan, id: TensorId) -> Data<'_> {
        match graph.tensor(id).element {
            Element::F32 => Data::F32(self.f32(graph, plan, id)),
            Element::U32 => Data::U32(&self.u32[plan.slot(id).index][..graph.tensor(id).len()]),
        }
    }

    /// The tensors of one graph under one plan.
    pub(super) fn io<'a>(&'a mut self, graph: &'a Graph, plan: &'a Plan) -> Io<'a> {
        Io { arena: self, graph, plan }
    }
}

/// An operation's access to its tensors. While a tensor is written its buffer is taken out of the arena, so reading
/// it as an input at the same time would find nothing there: a plan never shares the two.
pub(super) struct Io<'a> {
    arena: &'a mut Arena,
    graph: &'a Graph,
    plan: &'a Plan,
}

impl Io<'_> {
    /// A float input.
    pub(super) fn f32(&self, id: TensorId) -> &[f32] {
        self.arena.f32(self.graph, self.plan, id)
    }

    /// An index input.
    pub(super) fn u32(&self, id: TensorId) -> &[u32] {
        &self.arena.u32[self.plan.slot(id).index][..self.graph.tensor(id).len()]
    }

    /// Writes one float tensor.
    pub(super) fn write<R>(&mut self, out: TensorId, body: impl FnOnce(&Self, &mut [f32]) -> R) -> R {
        let mut buffer = self.take_f32(out);
        let result = body(self, &mut buffer[..self.graph.tensor(out).len()]);
        self.put_f32(out, buffer);
        result
    }

    /// Writes two float tensors.
    pub(super) fn write2(
        &mut self,
        first: TensorId,
        second: TensorId,
        body: impl FnOnce(&Self, &mut [f32], &mut [f32]),
    ) {
        let mut buffer = self.take_f32(second);
        self.write(first, |io, y| body(io, y, &mut buffer[..io.graph.tensor(second).len()]));
        self.put_f32(second, buffer);
    }

    /// Writes indices and their weights.
    pub(super) fn write_choice(
        &mut self,
        ids: TensorId,
        weights: TensorId,
        body: impl FnOnce(&Self, &mut [u32], &mut [f32]),
    ) {
        let slot = self.plan.slot(ids).index;
        let mut buffer = std::mem::take(&mut self.arena.u32[slot]);
        self.write(weights, |io, weights| body(io, &mut buffer[..io.graph.tensor(ids).len()], weights));
        self.arena.u32[slot] = buffer;
    }

    fn take_f32(&mut self, id: TensorId) -> Vec<f32> {
        std::mem::take(&mut self.arena.f32[self.plan.slot(id).index])
    }

    fn put_f32(&mut self, id: TensorId, buffer: Vec<f32>) {
        self.arena.f32[self.plan.slot(id).index] = buffer;
    }
}

fn grow<T: Copy>(buffers: &mut Vec<Vec<T>>, lens: &[usize], zero: T) {
    buffers.resize_with(buffers.len().max(lens.len()), Vec::new);
    for (buffer, &len) in buffers.iter_mut().zip(lens) {
        if buffer.len() < len {
            buffer.resize(len, zero);
        }
    }
}
