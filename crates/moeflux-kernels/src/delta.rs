//! The gated delta net's own operations (Yang et al. 2024, "Gated Delta Networks").

use crate::instruction_set::multiversion;
use crate::math::{exp, sigmoid, silu, softplus};
use crate::pool::ThreadPool;
use crate::tile::{Tile, Tiling, for_each_tile_pair};

/// Causal depthwise convolution, then SiLU: `y[t][c] = silu(Σ_j weight[c][j] · x[t - (kernel-1) + j][c])`, summed from
/// the oldest tap to the current token's.
///
/// `x` and `y` are `[n, channels]`, `weight` is `[channels, kernel]`; inputs before the first are in `state`
/// (`[kernel-1, channels]`, oldest first), and `new_state` gets the last `kernel-1` inputs. `n` may be less than that.
pub fn causal_conv1d_silu(
    pool: &ThreadPool,
    x: &[f32],
    weight: &[f32],
    kernel: usize,
    state: &[f32],
    new_state: &mut [f32],
    y: &mut [f32],
) {
    assert!(kernel > 0 && weight.len().is_multiple_of(kernel));
    let channels = weight.len() / kernel;
    let n = x.len().checked_div(channels).unwrap_or(0);
    assert!(x.len() == n * channels && y.len() == x.len());
    assert!(state.len() == (kernel - 1) * channels && new_state.len() == state.len());
    let width = pool.units_per_task(channels, (n + 1) * (kernel + 16)).next_multiple_of(16);
    let inputs = Inputs { state, x, channels, history: kernel - 1 };
    let outputs = (y, Tiling::columns(n, channels, width));
    let states = (new_state, Tiling::columns(kernel - 1, channels, width));
    for_each_tile_pair(pool, outputs, states, |_, y, new_state| {
        convolve(&inputs, weight, n, y, new_state);
    });
}

/// The inputs of a convolution: those kept from before, then those of this call.
struct Inputs<'a> {
    state: &'a [f32],
    x: &'a [f32],
    channels: usize,
    /// Inputs kept from before.
    history: usize,
}

impl Inputs<'_> {
    /// `width` channels of input `i`, counted from the oldest kept.
    #[inline(always)]
    fn get(&self, i: usize, first_channel: usize, width: usize) -> &[f32] {
        let (from, row) = if i < self.history { (self.state, i) } else { (self.x, i - self.history) };
        &from[row * self.channels + first_channel..][..width]
    }
}

multiversion! {
    fn convolve(inputs: &Inputs<'_>, weight: &[f32], n: usize, y: &mut Tile<'_>, new_state: &mut Tile<'_>) {
        let (first, width) = (y.first_column(), y.width());
        let kernel = inputs.history + 1;
        // Taps outside, channels inside, as the inputs lie.
        let mut taps = vec![0.0; kernel * width];
        for channel in 0..width {
            for tap in 0..kernel {
                taps[tap * width + channel] = weight[(first + channel) * kernel + tap];
            }
        }
        for t in 0..n {
            let y = y.row(t);
            y.fill(0.0);
            for (tap, weight) in taps.chunks_exact(width).enumerate() {
                for ((y, x), w) in y.iter_mut().zip(inputs.get(t + tap, first, width)).zip(weight) {
                    *y += w * x;
                }
            }
            for y in y {
                *y = silu(*y);
            }
        }
        for i in 0..inputs.history {
            new_state.row(i).copy_from_slice(inputs.get(n + i, first, width));
        }
    }
}

/// `decay = exp(-exp(a_log) · softplus(a + dt_bias))` and `beta = sigmoid(b)`: `a`, `b`, `decay` and `beta` are
/// `[n, value_heads]`, `a_log` and `dt_bias` are `[value_heads]`.
pub fn decay_and_beta(
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
    for i in 0..a.len() {
        let head = i % heads;
        decay[i] = exp(-exp(a_log[head]) * softplus(a[i] + dt_bias[head]));
        beta[i] = sigmoid(b[i]);
    }
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
    /// The key head of value head `head`.
    fn key_head(&self, head: usize) -> usize {
        match self.order {
            HeadOrder::Grouped => head / (self.value_heads / self.key_heads),
            HeadOrder::Tiled => head % self.key_heads,
        }
    }
}

