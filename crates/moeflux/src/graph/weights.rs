//! The weights a graph reads: typed handles for model code, a table for backends.

use std::marker::PhantomData;

use moeflux_checkpoint::{Checkpoint, Error, Expert, LatentDims, LatentHeads, Matrix, RowOrder, Weights};
use moeflux_kernels::{Activation, ExpertWeights, RopeLayout};

use super::NamedExperts;
use super::op::{ExpertsId, MatrixId, RopeId, StateId, VectorId};
use super::role::{Attended, FoldedQuery, LatentSum, NopeQuery, Role};

/// A linear map from role `I` to role `O`: `y = W·x`, `W` being `[rows, cols]`, plus a bias if it has one.
#[derive(Debug)]
pub struct Linear<I, O> {
    pub(super) id: MatrixId,
    pub(super) bias: Option<VectorId>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    roles: PhantomData<(I, O)>,
}

/// A linear map of each head's own, from role `I` to role `O`.
#[derive(Debug)]
pub struct HeadLinear<I, O> {
    pub(super) id: MatrixId,
    pub(super) heads: usize,
    /// Channels of a head before and after.
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Whether the matrices are stored as `[inputs, outputs]`.
    pub(super) transposed: bool,
    roles: PhantomData<(I, O)>,
}

/// What folds queries into the space of latents, and what makes values of sums of latents.
pub type LatentMaps = (HeadLinear<NopeQuery, FoldedQuery>, HeadLinear<LatentSum, Attended>);

/// The weight of an RMS norm from role `I` to role `O`.
#[derive(Debug)]
pub struct Norm<I, O> {
    pub(super) id: VectorId,
    pub(super) dim: usize,
    pub(super) eps: f32,
    roles: PhantomData<(I, O)>,
}

/// The token embedding, `[vocab_size, hidden_size]`.
#[derive(Debug)]
pub struct Embedding {
    pub(super) id: MatrixId,
    pub(super) hidden_size: usize,
}

/// A short array of floats with a meaning of its own (`A_log`, convolution taps).
#[derive(Debug)]
pub struct Vector {
    pub(super) id: VectorId,
    pub(super) len: usize,
}

/// All routed experts of one layer; their weighted sum plays the role `O`.
#[derive(Debug)]
pub struct Experts<O> {
    pub(super) id: ExpertsId,
    pub(super) hidden_size: usize,
    pub(super) activation: Activation,
    role: PhantomData<O>,
}

/// A rotary embedding.
#[derive(Debug)]
pub struct Rope {
    pub(super) id: RopeId,
}

/// State of one attention layer: its KV cache.
#[derive(Debug)]
pub struct KvState {
    pub(super) id: StateId,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) window: Option<usize>,
}

/// State of one layer of multi-head latent attention: its latents and rotary keys.
#[derive(Debug)]
pub struct LatentState {
    pub(super) id: StateId,
    pub(super) rank: usize,
    pub(super) rope_dim: usize,
}

/// State of fixed size that every token rewrites.
#[derive(Debug)]
pub struct RecurrentState {
    pub(super) id: StateId,
    pub(super) len: usize,
}

/// How RoPE turns: angles are `position · inv_freq[j]` in float32.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Channels of a head that turn, from its start.
    pub rotary_dim: usize,
    /// `[rotary_dim / 2]`.
    pub inv_freq: Vec<f32>,
    /// Which channels make a pair.
    pub layout: RopeLayout,
    /// For each frequency the axis (0 time, 1 height, 2 width) whose position turns it; all 0 for text models.
    pub axes: Vec<u8>,
    /// Multiplies every cosine and sine; 1 but for YaRN.
    pub attention_factor: f32,
}

/// What one of a sequence's states is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateSpec {
    /// Keys and values of every token.
    Kv {
        /// Heads of keys and of values.
        kv_heads: usize,
        /// Channels a head.
        head_dim: usize,
        /// Tokens that are kept, the newest; all if none.
        window: Option<usize>,
    },
    /// Latent and rotary key of every token.
    Latent {
        /// Channels of a latent.
        rank: usize,
        /// Channels of a rotary key.
        rope_dim: usize,
    },
    /// A fixed number of floats.
    Recurrent {
        /// How many.
        len: usize,
    },
}

/// A matrix and its place in the model.
#[derive(Clone, Debug)]
pub struct NamedMatrix {
    /// Canonical name, such as `layers.3.self_attn.q_proj`.
    pub name: String,
    /// Where its bytes are.
    pub matrix: Matrix,
}

/// A vector and its place in the model.
#[derive(Clone, Debug)]
pub struct NamedVector {
    /// Canonical name, such as `layers.3.input_layernorm`.
    pub name: String,
    /// Widened to float32, in this project's conventions.
    pub values: Vec<f32>,
}

