//! How the next token is chosen.

use std::hash::{BuildHasher, Hasher, RandomState};

use clap::Args;
use moeflux::sampling::SamplingOptions;
use moeflux::text::GenerationDefaults;

/// Flags for sampling. A flag that is absent has the model's default.
#[derive(Args)]
#[command(next_help_heading = "Sampling (defaults: the model's generation_config.json)")]
pub(crate) struct SamplingArgs {
    /// Sampling temperature; 0 always selects the most likely token
    #[arg(short, long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Sample from the N most likely tokens; 0 = off
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Sample from the smallest set of most likely tokens whose probabilities add up to P; 1 = off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Sample from tokens whose probability is at least P times the most likely token's; 0 = off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Sample from the tokens whose information content is closest to the expected one, until their probabilities add
    /// up to P; 1 = off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    typical_p: Option<f32>,
    /// XTC: probability of excluding the most likely tokens; 0 = off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    xtc_probability: Option<f32>,
    /// XTC: exclude the tokens with at least this probability, except the least likely of them [default: 0.1]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    xtc_threshold: Option<f32>,
    /// Divide positive logits and multiply negative logits of tokens in the prompt or the answer by X; 1 = off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Subtract X from the logits of tokens that occur in the answer; 0 = off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Subtract X from the logit of a token once for each time that it occurs in the answer; 0 = off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Apply penalties and DRY to the last N tokens only; 0 = all
    #[arg(long, value_name = "N")]
    penalty_window: Option<usize>,
    /// DRY: subtract X from the logit of a token that continues a repetition; 0 = off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_multiplier: Option<f32>,
    /// DRY: multiply the penalty by X for each further token of the repetition [default: 1.75]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_base: Option<f32>,
    /// DRY: minimum length of a repetition, in tokens [default: 2]
    #[arg(long, value_name = "N")]
    dry_allowed_length: Option<usize>,
    /// DRY: text that ends a repetition; may be repeated [default: line break, : " *]
    #[arg(long, value_name = "TEXT")]
    dry_sequence_breaker: Vec<String>,
    /// Add VALUE to the logit of token ID; may be repeated
    #[arg(long, value_name = "ID=VALUE", value_parser = parse_logit_bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Seed of the sampler: the same seed gives the same text [default: random; --stats prints it]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplingArgs {
    /// The flags, completed by what the model recommends. Values are checked where they are used.
    pub(crate) fn options(&self, model: &GenerationDefaults) -> SamplingOptions {
        let model = SamplingOptions::recommended(model);
        SamplingOptions {
            temperature: self.temperature.unwrap_or(model.temperature),
            top_k: self.top_k.unwrap_or(model.top_k),
            top_p: self.top_p.unwrap_or(model.top_p),
            min_p: self.min_p.unwrap_or(model.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(model.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(model.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(model.frequency_penalty),
            logit_bias: self.logit_bias.iter().copied().collect(),
            typical_p: self.typical_p.unwrap_or(model.typical_p),
            xtc_probability: self.xtc_probability.unwrap_or(model.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(model.xtc_threshold),
            penalty_window: self.penalty_window.unwrap_or(model.penalty_window),
            dry_multiplier: self.dry_multiplier.unwrap_or(model.dry_multiplier),
            dry_base: self.dry_base.unwrap_or(model.dry_base),
            dry_allowed_length: self.dry_allowed_length.unwrap_or(model.dry_allowed_length),
            dry_sequence_breakers: match self.dry_sequence_breaker.as_slice() {
                [] => model.dry_sequence_breakers,
                given => given.to_vec(),
            },
            seed: self.seed.unwrap_or_else(random_seed),
        }
    }
}

/// Short enough to be typed again.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

fn parse_logit_bias(text: &str) -> Result<(u32, f32), String> {
    let expected = "expected a token id, `=` and a number, as in 42=-1.5";
    let (id, value) = text.split_once('=').ok_or(expected)?;
    let id = id.trim().parse().map_err(|error| format!("{expected}: {error}"))?;
    let value = value.trim().parse().map_err(|error| format!("{expected}: {error}"))?;
    Ok((id, value))
}
