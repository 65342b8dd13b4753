//! The gated delta net's own operations (Yang et al. 2024, "Gated Delta Networks").

use crate::math::{exp, sigmoid, softplus};
use crate::pool::ThreadPool;
use crate::tile::{Tile, Tiling, for_each_tile_pair};
use crate::vector::{LANES, Vector, with_vector};

/// Channels of a head's state that are worked on at once.
const STRIP: usize = 2 * LANES;
/// Vectors of a head's state that a few tokens take at once.
const ROW: usize = 8;
/// How many tokens are a few.
const FEW: usize = 4;

/// `decay = exp(-exp(a_log) · softplus(a + dt_bias))` and `beta = sigmoid(b)`: `a`, `b`, `decay` and `beta` are
/// `[n, value_heads]`, `a_log` and `dt_bias` are `[value_heads]`.
pub fn decay_beta(
    pool: &ThreadPool,
    a: &[f32],
    b: &[f32],
    a_log: &[f32],
    dt_bias: &[f32],
    decay: &mut [f32],
    beta: &mut [f32],
) {
    let heads = a_log.len();
    assert!(a.len().is_multiple_of(heads) && dt_bias.len() == heads);
    assert!(b.len() == a.len() && decay.len() == a.len() && beta.len() == a.len());
    let rates: Vec<f32> = a_log.iter().map(|&a_log| -exp(a_log)).collect();
    // A softplus takes as long as a hundred operations.
    let rows_per_task = pool.units_per_task(a.len() / heads, 100 * heads);
    let tiling = Tiling::chunks(a.len(), rows_per_task * heads);
    for_each_tile_pair(pool, (decay, tiling), (beta, tiling), |_, decay, beta| {
        let first = decay.first_column();
        for (i, (decay, beta)) in (first..).zip(decay.row(0).iter_mut().zip(beta.row(0))) {
            let head = i % heads;
            *decay = exp(rates[head] * softplus(a[i] + dt_bias[head]));
            *beta = sigmoid(b[i]);
        }
    });
}

/// Heads of a gated delta net and their sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaShape {
    /// Query and key heads.
    pub key_heads: usize,
    /// Value heads, a multiple of `key_heads`.
    pub value_heads: usize,
    /// Channels of a query and of a key.
    pub key_dim: usize,
    /// Channels of a value.
    pub value_dim: usize,
    /// Which key head a value head goes with.
    pub order: HeadOrder,
}

/// The order of value heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadOrder {
    /// Those of one key head follow each other: value head `j` goes with key head `j / (value_heads / key_heads)`.
    Grouped,
    /// One of each key head in turn: value head `j` goes with key head `j mod key_heads`.
    Tiled,
}

impl DeltaShape {
    /// Where value head `head` stands if value heads are [`Grouped`](HeadOrder::Grouped).
    pub fn grouped(&self, head: usize) -> usize {
        match self.order {
            HeadOrder::Grouped => head,
            HeadOrder::Tiled => {
                let per_key_head = self.value_heads / self.key_heads;
                head % self.key_heads * per_key_head + head / self.key_heads
            }
        }
    }

    /// The key head of value head `head`.
    fn key_head(&self, head: usize) -> usize {
        match self.order {
            HeadOrder::Grouped => head / (self.value_heads / self.key_heads),
            HeadOrder::Tiled => head % self.key_heads,
        }
    }
}

/// Inputs of [`gated_delta`]. `T` is `&[f32]`, or a view of a device's memory.
#[derive(Clone, Copy, Debug)]
pub struct GatedDeltaArgs<'a, T> {
    /// Queries, `[n, key_heads, key_dim]`.
    pub q: T,
    /// Keys, `[n, key_heads, key_dim]`.
    pub k: T,
    /// Values, `[n, value_heads, value_dim]`.
    pub v: T,
    /// `[n, value_heads]`.
    pub decay: T,
    /// `[n, value_heads]`.
    pub beta: T,
    /// Heads and their widths.
    pub shape: &'a DeltaShape,
    /// The state before the first token, `[value_heads, key_dim, value_dim]`.
    pub state: T,
}

