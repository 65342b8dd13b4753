//! What a step computes on this machine, measured: each kind of operation once, on the model's own weights.
//!
//! A bandwidth alone would promise too much where a kernel is bound by its arithmetic, as kernels for AVX2 are in decoding.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hint::black_box;
use std::time::Instant;

use moeflux_checkpoint::{Expert, Matrix};

use super::rope::RopeTable;
use super::{CpuBackend, Run};
use crate::backend::{BackendError, MeasureError, Segment, Step};
use crate::graph::{Element, Graph, Op, Plan, StateId, StepShape, TensorId, WeightRead};
use crate::model::Model;
use crate::sequence::{Position, StateMut};

/// Bytes that are read between two times of an operation, so that its weights come from memory as in a step: more than the
/// largest caches hold.
const SWEEP_BYTES: usize = 128 << 20;
/// An operation with fewer bytes of weights finds them in a cache in a step too, or they do not count.
const SWEPT: u64 = 1 << 20;
/// Times that an operation is run; the first one brings its weights into memory.
const TIMES: usize = 6;

impl CpuBackend {
    /// Seconds that a step of `n` tokens after `after` positions computes where all weights are in memory: the sum over its
    /// operations, each kind and shape of which is run a few times. Reads the weights of one operation of each kind.
    pub fn measure(&mut self, model: &Model, n: usize, after: usize) -> Result<f64, MeasureError> {
        let graph = model.graph(StepShape { n_tokens: n, n_outputs: 1 })?;
        let plan = Plan::new(&graph);
        self.arena.fit(&plan);
        let mut sequence = model.sequence(self.precision.kv_type());
        if after > 0 {
            sequence.reserve(after);
            for state in 0..sequence.states().len() {
                if let StateMut::Recurrent { current, next } = sequence.state_mut(StateId(state)) {
                    next.copy_from_slice(current);
                }
            }
            sequence.commit(&vec![0; after], &positions(0, after));
        }
        sequence.reserve(n);
        let positions = positions(after, n);
        let ropes: Vec<RopeTable> =
            model.weights().ropes().iter().map(|spec| RopeTable::new(spec, &positions)).collect();
        let mut segments = [Segment { sequence: &mut sequence, rows: 0..n }];
        let mut step = Step {
            tokens: &vec![0; n],
            positions: &positions,
            outputs: &[n - 1],
            segments: &mut segments,
            hidden_input: &[],
            kept: None,
            cancel: None,
        };
        let mut run = Run {
            model,
            graph: &graph,
            plan: &plan,
            ropes: &ropes,
            step: &mut step,
            store: None,
            fetch: None,
        };
        let mut sweep = Vec::new();
        let mut known: HashMap<String, f64> = HashMap::new();
        let mut seconds = 0.0;
        for op in graph.ops() {
            seconds += match known.entry(kind(op, &graph, model)) {
                Entry::Occupied(time) => *time.get(),
                Entry::Vacant(entry) => *entry.insert(self.time(op, &mut run, &mut sweep)?),
            };
        }
        Ok(seconds)
    }

    /// Seconds of an operation, the mean of a few times.
    fn time(
        &mut self,
        op: &Op,
        run: &mut Run<'_, '_, '_>,
        sweep: &mut Vec<u64>,
    ) -> Result<f64, BackendError> {
        let chosen = self.fill_inputs(op, run);
        let bytes = bring(op, run.model, &chosen);
        let mut times = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            if bytes >= SWEPT {
                sweep.resize(SWEEP_BYTES / 8, 1);
                let sweep = &*sweep;
                let per_task = sweep.len() / 64;
                self.pool.for_each(64, |task| {
                    black_box(sweep[task * per_task..][..per_task].iter().step_by(8).sum::<u64>());
                });
            }
            let start = Instant::now();
            self.run_op(op, run)?;
            times.push(start.elapsed().as_secs_f64());
        }
        // A step has many operations, so where others use the machine too it takes the mean of their times, not the median.
        let times = &times[1..];
        Ok(times.iter().sum::<f64>() / times.len() as f64)
    }

    /// Gives an operation inputs that it could have, and returns the experts that they choose.
    fn fill_inputs(&mut self, op: &Op, run: &Run<'_, '_, '_>) -> Vec<u32> {
        let mut io = self.arena.io(run.graph, run.plan);
        let mut noise = Noise(1);
        for id in op.reads() {
            if run.graph.tensor(id).element == Element::F32 {
                io.write(id, |_, y| y.fill_with(|| noise.unit()));
            }
        }
        let Op::Experts { ids, weights, experts, k, .. } = *op else { return Vec::new() };
        let count = run.model.weights().experts_of(experts).experts.len() as u64;
        let mut chosen = Vec::new();
        io.write_choice(ids, weights, |_, ids, weights| {
            weights.fill(1.0 / k as f32);
            for token in ids.chunks_exact_mut(k) {
                // Distinct, as a router's are.
                let first = noise.next() % count;
                let stride = 1 + 2 * (noise.next() % 8);
                for (i, id) in token.iter_mut().enumerate() {
                    *id = ((first + i as u64 * stride) % count) as u32;
                }
            }
            chosen = ids.to_vec();
        });
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }
}

/// Text has the same position on each axis.
fn positions(first: usize, n: usize) -> Vec<Position> {
    (first..first + n).map(|position| [position as u32; 3]).collect()
}

/// Has an operation's weights read, which may lie on a disk only, and says how many bytes they are.
fn bring(op: &Op, model: &Model, chosen: &[u32]) -> u64 {
    let (table, checkpoint) = (model.weights(), model.checkpoint());
    let mut bytes = 0;
    let mut of_matrix = |matrix: &Matrix| {
        bytes += matrix.bytes();
        matrix.spans().for_each(|span| checkpoint.bring(span));
    };
    for read in op.weights() {
        match read {
            WeightRead::Matrix(id) => of_matrix(&table.matrix(id).matrix),
            WeightRead::Experts { experts, .. } => {
                let experts = chosen.iter().map(|&id| &table.experts_of(experts).experts[id as usize]);
                experts.flat_map(Expert::matrices).for_each(|(_, matrix)| of_matrix(matrix));
            }
            WeightRead::Row(_) | WeightRead::Vector(_) => {}
        }
    }
    bytes
}

/// What two operations of the same time have in common.
fn kind(op: &Op, graph: &Graph, model: &Model) -> String {
    let table = model.weights();
    let shape = |id: TensorId| (graph.tensor(id).rows, graph.tensor(id).cols);
    let tensors: Vec<_> = op.reads().into_iter().chain(op.writes()).map(shape).collect();
    let weights: Vec<_> = op
        .weights()
        .iter()
        .filter_map(|read| match *read {
            WeightRead::Matrix(id) | WeightRead::Row(id) => Some(&table.matrix(id).matrix),
            WeightRead::Experts { experts, .. } => {
                table.experts_of(experts).experts.first().map(|first| &first.gate)
            }
            WeightRead::Vector(_) => None,
        })
        .map(|matrix| (matrix.rows, matrix.cols, matrix.encoding))
        .collect();
    let window = match op {
        Op::Attention { shape, .. } => shape.window,
        _ => None,
    };
    format!("{} {tensors:?} {weights:?} {window:?}", op.name())
}

/// Numbers without a pattern (xorshift, Marsaglia 2003), the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From −1 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
