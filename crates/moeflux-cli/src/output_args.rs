//! Where an answer ends, and what is said about it.

use clap::Args;

/// Flags about an answer.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Stop after N tokens [default: when the context is full]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Stop before this text; may be given more than once
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Go on when the model says that it has ended
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Print times, rates and memory to stderr after an answer
    #[arg(long)]
    pub(crate) stats: bool,
}

impl OutputArgs {
    /// The most tokens an answer may have.
    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens.unwrap_or(usize::MAX)
    }
}
