//! The CPU backend: float32 throughout, with weights dequantised as they are read, or in fast mode quantised activations
//! where they meet quantised weights.
//!
//! Each operation is one call of a kernel of the same meaning. Parallelism splits outputs, never sums, and every sum
//! has a fixed order, so a token's bits depend on its own sequence alone.

mod arena;
mod first_reads;
mod loading;
mod measure;
pub(super) mod rope;
mod streamed;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use moeflux_experts::{ExpertStore, Fetch, Io};
use moeflux_kernels::{
    self as kernels, AttentionScratch, DeltaRows, ExpertScratch, ExpertsArgs, GatedDeltaArgs, Int8Scratch,
    KvType, MlaShape, PoolError, Precision, RopeArgs, ThreadPool,
};

use self::arena::Arena;
use self::first_reads::FirstReads;
use self::loading::Loading;
use self::rope::RopeTable;
use self::streamed::Streamed;
use super::{Backend, BackendError, Observer, OpenError, Step, store};
use crate::graph::{Graph, MatrixId, Op, Plan, TensorId, VectorId};
use crate::model::Model;
use crate::options::{ComputeOptions, HintMode};
use crate::placement::{Placement, Residence};
use crate::sequence::StateMut;

/// Runs graphs on the CPU's cores.
#[derive(Debug)]
pub struct CpuBackend {
    pool: ThreadPool,
    precision: Precision,
    arena: Arena,
    int8: Int8Scratch,
    attention: AttentionScratch,
    experts: ExpertScratch,
    first_reads: FirstReads,
    streamed: Option<Streamed>,
}

impl CpuBackend {
    /// A backend with a pool of `threads` threads. Experts are read in place; see [`streaming`](Self::streaming).
    pub fn new(threads: usize, precision: Precision) -> Result<Self, PoolError> {
        Ok(CpuBackend {
            pool: ThreadPool::new(threads)?,
            precision,
            arena: Arena::default(),
            int8: Int8Scratch::default(),
            attention: AttentionScratch::default(),
            experts: ExpertScratch::default(),
            first_reads: FirstReads::default(),
            streamed: None,
        })
    }

    /// The same backend, taking experts from a store whose layers are those of the models' weight tables.
    #[must_use]
    pub fn streaming(self, store: Arc<ExpertStore>, hints: HintMode) -> Self {
        CpuBackend { streamed: Some(Streamed::new(store, hints)), ..self }
    }

    /// A backend for a model whose experts live as a placement says. What every token reads is read into memory beside
    /// the first steps, and so are all experts if they are to stay there.
    pub fn open(
        model: &Arc<Model>,
        placement: &Placement,
        options: &ComputeOptions,
    ) -> Result<Self, OpenError> {
        let threads = options.threads;
        let new = CpuBackend::new(threads, options.precision);
        let mut backend = new.map_err(|source| OpenError::Threads { threads, source })?;
        let store = store::open(model, placement, options)?;
        // Where mapping was asked for, the system decides what stays.
        let resident = placement.residence == Residence::Mapped && options.store.io != Io::Mapped;
        backend.first_reads.loading = Some(Loading::start(Arc::clone(model), resident));
        Ok(match store {
            Some(store) => backend.streaming(store, options.hints),
            None => backend,
        })
    }

