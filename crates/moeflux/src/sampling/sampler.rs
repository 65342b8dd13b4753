//! From logits to a token.

use std::collections::BTreeSet;

use moeflux_kernels::{first_logit, largest_logit};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::dry::Dry;
use super::log_softmax::LogSoftmax;
use super::penalties::{Origin, Penalties};
use super::truncation::{Candidate, exclude_top_choices, min_p, top_k, top_p, typical};
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
            sampler.fill_candidates(logits, max);
            let share = sampler.uniform(Stream::Draw);
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
        top_k(logits, self.options.top_k, &mut self.candidates);
        let temperature = f64::from(self.options.temperature);
        for candidate in &mut self.candidates {
            candidate.weight = ((f64::from(candidate.logit) - f64::from(max)) / temperature).exp();
        }
        top_p(&mut self.candidates, self.options.top_p);
        min_p(&mut self.candidates, self.options.min_p);
        typical(&mut self.candidates, self.options.typical_p);
        let xtc = f64::from(self.options.xtc_probability);
        if xtc > 0.0 && self.uniform(Stream::Xtc) < xtc {
            exclude_top_choices(&mut self.candidates, self.options.xtc_threshold, &self.xtc_exempt);
        }
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

/// The largest logit; NaN, +∞ or nothing but -∞ is an error, because there is no choosing by them.
pub(super) fn largest(logits: &[f32]) -> Result<f32, SamplingError> {
    let not_finite = |token: usize| SamplingError::NotFinite { token: token as u32, value: logits[token] };
    let max = largest_logit(logits).map_err(not_finite)?;
    if max == f32::NEG_INFINITY { Err(SamplingError::NothingToChoose) } else { Ok(max) }
}