/// The gated delta rule: for each value head and token in turn, with a state `S` of `[key_dim, value_dim]`,
/// `S ← decay·S`, `S ← S + k ⊗ (beta·(v - Sᵀk))`, `y = Sᵀq`.
///
/// `q` and `k` are `[n, key_heads, key_dim]`, `v` and `y` `[n, value_heads, value_dim]`, `decay` and `beta`
/// `[n, value_heads]`, `state` and `new_state` `[value_heads, key_dim, value_dim]`. Sums over `key_dim` go by index.
pub fn gated_delta_rule(
    pool: &ThreadPool,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    decay: &[f32],
    beta: &[f32],
    shape: &DeltaShape,
    state: &[f32],
    new_state: &mut [f32],
    y: &mut [f32],
) {
    let DeltaShape { key_heads, value_heads, key_dim, value_dim, .. } = *shape;
    assert!(value_heads.is_multiple_of(key_heads));
    let n = decay.len() / value_heads;
    assert!(decay.len() == n * value_heads && beta.len() == decay.len());
    assert!(q.len() == n * key_heads * key_dim && k.len() == q.len());
    assert!(v.len() == n * value_heads * value_dim && y.len() == v.len());
    assert!(state.len() == value_heads * key_dim * value_dim && new_state.len() == state.len());

    let width = [64, 16, 1].into_iter().find(|&width| value_dim.is_multiple_of(width)).unwrap_or(1);
    let outputs = (y, Tiling::columns(n, value_heads * value_dim, width));
    let states = (new_state, Tiling { groups: value_heads, rows: key_dim, stride: value_dim, width });
    for_each_tile_pair(pool, outputs, states, |_, y, new_state| {
        let head = y.first_column() / value_dim;
        let (channel, stride) = (new_state.first_column(), value_dim);
        for d in 0..key_dim {
            let row = &state[(head * key_dim + d) * stride + channel..][..width];
            new_state.row(d).copy_from_slice(row);
        }
        for t in 0..n {
            let key = (t * key_heads + shape.key_head(head)) * key_dim;
            let value = (t * value_heads + head) * value_dim + channel;
            let (q, k) = (&q[key..key + key_dim], &k[key..key + key_dim]);
            let (decay, beta) = (decay[t * value_heads + head], beta[t * value_heads + head]);
            step(q, k, &v[value..value + width], decay, beta, new_state, y.row(t));
        }
    });
}

multiversion! {
    /// One token for the channels of a tile: 64, 16 or 1 of them.
    fn step(q: &[f32], k: &[f32], v: &[f32], decay: f32, beta: f32, state: &mut Tile<'_>, y: &mut [f32]) {
        match v.len() {
            64 => step_channels::<64>(q, k, v, decay, beta, state, y),
            16 => step_channels::<16>(q, k, v, decay, beta, state, y),
            _ => step_channels::<1>(q, k, v, decay, beta, state, y),
        }
    }
}

#[inline(always)]
fn step_channels<const N: usize>(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    decay: f32,
    beta: f32,
    state: &mut Tile<'_>,
    y: &mut [f32],
) {
    let mut recalled = [0.0; N];
    for (d, k) in k.iter().enumerate() {
        let state = &mut state.row(d)[..N];
        for i in 0..N {
            state[i] *= decay;
            recalled[i] += state[i] * k;
        }
    }
    let mut change = [0.0; N];
    for i in 0..N {
        change[i] = (v[i] - recalled[i]) * beta;
    }
    let mut sum = [0.0; N];
    for (d, (q, k)) in q.iter().zip(k).enumerate() {
        let state = &mut state.row(d)[..N];
        for i in 0..N {
            state[i] += k * change[i];
            sum[i] += state[i] * q;
        }
    }
    y.copy_from_slice(&sum);
}
