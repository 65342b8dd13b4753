//! Readers of calls: one for each way in which names and arguments are written.
//!
//! A reader takes the text of a call from its front as it comes and appends to the arguments what is certain. What it decides
//! depends on the text alone, never on the pieces in which it comes.

mod envelope;
pub(super) mod json;
mod named;
mod python;
mod tags;

pub(super) use self::envelope::Keys;
pub(super) use self::json::Dialect;
pub(super) use self::named::Named;
pub(super) use self::tags::{KeyEnd, Tags};

use std::fmt::Write;

use serde_json::Value;

use super::tools::Tools;

/// Longest name, key or id.
const NAME_LENGTH: usize = 256;

/// How a call is written between its markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// An object with name and arguments; several may follow each other, in a list or not.
    Envelope(Keys),
    /// An object whose only key is the name, and its value the arguments, likewise.
    Keyed,
    /// A name and an object of arguments.
    Named(&'static Named),
    /// A tag for the name and one for each argument, with bare text in it.
    Tags(&'static Tags),
    /// `[name(key=value), …]`.
    Python,
}

/// What a reader has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More text is needed.
    More,
    /// The call is whole.
    Done,
    /// This is no call, whatever follows.
    Broken,
}

/// What has been read of a call.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The name of an offered tool.
    pub(super) name: Option<String>,
    /// JSON text: an object, or its beginning.
    pub(super) arguments: String,
    /// Keys of the arguments, where these come one by one.
    keys: Vec<String>,
}

/// Reader of one call.
#[derive(Debug)]
pub(super) enum Reader {
    Envelope(envelope::Reader),
    Named(named::Reader),
    Tags(tags::Reader),
    Python(python::Reader),
}

impl Found {
    /// Takes the name of the tool; false if no such tool is offered.
    fn call(&mut self, name: &str, tools: &Tools) -> bool {
        self.name = tools.resolve(name).map(|tool| tool.name.clone());
        self.name.is_some()
    }

    /// Whether there is an argument of this key.
    fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known == key)
    }

    /// Begins an argument; false if there is one of this key.
    fn argument(&mut self, key: &str) -> bool {
        if self.has(key) {
            return false;
        }
        let between = if self.keys.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(self.arguments, "{between}{}: ", Value::from(key));
        self.keys.push(key.to_owned());
        true
    }
}

impl Reader {
    /// A reader of a call; `opens` begin another call and `closes` end it.
    pub(super) fn new(body: Body, opens: &'static str, closes: &'static str) -> Self {
        match body {
            Body::Envelope(keys) => Reader::Envelope(envelope::Reader::new(Some(keys))),
            Body::Keyed => Reader::Envelope(envelope::Reader::new(None)),
            Body::Named(spec) => Reader::Named(named::Reader::new(spec)),
            Body::Tags(spec) => Reader::Tags(tags::Reader::new(spec, opens, closes)),
            Body::Python => Reader::Python(python::Reader::new()),
        }
    }

    /// Reads the front of a text, which ends there if `is_end`; returns the bytes that were read.
    pub(super) fn read(
        &mut self,
        text: &str,
        is_end: bool,
        found: &mut Found,
        tools: &Tools,
    ) -> (usize, Step) {
        match self {
            Reader::Envelope(reader) => reader.read(text, is_end, found, tools),
            Reader::Named(reader) => reader.read(text, is_end, found, tools),
            Reader::Tags(reader) => reader.read(text, is_end, found, tools),
            Reader::Python(reader) => reader.read(text, found, tools),
        }
    }
}

impl Body {
    /// What may stand between calls, and between the last of them and its end marker.
    pub(super) fn is_separator(self, c: char) -> bool {
        c.is_whitespace()
            || match self {
                Body::Envelope(_) | Body::Keyed => ",;[]}".contains(c),
                Body::Python => ",[]".contains(c),
                Body::Named(_) | Body::Tags(_) => false,
            }
    }

    /// How another call between the same markers begins; `None` if there is one at most.
    pub(super) fn begins(self) -> Option<&'static str> {
        match self {
            Body::Envelope(_) | Body::Keyed => Some("{"),
            Body::Tags(tags) => (!tags.open.is_empty()).then_some(tags.open),
            Body::Named(_) => None,
            // Any name.
            Body::Python => Some(""),
        }
    }

    /// Whether a call shows by itself that it is whole.
    pub(super) fn has_end(self) -> bool {
        match self {
            Body::Tags(tags) => !tags.close.is_empty(),
            _ => true,
        }
    }
}
