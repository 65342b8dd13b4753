//! A softmax over scores that come block by block (the online softmax of FlashAttention, Dao et al. 2022).

use crate::math::exp;

/// What is known of the scores so far: the largest, and the sum of their weights relative to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnlineSoftmax {
    max: f32,
    sum: f32,
}

impl OnlineSoftmax {
    /// Before any score, or after that of a sink, which has a weight but no value.
    pub(crate) fn new(sink: Option<f32>) -> Self {
        match sink {
            Some(score) => OnlineSoftmax { max: score, sum: 1.0 },
            None => OnlineSoftmax { max: f32::NEG_INFINITY, sum: 0.0 },
        }
    }

    /// The sum of all weights, relative to the largest.
    pub(crate) fn sum(self) -> f32 {
        self.sum
    }

    /// Takes a block's scores, times `scale`, and makes them weights relative to the largest score so far. Returns the
    /// factor that weights given out earlier now have. Sums go in the order of the scores.
    #[inline(always)]
    pub(crate) fn add(&mut self, scores: &mut [f32], scale: f32) -> f32 {
        let mut max = self.max;
        for score in &mut *scores {
            *score *= scale;
            max = max.max(*score);
        }
        for score in &mut *scores {
            *score = exp(*score - max);
        }
        let correction = exp(self.max - max);
        self.max = max;
        self.sum *= correction;
        for weight in scores {
            self.sum += *weight;
        }
        correction
    }
}
