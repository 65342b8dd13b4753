//! Graphs and their plans, kept for the step shapes that come again.

use crate::graph::{Graph, GraphError, Plan, StepShape};
use crate::model::{Model, Pass};

/// The most recently used graphs, latest last.
#[derive(Debug)]
pub(super) struct GraphCache {
    planned: bool,
    kept: Vec<(Pass, (Graph, Plan))>,
}

impl GraphCache {
    /// Decode of several sequences with drafts of several lengths, a full chunk and a few odd ends of prompts.
    const CAPACITY: usize = 64;

    pub(super) fn new(planned: bool) -> Self {
        GraphCache { planned, kept: Vec::with_capacity(Self::CAPACITY) }
    }

    /// The graph of a pass for a shape, built if it is not at hand.
    pub(super) fn get(
        &mut self,
        model: &Model,
        pass: Pass,
        shape: StepShape,
    ) -> Result<&(Graph, Plan), GraphError> {
        let entry =
            match self.kept.iter().position(|(known, (graph, _))| *known == pass && graph.shape() == shape) {
                Some(index) => self.kept.remove(index),
                None => {
                    let graph = model.graph_of(pass, shape)?;
                    let plan = if self.planned { Plan::new(&graph) } else { Plan::unshared(&graph) };
                    if self.kept.len() == Self::CAPACITY {
                        self.kept.remove(0);
                    }
                    (pass, (graph, plan))
                }
            };
        self.kept.push(entry);
        Ok(&self.kept[self.kept.len() - 1].1)
    }
}
