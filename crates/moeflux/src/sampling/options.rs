//! The settings of a [`Sampler`](super::Sampler).

use std::collections::BTreeMap;

use super::SamplingError;

/// How the next token is chosen.
///
/// The default is greedy: the most likely token, nothing penalised. That is what a bare call of the reference
/// implementation does; a checkpoint's own recommendation is in its `generation_config.json`.
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
    /// Divides positive and multiplies negative logits of tokens that occurred in prompt or output (CTRL,
    /// arXiv:1909.05858); over 0, and 1 is off.
    pub repetition_penalty: f32,
    /// Taken off the logit of each token that occurred in the output; 0 is off.
    pub presence_penalty: f32,
    /// Taken off the logit of a token for each time that it occurred in the output; 0 is off.
    pub frequency_penalty: f32,
    /// The penalties see the last this many tokens of prompt and output together; 0 is all of them.
    pub penalty_window: usize,
    /// Added to the logits of these tokens, before all else; -∞ forbids a token.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Same seed, same logits: same tokens, on every platform.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: 0,
            logit_bias: BTreeMap::new(),
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// Checks every value; `vocab_size` bounds the tokens of `logit_bias`.
    pub fn validate(&self, vocab_size: usize) -> Result<(), SamplingError> {
        let probability = |value: f32| (0.0..=1.0).contains(&value);
        check("temperature", "a number, 0 or more", self.temperature, |value| {
            value.is_finite() && value >= 0.0
        })?;
        check("top_p", "between 0 and 1", self.top_p, probability)?;
        check("min_p", "between 0 and 1", self.min_p, probability)?;
        check("repetition_penalty", "a number over 0", self.repetition_penalty, |value| {
            value.is_finite() && value > 0.0
        })?;
        check("presence_penalty", "a number", self.presence_penalty, f32::is_finite)?;
        check("frequency_penalty", "a number", self.frequency_penalty, f32::is_finite)?;
        for (&token, &bias) in &self.logit_bias {
            if token as usize >= vocab_size {
                let expected = format!("for tokens below {vocab_size}");
                return Err(SamplingError::Invalid {
                    field: "logit_bias",
                    expected,
                    found: format!("token {token}"),
                });
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
    Err(SamplingError::Invalid { field, expected: expected.to_owned(), found: value.to_string() })
}