/// Every weight and state that a model's graphs refer to, by id.
#[derive(Debug, Default)]
pub struct WeightTable {
    matrices: Vec<NamedMatrix>,
    vectors: Vec<NamedVector>,
    experts: Vec<NamedExperts>,
    ropes: Vec<RopeSpec>,
    states: Vec<StateSpec>,
}

impl WeightTable {
    /// All matrices, in order of registration.
    pub fn matrices(&self) -> &[NamedMatrix] {
        &self.matrices
    }

    /// All vectors, in order of registration.
    pub fn vectors(&self) -> &[NamedVector] {
        &self.vectors
    }

    /// A matrix.
    pub fn matrix(&self, id: MatrixId) -> &NamedMatrix {
        &self.matrices[id.0]
    }

    /// A vector.
    pub fn vector(&self, id: VectorId) -> &NamedVector {
        &self.vectors[id.0]
    }

    /// The experts of a layer.
    pub fn experts_of(&self, id: ExpertsId) -> &NamedExperts {
        &self.experts[id.0]
    }

    /// A rotary embedding.
    pub fn rope(&self, id: RopeId) -> &RopeSpec {
        &self.ropes[id.0]
    }

    /// A state that a sequence of this model has.
    pub fn state(&self, id: StateId) -> &StateSpec {
        &self.states[id.0]
    }

    /// The experts of each sparse layer.
    pub fn experts(&self) -> &[NamedExperts] {
        &self.experts
    }

    /// All rotary embeddings.
    pub fn ropes(&self) -> &[RopeSpec] {
        &self.ropes
    }

    /// The states that a sequence of this model has.
    pub fn states(&self) -> &[StateSpec] {
        &self.states
    }

    /// The matrices of one expert, borrowed from the checkpoint.
    pub fn expert<'a>(
        &'a self,
        checkpoint: &'a Checkpoint,
        layer: ExpertsId,
        expert: u32,
    ) -> ExpertWeights<'a> {
        self.experts[layer.0].mapped(checkpoint, expert)
    }
}

/// Takes weights from a checkpoint into a table, checking each shape at the door.
#[derive(Debug)]
pub struct Loader<'a> {
    source: Weights<'a>,
    table: WeightTable,
}

impl<'a> Loader<'a> {
    /// A loader over a checkpoint's canonical names.
    pub fn new(source: Weights<'a>) -> Self {
        Loader { source, table: WeightTable::default() }
    }

    /// The finished table; an error if the checkpoint holds a tensor that nobody asked for.
    pub fn finish(self) -> Result<WeightTable, Error> {
        self.source.finish()?;
        Ok(self.table)
    }

