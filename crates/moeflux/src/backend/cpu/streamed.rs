//! Experts that come from a store while a step runs: the router's answer starts their reads, what is between router and
//! experts computes meanwhile, and so do the experts that are there already.

use std::fmt;
use std::sync::Arc;

use moeflux_checkpoint::Expert;
use moeflux_experts::{ExpertStore, Fetch};
use moeflux_kernels::{
    self as kernels, BATCH_EXPERTS, ExpertRun, Int8Scratch, Precision, Routing, ThreadPool,
};

use super::arena::Io;
use crate::backend::BackendError;
use crate::experts::{self, HintMode, Hints};
use crate::graph::{ExpertsId, Graph, MatrixId, NamedExperts, Op, TensorId, VectorId};
use crate::model::Model;

/// A store, and what is kept from step to step to use it well.
pub(super) struct Streamed {
    store: Arc<ExpertStore>,
    hints: Hints,
    /// How this step hints.
    mode: HintMode,
    /// The routers of the step's graph, in order.
    routers: Vec<Router>,
    scratch: Scratch,
}

/// A router, and the experts that it chooses among.
struct Router {
    ids: TensorId,
    experts: ExpertsId,
    /// What its logits are made of, if by one linear map.
    linear: Option<RouterLinear>,
    correction_bias: Option<VectorId>,
    routing: Routing,
}

#[derive(Clone, Copy)]
struct RouterLinear {
    x: TensorId,
    weight: MatrixId,
    bias: Option<VectorId>,
}

/// What a guess is worked out in.
#[derive(Default)]
struct Scratch {
    x: Vec<f32>,
    int8: Int8Scratch,
    logits: Vec<f32>,
    ids: Vec<u32>,
    weights: Vec<f32>,
}

/// Steps of more tokens than this read a prompt.
const DECODE_TOKENS: usize = 16;
/// Tokens of a step that a guess is made from, evenly spaced: what they choose is what many will.
const GUESS_TOKENS: usize = 64;
/// Experts that are computed together while others of the layer are read: enough to share among threads, few enough that slots
/// come free soon.
const GROUP: usize = 8;

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("hints", &self.hints).finish_non_exhaustive()
    }
}

impl Streamed {
    pub(super) fn new(store: Arc<ExpertStore>, hints: HintMode) -> Self {
        Streamed {
            store,
            hints: Hints::new(hints),
            mode: HintMode::Off,
            routers: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    pub(super) fn store(&self) -> &Arc<ExpertStore> {
        &self.store
    }

    /// Prepares for a run of the graph.
    pub(super) fn begin_step(&mut self, graph: &Graph) {
        self.mode = if self.store.holds_all() {
            HintMode::Off
        } else {
            self.hints.begin_step(graph.shape().n_tokens > DECODE_TOKENS)
        };
        self.routers.clear();
        self.routers
            .extend(graph.ops().iter().enumerate().filter_map(|(index, op)| router(graph, index, op)));
    }

    /// Notes that the run is done.
    pub(super) fn end_step(&mut self) {
        self.hints.end_step();
    }

    /// Starts the reads of what a router chose, the tensor `ids`, then of what the next one may choose.
    pub(super) fn routed<'r>(
        &mut self,
        store: &'r ExpertStore,
        pool: &ThreadPool,
        precision: Precision,
        model: &Model,
        io: &Io<'_>,
        ids: TensorId,
    ) -> Fetch<'r> {
        let index = self.routers.iter().position(|router| router.ids == ids);
        let Some(index) = index else { unreachable!("a graph's experts read what its router wrote") };
        let router = &self.routers[index];
        let chosen = distinct(io.u32(ids));
        let fetch = store.fetch(router.experts.0 as u32, &chosen);

        if let Some(next) = self.routers.get(index + 1) {
            let guess = match self.mode {
                HintMode::Off | HintMode::Auto => Vec::new(),
                HintMode::Last => self.hints.last(next.experts.0).to_vec(),
                HintMode::Lookahead => match (router.linear, next.linear) {
                    (Some(here), Some(there)) => {
                        self.scratch.guess(pool, precision, model, io.f32(here.x), there, next)
                    }
                    _ => Vec::new(),
                },
            };
            if !guess.is_empty() {
                // Of more than half of the slots, the last ones would take those of the first.
                let slots = store.budget() / bytes_of_one(model, next.experts);
                store.hint(next.experts.0 as u32, &guess[..guess.len().min(slots as usize / 2)]);
            }
        }
        self.hints.chosen(router.experts.0, &chosen);
        fetch
    }
}

