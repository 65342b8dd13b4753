//! Tokens that samplers treat in their own way.

use std::collections::BTreeSet;

use super::{RolesError, SamplingError, SamplingOptions};
use crate::text::Tokenizer;

/// Tokens with a meaning for DRY and XTC; which they are, only the tokenizer knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRoles {
    /// Tokens that end a repetition for DRY.
    pub dry_breakers: BTreeSet<u32>,
    /// Tokens that XTC does not take away: it does nothing where it would.
    pub xtc_exempt: BTreeSet<u32>,
}

impl TokenRoles {
    /// What text-generation-webui makes of a tokenizer: a sequence breaker is the last token of a text that ends with it;
    /// XTC spares the line break and the end of the sequence. Empty where the sampler is off.
    pub fn of(options: &SamplingOptions, tokenizer: &Tokenizer) -> Result<Self, RolesError> {
        let mut roles = Self::default();
        if options.dry_multiplier != 0.0 {
            for breaker in &options.dry_sequence_breakers {
                roles.dry_breakers.insert(last_token(breaker, tokenizer)?);
            }
        }
        if options.xtc_probability != 0.0 {
            roles.xtc_exempt.insert(last_token("\n", tokenizer)?);
            roles.xtc_exempt.extend(tokenizer.eos_ids());
        }
        Ok(roles)
    }
}

/// The last token of a text that ends with `end`. A letter goes before it, since tokenizers treat the start of a text in
/// their own way.
fn last_token(end: &str, tokenizer: &Tokenizer) -> Result<u32, RolesError> {
    let tokens = tokenizer.encode(&format!("a{end}"))?;
    tokens.last().copied().ok_or_else(|| {
        SamplingError::Invalid {
            field: "dry_sequence_breakers",
            expected: "texts that the tokenizer knows".to_owned(),
            found: format!("{end:?}"),
        }
        .into()
    })
}
