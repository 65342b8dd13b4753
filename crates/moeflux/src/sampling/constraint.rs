//! What an output must look like.

use serde_json::Value;

use crate::text::TextError;

/// A language that the output must belong to. No token is ever chosen that could not lead to a word of it, and the
/// end-of-sequence tokens can be chosen exactly where a word is complete.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// JSON that meets a schema. Between its tokens there may be one space, or a line break and an indentation of at most
    /// 40; a member `x-guidance` of the schema can say otherwise, as llguidance defines it. Keywords that can't be
    /// enforced are an error.
    JsonSchema(Value),
    /// A JSON object, whatever it contains.
    JsonObject,
    /// A regular expression, in the syntax of Rust's `regex`, that matches the whole output.
    Regex(String),
    /// A context-free grammar in llguidance's variant of Lark's syntax; it begins at `start`.
    Lark(String),
}

impl Constraint {
    /// Which kind it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::JsonSchema(_) => "JSON schema",
            Self::JsonObject => "JSON object",
            Self::Regex(_) => "regular expression",
            Self::Lark(_) => "Lark grammar",
        }
    }
}

/// What can go wrong with a constraint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// It is not what it should be, or can't be met by any text.
    #[error("the {kind} cannot be used: {detail}")]
    Invalid {
        /// Which kind of constraint.
        kind: &'static str,
        /// What is wrong, and where.
        detail: String,
    },
    /// It is larger than what is compiled.
    #[error("the {kind} is too large: it has {found} {what}, and the limit is {limit}")]
    TooLarge {
        /// Which kind of constraint.
        kind: &'static str,
        /// What there is too much of.
        what: &'static str,
        /// How much there is; counting may have stopped there.
        found: usize,
        /// Most that is allowed.
        limit: usize,
    },
    /// Compiling it took too long. What was asked for stays out of the way of others until it ends.
    #[error("the {kind} is too large: compiling it took more than {seconds} s, the limit")]
    TooSlow {
        /// Which kind of constraint.
        kind: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// Whoever asked has cancelled.
    #[error("compiling the {kind} was cancelled")]
    Cancelled {
        /// Which kind of constraint.
        kind: &'static str,
    },
    /// There was no thread to compile it on.
    #[error("the {kind} cannot be compiled now: {source}")]
    Thread {
        /// Which kind of constraint.
        kind: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// No token can be chosen that leads to a word of the language.
    #[error("after {tokens} tokens the {kind} allows none of the vocabulary's tokens: {detail}")]
    DeadEnd {
        /// Which kind of constraint.
        kind: &'static str,
        /// Number of tokens so far.
        tokens: usize,
        /// Why.
        detail: String,
    },
    /// A token was accepted that was not allowed.
    #[error("token {token} was accepted after {tokens} tokens, but the {kind} does not allow it: {detail}")]
    Refused {
        /// The token.
        token: u32,
        /// Number of tokens before it.
        tokens: usize,
        /// Which kind of constraint.
        kind: &'static str,
        /// Why.
        detail: String,
    },
    /// Without an end-of-sequence token a constrained output could not end.
    #[error("the tokenizer names no end-of-sequence token, so a constrained output could not end")]
    NoEndOfSequence,
    /// An end-of-sequence token that the tokenizer lacks.
    #[error("end-of-sequence token {token} is not among the tokenizer's {vocab_size} tokens")]
    UnknownEndOfSequence {
        /// The token.
        token: u32,
        /// Number of tokens.
        vocab_size: usize,
    },
    /// The bytes of the vocabulary's tokens could not be found.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The vocabulary cannot be made into a trie.
    #[error("the tokenizer's vocabulary cannot be used for constraints: {detail}")]
    Vocabulary {
        /// Why.
        detail: String,
    },
    /// The library was built without the feature `grammar`.
    #[error("constraints need the feature `grammar`, and this program was built without it")]
    Unavailable,
}
