//! Numbers of things, with a least and a most.

use clap::builder::TypedValueParser;

/// A parser of flags: at least 1, at most `most`.
pub(crate) fn count(most: u64) -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(1..=most).map(|value| value as usize)
}