    fn run_op(&mut self, op: &Op, run: &mut Run<'_, '_, '_>) -> Result<(), BackendError> {
        let CpuBackend { pool, precision, arena, int8, attention, experts: scratch, first_reads, streamed } =
            self;
        let precision = *precision;
        let Run { model, graph, plan, ropes, step, store, fetch } = run;
        let (checkpoint, weights) = (model.checkpoint(), model.weights());
        let matrix = |id: MatrixId| checkpoint.view(&weights.matrix(id).matrix);
        let vector = |id: VectorId| weights.vector(id).values.as_slice();
        let cols = |id: TensorId| graph.tensor(id).cols;
        let mut io = arena.io(graph, plan);

        match *op {
            Op::Embed { table, out } => io.write(out, |_, y| kernels::embed(&matrix(table), step.tokens, y)),
            Op::HiddenInput { out } => io.write(out, |_, y| y.copy_from_slice(step.hidden_input)),
            Op::SelectOutputs { x, out } => io.write(out, |io, y| {
                let (x, width) = (io.f32(x), cols(x));
                for (row, &token) in y.chunks_exact_mut(width).zip(step.outputs) {
                    row.copy_from_slice(&x[token * width..(token + 1) * width]);
                }
            }),
            Op::RmsNorm { x, weight, eps, out } => {
                io.write(out, |io, y| kernels::rms_norm(pool, io.f32(x), vector(weight), eps, y));
            }
            Op::Linear { x, weight, bias, out } => io.write(out, |io, y| {
                linear(pool, precision, &matrix(weight), bias.map(vector), io.f32(x), int8, y);
            }),
            Op::Add { a, b, out } => io.write(out, |io, y| kernels::add(pool, io.f32(a), io.f32(b), y)),
            Op::Concat { a, b, out } => io.write(out, |io, y| {
                let (left, right) = (cols(a), cols(b));
                let rows = io.f32(a).chunks_exact(left).zip(io.f32(b).chunks_exact(right));
                for ((a, b), y) in rows.zip(y.chunks_exact_mut(left + right)) {
                    y[..left].copy_from_slice(a);
                    y[left..].copy_from_slice(b);
                }
            }),
            Op::Columns { x, group, ref parts, out } => {
                io.write(out, |io, y| kernels::columns(pool, io.f32(x), cols(x), group, parts, y));
            }
            Op::Rope { x, head_dim, rope, out } => io.write(out, |io, y| {
                let (spec, table, heads) = (weights.rope(rope), &ropes[rope.0], cols(x) / head_dim);
                let (x, rotary_dim, layout) = (io.f32(x), spec.rotary_dim, spec.layout);
                let (cos, sin) = (table.cos.as_slice(), table.sin.as_slice());
                kernels::rope(pool, &RopeArgs { x, heads, head_dim, rotary_dim, layout, cos, sin }, y);
            }),
            Op::HeadLinear { x, weight, heads, transposed, out } => io.write(out, |io, y| {
                let (w, x) = (matrix(weight), io.f32(x));
                match precision {
                    _ if transposed => kernels::head_linear_transposed(pool, &w, heads, x, y),
                    Precision::Exact => kernels::head_linear(pool, &w, heads, x, y),
                    Precision::Fast => kernels::int8_head_linear(pool, &w, heads, x, int8, y),
                }
            }),
            Op::Attention { q, k, v, state, ref shape, sinks, scale, out } => io.write(out, |io, y| {
                let (q, k, v) = (io.f32(q), io.f32(k), io.f32(v));
                let (query_width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
                for segment in step.segments.iter_mut() {
                    let rows = |width| segment.rows.start * width..segment.rows.end * width;
                    let (query_rows, kv_rows) = (rows(query_width), rows(kv_width));
                    let first = segment.sequence.len();
                    let StateMut::Kv(cache) = segment.sequence.state_mut(state) else {
                        unreachable!("the loader made state {state} a KV cache")
                    };
                    let (keys, values) = cache.blocks_mut();
                    kernels::kv_write(&k[kv_rows.clone()], &v[kv_rows], shape, first, keys, values);
                    let (q, y, sinks) = (&q[query_rows.clone()], &mut y[query_rows], sinks.map(vector));
                    kernels::attention(pool, q, keys, values, sinks, shape, first, scale, attention, y);
                }
            }),
            Op::MlaAttention { q, q_rope, latent, k_rope, state, ref shape, scale, out } => {
                io.write(out, |io, y| {
                    let (q, q_rope, latent, k_rope) =
                        (io.f32(q), io.f32(q_rope), io.f32(latent), io.f32(k_rope));
                    let MlaShape { heads, rank, rope_dim } = *shape;
                    for segment in step.segments.iter_mut() {
                        let rows = |width| segment.rows.start * width..segment.rows.end * width;
                        let (query_rows, rope_rows) = (rows(heads * rank), rows(heads * rope_dim));
                        let (latent, k_rope) = (&latent[rows(rank)], &k_rope[rows(rope_dim)]);
                        let first = segment.sequence.len();
                        let StateMut::Latent(cache) = segment.sequence.state_mut(state) else {
                            unreachable!("the loader made state {state} a latent cache")
                        };
                        let blocks = cache.blocks_mut();
                        kernels::latent_write(latent, k_rope, shape, first, blocks);
                        let (q, q_rope, y) = (&q[query_rows.clone()], &q_rope[rope_rows], &mut y[query_rows]);
                        kernels::mla_attention(pool, q, q_rope, blocks, shape, first, scale, attention, y);
                    }
                });
            }
            Op::SigmoidGate { x, gate, out } => {
                io.write(out, |io, y| kernels::sigmoid_gate(pool, io.f32(x), io.f32(gate), y));
            }
            Op::Conv1dSilu { x, weight, kernel, state, out } => io.write(out, |io, y| {
                let (x, width) = (io.f32(x), cols(x));
                for segment in step.segments.iter_mut() {
                    let StateMut::Recurrent { current, next } = segment.sequence.state_mut(state) else {
                        unreachable!("the loader made state {state} recurrent")
                    };
                    each_kept(segment.rows.clone(), current, next, |rows, current, next| {
                        let rows = rows.start * width..rows.end * width;
                        let (x, y) = (&x[rows.clone()], &mut y[rows]);
                        kernels::conv1d_silu(pool, x, vector(weight), kernel, current, next, y);
                    });
                }
            }),
            Op::L2Norm { x, dim, eps, scale, out } => {
                io.write(out, |io, y| kernels::l2_norm(pool, io.f32(x), dim, eps, scale, y));
            }
            Op::DecayBeta { a, b, a_log, dt_bias, decay, beta } => {
                io.write2(decay, beta, |io, decay, beta| {
                    kernels::decay_beta(
                        pool,
                        io.f32(a),
                        io.f32(b),
                        vector(a_log),
                        vector(dt_bias),
                        decay,
                        beta,
                    );
                });
            }
            Op::GatedDelta { q, k, v, decay, beta, state, ref shape, out } => io.write(out, |io, y| {
                let (keys, values) = (shape.key_heads * shape.key_dim, shape.value_heads * shape.value_dim);
                let (q, k, v) = (io.f32(q), io.f32(k), io.f32(v));
                let (decay, beta) = (io.f32(decay), io.f32(beta));
                for segment in step.segments.iter_mut() {
                    let rows = |width| segment.rows.start * width..segment.rows.end * width;
                    let (key_rows, value_rows, head_rows) =
                        (rows(keys), rows(values), rows(shape.value_heads));
                    let (q, k, v) = (&q[key_rows.clone()], &k[key_rows], &v[value_rows.clone()]);
                    let (decay, beta) = (&decay[head_rows.clone()], &beta[head_rows]);
                    let Some(recurrent) = segment.sequence.recurrent_mut(state) else {
                        unreachable!("the loader made state {state} recurrent")
                    };
                    let read = || DeltaRows::new(k, v, decay, beta, *shape);
                    let (current, next) = recurrent.step_to_last(read);
                    let args = GatedDeltaArgs { q, k, v, decay, beta, shape, state: current };
                    kernels::gated_delta(pool, &args, next, &mut y[value_rows]);
                }
            }),
            Op::GatedRmsNorm { x, gate, weight, eps, out } => io.write(out, |io, y| {
                kernels::gated_rms_norm(pool, io.f32(x), io.f32(gate), vector(weight), eps, y);
            }),
            Op::Route { logits, correction_bias, ref routing, ids, weights } => {
                io.write_choice(ids, weights, |io, ids, weights| {
                    let bias = correction_bias.map(vector);
                    kernels::route(pool, io.f32(logits), cols(logits), bias, routing, ids, weights);
                });
                if let (Some(streamed), Some(store)) = (streamed, store) {
                    *fetch = Some(streamed.routed(store, pool, precision, model, &io, ids));
                }
            }
            Op::Experts { x, ids, weights: expert_weights, experts, activation, k, out } => {
                return io.write(out, |io, y| {
                    let (x, ids, shares) = (io.f32(x), io.u32(ids), io.f32(expert_weights));
                    let args = ExpertsArgs { x, indices: ids, weights: shares, k, activation };
                    if let Some(fetch) = fetch.take() {
                        let mut run = scratch.begin(args, precision);
                        streamed::compute(pool, weights.experts_of(experts), fetch, &mut run)?;
                        run.finish(pool, y);
                    } else {
                        first_reads.begin(checkpoint, experts.0, weights.experts_of(experts), ids);
                        let expert = |id: u32| weights.expert(checkpoint, experts, id);
                        kernels::experts(pool, args, expert, precision, scratch, y);
                    }
                    Ok(())
                });
            }
            Op::Swiglu { gate, up, out } => {
                io.write(out, |io, y| kernels::swiglu(pool, io.f32(gate), io.f32(up), y));
            }
            Op::ScaleBySigmoid { x, score, out } => {
                io.write(out, |io, y| kernels::scale_by_sigmoid(pool, io.f32(x), io.f32(score), y));
            }
        }
        Ok(())
    }
}

/// Runs a recurrence over rows, with the state before them and where to write the state after them: over all of them at
/// once if `next` is one state, row by row if it has room for the state after each.
fn each_kept<'a>(
    rows: Range<usize>,
    mut current: &'a [f32],
    next: &'a mut [f32],
    mut recurrence: impl FnMut(Range<usize>, &[f32], &mut [f32]),
) {
    if next.len() == current.len() {
        return recurrence(rows, current, next);
    }
    assert_eq!(next.len(), rows.len() * current.len(), "a state for each row");
    for (row, next) in rows.zip(next.chunks_exact_mut(current.len())) {
        recurrence(row..row + 1, current, next);
        current = next;
    }
}

