//! How the next token is chosen.

use std::hash::{BuildHasher, Hasher, RandomState};

use clap::Args;
use moeflux::sampling::SamplingOptions;
use moeflux::text::GenerationDefaults;

/// Flags for sampling. What is not given comes from the model.
#[derive(Args)]
#[command(next_help_heading = "Sampling (defaults: the model's generation_config.json)")]
pub(crate) struct SamplingArgs {
    /// How freely to choose: 0 always takes the likeliest token
    #[arg(short, long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among the N likeliest tokens; 0 = all
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Choose among the likeliest tokens that have this probability together
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Choose among tokens at least this likely, relative to the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Choose among the tokens closest to what was to be expected that have this probability together
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    typical_p: Option<f32>,
    /// XTC: how often to exclude the likeliest tokens; 0 = never
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    xtc_probability: Option<f32>,
    /// XTC: exclude tokens at least this likely, but for the last of them [default: 0.1]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    xtc_threshold: Option<f32>,
    /// Divide the logits of tokens seen before by this; 1 = off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Subtract this from the logits of tokens that the answer has
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Subtract this for each time that the answer has the token
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Let penalties and DRY see the last N tokens only; 0 = all
    #[arg(long, value_name = "N")]
    penalty_window: Option<usize>,
    /// DRY: subtract this for going on with a repetition; 0 = off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_multiplier: Option<f32>,
    /// DRY: times this for each token that the repetition is longer [default: 1.75]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_base: Option<f32>,
    /// DRY: length from which a repetition counts, in tokens [default: 2]
    #[arg(long, value_name = "N")]
    dry_allowed_length: Option<usize>,
    /// DRY: text that ends a repetition; may be given more than once [default: line break, : " *]
    #[arg(long, value_name = "TEXT")]
    dry_sequence_breaker: Vec<String>,
    /// Add VALUE to a token's logit; may be given more than once
    #[arg(long, value_name = "ID=VALUE", value_parser = parse_logit_bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Same seed, same text [default: random; --stats and --json say which]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplingArgs {
    /// The flags, completed by the model's own defaults. Values are checked where they are used.
    pub(crate) fn options(&self, model: &GenerationDefaults) -> SamplingOptions {
        // As in the reference implementation, a model that does not say `do_sample` is decoded greedily.
        let sampled = model.do_sample == Some(true);
        let temperature = if sampled { model.temperature.unwrap_or(1.0) } else { 0.0 };
        let off = SamplingOptions::default();
        SamplingOptions {
            temperature: self.temperature.unwrap_or(temperature),
            top_k: self.top_k.or(model.top_k).unwrap_or(off.top_k),
            top_p: self.top_p.or(model.top_p).unwrap_or(off.top_p),
            min_p: self.min_p.or(model.min_p).unwrap_or(off.min_p),
            repetition_penalty: self
                .repetition_penalty
                .or(model.repetition_penalty)
                .unwrap_or(off.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(off.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(off.frequency_penalty),
            logit_bias: self.logit_bias.iter().copied().collect(),
            typical_p: self.typical_p.unwrap_or(off.typical_p),
            xtc_probability: self.xtc_probability.unwrap_or(off.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(off.xtc_threshold),
            penalty_window: self.penalty_window.unwrap_or(off.penalty_window),
            dry_multiplier: self.dry_multiplier.unwrap_or(off.dry_multiplier),
            dry_base: self.dry_base.unwrap_or(off.dry_base),
            dry_allowed_length: self.dry_allowed_length.unwrap_or(off.dry_allowed_length),
            dry_sequence_breakers: match self.dry_sequence_breaker.as_slice() {
                [] => off.dry_sequence_breakers,
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