    /// Runs `load` with the states that it registers apart from all others: they are of a sequence of their own.
    pub fn apart<T>(
        &mut self,
        load: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<(T, Vec<StateSpec>), Error> {
        let states = std::mem::take(&mut self.table.states);
        let loaded = load(self);
        let apart = std::mem::replace(&mut self.table.states, states);
        Ok((loaded?, apart))
    }

    /// The order in which the checkpoint has rows that formats order differently.
    pub fn row_order(&self) -> RowOrder {
        self.source.row_order()
    }

    /// A linear map without bias, `[rows, cols]`.
    pub fn linear<I: Role, O: Role>(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Linear<I, O>, Error> {
        let id = self.matrix(name, rows, cols)?;
        Ok(Linear { id, bias: None, rows, cols, roles: PhantomData })
    }

    /// A linear map `[rows, cols]` with the bias `name.bias`, `[rows]`.
    pub fn linear_with_bias<I: Role, O: Role>(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Linear<I, O>, Error> {
        let linear = self.linear(name, rows, cols)?;
        let Vector { id, .. } = self.vector(&format!("{name}.bias"), rows)?;
        Ok(Linear { bias: Some(id), ..linear })
    }

    /// Whether the checkpoint has the linear map called `name`.
    pub fn has_linear(&self, name: &str) -> bool {
        self.source.has_matrix(name)
    }

    /// The token embedding.
    pub fn embedding(
        &mut self,
        name: &str,
        vocab_size: usize,
        hidden_size: usize,
    ) -> Result<Embedding, Error> {
        Ok(Embedding { id: self.matrix(name, vocab_size, hidden_size)?, hidden_size })
    }

    /// An RMS norm over rows of `dim`.
    pub fn norm<I: Role, O: Role>(&mut self, name: &str, dim: usize, eps: f64) -> Result<Norm<I, O>, Error> {
        let Vector { id, .. } = self.vector(name, dim)?;
        Ok(Norm { id, dim, eps: eps as f32, roles: PhantomData })
    }

    /// A vector of `len` floats.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vector, Error> {
        let values = self.source.vector(name, len)?;
        Ok(self.push_vector(name, values))
    }

    /// Taps of a depthwise convolution, `[channels, kernel]`, the last tap being the current token's.
    pub fn conv1d(&mut self, name: &str, channels: usize, kernel: usize) -> Result<Vector, Error> {
        let values = self.source.conv1d(name, channels, kernel)?;
        Ok(self.push_vector(name, values))
    }

    /// The routed experts of the MLP called `name`.
    pub fn experts<O: Role>(
        &mut self,
        name: &str,
        count: usize,
        hidden_size: usize,
        intermediate_size: usize,
    ) -> Result<Experts<O>, Error> {
        let experts = self.source.experts(name, count, hidden_size, intermediate_size)?;
        Ok(self.push_experts(name, experts, hidden_size, Activation::Swiglu))
    }

    /// The same of experts whose linear maps have biases.
    pub fn biased_experts<O: Role>(
        &mut self,
        name: &str,
        count: usize,
        hidden_size: usize,
        intermediate_size: usize,
        activation: Activation,
    ) -> Result<Experts<O>, Error> {
        let experts = self.source.biased_experts(name, count, hidden_size, intermediate_size)?;
        Ok(self.push_experts(name, experts, hidden_size, activation))
    }

    /// The up-projections of the latent attention called `name`, folded: what takes each head's query into the space of
    /// latents, and what takes each head's sum of latents to its values.
    pub fn latent_heads(&mut self, name: &str, dims: LatentDims) -> Result<LatentMaps, Error> {
        let LatentHeads { keys, keys_are_folded, values } = self.source.latent_heads(name, dims)?;
        let LatentDims { heads, rank, nope_dim, value_dim } = dims;
        let keys = HeadLinear {
            id: self.push_matrix(&format!("{name}.kv_b_proj.keys"), keys),
            heads,
            inputs: nope_dim,
            outputs: rank,
            transposed: !keys_are_folded,
            roles: PhantomData,
        };
        let values = HeadLinear {
            id: self.push_matrix(&format!("{name}.kv_b_proj.values"), values),
            heads,
            inputs: rank,
            outputs: value_dim,
            transposed: false,
            roles: PhantomData,
        };
        Ok((keys, values))
    }

    /// A rotary embedding; layers that turn alike share one.
    pub fn rope(&mut self, spec: RopeSpec) -> Rope {
        let ropes = &mut self.table.ropes;
        let known = ropes.iter().position(|known| *known == spec);
        let id = known.unwrap_or_else(|| {
            ropes.push(spec);
            ropes.len() - 1
        });
        Rope { id: RopeId(id) }
    }

    /// A KV cache for one layer.
    pub fn kv_state(&mut self, kv_heads: usize, head_dim: usize) -> KvState {
        self.push_kv_state(kv_heads, head_dim, None)
    }

    /// A KV cache for one layer of which each token sees the newest `window` tokens, itself included.
    pub fn sliding_kv_state(&mut self, kv_heads: usize, head_dim: usize, window: usize) -> KvState {
        self.push_kv_state(kv_heads, head_dim, Some(window))
    }

    /// A cache of latents for one layer.
    pub fn latent_state(&mut self, rank: usize, rope_dim: usize) -> LatentState {
        self.table.states.push(StateSpec::Latent { rank, rope_dim });
        LatentState { id: StateId(self.table.states.len() - 1), rank, rope_dim }
    }

    /// A recurrent state of `len` floats, zero at the start of a sequence.
    pub fn recurrent_state(&mut self, len: usize) -> RecurrentState {
        self.table.states.push(StateSpec::Recurrent { len });
        RecurrentState { id: StateId(self.table.states.len() - 1), len }
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<MatrixId, Error> {
        let matrix = self.source.matrix(name, rows, cols)?;
        Ok(self.push_matrix(name, matrix))
    }

    fn push_matrix(&mut self, name: &str, matrix: Matrix) -> MatrixId {
        self.table.matrices.push(NamedMatrix { name: name.to_owned(), matrix });
        MatrixId(self.table.matrices.len() - 1)
    }

    fn push_experts<O: Role>(
        &mut self,
        name: &str,
        experts: Vec<Expert>,
        hidden_size: usize,
        activation: Activation,
    ) -> Experts<O> {
        self.table.experts.push(NamedExperts::new(format!("{name}.experts"), experts));
        Experts { id: ExpertsId(self.table.experts.len() - 1), hidden_size, activation, role: PhantomData }
    }

    fn push_kv_state(&mut self, kv_heads: usize, head_dim: usize, window: Option<usize>) -> KvState {
        self.table.states.push(StateSpec::Kv { kv_heads, head_dim, window });
        KvState { id: StateId(self.table.states.len() - 1), kv_heads, head_dim, window }
    }

    fn push_vector(&mut self, name: &str, values: Vec<f32>) -> Vector {
        let len = values.len();
        self.table.vectors.push(NamedVector { name: name.to_owned(), values });
        Vector { id: VectorId(self.table.vectors.len() - 1), len }
    }
}
