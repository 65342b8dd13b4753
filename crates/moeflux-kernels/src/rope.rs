//! Rotary position embedding (Su et al. 2021).

use crate::instruction_set::multiversion;
use crate::pool::ThreadPool;
use crate::tile::{Tiling, for_each_tile};

/// Which two channels of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeLayout {
    /// Channel `i` with `i + rotary_dim/2`.
    HalfSplit,
    /// Channel `2·i` with `2·i + 1`.
    Interleaved,
}

/// Inputs of [`rope`]: the vectors to rotate and the angles. `T` is `&[f32]`, or a view of a device's memory.
#[derive(Clone, Copy, Debug)]
pub struct RopeArgs<T> {
    /// Queries or keys, `[n, heads, head_dim]`.
    pub x: T,
    /// Heads of a token.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Channels of a head that turn, from its start.
    pub rotary_dim: usize,
    /// Which of them turn together.
    pub layout: RopeLayout,
    /// Cosines, `[n, rotary_dim/2]`.
    pub cos: T,
    /// Sines, `[n, rotary_dim/2]`.
    pub sin: T,
}

/// Turns pair `i` of each head by the angle whose cosine and sine are `cos[t][i]` and `sin[t][i]`: `(a, b)` becomes
/// `(a·cos - b·sin, b·cos + a·sin)`. `y` is as long as `x`; channels from `rotary_dim` on are copied.
pub fn rope(pool: &ThreadPool, args: &RopeArgs<&[f32]>, y: &mut [f32]) {
    let RopeArgs { x, heads, head_dim, rotary_dim, layout, cos, sin } = *args;
    let (pairs, width) = (rotary_dim / 2, heads * head_dim);
    assert!(rotary_dim.is_multiple_of(2) && rotary_dim <= head_dim);
    assert!(x.len() == y.len() && cos.len() == sin.len() && x.len() * pairs == cos.len() * width);
    let tokens_per_task = pool.units_per_task(x.len() / width, 3 * width);
    for_each_tile(pool, y, Tiling::chunks(x.len(), tokens_per_task * width), |_, tile| {
        let first = tile.first_column() / width;
        for (t, y) in (first..).zip(tile.row(0).chunks_exact_mut(width)) {
            let (x, angles) = (&x[t * width..(t + 1) * width], t * pairs..(t + 1) * pairs);
            turn_token(x, head_dim, layout, &cos[angles.clone()], &sin[angles], y);
        }
    });
}

multiversion! {
    /// The heads of one token.
    fn turn_token(x: &[f32], head_dim: usize, layout: RopeLayout, cos: &[f32], sin: &[f32], y: &mut [f32]) {
        let rotary_dim = 2 * cos.len();
        for (x, y) in x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)) {
            let ((x, x_rest), (y, y_rest)) = (x.split_at(rotary_dim), y.split_at_mut(rotary_dim));
            match layout {
                RopeLayout::HalfSplit => {
                    let ((a, b), (y_a, y_b)) = (x.split_at(cos.len()), y.split_at_mut(cos.len()));
                    let outputs = y_a.iter_mut().zip(y_b);
                    for ((((a, b), cos), sin), (y_a, y_b)) in a.iter().zip(b).zip(cos).zip(sin).zip(outputs) {
                        (*y_a, *y_b) = (a * cos - b * sin, b * cos + a * sin);
                    }
                }
                RopeLayout::Interleaved => {
                    let (x, y) = (x.as_chunks().0, y.as_chunks_mut().0);
                    for ((([a, b], cos), sin), y) in x.iter().zip(cos).zip(sin).zip(y) {
                        *y = [a * cos - b * sin, b * cos + a * sin];
                    }
                }
            }
            y_rest.copy_from_slice(x_rest);
        }
    }
}
