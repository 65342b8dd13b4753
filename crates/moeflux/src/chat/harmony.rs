//! Answers of gpt-oss: messages, each with a header that says in which channel and for whom it is.

use std::mem;

use super::parser::{Deltas, Told, partial_marker};
use super::read::{Dialect, Step, json};
use super::tagged::HELD;
use super::tools::Tools;

pub(super) const START: &str = "<|start|>";
pub(super) const CHANNEL: &str = "<|channel|>";
pub(super) const CONSTRAIN: &str = "<|constrain|>";
pub(super) const MESSAGE: &str = "<|message|>";
pub(super) const END: &str = "<|end|>";
/// The header of the message that has the answer.
pub(super) const FINAL: &str = "<|channel|>final<|message|>";
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
    Message { channel: Channel, said: bool },
    Call(Box<Call>),
}

/// A call while it is read.
#[derive(Debug)]
struct Call {
    name: String,
    reader: json::Reader,
    arguments: String,
    /// The header and what was read, for when it is no call.
    raw: String,
    told: Told,
    is_whole: bool,
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
        match &mut self.state {
            State::Header => self.header(deltas),
            State::Message { .. } => self.message(is_end, deltas),
            State::Call(_) => {
                let State::Call(call) = mem::replace(&mut self.state, State::Header) else { return false };
                self.call(call, is_end, deltas)
            }
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
        let to = after("to=").filter(|&to| to != "assistant" && !self.tools.is_empty()).map(str::to_owned);
        self.state = match to.map(|to| (self.tools.resolve(&to), to)) {
            None => State::Message { channel, said: false },
            Some((Some(tool), _)) => State::Call(Box::new(Call {
                name: tool.name.clone(),
                reader: json::Reader::object(Dialect::Json),
                arguments: String::new(),
                raw: header,
                told: Told::default(),
                is_whole: false,
            })),
            Some((None, to)) => {
                tracing::warn!(tool = to, "the model calls a tool that is not offered: the call stays text");
                if to.starts_with(FUNCTIONS) {
                    self.say(Channel::Answer, false, &header, deltas);
                    State::Message { channel: Channel::Answer, said: true }
                } else {
                    // Tools of the model's own, such as a Python that nobody runs here.
                    State::Message { channel, said: false }
                }
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

    fn call(&mut self, mut call: Box<Call>, is_end: bool, deltas: &mut Deltas) -> bool {
        let end = self.end();
        let keep = if is_end { 0 } else { partial_marker(&self.pending, &ENDS) };
        let len = end.map_or(self.pending.len() - keep, |(at, _)| at);
        let (read, step) = call.reader.read(&self.pending[..len], &mut call.arguments);
        call.is_whole |= step == Step::Done;
        let rest = self.pending[read..len].trim_start();
        let is_broken = step == Step::Broken || (call.is_whole && !rest.is_empty());
        let has_rest = !rest.is_empty();
        let text: String = self.pending.drain(..read).collect();
        if !call.told.is_begun() {
            call.raw.push_str(&text);
        }
        // A message without text is a call without arguments, if it was ended.
        if call.arguments.is_empty() && end.is_some() && !has_rest && !is_broken {
            (call.is_whole, call.arguments) = (true, "{}".to_owned());
        }
        let is_over = end.is_some() || is_end;
        if call.told.is_begun() || call.arguments.len() > HELD || (is_over && call.is_whole && !is_broken) {
            call.told.tell(&call.name, &call.arguments, &mut self.index, deltas);
        }
        if !is_over && !is_broken {
            self.state = State::Call(call);
            return false;
        }
        if call.is_whole && !is_broken {
            self.pending.drain(..len - read);
            match end {
                Some((_, mark)) => self.end_message(mark),
                None => self.state = State::Header,
            }
            return end.is_some();
        }
        if call.told.is_begun() {
            tracing::warn!(tool = call.name, "the arguments of a tool call break off");
            if is_end && end.is_none() && !is_broken {
                self.pending.clear();
            }
        } else {
            tracing::warn!(
                tool = call.name,
                "the arguments of a tool call are no JSON object: it stays text"
            );
            self.say(Channel::Answer, false, &call.raw, deltas);
        }
        self.state = State::Message { channel: Channel::Answer, said: true };
        true
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
