//! The settings of a [`Sampler`](super::Sampler).

use std::collections::BTreeMap;

use super::SamplingError;
use crate::text::GenerationDefaults;

/// How the next token is chosen.
///
/// The default is greedy: the most likely token, nothing penalised. That is what a bare call of the reference
/// implementation does; [`recommended`](Self::recommended) is what a checkpoint asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// Divisor of the logits, 0 or more; 0 always takes the most likely token (of equals, the lowest id).
    pub temperature: f32,
    /// Only this many most likely tokens remain, and those that tie with the last of them; 0 is off.
    pub top_k: usize,
    /// Only the fewest most likely tokens remain that together have this probability, at least one; 1 is off.
    pub top_p: f32,
    /// Only tokens remain that have at least this share of the most likely token's probability; 0 is off.
    pub min_p: f32,
    /// Only the tokens remain whose information content is nearest to the expected one and that together have this
    /// probability, at least one; 1 is off.
    pub typical_p: f32,
    /// XTC: probability with which, at a token, the most likely choices are excluded; 0 is off.
    pub xtc_probability: f32,
    /// XTC: of the tokens that have at least this probability, only the least likely remains.
    pub xtc_threshold: f32,
    /// Divides positive and multiplies negative logits of tokens that occurred in prompt or output (CTRL,
    /// arXiv:1909.05858); over 0, and 1 is off.
    pub repetition_penalty: f32,
    /// Taken off the logit of each token that occurred in the output; 0 is off.
    pub presence_penalty: f32,
    /// Taken off the logit of a token for each time that it occurred in the output; 0 is off.
    pub frequency_penalty: f32,
    /// The penalties and DRY see the last this many tokens of prompt and output together; 0 is all of them.
    pub penalty_window: usize,
    /// Added to the logits of these tokens; -∞ forbids a token.
    pub logit_bias: BTreeMap<u32, f32>,
    /// DRY: what it costs to go on with a repetition of `dry_allowed_length` tokens, as an amount taken off the logit; 0
    /// is off.
    pub dry_multiplier: f32,
    /// DRY: each further token of the repetition multiplies the cost by this; 1 or more.
    pub dry_base: f32,
    /// DRY: the shortest repetition that costs something, in tokens; at least 1.
    pub dry_allowed_length: usize,
    /// DRY: texts that end a repetition.
    pub dry_sequence_breakers: Vec<String>,
    /// Same seed, same logits: same tokens. Each place of the output has its own random number, made from the seed and
    /// the number of tokens before it in the output; so it matters neither what runs beside nor where one resumes.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: 0,
            logit_bias: BTreeMap::new(),
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// The options that a checkpoint recommends in its `generation_config.json`; what it does not name is off, and the seed
    /// is 0. As in the reference implementation, a checkpoint that does not say `do_sample` is decoded greedily.
    #[must_use]
    pub fn recommended(defaults: &GenerationDefaults) -> Self {
        let off = Self::default();
        let is_sampled = defaults.do_sample == Some(true);
        Self {
            temperature: if is_sampled { defaults.temperature.unwrap_or(1.0) } else { 0.0 },
            top_k: defaults.top_k.unwrap_or(off.top_k),
            top_p: defaults.top_p.unwrap_or(off.top_p),
            min_p: defaults.min_p.unwrap_or(off.min_p),
            repetition_penalty: defaults.repetition_penalty.unwrap_or(off.repetition_penalty),
            ..off
        }
    }

    /// Whether top-k leaves all of so many tokens.
    pub(super) fn keeps_all_in_top_k(&self, vocab_size: usize) -> bool {
        self.top_k == 0 || self.top_k >= vocab_size
    }

    /// Whether any of so many tokens can be drawn.
    pub(super) fn draws_from_all(&self, vocab_size: usize) -> bool {
        let truncated =
            self.top_p < 1.0 || self.min_p > 0.0 || self.typical_p < 1.0 || self.xtc_probability > 0.0;
        self.keeps_all_in_top_k(vocab_size) && !truncated
    }

    /// Checks every value; `vocab_size` bounds the tokens of `logit_bias`.
    pub fn validate(&self, vocab_size: usize) -> Result<(), SamplingError> {
        let probability = |value: f32| (0.0..=1.0).contains(&value);
        check("temperature", "a number, 0 or more", self.temperature, |value| {
            value.is_finite() && value >= 0.0
        })?;
        check("top_p", "between 0 and 1", self.top_p, probability)?;
        check("min_p", "between 0 and 1", self.min_p, probability)?;
        check("typical_p", "over 0 and at most 1", self.typical_p, |value| value > 0.0 && value <= 1.0)?;
        check("xtc_probability", "between 0 and 1", self.xtc_probability, probability)?;
        check("xtc_threshold", "between 0 and 1", self.xtc_threshold, probability)?;
        check("repetition_penalty", "a number over 0", self.repetition_penalty, |value| {
            value.is_finite() && value > 0.0
        })?;
        check("presence_penalty", "a number", self.presence_penalty, f32::is_finite)?;
        check("frequency_penalty", "a number", self.frequency_penalty, f32::is_finite)?;
        check("dry_multiplier", "a number, 0 or more", self.dry_multiplier, |value| {
            value.is_finite() && value >= 0.0
        })?;
        check("dry_base", "a number, 1 or more", self.dry_base, |value| value.is_finite() && value >= 1.0)?;
        if self.dry_allowed_length == 0 {
            return Err(invalid("dry_allowed_length", "at least 1", "0"));
        }
        if self.dry_sequence_breakers.iter().any(String::is_empty) {
            return Err(invalid("dry_sequence_breakers", "texts that are not empty", "\"\""));
        }
        for (&token, &bias) in &self.logit_bias {
            if token as usize >= vocab_size {
                let expected = format!("for tokens below {vocab_size}");
                return Err(invalid("logit_bias", expected, format!("token {token}")));
            }
            check("logit_bias", "a number or -inf", bias, |value| {
                value.is_finite() || value == f32::NEG_INFINITY
            })?;
        }
        Ok(())
    }
}

fn check(
    field: &'static str,
    expected: &str,
    value: f32,
    is_valid: impl Fn(f32) -> bool,
) -> Result<(), SamplingError> {
    if is_valid(value) {
        return Ok(());
    }
    Err(invalid(field, expected, value.to_string()))
}

fn invalid(field: &'static str, expected: impl Into<String>, found: impl Into<String>) -> SamplingError {
    SamplingError::Invalid { field, expected: expected.into(), found: found.into() }
}
