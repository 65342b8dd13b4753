//! DRY ("don't repeat yourself"): a penalty for tokens that would go on with a repetition.

use std::collections::{BTreeMap, BTreeSet};

use super::SamplingOptions;

/// The tokens so far, and what it costs to repeat them, as the sampler's author defined it for text-generation-webui
/// (its pull request 5677).
#[derive(Debug, Clone)]
pub(super) struct Dry {
    multiplier: f64,
    base: f64,
    allowed_length: usize,
    /// Number of last tokens that count; 0 is all.
    window: usize,
    /// Tokens that no repetition contains.
    breakers: BTreeSet<u32>,
    /// Prompt and output; not kept if the penalty is off.
    tokens: Vec<u32>,
}

/// Longer repetitions cost no more: it bounds the work, and the power.
const LONGEST: usize = 50;

impl Dry {
    pub(super) fn new(options: &SamplingOptions, breakers: BTreeSet<u32>) -> Self {
        Self {
            multiplier: f64::from(options.dry_multiplier),
            base: f64::from(options.dry_base),
            allowed_length: options.dry_allowed_length,
            window: options.penalty_window,
            breakers,
            tokens: Vec::new(),
        }
    }

    /// Whether [`apply`](Self::apply) would do nothing, whatever has occurred.
    pub(super) fn is_off(&self) -> bool {
        self.multiplier == 0.0
    }

    /// Counts one more token of prompt or output.
    pub(super) fn record(&mut self, token: u32) {
        if !self.is_off() {
            self.tokens.push(token);
        }
    }

    /// Takes `multiplier · base^(length - allowed_length)` off the logit of each token that would prolong a repetition of
    /// `length` tokens, if that is `allowed_length` or more.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (token, length) in self.repetitions() {
            if length >= self.allowed_length
                && let Some(logit) = logits.get_mut(token as usize)
            {
                let exponent = (length - self.allowed_length) as i32;
                *logit = (f64::from(*logit) - self.multiplier * self.base.powi(exponent)) as f32;
            }
        }
    }

    /// For each token that has followed the last one before: the most tokens that stand both before it and at the end.
    fn repetitions(&self) -> BTreeMap<u32, usize> {
        let from = if self.window == 0 { 0 } else { self.tokens.len().saturating_sub(self.window) };
        let tokens = &self.tokens[from..];
        let mut repetitions = BTreeMap::new();
        let Some((last, earlier)) = tokens.split_last().filter(|_| !self.is_off()) else {
            return repetitions;
        };
        if self.breakers.contains(last) {
            return repetitions;
        }
        for at in (0..earlier.len()).filter(|&at| earlier[at] == *last) {
            let next = tokens[at + 1];
            if !self.breakers.contains(&next) {
                let longest = repetitions.entry(next).or_default();
                *longest = self.common_end(&tokens[..=at], tokens).max(*longest);
            }
        }
        repetitions
    }

    /// Length of the longest common end without a breaker.
    fn common_end(&self, a: &[u32], b: &[u32]) -> usize {
        let pairs = a.iter().rev().zip(b.iter().rev()).take(LONGEST);
        pairs.take_while(|(a, b)| a == b && !self.breakers.contains(a)).count()
    }
}
