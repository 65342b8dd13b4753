//! The short convolution before a gated delta net.

use crate::instruction_set::multiversion;
use crate::math::silu;
use crate::pool::ThreadPool;
use crate::tile::{Tile, Tiling, for_each_tile_pair};

/// Channels convolved at once.
const STRIP: usize = 64;

/// Causal depthwise convolution, then SiLU: `y[t][c] = silu(Σ_j weight[c][j] · x[t - (kernel-1) + j][c])`, summed from
/// the oldest tap to the current token's.
///
/// `x` and `y` are `[n, channels]`, `weight` is `[channels, kernel]`; inputs before the first are in `state`
/// (`[kernel-1, channels]`, oldest first), and `new_state` gets the last `kernel-1` inputs. `n` may be less than that.
pub fn conv1d_silu(
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
    let width = pool.units_per_task(channels, (n + 1) * (kernel + 16)).next_multiple_of(STRIP);
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
        match inputs.history {
            3 => convolve_taps::<4>(inputs, weight, n, y),
            _ => convolve_any(inputs, weight, n, y),
        }
        let (first, width) = (y.first_column(), y.width());
        for i in 0..inputs.history {
            new_state.row(i).copy_from_slice(inputs.get(n + i, first, width));
        }
    }
}

/// The convolution of `K` taps, with as many channels in registers at once as a strip has.
#[inline(always)]
fn convolve_taps<const K: usize>(inputs: &Inputs<'_>, weight: &[f32], n: usize, y: &mut Tile<'_>) {
    let (first, width) = (y.first_column(), y.width());
    let weight = weight[first * K..(first + width) * K].as_chunks::<K>().0;
    // Tap by tap within a strip.
    let taps: Vec<[[f32; STRIP]; K]> = weight
        .chunks(STRIP)
        .map(|strip| {
            let mut taps = [[0.0; STRIP]; K];
            for (channel, weight) in strip.iter().enumerate() {
                for tap in 0..K {
                    taps[tap][channel] = weight[tap];
                }
            }
            taps
        })
        .collect();
    for t in 0..n {
        let x: [&[f32]; K] = std::array::from_fn(|tap| inputs.get(t + tap, first, width));
        let (strips, tail) = y.row(t).as_chunks_mut::<STRIP>();
        for (strip, (y, taps)) in strips.iter_mut().zip(&taps).enumerate() {
            let mut sum = [0.0; STRIP];
            for tap in 0..K {
                let x = &x[tap][strip * STRIP..][..STRIP];
                for i in 0..STRIP {
                    sum[i] += taps[tap][i] * x[i];
                }
            }
            *y = sum.map(silu);
        }
        let done = width - tail.len();
        for (i, y) in tail.iter_mut().enumerate() {
            let mut sum = 0.0;
            for tap in 0..K {
                sum += weight[done + i][tap] * x[tap][done + i];
            }
            *y = silu(sum);
        }
    }
}

/// The convolution of any number of taps.
#[inline(always)]
fn convolve_any(inputs: &Inputs<'_>, weight: &[f32], n: usize, y: &mut Tile<'_>) {
    let (first, width) = (y.first_column(), y.width());
    let kernel = inputs.history + 1;
    for t in 0..n {
        let y = y.row(t);
        y.fill(0.0);
        for tap in 0..kernel {
            for (i, (y, x)) in y.iter_mut().zip(inputs.get(t + tap, first, width)).enumerate() {
                *y += weight[(first + i) * kernel + tap] * x;
            }
        }
        for y in y {
            *y = silu(*y);
        }
    }
}
