//! Rows of queries against one block of keys and values: the loops that take the time.

use std::ops::Range;

use crate::kv::{F16, Floats, KV_BLOCK};
use crate::softmax::OnlineSoftmax;
use crate::vector::{LANES, Vector, with_vector};

/// Keys and values of one block.
#[derive(Clone, Copy)]
pub(crate) enum Block<'a> {
    F32 { keys: &'a [f32], values: &'a [f32] },
    F16 { keys: &'a [F16], values: &'a [F16] },
}

/// Memory, as addresses of its lines in the processor's cache.
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    first: *const u8,
    count: usize,
}

impl Lines {
    pub(crate) const NONE: Lines = Lines { first: std::ptr::null(), count: 0 };
    const LEN: usize = 64;

    pub(crate) fn of(floats: Floats<'_>) -> Self {
        let (first, bytes) = match floats {
            Floats::F32(x) => (x.as_ptr().cast(), size_of_val(x)),
            Floats::F16(x) => (x.as_ptr().cast(), size_of_val(x)),
        };
        Lines { first, count: bytes / Self::LEN }
    }

    /// Asks for up to `n` lines, and takes them off.
    #[inline(always)]
    fn prefetch<V: Vector>(&mut self, n: usize) {
        let n = n.min(self.count);
        for i in 0..n {
            V::prefetch(self.first.wrapping_add(i * Self::LEN));
        }
        self.first = self.first.wrapping_add(n * Self::LEN);
        self.count -= n;
    }
}

with_vector! {
    /// Attends to the positions seen of a block with the heads of one token: `q` is `[heads, key_dim]`, `part` is
    /// `[heads, part_len]`.
    pub(super) fn attend_block(
        q: &[f32],
        block: Block<'_>,
        coming: [Lines; 2],
        seen: Range<usize>,
        scale: f32,
        part: &mut [f32],
        part_len: usize,
    ) => attend_elements
}

#[inline(always)]
fn attend_elements<V: Vector>(
    q: &[f32],
    block: Block<'_>,
    coming: [Lines; 2],
    seen: Range<usize>,
    scale: f32,
    part: &mut [f32],
    part_len: usize,
) {
    match block {
        Block::F32 { keys, values } => {
            attend_heads::<V, _>(q, keys, values, coming, seen, scale, part, part_len);
        }
        Block::F16 { keys, values } => {
            attend_heads::<V, _>(q, keys, values, coming, seen, scale, part, part_len);
        }
    }
}

