//! Answers with thoughts in `<think>` and calls between markers.

use std::mem;

use super::Syntax;
use super::parser::{Deltas, partial_marker};
use super::read::{self, Defect};
use super::tools::Tools;
use crate::text::THINK;

/// The markers of a family's calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Markers {
    pub(super) open: &'static str,
    pub(super) close: &'static str,
    /// Around all calls of an answer.
    pub(super) around: &'static [&'static str],
}

impl Markers {
    pub(super) fn of(syntax: Syntax) -> Self {
        match syntax {
            Syntax::Xml | Syntax::Hermes | Syntax::GlmLines | Syntax::Glm => {
                Self { open: "<tool_call>", close: "</tool_call>", around: &[] }
            }
            Syntax::DeepSeek | Syntax::DeepSeekFenced => Self {
                open: "<｜tool▁call▁begin｜>",
                close: "<｜tool▁call▁end｜>",
                around: &["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"],
            },
        }
    }
}

/// Parser of such answers.
#[derive(Debug)]
pub(super) struct Tagged {
    /// `None`: what looks like a call is text.
    calls: Option<(Syntax, Markers)>,
    tools: Tools,
    state: State,
    /// Text that is not decided on.
    pending: String,
    /// White space and markers before what comes next: text if that is text, nothing if it is a call.
    held: String,
    /// How many calls there were.
    index: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space yet.
    Start,
    /// In thoughts; `said` is whether there are any yet.
    Thoughts {
        said: bool,
    },
    /// After thoughts: line breaks belong to neither.
    AfterThoughts,
    Answer,
    /// In a call, of which no end was found before this byte of the pending text.
    Call {
        searched: usize,
    },
}

impl Tagged {
    pub(super) fn new(syntax: Option<Syntax>, tools: Tools, prompt: &str) -> Self {
        let syntax = syntax.filter(|_| !tools.is_empty());
        let thinks = THINK.is_open_after(prompt);
        Self {
            calls: syntax.map(|syntax| (syntax, Markers::of(syntax))),
            tools,
            state: if thinks { State::Thoughts { said: false } } else { State::Start },
            pending: String::new(),
            held: String::new(),
            index: 0,
        }
    }

    pub(super) fn push(&mut self, text: &str, deltas: &mut Deltas) {
        self.pending.push_str(text);
        while self.step(false, deltas) {}
    }

    pub(super) fn finish(&mut self, deltas: &mut Deltas) {
        while self.step(true, deltas) {}
        let held = mem::take(&mut self.held);
        if self.index == 0 {
            deltas.text(&held);
        }
    }

    /// Decides on the beginning of the pending text; false if that takes more of it.
    fn step(&mut self, is_end: bool, deltas: &mut Deltas) -> bool {
        match self.state {
            State::Start => self.start(is_end),
            State::Thoughts { said } => self.thoughts(said, is_end, deltas),
            State::AfterThoughts => {
                let rest = self.pending.trim_start_matches('\n').len();
                self.take(self.pending.len() - rest);
                if rest > 0 {
                    self.state = State::Answer;
                }
                rest > 0
            }
            State::Answer => self.answer(is_end, deltas),
            State::Call { searched } => self.call(searched, is_end, deltas),
        }
    }

    fn start(&mut self, is_end: bool) -> bool {
        let text = self.pending.trim_start();
        if let Some(after) = text.strip_prefix(THINK.open) {
            self.take(self.pending.len() - after.len());
            self.state = State::Thoughts { said: false };
            return true;
        }
        let decided = is_end || !THINK.open.starts_with(text);
        if decided {
            self.state = State::Answer;
        }
        decided
    }

    fn thoughts(&mut self, said: bool, is_end: bool, deltas: &mut Deltas) -> bool {
        if !said {
            let rest = self.pending.trim_start_matches('\n').len();
            self.take(self.pending.len() - rest);
            self.state = State::Thoughts { said: rest > 0 };
            return rest > 0;
        }
        if let Some(end) = self.pending.find(THINK.close) {
            let thoughts = self.take(end + THINK.close.len());
            deltas.reasoning(thoughts[..end].trim_end_matches('\n'));
            self.state = State::AfterThoughts;
            return true;
        }
        let keep = if is_end { 0 } else { partial_marker(&self.pending, &[THINK.close]) };
        let thoughts = &self.pending[..self.pending.len() - keep];
        let certain = if is_end { thoughts.len() } else { thoughts.trim_end_matches('\n').len() };
        deltas.reasoning(&self.take(certain));
        false
    }

    fn answer(&mut self, is_end: bool, deltas: &mut Deltas) -> bool {
        let Some((_, markers)) = self.calls else {
            deltas.text(&mem::take(&mut self.pending));
            return false;
        };
        let space = self.pending.len() - self.pending.trim_start().len();
        let space = self.take(space);
        self.held.push_str(&space);
        if self.pending.is_empty() {
            return false;
        }
        if self.pending.starts_with(markers.open) {
            self.state = State::Call { searched: 0 };
            return true;
        }
        if let Some(around) = markers.around.iter().find(|&&marker| self.pending.starts_with(marker)) {
            self.pending.drain(..around.len());
            self.held.push_str(around);
            return true;
        }
        let mut all = markers.around.iter().chain([&markers.open]);
        if !is_end && all.any(|marker| marker.starts_with(&self.pending)) {
            return false;
        }
        self.text(deltas);
        true
    }

    /// Text up to where something else may begin.
    fn text(&mut self, deltas: &mut Deltas) {
        let first = self.pending.chars().next().map_or(0, char::len_utf8);
        let next = self.pending[first..].find(|c: char| c == '<' || c.is_whitespace());
        let text = self.take(next.map_or(self.pending.len(), |next| first + next));
        deltas.text(&mem::take(&mut self.held));
        deltas.text(&text);
    }

    fn call(&mut self, mut searched: usize, is_end: bool, deltas: &mut Deltas) -> bool {
        let Some((syntax, Markers { open, close, .. })) = self.calls else { return false };
        let body = &self.pending[open.len()..];
        while let Some(found) = body[searched..].find(close) {
            let end = searched + found;
            match read::call(syntax, &body[..end], &self.tools) {
                Err(Defect::Incomplete) => searched = end + close.len(),
                read => {
                    self.end_call(read, open.len() + end + close.len(), deltas);
                    return true;
                }
            }
        }
        if is_end {
            // What GLM writes has no end of its own.
            let is_whole = !matches!(syntax, Syntax::Glm | Syntax::GlmLines);
            let read = if is_whole { read::call(syntax, body, &self.tools) } else { Err(Defect::Incomplete) };
            self.end_call(read, self.pending.len(), deltas);
            return true;
        }
        let searched = body.floor_char_boundary((body.len() + 1).saturating_sub(close.len()).max(searched));
        self.state = State::Call { searched };
        false
    }

    fn end_call(&mut self, read: Result<read::Call, Defect>, len: usize, deltas: &mut Deltas) {
        self.state = State::Answer;
        match read {
            Ok(call) => {
                self.pending.drain(..len);
                self.held.clear();
                deltas.call(self.index, call);
                self.index += 1;
            }
            // The marker is text; what follows it is looked at anew.
            Err(_) => self.text(deltas),
        }
    }

    fn take(&mut self, len: usize) -> String {
        let rest = self.pending.split_off(len);
        mem::replace(&mut self.pending, rest)
    }
}
