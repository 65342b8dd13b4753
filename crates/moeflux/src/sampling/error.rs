//! What can go wrong in sampling.

use crate::text::TextError;

/// An error of the sampling options or of the logits.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// An option has a value that makes no sense.
    #[error("sampling option `{field}` should be {expected}, found {found}")]
    Invalid {
        /// The option's name.
        field: &'static str,
        /// The values that it can have.
        expected: String,
        /// The value that it has.
        found: String,
    },
    /// The logits are not one per token of the vocabulary.
    #[error("{found} logits were given for a vocabulary of {expected} tokens")]
    LogitCount {
        /// Size of the vocabulary.
        expected: usize,
        /// Number of logits.
        found: usize,
    },
    /// A logit is NaN or +∞.
    #[error(
        "the logit of token {token} is {value}: the model's computation has overflowed, its weights are \
         damaged, or a bias or penalty is too large"
    )]
    NotFinite {
        /// The first such token.
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// Every logit is -∞.
    #[error("no token can be chosen: every logit is -inf")]
    NothingToChoose,
}

/// The tokens with a meaning for a sampler cannot be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolesError {
    /// An option names a text that no token stands for.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The tokenizer cannot split a text that an option names.
    #[error(transparent)]
    Text(#[from] TextError),
}