/// `y = x·wᵀ + bias`.
fn linear(
    pool: &ThreadPool,
    precision: Precision,
    w: &kernels::Matrix<'_>,
    bias: Option<&[f32]>,
    x: &[f32],
    int8: &mut Int8Scratch,
    y: &mut [f32],
) {
    match precision {
        Precision::Exact => kernels::linear(pool, w, x, y),
        Precision::Fast => kernels::int8_linear(pool, w, x, int8, y),
    }
    if let Some(bias) = bias {
        kernels::add_to_rows(bias, y);
    }
}

/// What the operations of one run have in common.
struct Run<'r, 'a, 's> {
    model: &'r Model,
    graph: &'r Graph,
    plan: &'r Plan,
    ropes: &'r [RopeTable],
    step: &'r mut Step<'a, 's>,
    /// Where experts come from, if not from the checkpoint.
    store: Option<&'r ExpertStore>,
    /// What the last router chose, on its way.
    fetch: Option<Fetch<'r>>,
}

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn run(
        &mut self,
        model: &Model,
        graph: &Graph,
        plan: &Plan,
        step: &mut Step<'_, '_>,
        mut observer: Option<&mut dyn Observer>,
    ) -> Result<&[f32], BackendError> {
        self.arena.fit(plan);
        let ropes: Vec<RopeTable> =
            model.weights().ropes().iter().map(|spec| RopeTable::new(spec, step.positions)).collect();
        if let Some(streamed) = &mut self.streamed {
            streamed.begin_step(graph);
        }
        let store = self.experts().cloned();
        let store = store.as_deref();
        let mut run = Run { model, graph, plan, ropes: &ropes, step, store, fetch: None };
        for op in graph.ops() {
            if run.step.cancel.is_some_and(super::CancelToken::is_cancelled) {
                return Err(BackendError::Cancelled);
            }
            // The head of a step that wants no logits.
            if run.step.outputs.is_empty() && op.writes().iter().all(|&id| graph.tensor(id).is_empty()) {
                continue;
            }
            let start = observer.is_some().then(Instant::now);
            self.run_op(op, &mut run)?;
            if let (Some(observer), Some(start)) = (observer.as_deref_mut(), start) {
                observer.ran(op, start.elapsed());
                for id in op.writes() {
                    observer.wrote(graph.tensor(id), self.arena.data(graph, plan, id));
                }
            }
        }
        if let Some(streamed) = &mut self.streamed {
            streamed.end_step();
        }
        if let (Some(kept), Some(id)) = (&mut run.step.kept, graph.kept()) {
            kept.clear();
            kept.extend_from_slice(self.arena.f32(graph, plan, id));
        }
        Ok(self.arena.f32(graph, plan, graph.logits()))
    }

    fn kv_type(&self) -> KvType {
        self.precision.kv_type()
    }

    fn transient_bytes(&self) -> usize {
        self.arena.bytes() + self.attention.bytes()
    }

    fn experts(&self) -> Option<&Arc<ExpertStore>> {
        self.streamed.as_ref().map(Streamed::store)
    }
}
