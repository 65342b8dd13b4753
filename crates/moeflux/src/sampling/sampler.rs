//! From logits to a token.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::penalties::{Origin, Penalties};
use super::truncation::{Candidate, min_p, top_k, top_p};
use super::{SamplingError, SamplingOptions};

/// Chooses tokens for one sequence.
///
/// A draw depends on the options, the logits, the tokens accepted so far, and nothing else: its random number
/// is the one that the seed has for this position of the output. Sampling twice without accepting gives the
/// same token twice.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplingOptions,
    vocab_size: usize,
    penalties: Penalties,
    random: ChaCha8Rng,
    /// Number of output tokens accepted.
    position: u64,
    /// Logits after bias and penalties.
    adjusted: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// A chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// The token's id.
    pub token: u32,
    /// Natural logarithm of the probability that the model itself gave the token: from the logits as they
    /// came, before bias, penalties, temperature and truncation.
    pub logprob: f32,
}

impl Sampler {
    /// A sampler for logits of `vocab_size` tokens, at the start of the output.
    pub fn new(options: SamplingOptions, vocab_size: usize) -> Result<Self, SamplingError> {
        options.validate(vocab_size)?;
        Ok(Self {
            penalties: Penalties::new(&options),
            random: ChaCha8Rng::seed_from_u64(options.seed),
            options,
            vocab_size,
            position: 0,
            adjusted: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Tells the sampler the tokens of the prompt: the repetition penalty counts them.
    pub fn accept_prompt(&mut self, tokens: &[u32]) {
        for &token in tokens {
            self.penalties.record(token, Origin::Prompt);
        }
    }

    /// Tells the sampler the token that the output goes on with, usually the one sampled.
    pub fn accept(&mut self, token: u32) {
        self.penalties.record(token, Origin::Output);
        self.position += 1;
    }

    /// Chooses the next token from the model's logits (`[vocab_size]`).
    pub fn sample(&mut self, logits: &[f32]) -> Result<Sampled, SamplingError> {
        if logits.len() != self.vocab_size {
            return Err(SamplingError::LogitCount { expected: self.vocab_size, found: logits.len() });
        }
        let logits_max = largest(logits)?;
        let token = if self.options.logit_bias.is_empty() && self.penalties.are_off() {
            self.choose(logits, logits_max)
        } else {
            let mut adjusted = std::mem::take(&mut self.adjusted);
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            for (&token, bias) in &self.options.logit_bias {
                adjusted[token as usize] += bias;
            }
            self.penalties.apply(&mut adjusted);
            let token = largest(&adjusted).map(|adjusted_max| self.choose(&adjusted, adjusted_max));
            self.adjusted = adjusted;
            token?
        };
        let sum: f64 = logits.iter().map(|&logit| f64::from((logit - logits_max).exp())).sum();
        let logprob = f64::from(logits[token as usize] - logits_max) - sum.ln();
        Ok(Sampled { token, logprob: logprob as f32 })
    }

    /// The token, by whichever way the options say; `max` is the largest of the logits.
    fn choose(&mut self, logits: &[f32], max: f32) -> u32 {
        if self.options.temperature == 0.0 {
            return logits.iter().position(|&logit| logit == max).unwrap_or(0) as u32;
        }
        top_k(logits, self.options.top_k, &mut self.candidates);
        let temperature = f64::from(self.options.temperature);
        for candidate in &mut self.candidates {
            candidate.weight = ((f64::from(candidate.logit) - f64::from(max)) / temperature).exp();
        }
        top_p(&mut self.candidates, self.options.top_p);
        min_p(&mut self.candidates, self.options.min_p);
        let share = self.uniform();
        draw(&self.candidates, share)
    }

    /// The random number in [0, 1) that belongs to this position of the output.
    fn uniform(&mut self) -> f64 {
        self.random.set_word_pos(u128::from(self.position) * 2);
        (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The candidate at this share of the cumulated weight.
fn draw(candidates: &[Candidate], share: f64) -> u32 {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let mut cumulated = 0.0;
    let drawn = candidates.iter().find(|candidate| {
        cumulated += candidate.weight;
        share * total < cumulated
    });
    drawn.or(candidates.last()).map_or(0, |candidate| candidate.token)
}

/// The largest logit; NaN, +∞ or nothing but -∞ is an error, because there is no choosing by them.
fn largest(logits: &[f32]) -> Result<f32, SamplingError> {
    if let Some(token) = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        return Err(SamplingError::NotFinite { token: token as u32, value: logits[token] });
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY { Err(SamplingError::NothingToChoose) } else { Ok(max) }
}
