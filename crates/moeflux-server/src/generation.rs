//! Where all APIs meet: what a chat is, in no API's terms, and what comes of it.

mod prepare;
mod run;
mod stops;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moeflux::chat::{ChatOptions, Delta};
use moeflux::engine::PromptLogprob;
use moeflux::sampling::{Constraint, TokenLogprob};
use moeflux::text::Message;

pub use prepare::{chat, chat_prompt, count_tokens, text};
pub use run::{Answer, Generation};

/// A chat, whichever API it came through.
#[derive(Clone, Debug, Default)]
pub struct ChatInput {
    /// The conversation, in the form of OpenAI's chat API.
    pub messages: Vec<Message>,
    /// Tools, and how the conversation is rendered.
    pub options: ChatOptions,
    /// Names of the tools whose only argument is a text.
    pub customs: BTreeSet<String>,
    /// What the answer must look like. It leaves no room for calls, so it can't be had together with tools that may be
    /// called.
    pub constraint: Option<Constraint>,
    /// Most tokens of thoughts.
    pub reasoning_budget: Option<usize>,
    /// How to choose tokens, how many, and what to tell of them.
    pub controls: Controls,
}

/// A text to go on with.
#[derive(Clone, Debug)]
pub struct TextInput {
    /// The text so far.
    pub prompt: Prompt,
    /// Log-probabilities of the prompt's tokens, and of so many of the likeliest in their places.
    pub prompt_logprobs: Option<usize>,
    /// What the continuation must look like.
    pub constraint: Option<Constraint>,
    /// How to choose tokens, how many, and what to tell of them.
    pub controls: Controls,
}

/// Text, or its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// How to choose tokens, how many, and what to tell of them. What is `None` comes from the model's own recommendation or
/// the server's defaults.
#[derive(Clone, Debug, Default)]
pub struct Controls {
    /// See [`SamplingOptions`](moeflux::SamplingOptions), as for the fields below it up to `seed`.
    pub temperature: Option<f32>,
    /// See above.
    pub top_k: Option<usize>,
    /// See above.
    pub top_p: Option<f32>,
    /// See above.
    pub min_p: Option<f32>,
    /// See above.
    pub repetition_penalty: Option<f32>,
    /// See above.
    pub presence_penalty: Option<f32>,
    /// See above.
    pub frequency_penalty: Option<f32>,
    /// See above.
    pub logit_bias: BTreeMap<u32, f32>,
    /// See above; `None` is a random one.
    pub seed: Option<u64>,
    /// Most tokens of the answer; `None` is what the context leaves, or the server's limit.
    pub max_tokens: Option<usize>,
    /// Least tokens of the answer.
    pub min_tokens: usize,
    /// Texts that end the answer and are not part of it. Of a chat, only the answer's text is looked at: not thoughts,
    /// calls or the markup around them.
    pub stop: Vec<String>,
    /// Whether to go on after the end-of-sequence token.
    pub ignore_eos: bool,
    /// How many samples; `None` is one.
    pub n: Option<usize>,
    /// Log-probabilities of the tokens, and of so many of the likeliest in their places.
    pub logprobs: Option<usize>,
    /// Earlier and later: higher goes first.
    pub priority: i32,
}

/// What happened in a running generation.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A part of the prompt has been read.
    Prefill {
        /// Tokens read so far.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
        /// Which sample tells it.
        sample: usize,
        /// What the model made of the prompt's tokens, as far as it is known since, if that was asked for.
        logprobs: Vec<PromptLogprob>,
    },
    /// A token came; `deltas` may be empty while it is open what they are.
    Piece {
        /// Which sample, from 0.
        sample: usize,
        /// What is certain now.
        deltas: Vec<Delta>,
        /// The token, if log-probabilities were asked for.
        token: Option<TokenInfo>,
    },
    /// A sample has ended; each does once. The last deltas are in the piece before it.
    Done {
        /// Which sample.
        sample: usize,
        /// Why.
        finish: Finish,
        /// What it took.
        usage: Usage,
    },
}

/// A token of an answer and what the model made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenInfo {
    /// The token.
    pub id: u32,
    /// Log-probability that the model gave it.
    pub logprob: f32,
    /// The likeliest in its place.
    pub top: Vec<TokenLogprob>,
}

/// Why a sample ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    EndOfTurn,
    /// This stop text came up.
    StopText(String),
    /// It called tools and waits for their answers.
    ToolCalls,
    /// It has as many tokens as allowed, or the context or the memory for states is full.
    Length,
    /// Someone cancelled it.
    Cancelled,
}

/// What a sample took, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Of the prompt, those that the prefix cache had.
    pub cached_tokens: usize,
    /// Of the answer, thoughts included.
    pub completion_tokens: usize,
    /// Of the answer, those of thoughts.
    pub reasoning_tokens: usize,
    /// Time that reading the prompt took.
    pub prefill: Duration,
    /// Time that the answer took after that.
    pub decode: Duration,
}
