//! From logits to a token.

use std::collections::BTreeSet;

use moeflux_kernels::{WEIGHED, first_logit, largest_logit, weigh_logits};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::dry::Dry;
use super::log_softmax::LogSoftmax;
use super::penalties::{Origin, Penalties};
use super::truncation::{Candidate, exclude_top_choices, min_p, not_below, top_k, top_p, typical};
use super::{SamplingError, SamplingOptions, TokenRoles, TokenSet};

/// Chooses tokens for one sequence.
///
/// A draw depends on the options, the logits, the tokens accepted so far, and nothing else: its random number
/// is the one that the seed has for this position of the output (two words of the ChaCha8 stream 0 of that seed,
/// from word 2·position on; XTC's decision is made by those of stream 1). Sampling twice without accepting gives
/// the same token twice.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplingOptions,
    xtc_exempt: BTreeSet<u32>,
    vocab_size: usize,
    penalties: Penalties,
    dry: Dry,
    random: ChaCha8Rng,
    /// Number of output tokens accepted.
    position: u64,
    /// Logits after penalties, bias and constraints.
    adjusted: Vec<f32>,
    candidates: Vec<Candidate>,
    /// Each token's probability relative to the most likely one's.
    weights: Vec<f32>,
    /// Of each [`WEIGHED`] of them the sum.
    weight_sums: Vec<f64>,
}

/// A chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// The token's id.
    pub token: u32,
    /// Natural logarithm of the probability that the model itself gave the token: from the logits as they
    /// came, see [`LogSoftmax`].
    pub logprob: f32,
}

/// Which random number of a position.
#[derive(Clone, Copy)]
enum Stream {
    Draw = 0,
    Xtc = 1,
}

impl Sampler {
    /// A sampler for logits of `vocab_size` tokens, at the start of the output. No token has a role.
    pub fn new(options: SamplingOptions, vocab_size: usize) -> Result<Self, SamplingError> {
        Self::with_roles(options, TokenRoles::default(), vocab_size)
    }

    /// A sampler that knows the tokens which DRY and XTC treat in their own way.
    pub fn with_roles(
        options: SamplingOptions,
        roles: TokenRoles,
        vocab_size: usize,
    ) -> Result<Self, SamplingError> {
        options.validate(vocab_size)?;
        Ok(Self {
            penalties: Penalties::new(&options),
            dry: Dry::new(&options, roles.dry_breakers),
            xtc_exempt: roles.xtc_exempt,
            random: ChaCha8Rng::seed_from_u64(options.seed),
            options,
            vocab_size,
            position: 0,
            adjusted: Vec::new(),
            candidates: Vec::new(),
            weights: Vec::new(),
            weight_sums: Vec::new(),
        })
    }

    /// Tells the sampler the tokens of the prompt: the repetition penalty and DRY count them.
    pub fn accept_prompt(&mut self, tokens: &[u32]) {
        for &token in tokens {
            self.penalties.record(token, Origin::Prompt);
            self.dry.record(token);
        }
    }

    /// Tells the sampler the token that the output goes on with, usually the one sampled.
    pub fn accept(&mut self, token: u32) {
        self.penalties.record(token, Origin::Output);
        self.dry.record(token);
        self.position += 1;
    }

    /// Chooses the next token from the model's logits (`[vocab_size]`).
    pub fn sample(&mut self, logits: &[f32]) -> Result<Sampled, SamplingError> {
        let model = LogSoftmax::new(logits)?;
        let token = self.sample_among(&model, None)?;
        Ok(Sampled { token, logprob: model.of(token) })
    }

    /// Chooses the next token among those allowed; `None` allows all.
    pub fn sample_among(
        &mut self,
        model: &LogSoftmax<'_>,
        allowed: Option<&TokenSet>,
    ) -> Result<u32, SamplingError> {
        self.choose(model, allowed, |sampler, logits, max| {
            if sampler.options.temperature == 0.0 {
                return first(logits, max);
            }
            let share = sampler.uniform(Stream::Draw);
            if sampler.options.draws_from_all(logits.len()) {
                let total = sampler.weigh(logits, max);
                return draw_from_all(&sampler.weights, &sampler.weight_sums, share * total);
            }
            sampler.fill_candidates(logits, max);
            draw(&sampler.candidates, share)
        })
    }

    /// The distribution that [`sample_among`](Self::sample_among) draws from: tokens and their probabilities, in no
    /// order. All others have none. XTC's decision for this position has been made.
    pub fn distribution(
        &mut self,
        model: &LogSoftmax<'_>,
        allowed: Option<&TokenSet>,
    ) -> Result<Vec<(u32, f64)>, SamplingError> {
        self.choose(model, allowed, |sampler, logits, max| {
            if sampler.options.temperature == 0.0 {
                return vec![(first(logits, max), 1.0)];
            }
            sampler.fill_candidates(logits, max);
            let total: f64 = sampler.candidates.iter().map(|candidate| candidate.weight).sum();
            let drawn = sampler.candidates.iter().filter(|candidate| candidate.weight > 0.0);
            drawn.map(|candidate| (candidate.token, candidate.weight / total)).collect()
        })
    }

