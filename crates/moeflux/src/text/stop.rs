//! Stop strings, found across the borders of streamed pieces.

use super::TextError;

/// Watches streamed text for strings that end it.
///
/// The match is the one that is complete first, so it does not depend on how the text is cut into pieces; of
/// two that end at the same place, the one that starts first. Text before the match is given out, nothing
/// from it on.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// A suffix of the text so far that could be the start of a stop string.
    held: String,
    hit: Option<usize>,
}

/// What a piece of text led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that can be shown: no part of it belongs to a stop string.
    pub text: String,
    /// Index of the stop string that was found. The text ends here.
    pub hit: Option<usize>,
}

impl StopStrings {
    /// A watch for these strings; an empty one is an error.
    pub fn new(stops: Vec<String>) -> Result<Self, TextError> {
        match stops.iter().position(String::is_empty) {
            Some(index) => Err(TextError::EmptyStopString { index }),
            None => Ok(Self { stops, held: String::new(), hit: None }),
        }
    }

    /// Takes the next piece. After a hit there is no more text.
    pub fn push(&mut self, piece: &str) -> StopOutcome {
        if self.hit.is_some() {
            return StopOutcome { text: String::new(), hit: self.hit };
        }
        self.held.push_str(piece);
        let matches = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            self.held.find(stop.as_str()).map(|start| (start + stop.len(), start, index))
        });
        if let Some((_, start, index)) = matches.min() {
            self.hit = Some(index);
            self.held.truncate(start);
            return StopOutcome { text: std::mem::take(&mut self.held), hit: self.hit };
        }
        let tail = self.held.split_off(self.safe_len());
        StopOutcome { text: std::mem::replace(&mut self.held, tail), hit: None }
    }

    /// The text that was held back, when no more will come.
    pub fn finish(self) -> String {
        self.held
    }

    /// Length of the text before the longest suffix that begins a stop string, in bytes.
    fn safe_len(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        (from..self.held.len())
            .filter(|&start| self.held.is_char_boundary(start))
            .find(|&start| self.stops.iter().any(|stop| stop.starts_with(&self.held[start..])))
            .unwrap_or(self.held.len())
    }
}
