//! Builds a graph. Model code calls these methods in the order in which the paper writes the formulas.
#![expect(
    clippy::single_range_in_vec_init,
    reason = "often one part is all that is taken of a group of columns"
)]

use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Range;

use moeflux_kernels::{AttentionShape, DeltaShape, MlaShape, Routing};

use super::op::{Op, TensorId};
use super::role::{
    Attended, AttentionGate, Beta, BetaIn, ConvIn, ConvOut, Decay, DecayIn, DeltaGate, DeltaKey, DeltaOut,
    DeltaQuery, DeltaValue, ExpertIds, ExpertWeights, FfnAct, FfnGate, FfnUp, FoldedQuery, FusedBa,
    FusedQkvz, GatedAttended, GatedDeltaOut, GatedSharedOut, HeadIn, Hidden, Key, Latent, LatentIn,
    LatentKey, LatentSum, Logits, MlaQuery, MlpIn, MtpEmbedding, MtpHidden, MtpIn, NopeQuery, Plus, Query,
    QueryGate, Role, RopedKey, RopedQuery, RouterLogits, SharedGate, SharedOut, UnitKey, UnitQuery, Value,
};
use super::weights::{
    Embedding, Experts, HeadLinear, KvState, LatentState, Linear, Norm, RecurrentState, Rope, Vector,
};
use super::{Graph, GraphError, StepShape, TensorInfo};

/// A transient tensor, `[rows, cols]`, in the role `R`.
#[derive(Debug)]
pub struct Tensor<R> {
    id: TensorId,
    role: PhantomData<R>,
}

impl<R> Clone for Tensor<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Tensor<R> {}

/// Collects operations. A contradiction between shapes is remembered and returned by [`finish`](Self::finish), so
/// that model code stays free of error handling.
#[derive(Debug)]
pub struct GraphBuilder {
    shape: StepShape,
    scope: String,
    ops: Vec<Op>,
    tensors: Vec<TensorInfo>,
    label_uses: HashMap<String, usize>,
    kept: Option<TensorId>,
    error: Option<GraphError>,
}

impl GraphBuilder {
    /// An empty graph for steps of this shape.
    pub fn new(shape: StepShape) -> Self {
        GraphBuilder {
            shape,
            scope: String::new(),
            ops: Vec::new(),
            tensors: Vec::new(),
            label_uses: HashMap::new(),
            kept: None,
            error: None,
        }
    }

