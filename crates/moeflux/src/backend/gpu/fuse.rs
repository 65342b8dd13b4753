//! What a step of few tokens need not do one by one: each dispatch costs more than its arithmetic. Nothing here changes a bit.

use std::collections::HashMap;
use std::ops::Range;

use crate::graph::{Graph, Op, Plan, TensorId};

/// Most tokens of a step for which it pays to compute an input anew in each workgroup.
const FEW: usize = 4;

/// Which operations of a graph are done together with others.
#[derive(Debug, Default)]
pub(super) struct Fused {
    /// Tensors that are a part of another, where that one still is.
    parts: HashMap<TensorId, (TensorId, Range<usize>)>,
    /// Operations that the one after them does.
    skipped: Vec<usize>,
    /// Tensors with a buffer of their own: the plan may give what two operations write the buffer of what they read.
    spares: HashMap<TensorId, usize>,
    /// Until when each of those buffers is read.
    busy_until: [usize; SPARES],
}

/// Buffers beside the plan's.
const SPARES: usize = 3;

impl Fused {
    pub(super) fn new(graph: &Graph, plan: &Plan) -> Self {
        let mut fused = Fused::default();
        let (ops, last) = (graph.ops(), last_reads(graph));
        let tokens = |id: TensorId| graph.tensor(id).len() / graph.tensor(id).cols.max(1);
        for (index, op) in ops.iter().enumerate() {
            let next = ops.get(index + 1);
            match (op, next) {
                (&Op::Columns { x, group, ref parts, out }, _)
                    if tokens(x) == 1 && group == graph.tensor(x).cols && parts.len() == 1 =>
                {
                    let is_kept = outlives(graph, plan, index, x, out, last[out.0]);
                    if is_kept && !fused.parts.contains_key(&x) && !fused.spares.contains_key(&x) {
                        fused.parts.insert(out, (x, parts[0].clone()));
                    }
                }
                (&Op::Add { out: sum, .. }, Some(&Op::RmsNorm { x, out, .. })) if x == sum => {
                    fused.join(graph, index, out, last[out.0]);
                }
                (&Op::Swiglu { out: product, .. }, Some(&Op::Linear { x, out, .. }))
                    if x == product && tokens(product) <= FEW && last[product.0] == index + 1 =>
                {
                    fused.join(graph, index, out, last[out.0]);
                }
                _ => {}
            }
        }
        fused
    }

    /// Has the operation after `index` do both, if there is a buffer for what it writes.
    fn join(&mut self, graph: &Graph, index: usize, out: TensorId, last: usize) {
        let is_result = out == graph.logits() || graph.kept() == Some(out);
        let free = self.busy_until.iter().position(|&until| until <= index);
        if let Some(spare) = free.filter(|_| last != NEVER && !is_result) {
            self.busy_until[spare] = last + 1;
            self.spares.insert(out, spare);
            self.skipped.push(index);
        }
    }

    /// The buffer beside the plan's that a tensor has.
    pub(super) fn spare(&self, id: TensorId) -> Option<usize> {
        self.spares.get(&id).copied()
    }

    /// How long those buffers must be.
    pub(super) fn spare_lens(&self, graph: &Graph) -> [usize; SPARES] {
        let mut lens = [0; SPARES];
        for (&id, &spare) in &self.spares {
            lens[spare] = lens[spare].max(graph.tensor(id).len());
        }
        lens
    }

    /// Whether nothing is to be done for an operation: the next one does it, or what it gives is there.
    pub(super) fn skips(&self, index: usize, op: &Op) -> bool {
        self.skipped.binary_search(&index).is_ok()
            || matches!(op, Op::Columns { out, .. } if self.parts.contains_key(out))
    }

    /// The operation that this one does as well.
    pub(super) fn before<'g>(&self, graph: &'g Graph, index: usize) -> Option<&'g Op> {
        let before = index.checked_sub(1)?;
        self.skipped.binary_search(&before).ok().map(|_| &graph.ops()[before])
    }

    /// What a tensor is a part of.
    pub(super) fn part(&self, id: TensorId) -> Option<(TensorId, Range<usize>)> {
        self.parts.get(&id).cloned()
    }
}

/// Where tensors are read that no operation reads.
const NEVER: usize = usize::MAX;

/// Of each tensor the last operation that reads it.
fn last_reads(graph: &Graph) -> Vec<usize> {
    let mut last = vec![NEVER; graph.tensors().len()];
    for (index, op) in graph.ops().iter().enumerate() {
        for id in op.reads() {
            last[id.0] = index;
        }
    }
    last
}

/// Whether nothing is written to `x`'s buffer from operation `index` on until `out` has been read.
fn outlives(graph: &Graph, plan: &Plan, index: usize, x: TensorId, out: TensorId, last: usize) -> bool {
    let is_result = out == graph.logits() || graph.kept() == Some(out);
    last != NEVER
        && !is_result
        && graph.ops()[index + 1..=last]
            .iter()
            .all(|op| op.writes().iter().all(|&written| plan.slot(written) != plan.slot(x)))
}