    /// Lets `choose` see the logits after penalties, bias, DRY and constraints, and their largest.
    fn choose<T>(
        &mut self,
        model: &LogSoftmax<'_>,
        allowed: Option<&TokenSet>,
        choose: impl FnOnce(&mut Self, &[f32], f32) -> T,
    ) -> Result<T, SamplingError> {
        let logits = model.logits();
        if logits.len() != self.vocab_size {
            return Err(SamplingError::LogitCount { expected: self.vocab_size, found: logits.len() });
        }
        let untouched = self.penalties.are_off() && self.options.logit_bias.is_empty() && self.dry.is_off();
        if untouched && allowed.is_none() {
            return Ok(choose(self, logits, model.max()));
        }
        let mut adjusted = std::mem::take(&mut self.adjusted);
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        self.penalties.apply(&mut adjusted);
        for (&token, bias) in &self.options.logit_bias {
            adjusted[token as usize] += bias;
        }
        self.dry.apply(&mut adjusted);
        if let Some(allowed) = allowed {
            allowed.apply(&mut adjusted);
        }
        let chosen = largest(&adjusted).map(|max| choose(self, &adjusted, max));
        self.adjusted = adjusted;
        chosen
    }

    /// The tokens that can be drawn, with their weights; `max` is the largest of the logits.
    fn fill_candidates(&mut self, logits: &[f32], max: f32) {
        let SamplingOptions { top_k: k, top_p: p, .. } = self.options;
        let of_all = if self.options.keeps_all_in_top_k(logits.len()) {
            let total = self.weigh(logits, max);
            // All tokens below this together have less probability than top-p leaves out; the last bits of a weight
            // are not known yet.
            let out = (1.0 - f64::from(p)).max(0.0) * total / logits.len() as f64;
            let least = 0.999 * out.max(f64::from(self.options.min_p));
            not_below(least as f32, &self.weights, logits, &mut self.candidates);
            Some(total)
        } else {
            top_k(logits, k, &mut self.candidates);
            None
        };
        let temperature = f64::from(self.options.temperature);
        for candidate in &mut self.candidates {
            candidate.weight = ((f64::from(candidate.logit) - f64::from(max)) / temperature).exp();
        }
        let total = of_all.unwrap_or_else(|| self.candidates.iter().map(|candidate| candidate.weight).sum());
        top_p(&mut self.candidates, p, total);
        min_p(&mut self.candidates, self.options.min_p);
        typical(&mut self.candidates, self.options.typical_p);
        let xtc = f64::from(self.options.xtc_probability);
        if xtc > 0.0 && self.uniform(Stream::Xtc) < xtc {
            exclude_top_choices(&mut self.candidates, self.options.xtc_threshold, &self.xtc_exempt);
        }
    }

    /// Fills in the weights of all tokens and gives their sum.
    fn weigh(&mut self, logits: &[f32], max: f32) -> f64 {
        self.weights.resize(logits.len(), 0.0);
        self.weight_sums.resize(logits.len().div_ceil(WEIGHED), 0.0);
        weigh_logits(logits, max, self.options.temperature, &mut self.weights, &mut self.weight_sums);
        self.weight_sums.iter().sum()
    }

    /// A random number in [0, 1) that belongs to this position of the output.
    fn uniform(&mut self, stream: Stream) -> f64 {
        self.random.set_stream(stream as u64);
        self.random.set_word_pos(u128::from(self.position) * 2);
        (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The first token with this logit.
fn first(logits: &[f32], logit: f32) -> u32 {
    first_logit(logits, logit).unwrap_or(0) as u32
}

/// The candidate at this share of the cumulated weight; never one without weight.
fn draw(candidates: &[Candidate], share: f64) -> u32 {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let mut cumulated = 0.0;
    let drawn = candidates.iter().find(|candidate| {
        cumulated += candidate.weight;
        share * total < cumulated
    });
    let last = || candidates.iter().rfind(|candidate| candidate.weight > 0.0);
    drawn.or_else(last).map_or(0, |candidate| candidate.token)
}

/// The token where the cumulated weight passes `at`, `sums` being the sums of each [`WEIGHED`] weights; never one
/// without weight.
fn draw_from_all(weights: &[f32], sums: &[f64], at: f64) -> u32 {
    let mut cumulated = 0.0;
    let mut first = 0;
    for sum in sums {
        if at < cumulated + sum {
            break;
        }
        cumulated += sum;
        first += WEIGHED;
    }
    let drawn = weights.iter().enumerate().skip(first).find(|(_, weight)| {
        cumulated += f64::from(**weight);
        at < cumulated && **weight > 0.0
    });
    // Rounding may leave nothing after the last sum.
    drawn.map(|(token, _)| token).or_else(|| weights.iter().rposition(|&weight| weight > 0.0)).unwrap_or(0)
        as u32
}

/// The largest logit; NaN, +∞ or nothing but -∞ is an error, because there is no choosing by them.
pub(super) fn largest(logits: &[f32]) -> Result<f32, SamplingError> {
    let not_finite = |token: usize| SamplingError::NotFinite { token: token as u32, value: logits[token] };
    let max = largest_logit(logits).map_err(not_finite)?;
    if max == f32::NEG_INFINITY { Err(SamplingError::NothingToChoose) } else { Ok(max) }
}
