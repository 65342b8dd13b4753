//! Answers of gpt-oss: messages, each with a header that says in which channel and for whom it is.

use super::parser::{Deltas, partial_marker};
use super::read::{self, Defect};
use super::tools::Tools;

pub(super) const START: &str = "<|start|>";
pub(super) const CHANNEL: &str = "<|channel|>";
pub(super) const CONSTRAIN: &str = "<|constrain|>";
pub(super) const MESSAGE: &str = "<|message|>";
pub(super) const END: &str = "<|end|>";
/// What ends a message. That another begins ends it too.
const ENDS: [&str; 5] = [END, "<|call|>", "<|return|>", START, CHANNEL];
/// How a header begins, after the prompt or after another message.
const HEADERS: [&str; 4] = [START, CHANNEL, MESSAGE, "to="];
/// Whom functions are called by.
pub(super) const FUNCTIONS: &str = "functions.";

/// Parser of such answers.
#[derive(Debug)]
pub(super) struct Harmony {
    tools: Tools,
    state: State,
    /// Text that is not decided on.
    pending: String,
    /// How many calls there were.
    index: usize,
    /// The kind of the last message with text, after which another begins anew.
    last: Option<Channel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    Reasoning,
    Answer,
}

#[derive(Debug)]
enum State {
    Header,
    Message {
        channel: Channel,
        said: bool,
    },
    /// A call of this function; the header is kept for when it is none.
    Call {
        name: String,
        header: String,
    },
}

/// Between messages of one kind.
const BETWEEN: &str = "\n\n";

impl Harmony {
    pub(super) fn new(tools: Tools) -> Self {
        Self { tools, state: State::Header, pending: String::new(), index: 0, last: None }
    }

    pub(super) fn push(&mut self, text: &str, deltas: &mut Deltas) {
        self.pending.push_str(text);
        while self.step(false, deltas) {}
    }

    pub(super) fn finish(&mut self, deltas: &mut Deltas) {
        while self.step(true, deltas) {}
        // What is left is a header without a message, or the white space before one.
        self.pending.clear();
    }

    /// Decides on the beginning of the pending text; false if that takes more of it.
    fn step(&mut self, is_end: bool, deltas: &mut Deltas) -> bool {
        match &self.state {
            State::Header => self.header(deltas),
            State::Message { .. } => self.message(is_end, deltas),
            State::Call { .. } => self.call(is_end, deltas),
        }
    }

    fn header(&mut self, deltas: &mut Deltas) -> bool {
        let text = self.pending.trim_start();
        if text.is_empty() {
            return false;
        }
        if !HEADERS.iter().any(|mark| text.starts_with(mark) || mark.starts_with(text)) {
            // No header at all: the answer itself.
            self.state = State::Message { channel: Channel::Answer, said: false };
            return true;
        }
        let Some(end) = self.pending.find(MESSAGE) else { return false };
        let header = self.pending[..end + MESSAGE.len()].to_owned();
        self.pending.drain(..header.len());
        let after = |mark: &str| {
            let (_, rest) = header.split_once(mark)?;
            rest.split(|c: char| c == '<' || c.is_whitespace()).next()
        };
        let channel = if after(CHANNEL) == Some("analysis") { Channel::Reasoning } else { Channel::Answer };
        self.state = match after("to=").map(|to| (to, to.strip_prefix(FUNCTIONS))) {
            None => State::Message { channel, said: false },
            Some((_, Some(name))) if !self.tools.is_empty() => State::Call { name: name.to_owned(), header },
            // For whom it is nobody here knows, so it stays what it is.
            Some(_) => {
                self.say(Channel::Answer, false, &header, deltas);
                State::Message { channel: Channel::Answer, said: true }
            }
        };
        true
    }

    fn message(&mut self, is_end: bool, deltas: &mut Deltas) -> bool {
        let State::Message { channel, said } = self.state else { return false };
        let end = self.end();
        let keep = if is_end { 0 } else { partial_marker(&self.pending, &ENDS) };
        let len = end.map_or(self.pending.len() - keep, |(at, _)| at);
        let text: String = self.pending.drain(..len).collect();
        self.say(channel, said, &text, deltas);
        self.state = State::Message { channel, said: said || !text.is_empty() };
        if let Some((_, mark)) = end {
            self.end_message(mark);
        }
        end.is_some()
    }

    fn call(&mut self, is_end: bool, deltas: &mut Deltas) -> bool {
        let State::Call { name, header } = &self.state else { return false };
        let end = self.end();
        if end.is_none() && !is_end {
            return false;
        }
        let len = end.map_or(self.pending.len(), |(at, _)| at);
        let text = &self.pending[..len];
        let read = if text.trim().is_empty() && end.is_none() {
            Err(Defect::Incomplete)
        } else {
            read::json_call(name, text)
        };
        match read {
            Ok(call) => {
                deltas.call(self.index, call);
                self.index += 1;
            }
            Err(_) => {
                let text = format!("{header}{text}");
                self.say(Channel::Answer, false, &text, deltas);
            }
        }
        self.pending.drain(..len);
        self.state = State::Header;
        if let Some((_, mark)) = end {
            self.end_message(mark);
        }
        end.is_some()
    }

    /// Where the message ends, and by what mark.
    fn end(&self) -> Option<(usize, &'static str)> {
        ENDS.iter().filter_map(|mark| Some((self.pending.find(mark)?, *mark))).min()
    }

    /// Drops the mark that ended a message, unless it begins another.
    fn end_message(&mut self, mark: &str) {
        if mark != START && mark != CHANNEL {
            self.pending.drain(..mark.len());
        }
        self.state = State::Header;
    }

    fn say(&mut self, channel: Channel, said: bool, text: &str, deltas: &mut Deltas) {
        if text.is_empty() {
            return;
        }
        let between = if !said && self.last == Some(channel) { BETWEEN } else { "" };
        self.last = Some(channel);
        for text in [between, text] {
            match channel {
                Channel::Reasoning => deltas.reasoning(text),
                Channel::Answer => deltas.text(text),
            }
        }
    }
}
