//! Choosing the next token from logits.
//!
//! What is done, in this order, each step only if it is asked for:
//!
//! 1. penalties for tokens that have occurred: repetition, then frequency and presence,
//! 2. logit bias,
//! 3. DRY,
//! 4. the tokens that a constraint (JSON schema, regular expression, grammar) or `min_tokens` forbids go out,
//! 5. temperature; 0 ends here with the most likely token,
//! 6. top-k, top-p, min-p, typical: each sees what the one before it has left, as a distribution of its own,
//! 7. XTC,
//! 8. one of the tokens left is drawn, by the random number of this place in the output.
//!
//! Log-probabilities are of the model's own distribution, before all of that.

#[cfg(feature = "grammar")]
mod compilable;
mod constraint;
mod cost;
mod dry;
mod error;
#[cfg(feature = "grammar")]
mod grammar;
#[cfg(not(feature = "grammar"))]
#[path = "no_grammar.rs"]
mod grammar;
mod log_softmax;
mod options;
mod penalties;
mod remarks;
mod roles;
mod sampler;
mod token_set;
mod truncation;

#[cfg(feature = "grammar")]
pub(crate) use compilable::can_compile;
pub use constraint::{Constraint, ConstraintError};
pub use cost::ConstraintLimits;
pub use error::{RolesError, SamplingError};
#[cfg(not(feature = "grammar"))]
pub(crate) use grammar::can_compile;
pub use grammar::{Grammar, GrammarCompiler};
pub use log_softmax::{LogSoftmax, MAX_TOP_LOGPROBS, TokenLogprob};
pub use options::SamplingOptions;
pub(crate) use remarks::without_unknown_formats;
pub use roles::TokenRoles;
pub use sampler::{Sampled, Sampler};
pub use token_set::TokenSet;
