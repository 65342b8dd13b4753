//! Where an answer ends, and what is said about it.

use anyhow::Result;
use clap::Args;
use moeflux::engine::Speculate;
use moeflux::{GenerateRequest, SamplingOptions};

use crate::constraint_args::ConstraintArgs;
use crate::count::count;

/// Flags about an answer.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Maximum number of tokens of an answer [default: what the context leaves]
    #[arg(long, value_name = "N", value_parser = count(1 << 40))]
    max_tokens: Option<usize>,
    /// Minimum number of tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    min_tokens: usize,
    /// Stop before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Continue after the end-of-sequence token
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Maximum number of reasoning tokens
    #[arg(long, value_name = "N")]
    reasoning_budget: Option<usize>,
    /// Speculative decoding, which changes no text: off, ngram (drafts from earlier text), mtp or mtp:DEPTH (drafts
    /// from the model's multi-token-prediction layer), or auto (whichever pays)
    #[arg(long, value_name = "HOW", default_value_t = Speculate::Off)]
    speculate: Speculate,
    #[command(flatten)]
    constraint: ConstraintArgs,
    /// Print times, rates and memory to stderr after an answer
    #[arg(long)]
    pub(crate) stats: bool,
}

impl OutputArgs {
    /// All that is asked of an answer but its prompt.
    pub(crate) fn request(&self, sampling: SamplingOptions) -> Result<GenerateRequest> {
        Ok(GenerateRequest {
            sampling,
            max_tokens: self.max_tokens(),
            min_tokens: self.min_tokens,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            constraint: self.constraint.constraint()?,
            reasoning_budget: self.reasoning_budget,
            speculate: self.speculate,
            ..GenerateRequest::default()
        })
    }

    /// Whether the model's layer for multi-token prediction is of use.
    pub(crate) fn wants_mtp(&self) -> bool {
        matches!(self.speculate, Speculate::Auto | Speculate::Mtp { .. })
    }

    /// The most tokens an answer may have.
    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens.unwrap_or(usize::MAX)
    }
}
