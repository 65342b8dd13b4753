//! A softmax over scores that come block by block (the online softmax of FlashAttention, Dao et al. 2022).

use std::ops::Range;

use crate::kv::KV_BLOCK;
use crate::math::exp;
use crate::vector::LANES;

/// What is known of the scores so far: the largest, and the sum of their weights relative to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnlineSoftmax {
    pub(crate) max: f32,
    pub(crate) sum: f32,
}

impl OnlineSoftmax {
    /// Before any score, or after that of a sink, which has a weight but no value.
    pub(crate) fn new(sink: Option<f32>) -> Self {
        match sink {
            Some(score) => OnlineSoftmax { max: score, sum: 1.0 },
            None => OnlineSoftmax { max: f32::NEG_INFINITY, sum: 0.0 },
        }
    }

    /// Takes the scores seen of a block, times `scale`, and makes them weights relative to the largest score so far, and
    /// zero where nothing is seen. Returns the factor that weights given out earlier now have.
    ///
    /// The weights of a block are added position by position into lanes (position mod 16), then the lanes as a tree:
    /// lane `l` takes lane `l + 8`, then `l + 4`, `l + 2`, `l + 1`.
    #[inline(always)]
    pub(crate) fn add(&mut self, scores: &mut [f32; KV_BLOCK], seen: Range<usize>, scale: f32) -> f32 {
        let mut maxima = [self.max; LANES];
        for (position, score) in scores.iter_mut().enumerate() {
            let is_seen = seen.start <= position && position < seen.end;
            *score = if is_seen { *score * scale } else { f32::NEG_INFINITY };
        }
        for scores in scores.as_chunks::<LANES>().0 {
            for l in 0..LANES {
                maxima[l] = maxima[l].max(scores[l]);
            }
        }
        let max = tree(maxima, f32::max);
        let reference = reference(max);
        for score in &mut *scores {
            *score = exp(*score - reference);
        }
        let correction = exp(self.max - reference);
        let mut sums = [0.0; LANES];
        for weights in scores.as_chunks::<LANES>().0 {
            for l in 0..LANES {
                sums[l] += weights[l];
            }
        }
        self.sum = self.sum * correction + tree(sums, |a, b| a + b);
        self.max = max;
        correction
    }

    /// Takes the scores that another has taken. Returns the factors that the weights given out by this one and by the
    /// other now have; none if the other has given no weight, which changes nothing.
    #[inline(always)]
    pub(crate) fn merge(&mut self, other: OnlineSoftmax) -> Option<(f32, f32)> {
        // A NaN among the other's scores makes its sum NaN, which is merged.
        if other.sum == 0.0 {
            return None;
        }
        let max = self.max.max(other.max);
        let (mine, others) = (exp(self.max - max), exp(other.max - max));
        self.sum = self.sum * mine + other.sum * others;
        self.max = max;
        Some((mine, others))
    }
}

/// What weights are relative to: the largest score, or 0 while no score is larger than -inf. Then every weight is
/// exp(-inf) = 0; relative to -inf it would be exp(-inf + inf), a NaN.
#[inline(always)]
fn reference(max: f32) -> f32 {
    if max == f32::NEG_INFINITY { 0.0 } else { max }
}

#[inline(always)]
fn tree(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] = f(lanes[l], lanes[l + width]);
        }
        width /= 2;
    }
    lanes[0]
}
