//! Speculation: tokens are drafted, one step reads the pending token and the drafts, and as long as the choice that generation
//! makes anyway is the draft, the next logits are there already. So drafts change when logits are computed and never which:
//! the text is the same, greedy or sampled, alone or in a batch. Each sequence of a batch has as many drafts as pay for it.
//!
//! Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (2023), with the random number of each
//! place in the output drawn beforehand; prompt lookup after Saxena (2023); multi-token prediction after Gloeckle et al.
//! (2024).

mod drafter;
mod mtp;
mod ngrams;
mod policy;

use std::fmt;
use std::str::FromStr;

pub(super) use drafter::{DraftRequest, Drafter, draft_batch};
pub(super) use policy::Policy;

use crate::error::Error;

/// How to draft tokens. The text is the same in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speculate {
    /// No drafts.
    #[default]
    Off,
    /// By whatever has paid so far, as many tokens as pay: that is measured all along, and there are none if none pay. In a
    /// batch each sequence has its own number.
    Auto,
    /// By what followed the last tokens where they occurred before, always.
    Lookup,
    /// By the model's layer for multi-token prediction ([`ModelOptions::mtp`](crate::ModelOptions::mtp)), always.
    Mtp {
        /// Tokens to guess at once.
        depth: usize,
    },
}

/// What guesses came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speculated {
    /// Tokens guessed.
    pub drafted: usize,
    /// How many of them were then chosen.
    pub accepted: usize,
}

/// Most tokens guessed at once.
pub const MAX_DRAFT: usize = 8;

impl Speculate {
    /// Whether it drafts by the layer for multi-token prediction, if the model has one.
    pub fn uses_mtp(self) -> bool {
        matches!(self, Speculate::Auto | Speculate::Mtp { .. })
    }

    /// This, or the default of an engine if this is off.
    pub(super) fn or(self, default: Self) -> Self {
        if self == Speculate::Off { default } else { self }
    }

    /// Checks what can be checked without a model.
    pub(super) fn validate(self) -> Result<(), Error> {
        match self {
            Speculate::Mtp { depth } if !(1..=MAX_DRAFT).contains(&depth) => {
                Err(option("a depth from 1 to 8", self.to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Speculate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Speculate::Off => f.write_str("off"),
            Speculate::Auto => f.write_str("auto"),
            Speculate::Lookup => f.write_str("ngram"),
            Speculate::Mtp { depth } => write!(f, "mtp:{depth}"),
        }
    }
}

impl FromStr for Speculate {
    type Err = Error;

    /// `off`, `auto`, `ngram`, `mtp` (one token) or `mtp:2`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let speculate = match text.split_once(':') {
            None if text == "off" => Some(Speculate::Off),
            None if text == "auto" => Some(Speculate::Auto),
            None if text == "ngram" => Some(Speculate::Lookup),
            None if text == "mtp" => Some(Speculate::Mtp { depth: 1 }),
            Some(("mtp", depth)) => depth.parse().ok().map(|depth| Speculate::Mtp { depth }),
            _ => None,
        };
        let speculate =
            speculate.ok_or_else(|| option("off, auto, ngram, mtp or mtp:DEPTH", text.to_owned()))?;
        speculate.validate()?;
        Ok(speculate)
    }
}

fn option(expected: &'static str, found: String) -> Error {
    Error::Option { option: "speculate", expected, found }
}