/// The gated delta rule: for each value head and token in turn, with a state `S` of `[key_dim, value_dim]`,
/// `S ← decay·S`, `S ← S + k ⊗ (beta·(v - Sᵀk))`, `y = Sᵀq`.
///
/// `y` is `[n, value_heads, value_dim]`, `new_state` as long as the state. Sums over `key_dim` go by index.
pub fn gated_delta(
    pool: &ThreadPool,
    args: &GatedDeltaArgs<'_, &[f32]>,
    new_state: &mut [f32],
    y: &mut [f32],
) {
    let GatedDeltaArgs { q, k, v, decay, beta, shape, state } = *args;
    let DeltaShape { key_heads, value_heads, key_dim, value_dim, .. } = *shape;
    assert!(value_heads.is_multiple_of(key_heads));
    let n = decay.len() / value_heads;
    assert!(decay.len() == n * value_heads && beta.len() == decay.len());
    assert!(q.len() == n * key_heads * key_dim && k.len() == q.len());
    assert!(v.len() == n * value_heads * value_dim && y.len() == v.len());
    assert!(state.len() == value_heads * key_dim * value_dim && new_state.len() == state.len());

    // A head a task: tasks that run side by side write lines of the cache that are far apart.
    let outputs = (y, Tiling::columns(n, value_heads * value_dim, value_dim));
    let states =
        (new_state, Tiling { groups: value_heads, rows: key_dim, stride: value_dim, width: value_dim });
    let inputs = Inputs { q, k, v, decay, beta, shape, n };
    for_each_tile_pair(pool, outputs, states, |head, y, new_state| {
        let state = &state[head * key_dim * value_dim..][..key_dim * value_dim];
        run_head(&inputs, head, state, new_state, y);
    });
}

/// Tokens that [`gated_delta`] has read, to compute the state after the first few of them.
#[derive(Clone, Debug)]
pub struct DeltaRows {
    k: Vec<f32>,
    v: Vec<f32>,
    decay: Vec<f32>,
    beta: Vec<f32>,
    shape: DeltaShape,
}

impl DeltaRows {
    /// Tokens as [`gated_delta`] takes them.
    pub fn new(k: &[f32], v: &[f32], decay: &[f32], beta: &[f32], shape: DeltaShape) -> Self {
        let [k, v, decay, beta] = [k, v, decay, beta].map(<[f32]>::to_vec);
        DeltaRows { k, v, decay, beta, shape }
    }

    /// From the state before the tokens to the one after the first `n`: the same bits as of those alone.
    pub fn state_after(&self, n: usize, state: &[f32], new_state: &mut [f32]) {
        let shape = &self.shape;
        let DeltaShape { value_heads, key_dim, value_dim, .. } = *shape;
        assert!(n * value_heads <= self.decay.len());
        assert!(state.len() == value_heads * key_dim * value_dim && new_state.len() == state.len());
        // Nobody asks for outputs, so keys do for queries.
        let inputs =
            Inputs { q: &self.k, k: &self.k, v: &self.v, decay: &self.decay, beta: &self.beta, shape, n };
        let mut y = vec![0.0; n * value_dim];
        let heads =
            state.chunks_exact(key_dim * value_dim).zip(new_state.chunks_exact_mut(key_dim * value_dim));
        for (head, (state, new_state)) in heads.enumerate() {
            let (mut y, mut new_state) = (Tile::whole(&mut y, value_dim), Tile::whole(new_state, value_dim));
            run_head(&inputs, head, state, &mut new_state, &mut y);
        }
    }
}

/// What the tokens of a call bring.
struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    decay: &'a [f32],
    beta: &'a [f32],
    shape: &'a DeltaShape,
    n: usize,
}

/// State of a strip's channels for one channel of the key; aligned, so that no access meets two lines of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Strip([f32; STRIP]);

/// What one token brings to a head.
struct Token<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    decay: f32,
    beta: f32,
}

impl Inputs<'_> {
    #[inline(always)]
    fn token(&self, t: usize, head: usize) -> Token<'_> {
        let DeltaShape { key_heads, value_heads, key_dim, value_dim, .. } = *self.shape;
        let key = (t * key_heads + self.shape.key_head(head)) * key_dim;
        let gate = t * value_heads + head;
        Token {
            q: &self.q[key..key + key_dim],
            k: &self.k[key..key + key_dim],
            v: &self.v[gate * value_dim..][..value_dim],
            decay: self.decay[gate],
            beta: self.beta[gate],
        }
    }
}

with_vector! {
    /// All tokens for one value head.
    fn run_head(
        inputs: &Inputs<'_>,
        head: usize,
        state: &[f32],
        new_state: &mut Tile<'_>,
        y: &mut Tile<'_>,
    ) => run_strips
}

