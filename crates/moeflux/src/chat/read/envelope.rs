//! Calls as JSON objects: `{"name": NAME, "arguments": {…}}`.

use super::json::{self, Dialect};
use super::{Found, Step};
use crate::chat::tools::Tools;

/// Which member of the object is what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chat) struct Keys {
    /// Members with the name of the tool. One that is an object has name and arguments in it.
    pub(in crate::chat) name: &'static [&'static str],
    /// Members with the arguments: an object, or JSON in a string.
    pub(in crate::chat) arguments: &'static [&'static str],
}

/// Reader of one such object.
#[derive(Debug)]
pub(in crate::chat) struct Reader {
    /// `None`: the one key is the name, and its value the arguments.
    keys: Option<Keys>,
    state: State,
    /// Objects that are open.
    levels: usize,
    key: String,
    inner: json::Reader,
    /// The value that is being read, where it is not arguments.
    scratch: String,
    /// Arguments that came before the name.
    early: String,
    has_arguments: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    /// Before a key, or after a value.
    Between,
    Colon,
    /// Before a value.
    Value,
    In(Part),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Key,
    Name,
    Arguments,
    /// Arguments as a string.
    Quoted,
    /// What is no part of a call: an id, a type.
    Other,
}

impl Reader {
    pub(super) fn new(keys: Option<Keys>) -> Self {
        Self {
            keys,
            state: State::Start,
            levels: 0,
            key: String::new(),
            inner: json::Reader::value(Dialect::Json),
            scratch: String::new(),
            early: String::new(),
            has_arguments: false,
        }
    }

    pub(super) fn read(
        &mut self,
        text: &str,
        is_end: bool,
        found: &mut Found,
        tools: &Tools,
    ) -> (usize, Step) {
        let mut at = 0;
        loop {
            let rest = &text[at..];
            if let State::In(part) = self.state {
                let streams = part == Part::Arguments && found.name.is_some();
                let out = match part {
                    Part::Arguments if streams => &mut found.arguments,
                    Part::Arguments => &mut self.early,
                    _ => &mut self.scratch,
                };
                let (len, step) = self.inner.read(rest, out);
                at += len;
                match step {
                    Step::Done if self.end(part, found, tools) => continue,
                    Step::Done => return (at, Step::Broken),
                    step => return (at, step),
                }
            }
            let space = rest.len() - rest.trim_start().len();
            at += space;
            let Some(c) = text[at..].chars().next() else {
                let is_between = self.state == State::Between && self.has_arguments;
                let is_whole = is_end && is_between && self.complete(found);
                return (at, if is_whole { Step::Done } else { Step::More });
            };
            match (self.state, c) {
                (State::Start, '{') => (self.levels, self.state) = (1, State::Between),
                (State::Between, ',') => {}
                (State::Between, '"') => {
                    self.begin(Part::Key, false);
                    continue;
                }
                (State::Between, '}') => {
                    self.levels -= 1;
                    if self.levels == 0 {
                        at += 1;
                        return (at, if self.complete(found) { Step::Done } else { Step::Broken });
                    }
                }
                // A bracket too few: what follows shows whether that was all.
                (State::Between, _) if self.has_arguments && self.complete(found) => return (at, Step::Done),
                (State::Colon, ':') => self.state = State::Value,
                (State::Value, c) => match self.value(c, found) {
                    Some(0) => continue,
                    Some(_) => {}
                    None => return (at, Step::Broken),
                },
                _ => return (at, Step::Broken),
            }
            at += 1;
        }
    }

    /// Begins a value by its first character; returns how many bytes that takes, `None` if there can be no such value.
    fn value(&mut self, c: char, found: &Found) -> Option<usize> {
        let key = self.key.as_str();
        let (is_name, is_arguments) = match self.keys {
            None => (false, true),
            Some(keys) => (keys.name.contains(&key), keys.arguments.contains(&key)),
        };
        match c {
            '{' if is_name && self.levels == 1 => {
                (self.levels, self.state) = (2, State::Between);
                return Some(1);
            }
            '"' if is_name && found.name.is_none() => self.begin(Part::Name, false),
            _ if is_name => return None,
            _ if is_arguments && self.has_arguments => return None,
            '{' if is_arguments => self.begin(Part::Arguments, true),
            '"' if is_arguments && self.keys.is_some() => self.begin(Part::Quoted, false),
            'n' if is_arguments => self.begin(Part::Other, false),
            _ if is_arguments => return None,
            _ => self.begin(Part::Other, false),
        }
        Some(0)
    }

    fn begin(&mut self, part: Part, is_object: bool) {
        self.scratch.clear();
        self.inner =
            if is_object { json::Reader::object(Dialect::Json) } else { json::Reader::value(Dialect::Json) };
        self.state = State::In(part);
    }

    /// Takes a value that was read; false if it can't be what its place asks for.
    fn end(&mut self, part: Part, found: &mut Found, tools: &Tools) -> bool {
        self.state = State::Between;
        let text = || serde_json::from_str::<String>(&self.scratch).ok();
        match part {
            Part::Key => {
                let Some(key) = text() else { return false };
                self.state = State::Colon;
                if self.keys.is_some() {
                    self.key = key;
                } else if found.name.is_some() || !found.call(&key, tools) {
                    return false;
                }
            }
            Part::Name => {
                let Some(name) = text() else { return false };
                return found.call(&name, tools);
            }
            Part::Arguments => self.has_arguments = true,
            Part::Quoted => {
                let Some(text) = text() else { return false };
                self.has_arguments = true;
                let mut reader = json::Reader::object(Dialect::Json);
                let text = text.trim();
                if text.is_empty() {
                    return true;
                }
                let (len, step) = reader.read(text, &mut self.early);
                return step == Step::Done && len == text.len();
            }
            Part::Other => {}
        }
        true
    }

    /// Whether there is a call so far; completes its arguments.
    fn complete(&mut self, found: &mut Found) -> bool {
        if found.name.is_some() && found.arguments.is_empty() {
            found.arguments =
                if self.early.is_empty() { "{}".to_owned() } else { std::mem::take(&mut self.early) };
        }
        found.name.is_some() && self.levels < 3
    }
}
