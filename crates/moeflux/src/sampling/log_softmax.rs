//! Log-probabilities that the model itself gives.

use moeflux_kernels::sum_of_exp;

use super::SamplingError;
use super::sampler::largest;

/// A token and its log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token's id.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// The most tokens for which [`LogSoftmax::top`] may be asked in a request: what OpenAI's API allows.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// The distribution of the model's logits as they came: before penalties, bias, constraints, temperature and
/// truncation. That is what vLLM calls `raw_logprobs`, its default.
#[derive(Debug, Clone, Copy)]
pub struct LogSoftmax<'a> {
    logits: &'a [f32],
    max: f32,
    /// Logarithm of the sum of `exp(logit - max)`; [`sum_of_exp`] says in which order it is added up.
    log_sum: f64,
}

impl<'a> LogSoftmax<'a> {
    /// The distribution of logits (`[vocab_size]`); NaN, +∞ or nothing but -∞ is an error.
    pub fn new(logits: &'a [f32]) -> Result<Self, SamplingError> {
        let max = largest(logits)?;
        Ok(Self { logits, max, log_sum: sum_of_exp(logits, max).ln() })
    }

    /// The logits that it was made from, `[vocab_size]`.
    pub(super) fn logits(&self) -> &'a [f32] {
        self.logits
    }

    /// The largest logit.
    pub(super) fn max(&self) -> f32 {
        self.max
    }

    /// The log-probability of a token of the vocabulary.
    pub fn of(&self, token: u32) -> f32 {
        (f64::from(self.logits[token as usize] - self.max) - self.log_sum) as f32
    }

    /// The `n` most likely tokens, the most likely first; of equals, the lower id first.
    pub fn top(&self, n: usize) -> Vec<TokenLogprob> {
        if n == 0 {
            return Vec::new();
        }
        let before = |a: u32, b: u32| {
            let (left, right) = (self.logits[a as usize], self.logits[b as usize]);
            right.total_cmp(&left).then(a.cmp(&b)).is_lt()
        };
        let mut top: Vec<u32> = Vec::with_capacity(n + 1);
        for (token, &logit) in self.logits.iter().enumerate() {
            if top.len() == n && logit <= self.logits[top[n - 1] as usize] {
                continue;
            }
            let token = token as u32;
            let place = top.partition_point(|&other| before(other, token));
            top.insert(place, token);
            top.truncate(n);
        }
        top.into_iter().map(|token| TokenLogprob { token, logprob: self.of(token) }).collect()
    }
}
