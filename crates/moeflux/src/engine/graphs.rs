//! Graphs and their plans, kept for the step shapes that come again.

use crate::graph::{Graph, GraphError, Plan, StepShape};
use crate::model::Model;

/// The most recently used graphs, latest last.
#[derive(Debug)]
pub(super) struct GraphCache {
    planned: bool,
    kept: Vec<(Graph, Plan)>,
}

impl GraphCache {
    /// Decode, a full chunk and a few odd ends of prompts.
    const CAPACITY: usize = 8;

    pub(super) fn new(planned: bool) -> Self {
        GraphCache { planned, kept: Vec::with_capacity(Self::CAPACITY) }
    }

    /// The graph for a shape, built if it is not at hand.
    pub(super) fn get(&mut self, model: &Model, shape: StepShape) -> Result<&(Graph, Plan), GraphError> {
        let entry = match self.kept.iter().position(|(graph, _)| graph.shape() == shape) {
            Some(index) => self.kept.remove(index),
            None => {
                let graph = model.graph(shape)?;
                let plan = if self.planned { Plan::new(&graph) } else { Plan::unshared(&graph) };
                if self.kept.len() == Self::CAPACITY {
                    self.kept.remove(0);
                }
                (graph, plan)
            }
        };
        self.kept.push(entry);
        Ok(&self.kept[self.kept.len() - 1])
    }
}
