//! Thinking blocks, and how long they may be.

use crate::error::Error;
use crate::text::{TextError, Tokenizer};

/// Follows the tokens `<think>` and `</think>`.
#[derive(Debug)]
pub(super) struct Reasoning {
    open: u32,
    close: u32,
    /// Most tokens inside blocks.
    budget: usize,
    inside: bool,
    /// Tokens inside blocks so far.
    spent: usize,
}

impl Reasoning {
    /// After a sequence and a prompt; `None` if the tokenizer has no tokens for thinking, which is an error with a budget.
    pub(super) fn after(
        past: &[u32],
        prompt: &[u32],
        tokenizer: &Tokenizer,
        budget: Option<usize>,
    ) -> Result<Option<Self>, Error> {
        match (tokenizer.id("<think>"), tokenizer.id("</think>")) {
            (Some(open), Some(close)) => {
                let inside = ends_with(open, past.iter().chain(prompt), tokenizer)?;
                Ok(Some(Self { open, close, budget: budget.unwrap_or(usize::MAX), inside, spent: 0 }))
            }
            _ if budget.is_some() => Err(Error::Option {
                option: "reasoning_budget",
                expected: "a model that thinks between the tokens <think> and </think>",
                found: "a tokenizer without them".to_owned(),
            }),
            _ => Ok(None),
        }
    }

    /// Whether the next token is one of a thinking block.
    pub(super) fn is_inside(&self) -> bool {
        self.inside
    }

    /// The token that has to come next: the end of a block that has spent the budget.
    pub(super) fn forced(&self) -> Option<u32> {
        (self.inside && self.spent >= self.budget).then_some(self.close)
    }

    /// Takes the token that was chosen.
    pub(super) fn accept(&mut self, token: u32) {
        if token == self.close {
            self.inside = false;
        } else if token == self.open {
            self.inside = true;
        } else if self.inside {
            self.spent += 1;
        }
    }
}

/// Whether the last token that is more than whitespace is `token`.
fn ends_with<'t>(
    token: u32,
    tokens: impl DoubleEndedIterator<Item = &'t u32>,
    tokenizer: &Tokenizer,
) -> Result<bool, TextError> {
    for &last in tokens.rev() {
        if last == token {
            return Ok(true);
        }
        if tokenizer.token(last).is_none() || !tokenizer.decode(&[last], false)?.trim().is_empty() {
            return Ok(false);
        }
    }
    Ok(false)
}
