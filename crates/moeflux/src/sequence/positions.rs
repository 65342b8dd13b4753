//! Where each token of a sequence stands.

use super::Position;

/// Positions of the tokens read so far. Text, whose token `i` stands at `i`, takes no memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions {
    /// Tokens at the start that stand where their index says.
    text: usize,
    /// Positions of the others.
    rest: Vec<Position>,
    /// One past the largest.
    next: u32,
}

impl Positions {
    /// One past the largest so far.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// How many tokens at the start stand where their index says.
    pub(super) fn text(&self) -> usize {
        self.text
    }

    /// The position of a token.
    pub(super) fn get(&self, index: usize) -> Position {
        match index.checked_sub(self.text) {
            Some(index) => self.rest[index],
            None => [index as u32; 3],
        }
    }

    /// Appends the positions of tokens.
    pub(super) fn extend(&mut self, positions: &[Position]) {
        for &position in positions {
            if self.rest.is_empty() && position == [self.text as u32; 3] {
                self.text += 1;
            } else {
                self.rest.push(position);
            }
            self.next = self.next.max(past(position));
        }
    }

    /// Forgets all but the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.text = self.text.min(len);
        self.rest.truncate(len - self.text);
        self.next = self.rest.iter().copied().map(past).fold(self.text as u32, u32::max);
    }
}

/// One past the largest number of a position.
fn past(position: Position) -> u32 {
    position.into_iter().fold(0, u32::max).saturating_add(1)
}