/// All tokens for one value head, a strip of channels at a time.
#[inline(always)]
fn run_strips<V: Vector>(
    inputs: &Inputs<'_>,
    head: usize,
    state: &[f32],
    new_state: &mut Tile<'_>,
    y: &mut Tile<'_>,
) {
    let (key_dim, width) = (inputs.shape.key_dim, inputs.shape.value_dim);
    if (1..=FEW).contains(&inputs.n) && width.is_multiple_of(ROW * LANES) {
        for first in (0..width).step_by(ROW * LANES) {
            run_few::<V>(inputs, head, first, state, new_state, y);
        }
        return;
    }
    let mut strip = vec![Strip([0.0; STRIP]); key_dim];
    for first in (0..width).step_by(STRIP) {
        let channels = STRIP.min(width - first);
        for (d, Strip(strip)) in strip.iter_mut().enumerate() {
            strip[..channels].copy_from_slice(&state[d * width + first..][..channels]);
        }
        run_strip::<V>(inputs, head, first, channels, &mut strip, y);
        for (d, Strip(strip)) in strip.iter().enumerate() {
            new_state.row(d)[first..first + channels].copy_from_slice(&strip[..channels]);
        }
    }
}

/// A few tokens for the channels from `first` on, [`ROW`] vectors of them: the state goes by once as memory has it, and comes
/// back from a near cache for each token. Each channel's sums are those of [`run_strip`].
#[inline(always)]
fn run_few<V: Vector>(
    inputs: &Inputs<'_>,
    head: usize,
    first: usize,
    state: &[f32],
    new_state: &mut Tile<'_>,
    y: &mut Tile<'_>,
) {
    let mut token = inputs.token(0, head);
    let decay = V::splat(token.decay);
    let mut recalled = [V::splat(0.0); ROW];
    for (row, k) in state.chunks_exact(token.v.len()).zip(token.k) {
        let (row, k) = (&row[first..first + ROW * LANES], V::splat(*k));
        for w in 0..ROW {
            recalled[w] = recalled[w].add(V::load(&row[w * LANES..]).mul(decay).mul(k));
        }
    }
    for t in 0..inputs.n {
        let beta = V::splat(token.beta);
        let mut change = [V::splat(0.0); ROW];
        for w in 0..ROW {
            change[w] = V::load(&token.v[first + w * LANES..]).sub(recalled[w]).mul(beta);
        }
        let mut pass = Pass { token: &token, next: &token, change, first, state, new_state };
        let sum;
        if t + 1 < inputs.n {
            let next = inputs.token(t + 1, head);
            pass.next = &next;
            (sum, recalled) = if t == 0 { pass.run::<true, false>() } else { pass.run::<false, false>() };
            token = next;
        } else {
            (sum, _) = if t == 0 { pass.run::<true, true>() } else { pass.run::<false, true>() };
        }
        let y = &mut y.row(t)[first..first + ROW * LANES];
        for w in 0..ROW {
            sum[w].store(&mut y[w * LANES..]);
        }
    }
}

/// What a token changes of [`ROW`] vectors of channels.
struct Pass<'a, 't, V> {
    token: &'a Token<'a>,
    next: &'a Token<'a>,
    change: [V; ROW],
    /// The first of the channels.
    first: usize,
    /// Before the first token.
    state: &'a [f32],
    /// What the tokens before this one have made of it, already decayed for this one.
    new_state: &'a mut Tile<'t>,
}

impl<V: Vector> Pass<'_, '_, V> {
    /// The token's output, and what its state, decayed, recalls for the next token if it is not the last.
    #[inline(always)]
    fn run<const IS_FIRST: bool, const IS_LAST: bool>(&mut self) -> ([V; ROW], [V; ROW]) {
        let Pass { token, next, change, first, state, ref mut new_state } = *self;
        let (decay, next_decay) = (V::splat(token.decay), V::splat(next.decay));
        let (mut sum, mut recalled) = ([V::splat(0.0); ROW], [V::splat(0.0); ROW]);
        let rows = state.chunks_exact(token.v.len()).zip(token.q).zip(token.k).zip(next.k);
        for (d, (((row, q), k), next_k)) in rows.enumerate() {
            let (row, new_row) = (&row[first..first + ROW * LANES], new_state.row(d));
            let new_row = &mut new_row[first..first + ROW * LANES];
            let (q, k, next_k) = (V::splat(*q), V::splat(*k), V::splat(*next_k));
            for w in 0..ROW {
                let decayed = if IS_FIRST {
                    V::load(&row[w * LANES..]).mul(decay)
                } else {
                    V::load(&new_row[w * LANES..])
                };
                let mut changed = decayed.add(k.mul(change[w]));
                sum[w] = sum[w].add(changed.mul(q));
                if !IS_LAST {
                    changed = changed.mul(next_decay);
                    recalled[w] = recalled[w].add(changed.mul(next_k));
                }
                changed.store(&mut new_row[w * LANES..]);
            }
        }
        (sum, recalled)
    }
}

