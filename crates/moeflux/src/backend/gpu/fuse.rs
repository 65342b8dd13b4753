//! What need not be done operation by operation: each dispatch costs more than its arithmetic if tokens are few. Nothing here
//! changes a bit.

use std::ops::Range;
use std::sync::Arc;

use moeflux_kernels::Encoding;

use crate::graph::{Graph, MatrixId, Op, Plan, TensorId};
use crate::model::Model;

/// Most tokens of a step for which it pays to compute an input anew in each workgroup.
const FEW: usize = 4;

/// Which operations of a graph are done together with others, and where what they write lies.
#[derive(Debug, Default)]
pub(super) struct Fused {
    /// By operation; empty if each is done by itself.
    work: Vec<Work>,
    /// By tensor.
    places: Vec<Place>,
    /// Weights of linear maps that read the same tensor.
    alike: Vec<Vec<MatrixId>>,
    spare_lens: [usize; SPARES],
}

/// What was found out about the plans used last, latest last.
#[derive(Debug, Default)]
pub(super) struct FusedPlans(Vec<(u64, Arc<Fused>)>);

impl FusedPlans {
    const CAPACITY: usize = 16;

    /// That of a graph's plan.
    pub(super) fn of(&mut self, graph: &Graph, plan: &Plan, model: &Model) -> Arc<Fused> {
        let known = self.0.iter().position(|(id, _)| *id == plan.id());
        let entry = match known {
            Some(index) => self.0.remove(index),
            None => (plan.id(), Arc::new(Fused::new(graph, plan, model))),
        };
        if self.0.len() == Self::CAPACITY {
            self.0.remove(0);
        }
        let fused = Arc::clone(&entry.1);
        self.0.push(entry);
        fused
    }
}

/// What is done for an operation.
#[derive(Clone, Debug, Default)]
enum Work {
    #[default]
    Alone,
    /// It is done with another.
    Nothing,
    /// It does the one before as well.
    WithBefore,
    /// It does these, linear maps with the same input, the first of which it is.
    With(Joined),
}

/// Linear maps with one input that are done together.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    /// The operations.
    pub(super) members: Vec<usize>,
    /// The buffer beside the plan's that begins with what they write, one after the other, and how much that is.
    pub(super) spare: usize,
    pub(super) len: usize,
}

/// Where a tensor lies.
#[derive(Clone, Debug, Default)]
pub(super) enum Place {
    /// Where the plan has it.
    #[default]
    Planned,
    /// In another.
    Part(TensorId, Range<usize>),
    /// In a buffer beside the plan's: the plan may give what two operations write the buffer of what they read.
    Spare(usize, Range<usize>),
}

/// Buffers beside the plan's.
const SPARES: usize = 8;

impl Fused {
    pub(super) fn new(graph: &Graph, plan: &Plan, model: &Model) -> Self {
        Builder::new(graph, plan, model).build()
    }

    /// How long the buffers beside the plan's must be.
    pub(super) fn spare_lens(&self) -> &[usize] {
        &self.spare_lens
    }

    /// Where a tensor lies.
    pub(super) fn place(&self, id: TensorId) -> Place {
        self.places.get(id.0).cloned().unwrap_or_default()
    }

    /// Whether nothing is to be done for an operation: another one does it, or what it gives is there.
    pub(super) fn skips(&self, index: usize) -> bool {
        matches!(self.work.get(index), Some(Work::Nothing))
    }

    /// The operation that this one does as well.
    pub(super) fn before<'g>(&self, graph: &'g Graph, index: usize) -> Option<&'g Op> {
        match self.work.get(index) {
            Some(Work::WithBefore) => graph.ops().get(index.checked_sub(1)?),
            _ => None,
        }
    }

    /// The linear maps that this one does, if it does more than itself.
    pub(super) fn with(&self, index: usize) -> Option<&Joined> {
        match self.work.get(index) {
            Some(Work::With(joined)) => Some(joined),
            _ => None,
        }
    }

    /// Weights that are to lie together, if they can.
    pub(super) fn alike(&self) -> &[Vec<MatrixId>] {
        &self.alike
    }
}

struct Builder<'g> {
    graph: &'g Graph,
    plan: &'g Plan,
    model: &'g Model,
    /// By operation, whether linear maps with the same input have been looked for.
    is_gathered: Vec<bool>,
    /// Of each tensor the last operation that reads it.
    last: Vec<usize>,
    /// Until when each buffer beside the plan's is read.
    busy_until: [usize; SPARES],
    fused: Fused,
}

/// Where tensors are read that no operation reads.
const NEVER: usize = usize::MAX;