/// Computes the run's experts as their weights come.
pub(super) fn compute(
    pool: &ThreadPool,
    named: &NamedExperts,
    mut fetch: Fetch<'_>,
    run: &mut ExpertRun<'_>,
) -> Result<(), BackendError> {
    while let Some(leases) = fetch.next()? {
        let at_once = if leases.len() == run.experts().len() { BATCH_EXPERTS } else { GROUP };
        let mut leases = leases.into_iter();
        loop {
            let group: Vec<_> = leases.by_ref().take(at_once).collect();
            if group.is_empty() {
                break;
            }
            let ready: Vec<_> = group
                .iter()
                .map(|lease| Ok((lease.expert(), experts::weights(named, lease)?)))
                .collect::<Result<_, BackendError>>()?;
            run.compute(pool, &ready);
        }
    }
    Ok(())
}

impl Scratch {
    /// What `router` would choose for `x`.
    fn guess(
        &mut self,
        pool: &ThreadPool,
        precision: Precision,
        model: &Model,
        x: &[f32],
        RouterLinear { weight, bias, .. }: RouterLinear,
        router: &Router,
    ) -> Vec<u32> {
        let table = model.weights();
        let matrix = model.checkpoint().view(&table.matrix(weight).matrix);
        let vector = |id: VectorId| table.vector(id).values.as_slice();
        let step = (x.len() / matrix.cols()).div_ceil(GUESS_TOKENS).max(1);
        self.x.clear();
        x.chunks_exact(matrix.cols()).step_by(step).for_each(|row| self.x.extend_from_slice(row));
        let (experts, k) = (matrix.rows(), router.routing.num_experts_per_tok);
        let n = self.x.len() / matrix.cols();
        self.logits.resize(n * experts, 0.0);
        self.ids.resize(n * k, 0);
        self.weights.resize(n * k, 0.0);
        let bias = bias.map(vector);
        super::linear(pool, precision, &matrix, bias, &self.x, &mut self.int8, &mut self.logits);
        let correction = router.correction_bias.map(vector);
        kernels::route(
            pool,
            &self.logits,
            experts,
            correction,
            &router.routing,
            &mut self.ids,
            &mut self.weights,
        );
        distinct(&self.ids)
    }
}

/// Bytes of an expert of a layer.
fn bytes_of_one(model: &Model, layer: ExpertsId) -> u64 {
    let first = model.weights().experts_of(layer).experts.first();
    first.map_or(1, Expert::bytes).max(1)
}

fn distinct(ids: &[u32]) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The router that an operation is, if it is one.
fn router(graph: &Graph, index: usize, op: &Op) -> Option<Router> {
    let Op::Route { logits, correction_bias, routing, ids, .. } = op else { return None };
    let experts = graph.ops()[index..].iter().find_map(|op| match op {
        Op::Experts { ids: read, experts, .. } if read == ids => Some(*experts),
        _ => None,
    })?;
    let linear = graph.ops()[..index].iter().rev().find_map(|op| match *op {
        Op::Linear { x, weight, bias, out } if out == *logits => Some(RouterLinear { x, weight, bias }),
        _ => None,
    });
    Some(Router { ids: *ids, experts, linear, correction_bias: *correction_bias, routing: *routing })
}
