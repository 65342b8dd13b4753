//! Shows an answer while it comes: text and tool calls on stdout, thoughts on stderr.

use std::io;

use moeflux::chat::{Answer, Delta, ToolCall};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::terminal;

/// Collects the deltas of an answer, and shows them if that is wanted.
#[derive(Default)]
pub(crate) struct AnswerWriter {
    /// All deltas so far.
    pub(crate) answer: Answer,
    stream: bool,
    /// The kind of text that was printed last, on stdout or stderr.
    last: Last,
    /// Calls that have been shown.
    calls: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Nothing,
    Thoughts,
    /// Text that ends within a line.
    Text,
    /// A whole line.
    Line,
}

/// A tool call, as `--json` and streams have it.
#[derive(Serialize)]
pub(crate) struct JsonCall<'a> {
    name: &'a str,
    arguments: &'a RawValue,
}

impl<'a> JsonCall<'a> {
    /// Fails if the arguments are not JSON.
    pub(crate) fn new(call: &'a ToolCall) -> serde_json::Result<Self> {
        Ok(Self { name: &call.name, arguments: serde_json::from_str(&call.arguments)? })
    }
}

impl AnswerWriter {
    /// A writer that shows what it is given, or one that collects it alone.
    pub(crate) fn new(stream: bool) -> Self {
        Self { stream, ..Self::default() }
    }

    /// Takes the next delta.
    pub(crate) fn push(&mut self, delta: Delta) -> io::Result<()> {
        if self.stream {
            match &delta {
                Delta::Arguments { .. } => {}
                Delta::ToolCall { .. } => self.show_calls()?,
                Delta::Reasoning(text) => {
                    self.show_calls()?;
                    self.last = Last::Thoughts;
                    terminal::show_dim(text);
                }
                Delta::Text(text) => {
                    self.show_calls()?;
                    self.end_thoughts();
                    self.last = if text.ends_with('\n') { Last::Line } else { Last::Text };
                    terminal::show(text)?;
                }
            }
        }
        self.answer.push(delta);
        Ok(())
    }

    /// Shows calls that are complete and ends the line that is open.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if !self.stream {
            return Ok(());
        }
        self.show_calls()?;
        match self.last {
            Last::Thoughts => terminal::show_dim("\n"),
            Last::Text => terminal::show("\n")?,
            Last::Nothing | Last::Line => {}
        }
        self.last = Last::Nothing;
        Ok(())
    }

    /// Shows each call that has not been: a call is complete when something else follows.
    fn show_calls(&mut self) -> io::Result<()> {
        for call in self.answer.tool_calls().iter().skip(self.calls) {
            self.end_thoughts();
            let line = serde_json::to_string(&JsonCall::new(call)?)?;
            // Line breaks of JSON are white space, since those of its texts are escaped.
            let line = line.replace(['\n', '\r'], " ");
            let before = if self.last == Last::Text { "\n" } else { "" };
            self.last = Last::Line;
            self.calls += 1;
            terminal::show(&format!("{before}{line}\n"))?;
        }
        Ok(())
    }

    fn end_thoughts(&mut self) {
        if self.last == Last::Thoughts {
            terminal::show_dim("\n\n");
        }
    }
}