    /// The graph, or the first contradiction between shapes.
    pub fn finish(self, logits: Tensor<Logits>) -> Result<Graph, GraphError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(Graph {
                shape: self.shape,
                ops: self.ops,
                tensors: self.tensors,
                logits: logits.id,
                kept: self.kept,
            }),
        }
    }

    /// Labels what `body` builds with `name` in front.
    pub fn scope<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.scope.len();
        self.scope.push_str(name);
        self.scope.push('.');
        let result = body(self);
        self.scope.truncate(outer);
        result
    }

    /// Embeddings of the step's tokens, `[n_tokens, hidden_size]`.
    pub fn embed(&mut self, table: &Embedding) -> Tensor<Hidden> {
        let out = self.tensor(self.shape.n_tokens, table.hidden_size);
        self.push(Op::Embed { table: table.id, out: out.id }, out)
    }

    /// The rows given with the step, `[n_tokens, hidden_size]`.
    pub fn hidden_input(&mut self, hidden_size: usize) -> Tensor<HeadIn> {
        let out = self.tensor(self.shape.n_tokens, hidden_size);
        self.push(Op::HiddenInput { out: out.id }, out)
    }

    /// Has the graph's run hand out these rows besides the logits, for a later step to be given.
    pub fn keep(&mut self, x: Tensor<HeadIn>) {
        self.kept = Some(x.id);
    }

    /// What a layer for further tokens reads: embedding and hidden rows side by side.
    pub fn concat(&mut self, a: Tensor<MtpEmbedding>, b: Tensor<MtpHidden>) -> Tensor<MtpIn> {
        let out = self.tensor(self.rows(a), self.cols(a) + self.cols(b));
        self.push(Op::Concat { a: a.id, b: b.id, out: out.id }, out)
    }

    /// Of the rows of `x` those whose logits are asked for, `[n_outputs, …]`.
    pub fn select_outputs<R: Role>(&mut self, x: Tensor<R>) -> Tensor<R> {
        let out = self.tensor(self.shape.n_outputs, self.cols(x));
        self.push(Op::SelectOutputs { x: x.id, out: out.id }, out)
    }

    /// RMS norm over groups of the weight's length: whole rows, or heads.
    pub fn rms_norm<I: Role, O: Role>(&mut self, x: Tensor<I>, weight: &Norm<I, O>) -> Tensor<O> {
        let out = self.like(x);
        self.check_groups("rms_norm", x, weight.dim, out);
        self.push(Op::RmsNorm { x: x.id, weight: weight.id, eps: weight.eps, out: out.id }, out)
    }

    /// `W·x` for each row, plus the bias if the map has one, `[…, rows of W]`.
    pub fn linear<I: Role, O: Role>(&mut self, x: Tensor<I>, weight: &Linear<I, O>) -> Tensor<O> {
        let out = self.tensor(self.rows(x), weight.rows);
        self.check("linear", x, weight.cols, out);
        self.push(Op::Linear { x: x.id, weight: weight.id, bias: weight.bias, out: out.id }, out)
    }

    /// The sum of two tensors whose roles allow it.
    pub fn add<A: Plus<B>, B: Role>(&mut self, a: Tensor<A>, b: Tensor<B>) -> Tensor<A::Sum> {
        let out = self.like(a);
        self.check("add", b, self.cols(a), out);
        self.push(Op::Add { a: a.id, b: b.id, out: out.id }, out)
    }

    /// Takes query and gate of each head apart.
    pub fn split_query_gate(
        &mut self,
        x: Tensor<QueryGate>,
        head_dim: usize,
    ) -> (Tensor<Query>, Tensor<AttentionGate>) {
        let group = 2 * head_dim;
        (self.columns(x, group, vec![0..head_dim]), self.columns(x, group, vec![head_dim..group]))
    }

    /// Turns the queries by their positions.
    pub fn rope_query(&mut self, x: Tensor<Query>, head_dim: usize, rope: &Rope) -> Tensor<RopedQuery> {
        self.rope(x, head_dim, rope)
    }

    /// Turns the keys by their positions.
    pub fn rope_key(&mut self, x: Tensor<Key>, head_dim: usize, rope: &Rope) -> Tensor<RopedKey> {
        self.rope(x, head_dim, rope)
    }

    /// Appends keys and values to the cache and attends to all of it up to each token itself.
    pub fn attention(
        &mut self,
        q: Tensor<RopedQuery>,
        k: Tensor<RopedKey>,
        v: Tensor<Value>,
        state: &KvState,
        scale: f32,
    ) -> Tensor<Attended> {
        self.attend(q, k, v, state, None, scale)
    }

    /// [`attention`](Self::attention) in which each head has a sink: a score that takes weight from the others.
    pub fn attention_with_sinks(
        &mut self,
        q: Tensor<RopedQuery>,
        k: Tensor<RopedKey>,
        v: Tensor<Value>,
        state: &KvState,
        sinks: &Vector,
        scale: f32,
    ) -> Tensor<Attended> {
        self.attend(q, k, v, state, Some(sinks), scale)
    }

    fn attend(
        &mut self,
        q: Tensor<RopedQuery>,
        k: Tensor<RopedKey>,
        v: Tensor<Value>,
        state: &KvState,
        sinks: Option<&Vector>,
        scale: f32,
    ) -> Tensor<Attended> {
        let out = self.like(q);
        let KvState { id, kv_heads, head_dim, window } = *state;
        self.check_groups("attention", q, kv_heads * head_dim, out);
        self.check("attention", k, kv_heads * head_dim, out);
        self.check("attention", v, kv_heads * head_dim, out);
        let shape = AttentionShape { heads: self.cols(q) / head_dim, kv_heads, head_dim, window };
        if let Some(sinks) = sinks {
            self.check("attention", q, sinks.len * head_dim, out);
        }
        let sinks = sinks.map(|sinks| sinks.id);
        let (q, k, v) = (q.id, k.id, v.id);
        self.push(Op::Attention { q, k, v, state: id, shape, sinks, scale, out: out.id }, out)
    }

    /// Takes the parts of each head's query apart: without a position, and rotary.
    pub fn split_mla_query(
        &mut self,
        x: Tensor<MlaQuery>,
        nope_dim: usize,
        rope_dim: usize,
    ) -> (Tensor<NopeQuery>, Tensor<Query>) {
        let group = nope_dim + rope_dim;
        (self.columns(x, group, vec![0..nope_dim]), self.columns(x, group, vec![nope_dim..group]))
    }

    /// Takes latent and rotary key apart.
    pub fn split_latent_key(
        &mut self,
        x: Tensor<LatentKey>,
        rank: usize,
        rope_dim: usize,
    ) -> (Tensor<LatentIn>, Tensor<Key>) {
        let group = rank + rope_dim;
        (self.columns(x, group, vec![0..rank]), self.columns(x, group, vec![rank..group]))
    }

    /// Each head's own linear map on its channels.
    pub fn head_linear<I: Role, O: Role>(&mut self, x: Tensor<I>, weight: &HeadLinear<I, O>) -> Tensor<O> {
        let HeadLinear { id: weight, heads, inputs, outputs, transposed, .. } = *weight;
        let out = self.tensor(self.rows(x), heads * outputs);
        self.check("head_linear", x, heads * inputs, out);
        self.push(Op::HeadLinear { x: x.id, weight, heads, transposed, out: out.id }, out)
    }

    /// Appends latent and rotary key to the cache and attends to all of it up to each token itself.
    pub fn mla_attention(
        &mut self,
        (q, q_rope): (Tensor<FoldedQuery>, Tensor<RopedQuery>),
        (latent, k_rope): (Tensor<Latent>, Tensor<RopedKey>),
        state: &LatentState,
        scale: f32,
    ) -> Tensor<LatentSum> {
        let out = self.like(q);
        let LatentState { id: state, rank, rope_dim } = *state;
        let heads = self.cols(q) / rank.max(1);
        self.check("mla_attention", q, heads * rank, out);
        self.check("mla_attention", q_rope, heads * rope_dim, out);
        self.check("mla_attention", latent, rank, out);
        self.check("mla_attention", k_rope, rope_dim, out);
        let op = Op::MlaAttention {
            q: q.id,
            q_rope: q_rope.id,
            latent: latent.id,
            k_rope: k_rope.id,
            state,
            shape: MlaShape { heads, rank, rope_dim },
            scale,
            out: out.id,
        };
        self.push(op, out)
    }

    /// Scales the attention output by the sigmoid of its gate.
    pub fn sigmoid_gate(
        &mut self,
        x: Tensor<Attended>,
        gate: Tensor<AttentionGate>,
    ) -> Tensor<GatedAttended> {
        let out = self.like(x);
        self.check("sigmoid_gate", gate, self.cols(x), out);
        self.push(Op::SigmoidGate { x: x.id, gate: gate.id, out: out.id }, out)
    }

    /// Takes the projections of a gated delta net apart that are fused key head by key head: the convolution's
    /// channels with all queries first, then all keys, then all values; and the output's gates.
    pub fn split_qkvz(
        &mut self,
        x: Tensor<FusedQkvz>,
        shape: &DeltaShape,
    ) -> (Tensor<ConvIn>, Tensor<DeltaGate>) {
        let (keys, values) = (shape.key_dim, shape.value_heads / shape.key_heads.max(1) * shape.value_dim);
        let group = 2 * keys + 2 * values;
        let qkv = vec![0..keys, keys..2 * keys, 2 * keys..2 * keys + values];
        (self.columns(x, group, qkv), self.columns(x, group, vec![2 * keys + values..group]))
    }

    /// Takes write strength and decay of a gated delta net apart that are fused key head by key head.
    pub fn split_ba(&mut self, x: Tensor<FusedBa>, shape: &DeltaShape) -> (Tensor<BetaIn>, Tensor<DecayIn>) {
        let ratio = shape.value_heads / shape.key_heads.max(1);
        (self.columns(x, 2 * ratio, vec![0..ratio]), self.columns(x, 2 * ratio, vec![ratio..2 * ratio]))
    }

    /// Depthwise causal convolution and SiLU; the state keeps the last `kernel - 1` inputs.
    pub fn conv1d_silu(
        &mut self,
        x: Tensor<ConvIn>,
        taps: &Vector,
        state: &RecurrentState,
    ) -> Tensor<ConvOut> {
        let out = self.like(x);
        let channels = self.cols(x).max(1);
        let kernel = taps.len / channels;
        self.check("conv1d_silu", x, taps.len / kernel.max(1), out);
        self.check("conv1d_silu", x, state.len / kernel.saturating_sub(1).max(1), out);
        self.push(Op::Conv1dSilu { x: x.id, weight: taps.id, kernel, state: state.id, out: out.id }, out)
    }

    /// Takes the convolved channels apart: queries, keys, values.
    pub fn split_delta(
        &mut self,
        x: Tensor<ConvOut>,
        shape: &DeltaShape,
    ) -> (Tensor<DeltaQuery>, Tensor<DeltaKey>, Tensor<DeltaValue>) {
        let keys = shape.key_heads * shape.key_dim;
        let values = shape.value_heads * shape.value_dim;
        let all = 2 * keys + values;
        (
            self.columns(x, all, vec![0..keys]),
            self.columns(x, all, vec![keys..2 * keys]),
            self.columns(x, all, vec![2 * keys..all]),
        )
    }

    /// Queries of unit length times `scale`, keys of unit length, head by head.
    pub fn l2_norm_query_key(
        &mut self,
        q: Tensor<DeltaQuery>,
        k: Tensor<DeltaKey>,
        dim: usize,
        eps: f32,
        scale: f32,
    ) -> (Tensor<UnitQuery>, Tensor<UnitKey>) {
        (self.l2_norm(q, dim, eps, scale), self.l2_norm(k, dim, eps, 1.0))
    }

    /// Decay and write strength of each head.
    pub fn decay_beta(
        &mut self,
        a: Tensor<DecayIn>,
        b: Tensor<BetaIn>,
        a_log: &Vector,
        dt_bias: &Vector,
    ) -> (Tensor<Decay>, Tensor<Beta>) {
        let (decay, beta) = (self.like(a), self.like(b));
        self.check("decay_beta", a, a_log.len, decay);
        self.check("decay_beta", a, dt_bias.len, decay);
        self.check("decay_beta", b, a_log.len, beta);
        let op = Op::DecayBeta {
            a: a.id,
            b: b.id,
            a_log: a_log.id,
            dt_bias: dt_bias.id,
            decay: decay.id,
            beta: beta.id,
        };
        self.push(op, (decay, beta))
    }

    /// The gated delta rule; the state is `[value_heads, key_dim, value_dim]`.
    pub fn gated_delta(
        &mut self,
        (q, k, v): (Tensor<UnitQuery>, Tensor<UnitKey>, Tensor<DeltaValue>),
        (decay, beta): (Tensor<Decay>, Tensor<Beta>),
        shape: DeltaShape,
        state: &RecurrentState,
    ) -> Tensor<DeltaOut> {
        let out = self.like(v);
        self.check("gated_delta", q, shape.key_heads * shape.key_dim, out);
        self.check("gated_delta", k, shape.key_heads * shape.key_dim, out);
        self.check("gated_delta", v, shape.value_heads * shape.value_dim, out);
        self.check("gated_delta", decay, shape.value_heads, out);
        self.check("gated_delta", beta, shape.value_heads, out);
        let op = Op::GatedDelta {
            q: q.id,
            k: k.id,
            v: v.id,
            decay: decay.id,
            beta: beta.id,
            state: state.id,
            shape,
            out: out.id,
        };
        self.push(op, out)
    }

    /// RMS norm of each head's output, then its gate.
    pub fn gated_rms_norm(
        &mut self,
        x: Tensor<DeltaOut>,
        gate: Tensor<DeltaGate>,
        weight: &Norm<DeltaOut, GatedDeltaOut>,
    ) -> Tensor<GatedDeltaOut> {
        let out = self.like(x);
        self.check_groups("gated_rms_norm", x, weight.dim, out);
        self.check("gated_rms_norm", gate, self.cols(x), out);
        let (weight, eps) = (weight.id, weight.eps);
        self.push(Op::GatedRmsNorm { x: x.id, gate: gate.id, weight, eps, out: out.id }, out)
    }

    /// The router's choice. The bias, one for each expert, takes part in the choice but not in the weights.
    pub fn route(
        &mut self,
        logits: Tensor<RouterLogits>,
        correction_bias: Option<&Vector>,
        routing: Routing,
    ) -> (Tensor<ExpertIds>, Tensor<ExpertWeights>) {
        let (rows, k) = (self.rows(logits), routing.num_experts_per_tok);
        let (ids, weights) = (self.tensor(rows, k), self.tensor(rows, k));
        if let Some(bias) = correction_bias {
            self.check("route", logits, bias.len, weights);
        }
        let correction_bias = correction_bias.map(|bias| bias.id);
        let op = Op::Route { logits: logits.id, correction_bias, routing, ids: ids.id, weights: weights.id };
        self.push(op, (ids, weights))
    }

    /// The weighted sum of each token's experts.
    pub fn experts<O: Role>(
        &mut self,
        x: Tensor<MlpIn>,
        (ids, weights): (Tensor<ExpertIds>, Tensor<ExpertWeights>),
        experts: &Experts<O>,
    ) -> Tensor<O> {
        let out = self.like(x);
        self.check("experts", x, experts.hidden_size, out);
        let k = self.cols(ids);
        let op = Op::Experts {
            x: x.id,
            ids: ids.id,
            weights: weights.id,
            experts: experts.id,
            activation: experts.activation,
            k,
            out: out.id,
        };
        self.push(op, out)
    }

    /// `silu(gate)·up`.
    pub fn swiglu(&mut self, gate: Tensor<FfnGate>, up: Tensor<FfnUp>) -> Tensor<FfnAct> {
        let out = self.like(gate);
        self.check("swiglu", up, self.cols(gate), out);
        self.push(Op::Swiglu { gate: gate.id, up: up.id, out: out.id }, out)
    }

    /// Scales the shared expert by the sigmoid of its score.
    pub fn scale_by_sigmoid(
        &mut self,
        x: Tensor<SharedOut>,
        score: Tensor<SharedGate>,
    ) -> Tensor<GatedSharedOut> {
        let out = self.like(x);
        self.check("scale_by_sigmoid", score, 1, out);
        self.push(Op::ScaleBySigmoid { x: x.id, score: score.id, out: out.id }, out)
    }

    fn rope<I: Role, O: Role>(&mut self, x: Tensor<I>, head_dim: usize, rope: &Rope) -> Tensor<O> {
        let out = self.like(x);
        self.check_groups("rope", x, head_dim, out);
        self.push(Op::Rope { x: x.id, head_dim, rope: rope.id, out: out.id }, out)
    }

    fn columns<I: Role, O: Role>(
        &mut self,
        x: Tensor<I>,
        group: usize,
        parts: Vec<Range<usize>>,
    ) -> Tensor<O> {
        let width: usize = parts.iter().map(Range::len).sum();
        let out = self.tensor(self.rows(x), self.cols(x) / group.max(1) * width);
        self.check_groups("columns", x, group, out);
        self.push(Op::Columns { x: x.id, group, parts, out: out.id }, out)
    }

    fn l2_norm<I: Role, O: Role>(&mut self, x: Tensor<I>, dim: usize, eps: f32, scale: f32) -> Tensor<O> {
        let out = self.like(x);
        self.check_groups("l2_norm", x, dim, out);
        self.push(Op::L2Norm { x: x.id, dim, eps, scale, out: out.id }, out)
    }

    fn push<T>(&mut self, op: Op, out: T) -> T {
        self.ops.push(op);
        out
    }

    fn tensor<R: Role>(&mut self, rows: usize, cols: usize) -> Tensor<R> {
        let mut label = format!("{}{}", self.scope, R::NAME);
        let uses = self.label_uses.entry(label.clone()).or_insert(0);
        *uses += 1;
        if *uses > 1 {
            label = format!("{label}.{uses}");
        }
        self.tensors.push(TensorInfo { label, element: R::ELEMENT, rows, cols });
        Tensor { id: TensorId(self.tensors.len() - 1), role: PhantomData }
    }

    fn like<I: Role, O: Role>(&mut self, x: Tensor<I>) -> Tensor<O> {
        self.tensor(self.rows(x), self.cols(x))
    }

    fn rows<R: Role>(&self, x: Tensor<R>) -> usize {
        self.tensors[x.id.0].rows
    }

    fn cols<R: Role>(&self, x: Tensor<R>) -> usize {
        self.tensors[x.id.0].cols
    }

    /// Remembers an error unless `x` has `expected` columns.
    fn check<I: Role, O: Role>(&mut self, op: &'static str, x: Tensor<I>, expected: usize, out: Tensor<O>) {
        let found = self.cols(x);
        if found != expected && self.error.is_none() {
            let label = |id: TensorId| self.tensors[id.0].label.clone();
            self.error =
                Some(GraphError::Width { op, label: label(out.id), input: label(x.id), expected, found });
        }
    }

    /// Remembers an error unless the columns of `x` are whole groups of `group`.
    fn check_groups<I: Role, O: Role>(
        &mut self,
        op: &'static str,
        x: Tensor<I>,
        group: usize,
        out: Tensor<O>,
    ) {
        let whole = self.cols(x).next_multiple_of(group.max(1));
        self.check(op, x, whole, out);
    }
}