/// All tokens for `channels` channels of a head, of which the strip has the state; its other channels are idle.
#[inline(always)]
fn run_strip<V: Vector>(
    inputs: &Inputs<'_>,
    head: usize,
    first: usize,
    channels: usize,
    strip: &mut [Strip],
    y: &mut Tile<'_>,
) {
    if inputs.n == 0 {
        return;
    }
    let mut token = inputs.token(0, head);
    let mut recalled = recall::<V>(&token, strip);
    for t in 0..inputs.n {
        let mut v = [0.0; STRIP];
        v[..channels].copy_from_slice(&token.v[first..first + channels]);
        let beta = V::splat(token.beta);
        let change =
            [V::load(&v).sub(recalled[0]).mul(beta), V::load(&v[LANES..]).sub(recalled[1]).mul(beta)];
        let sum;
        if t + 1 < inputs.n {
            let next = inputs.token(t + 1, head);
            (sum, recalled) = change_and_recall(&token, change, &next, strip);
            token = next;
        } else {
            sum = change_last(&token, change, strip);
        }
        let mut out = [0.0; STRIP];
        sum[0].store(&mut out);
        sum[1].store(&mut out[LANES..]);
        y.row(t)[first..first + channels].copy_from_slice(&out[..channels]);
    }
}

/// Decays the state for the first token; what it recalls.
#[inline(always)]
fn recall<V: Vector>(token: &Token<'_>, strip: &mut [Strip]) -> [V; 2] {
    let decay = V::splat(token.decay);
    let (mut recalled0, mut recalled1) = (V::splat(0.0), V::splat(0.0));
    for (Strip(s), k) in strip.iter_mut().zip(token.k) {
        let k = V::splat(*k);
        let (s0, s1) = (V::load(s).mul(decay), V::load(&s[LANES..]).mul(decay));
        recalled0 = recalled0.add(s0.mul(k));
        recalled1 = recalled1.add(s1.mul(k));
        s0.store(s);
        s1.store(&mut s[LANES..]);
    }
    [recalled0, recalled1]
}

/// One pass over the state: it takes the token's change, gives its output, decays for the next token; what that recalls.
#[inline(always)]
fn change_and_recall<V: Vector>(
    token: &Token<'_>,
    [change0, change1]: [V; 2],
    next: &Token<'_>,
    strip: &mut [Strip],
) -> ([V; 2], [V; 2]) {
    let decay = V::splat(next.decay);
    let (mut sum0, mut sum1) = (V::splat(0.0), V::splat(0.0));
    let (mut recalled0, mut recalled1) = (V::splat(0.0), V::splat(0.0));
    for (((Strip(s), q), k), next_k) in strip.iter_mut().zip(token.q).zip(token.k).zip(next.k) {
        let (q, k, next_k) = (V::splat(*q), V::splat(*k), V::splat(*next_k));
        let (s0, s1) = (V::load(s).add(k.mul(change0)), V::load(&s[LANES..]).add(k.mul(change1)));
        sum0 = sum0.add(s0.mul(q));
        sum1 = sum1.add(s1.mul(q));
        let (s0, s1) = (s0.mul(decay), s1.mul(decay));
        recalled0 = recalled0.add(s0.mul(next_k));
        recalled1 = recalled1.add(s1.mul(next_k));
        s0.store(s);
        s1.store(&mut s[LANES..]);
    }
    ([sum0, sum1], [recalled0, recalled1])
}

/// The same for the last token.
#[inline(always)]
fn change_last<V: Vector>(token: &Token<'_>, [change0, change1]: [V; 2], strip: &mut [Strip]) -> [V; 2] {
    let (mut sum0, mut sum1) = (V::splat(0.0), V::splat(0.0));
    for ((Strip(s), q), k) in strip.iter_mut().zip(token.q).zip(token.k) {
        let (q, k) = (V::splat(*q), V::splat(*k));
        let (s0, s1) = (V::load(s).add(k.mul(change0)), V::load(&s[LANES..]).add(k.mul(change1)));
        sum0 = sum0.add(s0.mul(q));
        sum1 = sum1.add(s1.mul(q));
        s0.store(s);
        s1.store(&mut s[LANES..]);
    }
    [sum0, sum1]
}