/// An element of keys or values.
trait Element: Copy {
    fn load<V: Vector>(x: &[Self]) -> V;
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn load<V: Vector>(x: &[f32]) -> V {
        V::load(x)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for F16 {
    #[inline(always)]
    fn load<V: Vector>(x: &[F16]) -> V {
        V::load_f16(x)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// As many heads at once as registers have sums for: an element of keys and values is loaded once for all of them.
#[inline(always)]
fn attend_heads<V: Vector, E: Element>(
    q: &[f32],
    keys: &[E],
    values: &[E],
    coming: [Lines; 2],
    seen: Range<usize>,
    scale: f32,
    part: &mut [f32],
    part_len: usize,
) {
    let (keys, _) = keys.as_chunks::<KV_BLOCK>();
    let heads = part.len() / part_len;
    let mut done = 0;
    while done < heads {
        let (q, part) = (&q[done * keys.len()..], &mut part[done * part_len..]);
        let (seen, coming) = (seen.clone(), if done == 0 { coming } else { [Lines::NONE; 2] });
        done += match heads - done {
            8.. if V::HAS_MANY_REGISTERS => {
                attend_rows::<V, E, 8, 2>(q, keys, values, coming, seen, scale, part, part_len)
            }
            4.. if V::HAS_MANY_REGISTERS => {
                attend_rows::<V, E, 4, 4>(q, keys, values, coming, seen, scale, part, part_len)
            }
            4.. => attend_rows::<V, E, 4, 1>(q, keys, values, coming, seen, scale, part, part_len),
            _ => attend_rows::<V, E, 1, 4>(q, keys, values, coming, seen, scale, part, part_len),
        };
    }
}

/// The first `R` rows, with `W` vectors of sums each: `q` is `[R, keys]` or more. Returns `R`.
#[inline(always)]
fn attend_rows<V: Vector, E: Element, const R: usize, const W: usize>(
    q: &[f32],
    keys: &[[E; KV_BLOCK]],
    values: &[E],
    coming: [Lines; 2],
    seen: Range<usize>,
    scale: f32,
    part: &mut [f32],
    part_len: usize,
) -> usize {
    let key_dim = keys.len();
    let q = &q[..R * key_dim];
    let mut weights = [[0.0; KV_BLOCK]; R];
    // Memory is to bring what comes next while this computes: the values during the scores, the next keys after them.
    let [mut soon, mut later] = coming;
    let per_step = soon.count.div_ceil(key_dim * KV_BLOCK / (W * LANES));
    for first in (0..KV_BLOCK).step_by(W * LANES) {
        let mut sums = [[V::splat(0.0); W]; R];
        for (c, keys) in keys.iter().enumerate() {
            soon.prefetch::<V>(per_step);
            let mut k = [V::splat(0.0); W];
            for w in 0..W {
                k[w] = E::load::<V>(&keys[first + w * LANES..]);
            }
            for r in 0..R {
                let q = V::splat(q[r * key_dim + c]);
                for w in 0..W {
                    sums[r][w] = q.mul_add(k[w], sums[r][w]);
                }
            }
        }
        for r in 0..R {
            for w in 0..W {
                sums[r][w].store(&mut weights[r][first + w * LANES..]);
            }
        }
    }
    let mut keep = [0.0; R];
    for r in 0..R {
        let softmax = &mut part[(r + 1) * part_len - LANES..];
        let mut online = OnlineSoftmax { max: softmax[0], sum: softmax[1] };
        keep[r] = online.add(&mut weights[r], seen.clone(), scale);
        (softmax[0], softmax[1]) = (online.max, online.sum);
    }
    let value_dim = values.len() / KV_BLOCK;
    let values = &values[seen.start * value_dim..seen.end * value_dim];
    let per_step = later.count.div_ceil((value_dim / (W * LANES) * seen.len()).max(1));
    let mut channel = 0;
    while channel + W * LANES <= value_dim {
        let next = (&mut later, per_step);
        add_values::<V, E, R, W>(
            &weights, &keep, values, value_dim, seen.start, next, channel, part, part_len,
        );
        channel += W * LANES;
    }
    while channel + LANES <= value_dim {
        let next = (&mut later, per_step);
        add_values::<V, E, R, 1>(
            &weights, &keep, values, value_dim, seen.start, next, channel, part, part_len,
        );
        channel += LANES;
    }
    for channel in channel..value_dim {
        for r in 0..R {
            let sum = &mut part[r * part_len + channel];
            *sum *= keep[r];
            for (values, weight) in values.chunks_exact(value_dim).zip(&weights[r][seen.start..]) {
                *sum = weight.mul_add(values[channel].widen(), *sum);
            }
        }
    }
    R
}

/// Adds the weighted values of `W` vectors of channels from `channel` on, and asks for so many lines of what is coming at each
/// position.
#[inline(always)]
fn add_values<V: Vector, E: Element, const R: usize, const W: usize>(
    weights: &[[f32; KV_BLOCK]; R],
    keep: &[f32; R],
    values: &[E],
    value_dim: usize,
    first_seen: usize,
    (coming, per_step): (&mut Lines, usize),
    channel: usize,
    part: &mut [f32],
    part_len: usize,
) {
    let mut sums = [[V::splat(0.0); W]; R];
    for r in 0..R {
        for w in 0..W {
            let sum = V::load(&part[r * part_len + channel + w * LANES..]);
            sums[r][w] = sum.mul(V::splat(keep[r]));
        }
    }
    for (p, values) in (first_seen..KV_BLOCK).zip(values.chunks_exact(value_dim)) {
        coming.prefetch::<V>(per_step);
        let values = &values[channel..channel + W * LANES];
        let mut v = [V::splat(0.0); W];
        for w in 0..W {
            v[w] = E::load::<V>(&values[w * LANES..]);
        }
        for r in 0..R {
            let weight = V::splat(weights[r][p]);
            for w in 0..W {
                sums[r][w] = weight.mul_add(v[w], sums[r][w]);
            }
        }
    }
    for r in 0..R {
        for w in 0..W {
            sums[r][w].store(&mut part[r * part_len + channel + w * LANES..]);
        }
    }
}

with_vector! {
    /// Half floats as floats.
    pub(crate) fn widen(x: &[F16], y: &mut [f32]) => widen_vectors
}

#[inline(always)]
fn widen_vectors<V: Vector>(x: &[F16], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    let (y, y_tail) = y.as_chunks_mut::<LANES>();
    let (x, x_tail) = x.as_chunks::<LANES>();
    for (y, x) in y.iter_mut().zip(x) {
        V::load_f16(x).store(y);
    }
    for (y, x) in y_tail.iter_mut().zip(x_tail) {
        *y = x.to_f32();
    }
}
