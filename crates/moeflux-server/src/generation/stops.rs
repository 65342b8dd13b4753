//! Stop texts of a chat: looked for in the answer's text alone, after thoughts, calls and markup have been told apart.

use std::mem;

use moeflux::chat::Delta;
use moeflux::text::StopStrings;

/// Stop texts of one answer. By default there are none.
#[derive(Debug, Default)]
pub(super) struct Stops {
    texts: Vec<String>,
    watch: StopStrings,
    /// Tokens that come before any text is looked at.
    min_tokens: usize,
    tokens: usize,
    /// Which text was found.
    hit: Option<usize>,
}

impl Stops {
    /// A watch for these texts, none of which is empty.
    pub(super) fn new(texts: Vec<String>, min_tokens: usize) -> Self {
        let watch = StopStrings::new(texts.clone()).unwrap_or_default();
        Self { texts, watch, min_tokens, tokens: 0, hit: None }
    }

    /// Counts a token.
    pub(super) fn token(&mut self) {
        self.tokens += 1;
    }

    /// Takes deltas and returns those that are certain; none after a stop text.
    pub(super) fn push(&mut self, deltas: Vec<Delta>) -> Vec<Delta> {
        if self.texts.is_empty() || self.tokens <= self.min_tokens {
            return deltas;
        }
        let mut passed = Vec::new();
        for delta in deltas {
            if self.is_hit() {
                break;
            }
            match delta {
                Delta::Text(text) => {
                    let outcome = self.watch.push(&text);
                    self.hit = outcome.hit;
                    push_text(&mut passed, outcome.text);
                }
                other => {
                    self.release(&mut passed);
                    passed.push(other);
                }
            }
        }
        passed
    }

    /// Takes the last deltas and returns them with what was held back.
    pub(super) fn finish(&mut self, deltas: Vec<Delta>) -> Vec<Delta> {
        if self.is_hit() {
            return Vec::new();
        }
        let mut passed = self.push(deltas);
        if !self.is_hit() {
            self.release(&mut passed);
        }
        passed
    }

    /// Whether a stop text has come up.
    pub(super) fn is_hit(&self) -> bool {
        self.hit.is_some()
    }

    /// The stop text that came up.
    pub(super) fn hit_text(&self) -> Option<&str> {
        self.hit.map(|index| self.texts[index].as_str())
    }

    /// Tokens up to the stop text, if one came up.
    pub(super) fn tokens_at_hit(&self) -> Option<usize> {
        self.hit.map(|_| self.tokens)
    }

    /// Gives out text that was held back, since what follows is none.
    fn release(&mut self, passed: &mut Vec<Delta>) {
        let watch = StopStrings::new(self.texts.clone()).unwrap_or_default();
        push_text(passed, mem::replace(&mut self.watch, watch).finish());
    }
}

fn push_text(deltas: &mut Vec<Delta>, text: String) {
    if !text.is_empty() {
        deltas.push(Delta::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Delta {
        Delta::Text(text.to_owned())
    }

    #[test]
    fn thoughts_and_calls_are_not_looked_at() {
        let mut stops = Stops::new(vec!["9.8".to_owned()], 0);
        stops.token();
        let thoughts = vec![Delta::Reasoning("need 9.8 now".to_owned())];
        assert_eq!(stops.push(thoughts.clone()), thoughts);
        let call = vec![Delta::Arguments { index: 0, piece: "9.8".to_owned() }];
        assert_eq!(stops.push(call.clone()), call);
        assert_eq!(stops.push(vec![text("It is 9")]), [text("It is ")]);
        stops.token();
        assert_eq!(stops.push(vec![text(".8 for sure")]), []);
        assert_eq!((stops.hit_text(), stops.tokens_at_hit()), (Some("9.8"), Some(2)));
        assert_eq!(stops.finish(vec![text("more")]), []);
    }

    #[test]
    fn what_is_held_back_comes_before_what_follows() {
        let mut stops = Stops::new(vec!["abc".to_owned()], 0);
        stops.token();
        assert_eq!(stops.push(vec![text("xab")]), [text("x")]);
        let call = Delta::ToolCall { index: 0, name: "f".to_owned() };
        assert_eq!(stops.push(vec![call.clone()]), [text("ab"), call]);
        assert_eq!(stops.finish(vec![text("ab")]), [text("ab")]);
        assert!(!stops.is_hit());
    }
}
