//! Reads deltas out of an answer's text while it streams.

use serde_json::Value;

use super::harmony::Harmony;
use super::tagged::Tagged;
use super::tools::Tools;
use super::{Answer, Delta, Format};
use crate::engine::Event;

/// Streaming parser of one answer. Whatever pieces a text comes in, the joined deltas are the same.
#[derive(Debug)]
pub struct Parser(Kind);

#[derive(Debug)]
enum Kind {
    Plain,
    Tagged(Tagged),
    Harmony(Harmony),
}

impl Parser {
    /// A parser of what follows `prompt`, in which a thinking block may be open already, and of calls of these tools
    /// (in the form of OpenAI's chat API; empty: calls are text).
    pub fn new(format: Format, tools: &[Value], prompt: &str) -> Self {
        let tools = Tools::new(tools);
        Self(match format {
            Format::Plain => Kind::Plain,
            Format::Thoughts => Kind::Tagged(Tagged::new(None, tools, prompt)),
            Format::Tagged(syntax) => Kind::Tagged(Tagged::new(Some(syntax), tools, prompt)),
            Format::Harmony => Kind::Harmony(Harmony::new(tools)),
        })
    }

    /// Takes the text of an engine's event, and with the last event what was held back; returns what is certain.
    pub fn read(&mut self, event: &Event) -> Vec<Delta> {
        match event {
            Event::Prefill { .. } => Vec::new(),
            Event::Token { text, .. } => self.push(text),
            Event::Done(outcome) => {
                let mut deltas = self.push(&outcome.text);
                deltas.extend(self.finish());
                deltas
            }
        }
    }

    /// Takes the next text and returns what is certain.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        let mut deltas = Deltas::default();
        match &mut self.0 {
            Kind::Plain => deltas.text(text),
            Kind::Tagged(parser) => parser.push(text, &mut deltas),
            Kind::Harmony(parser) => parser.push(text, &mut deltas),
        }
        deltas.0.deltas
    }

    /// Returns what was held back, when no more text will come.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut deltas = Deltas::default();
        match &mut self.0 {
            Kind::Plain => {}
            Kind::Tagged(parser) => parser.finish(&mut deltas),
            Kind::Harmony(parser) => parser.finish(&mut deltas),
        }
        deltas.0.deltas
    }
}

/// Deltas on their way out, which [`Answer::push`] joins.
#[derive(Debug, Default)]
pub(super) struct Deltas(Answer);

impl Deltas {
    pub(super) fn text(&mut self, more: &str) {
        if !more.is_empty() {
            self.0.push(Delta::Text(more.to_owned()));
        }
    }

    pub(super) fn reasoning(&mut self, more: &str) {
        if !more.is_empty() {
            self.0.push(Delta::Reasoning(more.to_owned()));
        }
    }

    /// A call begins.
    pub(super) fn call(&mut self, index: usize, name: &str) {
        self.0.push(Delta::ToolCall { index, name: name.to_owned() });
    }

    pub(super) fn arguments(&mut self, index: usize, piece: &str) {
        if !piece.is_empty() {
            self.0.push(Delta::Arguments { index, piece: piece.to_owned() });
        }
    }

    pub(super) fn push(&mut self, delta: Delta) {
        self.0.push(delta);
    }

    pub(super) fn into_answer(self) -> Answer {
        self.0
    }
}

/// How much of a call has been told: its index and bytes of its arguments, once there are any.
#[derive(Debug, Default)]
pub(super) struct Told(Option<(usize, usize)>);

impl Told {
    /// Whether anything has been told.
    pub(super) fn is_begun(&self) -> bool {
        self.0.is_some()
    }

    /// Tells what there is of the arguments and has not been told, at first with the call, whose index is the number of those
    /// before it.
    pub(super) fn tell(&mut self, name: &str, arguments: &str, calls: &mut usize, deltas: &mut Deltas) {
        let (index, told) = *self.0.get_or_insert_with(|| {
            deltas.call(*calls, name);
            *calls += 1;
            (*calls - 1, 0)
        });
        deltas.arguments(index, &arguments[told..]);
        self.0 = Some((index, arguments.len()));
    }
}

/// Number of bytes at the end of `text` that could be the beginning of one of the markers.
pub(super) fn partial_marker(text: &str, markers: &[&str]) -> usize {
    let longest = markers.iter().map(|marker| marker.len() - 1).max().unwrap_or(0);
    let from = text.ceil_char_boundary(text.len().saturating_sub(longest));
    let tails = text[from..].char_indices().map(|(at, _)| &text[from + at..]);
    let begins =
        |tail: &&str| markers.iter().any(|marker| marker.len() > tail.len() && marker.starts_with(tail));
    tails.into_iter().find(begins).map_or(0, str::len)
}
