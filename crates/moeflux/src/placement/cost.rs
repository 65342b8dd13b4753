//! Cost: what an operation must read, write and compute. One function from [`Op`] to bytes and operations.

use std::collections::HashMap;

use moeflux_checkpoint::Expert;
use moeflux_kernels::{Encoding, Precision, has_int8_products};

use crate::graph::{Graph, Op, StateSpec, TensorId, WeightRead, WeightTable};

/// The least that an operation needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Weights, states and tensors, each read or written once.
    pub bytes: u64,
    /// Of those, the weights.
    pub weights: u64,
    /// Multiplications and additions of matrix products, attention, recurrences and convolutions; of anything else one
    /// for each value that it reads or writes.
    pub operations: u64,
    /// Multiplications and additions of products whose activations are rounded to integers.
    pub integer_operations: u64,
}

/// What the costs of a step depend on besides its graph.
pub struct StepFacts<'a> {
    /// Positions in the sequence before the step.
    pub first: usize,
    /// Bytes of an element of a cache of keys and values or of latents.
    pub cache_element: usize,
    /// What products are computed with.
    pub precision: Precision,
    /// Distinct experts visited, by the tensor that the choice was written to.
    pub visited: &'a HashMap<TensorId, usize>,
}

/// The cost of one operation of a step.
pub fn cost(op: &Op, graph: &Graph, table: &WeightTable, facts: &StepFacts<'_>) -> Cost {
    let n = graph.shape().n_tokens as u64;
    let len = |id: TensorId| graph.tensor(id).len() as u64;
    let values: u64 = op.reads().into_iter().chain(op.writes()).map(len).sum();
    let mut cost = Cost { bytes: 4 * values, operations: values, ..Cost::default() };
    for read in op.weights() {
        let visited = match op {
            Op::Experts { ids, .. } => facts.visited.get(ids).copied().unwrap_or(0),
            _ => 0,
        };
        cost.weights += weight_cost(&read, table, n, visited as u64).bytes;
    }
    cost.bytes += cost.weights;
    // Positions that the step's tokens see, all together.
    let seen = |window: Option<usize>| -> u64 {
        let of = |position: usize| (position + 1).min(window.unwrap_or(usize::MAX)) as u64;
        (facts.first..facts.first + n as usize).map(of).sum()
    };
    match *op {
        Op::Linear { weight, .. } => {
            let matrix = &table.matrix(weight).matrix;
            let operations = 2 * graph.tensor(op.writes()[0]).rows as u64 * matrix.parameters();
            cost.set_products(operations, facts.rounds(matrix.encoding));
        }
        Op::HeadLinear { weight, transposed, .. } => {
            let matrix = &table.matrix(weight).matrix;
            cost.set_products(2 * n * matrix.parameters(), !transposed && facts.rounds(matrix.encoding));
        }
        Op::Experts { experts, k, .. } => {
            let expert = table.experts_of(experts).experts.first();
            let operations = 2 * n * k as u64 * expert.map_or(0, Expert::parameters);
            cost.set_products(operations, expert.is_some_and(|expert| facts.rounds(expert.gate.encoding)));
        }
        Op::Attention { ref shape, state, .. } => {
            let width = (shape.heads * shape.head_dim) as u64;
            cost.operations = 4 * width * seen(shape.window);
            cost.bytes += cache_bytes(table.state(state), n, facts);
        }
        Op::MlaAttention { ref shape, state, .. } => {
            let width = (shape.heads * (2 * shape.rank + shape.rope_dim)) as u64;
            cost.operations = 2 * width * seen(None);
            cost.bytes += cache_bytes(table.state(state), n, facts);
        }
        Op::Conv1dSilu { kernel, state, .. } => {
            cost.operations = n * 2 * (kernel * graph.tensor(op.writes()[0]).cols) as u64;
            cost.bytes += cache_bytes(table.state(state), n, facts);
        }
        Op::GatedDelta { ref shape, state, .. } => {
            // Decay, recall, change and output: seven operations for each value of the state.
            cost.operations = n * 7 * (shape.value_heads * shape.key_dim * shape.value_dim) as u64;
            cost.bytes += cache_bytes(table.state(state), n, facts);
        }
        _ => {}
    }
    cost
}

/// Weights that a step reads, once each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightCost {
    /// As the files have them; vectors are held as float32.
    pub bytes: u64,
    /// Numbers of weights.
    pub parameters: u64,
}

/// The cost of one read of weights in a step of `n` tokens that visits `visited` distinct experts of the layer.
pub fn weight_cost(read: &WeightRead, table: &WeightTable, n: u64, visited: u64) -> WeightCost {
    match *read {
        WeightRead::Matrix(id) => {
            let matrix = &table.matrix(id).matrix;
            WeightCost { bytes: matrix.bytes(), parameters: matrix.parameters() }
        }
        WeightRead::Row(id) => {
            let matrix = &table.matrix(id).matrix;
            WeightCost { bytes: n * matrix.bytes() / matrix.rows as u64, parameters: n * matrix.cols as u64 }
        }
        WeightRead::Vector(id) => {
            let parameters = table.vector(id).values.len() as u64;
            WeightCost { bytes: 4 * parameters, parameters }
        }
        WeightRead::Experts { experts, .. } => match table.experts_of(experts).experts.first() {
            Some(expert) => {
                WeightCost { bytes: visited * expert.bytes(), parameters: visited * expert.parameters() }
            }
            None => WeightCost::default(),
        },
    }
}

impl StepFacts<'_> {
    /// Whether activations are rounded where they meet this encoding.
    fn rounds(&self, encoding: Encoding) -> bool {
        self.precision == Precision::Fast && has_int8_products(encoding)
    }
}

impl Cost {
    fn set_products(&mut self, operations: u64, is_integer: bool) {
        (self.operations, self.integer_operations) =
            if is_integer { (0, operations) } else { (operations, 0) };
    }
}

/// What a step reads and writes of a state.
fn cache_bytes(spec: &StateSpec, n: u64, facts: &StepFacts<'_>) -> u64 {
    let (per_position, window) = match *spec {
        StateSpec::Kv { kv_heads, head_dim, window } => (2 * kv_heads * head_dim, window),
        StateSpec::Latent { rank, rope_dim } => (rank + rope_dim, None),
        StateSpec::Recurrent { len } => return 2 * 4 * len as u64,
    };
    let before = facts.first.min(window.unwrap_or(usize::MAX)) as u64;
    // Those before are read; the step's own are written, and read from a cache.
    (before + n) * (per_position * facts.cache_element) as u64
}
