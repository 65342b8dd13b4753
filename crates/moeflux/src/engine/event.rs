//! What a generation tells.

use std::time::Duration;

use super::speculate::Speculated;
use crate::sampling::TokenLogprob;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A chunk of the prompt has been read.
    Prefill {
        /// Tokens read so far.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
        /// Where they were asked for, the log-probabilities that are known since. All events together have each token of
        /// the prompt once, in order.
        logprobs: Vec<PromptLogprob>,
    },
    /// A token was chosen. Special tokens are text too: they delimit thoughts and tool calls.
    Token {
        /// The token.
        id: u32,
        /// Text that is certain now: empty while a character, or what may be a stop string, is incomplete.
        text: String,
        /// Log-probability that the model gave it, before all that sampling does.
        logprob: f32,
        /// As many of the tokens that the model found most likely as were asked for, the most likely first.
        top_logprobs: Vec<TokenLogprob>,
    },
    /// The end; no event follows.
    Done(Outcome),
}

/// What the model made of a token of the prompt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PromptLogprob {
    /// The token.
    pub token: u32,
    /// Log-probability that the model gave it after the tokens before it; `None` for the first of the prompt, of which
    /// the model was not asked.
    pub logprob: Option<f32>,
    /// The tokens that the model found most likely there, the most likely first.
    pub top_logprobs: Vec<TokenLogprob>,
}

/// How a generation ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// Text that was still held back.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// The token that ended it, of which no event tells; `None` if something else did.
    pub last: Option<LastToken>,
    /// Tokens of the prompt that the sequence has.
    pub prompt_tokens: usize,
    /// How many of them it had from an earlier sequence with the same beginning.
    pub cached_tokens: usize,
    /// Tokens chosen, the end-of-sequence token included.
    pub completion_tokens: usize,
    /// What guesses came to, if any were made.
    pub speculated: Speculated,
    /// Time before that began.
    pub queued: Duration,
    /// Time to read the prompt.
    pub prefill: Duration,
    /// Time from there to the end, without the time that the caller took between events.
    pub decode: Duration,
}

/// A token that ends a text, and what the model made of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LastToken {
    /// The token.
    pub id: u32,
    /// See [`Event::Token`].
    pub logprob: f32,
    /// See [`Event::Token`].
    pub top_logprobs: Vec<TokenLogprob>,
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model chose this end-of-sequence token.
    EndOfSequence(u32),
    /// This stop string came up.
    StopString(String),
    /// As many tokens as allowed.
    MaxTokens,
    /// The model's context is full.
    ContextFull,
    /// The states of this one sequence take all the memory that there is for those of all.
    MemoryFull,
    /// Someone asked.
    Cancelled,
}
