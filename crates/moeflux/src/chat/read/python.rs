//! Calls as Python writes them: `name(key=value, …)`.

use super::json::{self, Dialect};
use super::{Found, NAME_LENGTH, Step};
use crate::chat::tools::Tools;

/// Reader of one such call.
#[derive(Debug)]
pub(in crate::chat) struct Reader {
    state: State,
    value: json::Reader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Name,
    /// Before a key or the end.
    Key,
    Value,
    /// After a value.
    After,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { state: State::Name, value: json::Reader::value(Dialect::Python) }
    }

    pub(super) fn read(&mut self, text: &str, found: &mut Found, tools: &Tools) -> (usize, Step) {
        let mut at = 0;
        loop {
            let rest = &text[at..];
            match self.state {
                State::Name => match word(rest, '(') {
                    Word::Whole(name) if found.call(name, tools) => {
                        at += name.len() + 1;
                        found.arguments.push('{');
                        self.state = State::Key;
                    }
                    Word::Begun => return (at, Step::More),
                    _ => return (at, Step::Broken),
                },
                State::Key | State::After => {
                    at += rest.len() - rest.trim_start().len();
                    let rest = &text[at..];
                    match rest.chars().next() {
                        None => return (at, Step::More),
                        Some(')') => {
                            found.arguments.push('}');
                            return (at + 1, Step::Done);
                        }
                        Some(',') if self.state == State::After => {
                            at += 1;
                            self.state = State::Key;
                        }
                        Some(_) if self.state == State::After => return (at, Step::Broken),
                        Some(_) => match word(rest, '=') {
                            Word::Whole(key) if found.argument(key.trim()) => {
                                at += key.len() + 1;
                                self.value = json::Reader::value(Dialect::Python);
                                self.state = State::Value;
                            }
                            Word::Begun => return (at, Step::More),
                            _ => return (at, Step::Broken),
                        },
                    }
                }
                State::Value => {
                    let (len, step) = self.value.read(rest, &mut found.arguments);
                    at += len;
                    if step != Step::Done {
                        return (at, step);
                    }
                    self.state = State::After;
                }
            }
        }
    }
}

enum Word<'t> {
    Whole(&'t str),
    Begun,
    None,
}

/// A name up to the character that ends it.
fn word(text: &str, end: char) -> Word<'_> {
    let is_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    let len = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let rest = text[len..].trim_start_matches(' ');
    let before = text.len() - rest.len();
    match rest.chars().next() {
        _ if before > NAME_LENGTH => Word::None,
        None => Word::Begun,
        Some(c) if c == end && len > 0 => Word::Whole(&text[..before]),
        Some(_) => Word::None,
    }
}