impl<'g> Builder<'g> {
    fn new(graph: &'g Graph, plan: &'g Plan, model: &'g Model) -> Self {
        let mut last = vec![NEVER; graph.tensors().len()];
        for (index, op) in graph.ops().iter().enumerate() {
            // What may be done with the next operation is read with it.
            let is_deferred = matches!(op, Op::Add { .. } | Op::Swiglu { .. });
            let by = if is_deferred { (index + 1).min(graph.ops().len() - 1) } else { index };
            for id in op.reads() {
                last[id.0] = by;
            }
        }
        let fused = Fused {
            work: vec![Work::Alone; graph.ops().len()],
            places: vec![Place::Planned; graph.tensors().len()],
            ..Fused::default()
        };
        let is_gathered = vec![false; graph.ops().len()];
        Builder { graph, plan, model, is_gathered, last, busy_until: [0; SPARES], fused }
    }

    fn build(mut self) -> Fused {
        let ops = self.graph.ops();
        for (index, op) in ops.iter().enumerate() {
            if !matches!(self.fused.work[index], Work::Alone) {
                continue;
            }
            match (op, ops.get(index + 1)) {
                (&Op::Columns { x, group, ref parts, out }, _)
                    if self.tokens(x) == 1
                        && group == self.graph.tensor(x).cols
                        && parts.len() == 1
                        && matches!(self.fused.places[x.0], Place::Planned)
                        && self.outlives(index, x, out) =>
                {
                    self.fused.places[out.0] = Place::Part(x, parts[0].clone());
                    self.fused.work[index] = Work::Nothing;
                }
                (&Op::Add { out: sum, .. }, Some(&Op::RmsNorm { x, out, .. })) if x == sum => {
                    self.join(index, out);
                }
                (&Op::Swiglu { out: product, .. }, Some(&Op::Linear { x, out, .. }))
                    if x == product && self.tokens(product) <= FEW && self.last[product.0] == index + 1 =>
                {
                    self.join(index, out);
                }
                (&Op::Linear { x, weight, bias: None, .. }, _) if !self.is_gathered[index] => {
                    self.gather(index, x, weight);
                }
                _ => {}
            }
        }
        self.fused
    }

    fn encoding(&self, weight: MatrixId) -> Encoding {
        self.model.weights().matrix(weight).matrix.encoding
    }

    fn tokens(&self, id: TensorId) -> usize {
        let tensor = self.graph.tensor(id);
        tensor.len() / tensor.cols.max(1)
    }

    /// Has the operation after `index` do both, if there is a buffer for what it writes.
    fn join(&mut self, index: usize, out: TensorId) {
        if self.spare(index, &[out]).is_some() {
            self.fused.work[index] = Work::Nothing;
            self.fused.work[index + 1] = Work::WithBefore;
        }
    }

    /// Notes the linear maps in one encoding that read what the one at `index` reads and, for one token, has it do all of
    /// them.
    fn gather(&mut self, index: usize, input: TensorId, first: MatrixId) {
        let (mut members, mut weights, mut outs) = (Vec::new(), Vec::new(), Vec::new());
        let encoding = self.encoding(first);
        for (at, op) in self.graph.ops().iter().enumerate().take(self.last[input.0] + 1).skip(index) {
            match *op {
                Op::Linear { x, weight, bias: None, out }
                    if x == input && !self.is_gathered[at] && self.encoding(weight) == encoding =>
                {
                    members.push(at);
                    weights.push(weight);
                    outs.push(out);
                }
                _ => {}
            }
        }
        for &member in &members {
            self.is_gathered[member] = true;
        }
        if members.len() > 1 {
            let spare = if self.tokens(input) == 1 { self.spare(index, &outs) } else { None };
            if let Some(spare) = spare {
                for &member in &members {
                    self.fused.work[member] = Work::Nothing;
                }
                let len = outs.iter().map(|out| self.graph.tensor(*out).len()).sum();
                self.fused.work[index] = Work::With(Joined { members, spare, len });
            }
            self.fused.alike.push(weights);
        }
    }

    /// Puts tensors that are written from operation `index` on one after the other into a buffer beside the plan's, if one is
    /// free.
    fn spare(&mut self, index: usize, outs: &[TensorId]) -> Option<usize> {
        let last = outs.iter().map(|out| self.last[out.0]).max()?;
        let is_result = |out: &TensorId| *out == self.graph.logits() || self.graph.kept() == Some(*out);
        let spare = self.busy_until.iter().position(|&until| until <= index)?;
        if last == NEVER || outs.iter().any(is_result) {
            return None;
        }
        self.busy_until[spare] = last + 1;
        let mut start = 0;
        for out in outs {
            let len = self.graph.tensor(*out).len();
            self.fused.places[out.0] = Place::Spare(spare, start..start + len);
            start += len;
        }
        self.fused.spare_lens[spare] = self.fused.spare_lens[spare].max(start);
        Some(spare)
    }

    /// Whether nothing is written to `x`'s buffer from operation `index` on until `out` has been read.
    fn outlives(&self, index: usize, x: TensorId, out: TensorId) -> bool {
        let is_result = out == self.graph.logits() || self.graph.kept() == Some(out);
        let last = self.last[out.0];
        last != NEVER
            && !is_result
            && self.graph.ops()[index + 1..=last]
                .iter()
                .all(|op| op.writes().iter().all(|&written| self.plan.slot(written) != self.plan.slot(x)))
    }
}
