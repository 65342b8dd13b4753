//! Thinking blocks: the markers around them, and how long they may be.

use super::{TextError, Tokenizer};

/// The texts that open and close a thinking block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThinkingMarkers {
    pub(crate) open: &'static str,
    pub(crate) close: &'static str,
}

/// The markers of all families but gpt-oss.
pub(crate) const THINK: ThinkingMarkers = ThinkingMarkers { open: "<think>", close: "</think>" };

/// The tokens that open and close a thinking block: those of most families, and of gpt-oss, which thinks in a channel.
const TOKENS: [(&[&str], &str); 2] =
    [(&[THINK.open], THINK.close), (&["<|channel|>", "analysis", "<|message|>"], "<|end|>")];

/// Follows thinking blocks token by token, where their markers are tokens, and closes those that have spent a budget.
#[derive(Debug)]
pub(crate) struct Thinking {
    /// These tokens, one after the other, open a block.
    open: Vec<u32>,
    close: u32,
    /// How many of the tokens that open a block came last.
    opened: usize,
    /// Most tokens inside blocks.
    budget: usize,
    inside: bool,
    /// Tokens inside blocks so far.
    spent: usize,
}

impl Thinking {
    /// Begins after a sequence and a prompt; `None` if the tokenizer has no tokens for the markers.
    pub(crate) fn after(
        past: &[u32],
        prompt: &[u32],
        tokenizer: &Tokenizer,
        budget: Option<usize>,
    ) -> Result<Option<Self>, TextError> {
        let ids = |(open, close): (&[&str], &str)| {
            let open = open.iter().map(|text| tokenizer.id(text)).collect::<Option<Vec<_>>>()?;
            Some((open, tokenizer.id(close)?))
        };
        let Some((open, close)) = TOKENS.into_iter().find_map(ids) else { return Ok(None) };
        let inside = ends_with(&open, past.iter().chain(prompt), tokenizer)?;
        let budget = budget.unwrap_or(usize::MAX);
        Ok(Some(Self { open, close, opened: 0, budget, inside, spent: 0 }))
    }

    /// Whether the next token is one of a thinking block.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside
    }

    /// The token that has to come next: the end of a block that has spent the budget.
    pub(crate) fn forced(&self) -> Option<u32> {
        (self.inside && self.spent >= self.budget).then_some(self.close)
    }

    /// Takes the token that was chosen.
    pub(crate) fn accept(&mut self, token: u32) {
        // No marker begins twice within itself, so what does not continue it can only begin it.
        self.opened = if token == self.open[self.opened] { self.opened + 1 } else { 0 };
        if self.opened == 0 && token == self.open[0] {
            self.opened = 1;
        }
        if token == self.close {
            self.inside = false;
        } else if self.opened == self.open.len() {
            self.inside = true;
        } else if self.inside {
            self.spent += 1;
        }
        self.opened %= self.open.len();
    }
}

/// Whether the last tokens, but for whitespace, are `marker`.
fn ends_with<'t>(
    marker: &[u32],
    tokens: impl DoubleEndedIterator<Item = &'t u32>,
    tokenizer: &Tokenizer,
) -> Result<bool, TextError> {
    let mut left = marker;
    for &token in tokens.rev() {
        match left.split_last() {
            None => break,
            Some((&last, before)) if last == token => left = before,
            Some(_) if left.len() < marker.len() => return Ok(false),
            Some(_) => {
                let is_text =
                    tokenizer.token(token).is_none() || !tokenizer.decode(&[token], false)?.trim().is_empty();
                if is_text {
                    return Ok(false);
                }
            }
        }
    }
    Ok(left.is_empty())
}
