//! Answers with thoughts and calls between markers.

use std::mem;

use super::formats::{self, Open, Row};
use super::parser::{Deltas, Told, partial_marker};
use super::read::{Found, Reader, Step};
use super::thoughts::{self, Thoughts};
use super::tools::Tools;
use super::{Answer, Delta, Syntax};

/// Bytes of arguments that are held back until the call is whole: a call that breaks before is text, one that is longer
/// streams.
pub(super) const HELD: usize = 100;
/// How many places of thoughts that never ended are tried as the beginning of calls.
const TRIES: usize = 16;

/// Parser of such answers.
#[derive(Debug)]
pub(super) struct Tagged {
    /// `None`: what looks like a call is text.
    row: Option<&'static Row>,
    thoughts: &'static [Thoughts],
    tools: Tools,
    state: State,
    /// Text that is not decided on.
    pending: String,
    /// White space and markers before what comes next: text if that is text, nothing if it is a call.
    held: String,
    /// Whether the last that was there, but for white space, is a mark that is no part of the answer.
    is_after_mark: bool,
    /// Whether the answer has not begun, but for white space.
    is_start: bool,
    /// How many calls there were.
    index: usize,
}

#[derive(Debug)]
enum State {
    /// Nothing but white space yet.
    Start,
    /// In thoughts that this closes; `said` is whether there are any yet.
    Thoughts {
        close: &'static str,
        said: bool,
    },
    /// In thoughts, after what looks like a call: it is one if the text ends with it. Nothing was found before this byte of the
    /// pending text.
    Doubt {
        close: &'static str,
        searched: usize,
    },
    /// After thoughts: line breaks belong to neither.
    AfterThoughts,
    Answer,
    Call(Box<Call>),
}

/// Calls between a pair of markers, while they are read.
#[derive(Debug)]
struct Call {
    reader: Reader,
    found: Found,
    stage: Stage,
    /// What was read of a call that has not been told, with the marker before it.
    raw: String,
    told: Told,
    /// Whether the marker was the beginning of the call itself.
    is_kept: bool,
    /// Whether the call is all that an answer may have.
    is_alone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first call.
    Lead,
    Body,
    /// After a call that is whole.
    Tail,
}

impl Tagged {
    pub(super) fn new(syntax: Option<Syntax>, tools: Tools, prompt: &str) -> Self {
        let row = syntax.map(formats::row);
        let thoughts = row.map_or(thoughts::ANY, |row| row.thoughts);
        let open = thoughts.iter().find(|thoughts| thoughts.is_open_after(prompt));
        let state = open.map_or(State::Start, |open| State::Thoughts { close: open.close, said: false });
        let row = row.filter(|_| !tools.is_empty());
        let mut pending = String::new();
        // The prompt may have the first marker.
        if let Some(row) = row
            && row.syntax == Syntax::Recipient
            && prompt.ends_with(row.opens[0].text)
        {
            pending.push_str(row.opens[0].text);
        }
        Self {
            row,
            thoughts,
            tools,
            state,
            pending,
            held: String::new(),
            is_after_mark: false,
            is_start: true,
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
        if self.index == 0 && !self.is_after_mark {
            deltas.text(&held);
        }
    }

    /// Decides on the beginning of the pending text; false if that takes more of it.
    fn step(&mut self, is_end: bool, deltas: &mut Deltas) -> bool {
        match &mut self.state {
            State::Start => self.start(is_end),
            State::Thoughts { close, said } => {
                let (close, said) = (*close, *said);
                self.think(close, said, is_end, deltas)
            }
            State::Doubt { close, searched } => {
                let (close, searched) = (*close, *searched);
                self.doubt(close, searched, is_end, deltas)
            }
            State::AfterThoughts => {
                let rest = self.pending.trim_start_matches('\n').len();
                self.take(self.pending.len() - rest);
                if rest > 0 {
                    self.state = State::Answer;
                }
                rest > 0
            }
            State::Answer => self.answer(is_end, deltas),
            State::Call(_) => {
                let State::Call(call) = mem::replace(&mut self.state, State::Answer) else { return false };
                self.call(call, is_end, deltas)
            }
        }
    }

    fn start(&mut self, is_end: bool) -> bool {
        let text = self.pending.trim_start();
        let opened = self.thoughts.iter().find_map(|open| Some((open, text.strip_prefix(open.open)?)));
        if let Some((open, after)) = opened {
            self.take(self.pending.len() - after.len());
            self.state = State::Thoughts { close: open.close, said: false };
            return true;
        }
        let decided = is_end || !self.thoughts.iter().any(|open| open.open.starts_with(text));
        if decided {
            self.state = State::Answer;
        }
        decided
    }

    fn think(&mut self, close: &'static str, said: bool, is_end: bool, deltas: &mut Deltas) -> bool {
        if !said {
            let rest = self.pending.trim_start_matches('\n').len();
            self.take(self.pending.len() - rest);
            self.state = State::Thoughts { close, said: rest > 0 };
            return rest > 0;
        }
        let end = self.pending.find(close);
        if let Some(call) = self.first_open(end.unwrap_or(self.pending.len())) {
            let certain = self.pending[..call].trim_end().len();
            deltas.reasoning(&self.take(certain));
            self.state = State::Doubt { close, searched: 0 };
            return true;
        }
        if let Some(end) = end {
            let thoughts = self.take(end + close.len());
            deltas.reasoning(thoughts[..end].trim_end_matches('\n'));
            self.state = State::AfterThoughts;
            return true;
        }
        let opens: Vec<&str> = self.opens().map(|open| open.text).chain([close]).collect();
        let keep = if is_end { 0 } else { partial_marker(&self.pending, &opens) };
        let thoughts = &self.pending[..self.pending.len() - keep];
        // White space is kept: a call may follow it.
        let certain = if is_end { thoughts.len() } else { thoughts.trim_end().len() };
        deltas.reasoning(&self.take(certain));
        false
    }

    fn doubt(&mut self, close: &'static str, searched: usize, is_end: bool, deltas: &mut Deltas) -> bool {
        if let Some(end) = self.pending[searched..].find(close).map(|end| searched + end) {
            let thoughts = self.take(end + close.len());
            deltas.reasoning(thoughts[..end].trim_end_matches('\n'));
            self.state = State::AfterThoughts;
            return true;
        }
        let tried = (self.pending.len() + 1).saturating_sub(close.len()).max(searched);
        self.state = State::Doubt { close, searched: self.pending.floor_char_boundary(tried) };
        if is_end {
            self.end_doubt(deltas);
        }
        false
    }

    /// Thoughts have not ended: if the text ends with whole calls, these end them.
    fn end_doubt(&mut self, deltas: &mut Deltas) {
        let text = mem::take(&mut self.pending);
        let mut from = 0;
        for _ in 0..TRIES {
            let opens = self.opens().filter_map(|open| Some(from + text[from..].find(open.text)?));
            let Some(place) = opens.min() else { break };
            if let Some(calls) = self.only_calls(&text[place..]) {
                deltas.reasoning(text[..place].trim_end());
                for delta in calls.deltas {
                    self.index += usize::from(matches!(delta, Delta::ToolCall { .. }));
                    deltas.push(delta);
                }
                return;
            }
            from = place + text[place..].chars().next().map_or(1, char::len_utf8);
        }
        deltas.reasoning(&text);
    }

    /// What a text says, if that is calls and nothing else.
    fn only_calls(&self, text: &str) -> Option<Answer> {
        let mut parser = Tagged {
            row: self.row,
            thoughts: self.thoughts,
            tools: self.tools.clone(),
            state: State::Answer,
            pending: text.to_owned(),
            held: String::new(),
            is_after_mark: false,
            is_start: false,
            index: 0,
        };
        let mut deltas = Deltas::default();
        parser.finish(&mut deltas);
        let answer = deltas.into_answer();
        let is_call = |delta: &Delta| matches!(delta, Delta::ToolCall { .. } | Delta::Arguments { .. });
        let is_whole = answer.tool_calls().iter().all(super::ToolCall::is_whole);
        (!answer.deltas.is_empty() && answer.deltas.iter().all(is_call) && is_whole).then_some(answer)
    }

    /// What may begin calls here.
    fn opens(&self) -> impl Iterator<Item = &'static Open> + use<> {
        let is_start = self.is_start && matches!(self.state, State::Answer);
        let opens = self.row.map_or(&[][..], |row| row.opens);
        opens.iter().filter(move |open| is_start || !open.at_start)
    }

    /// The first place before `end` where calls may begin.
    fn first_open(&self, end: usize) -> Option<usize> {
        self.opens().filter_map(|open| self.pending[..end].find(open.text)).min()
    }

    fn answer(&mut self, is_end: bool, deltas: &mut Deltas) -> bool {
        let Some(row) = self.row else {
            deltas.text(&mem::take(&mut self.pending));
            return false;
        };
        let space = self.pending.len() - self.pending.trim_start().len();
        let space = self.take(space);
        self.held.push_str(&space);
        if self.pending.is_empty() {
            return false;
        }
        if let Some(mark) = row.dropped.iter().find(|mark| self.pending.starts_with(**mark)) {
            self.take(mark.len());
            self.is_after_mark = true;
            return true;
        }
        let open = self
            .opens()
            .filter(|open| self.pending.starts_with(open.text))
            .max_by_key(|open| open.text.len());
        let around = || row.around.iter().filter(|mark| !mark.is_empty());
        let marks = self.opens().map(|open| open.text).chain(around().copied());
        let mut marks = marks.chain(row.dropped.iter().copied());
        let is_begun = marks.any(|mark| mark.len() > self.pending.len() && mark.starts_with(&self.pending));
        if is_begun && !is_end {
            return false;
        }
        if let Some(open) = open {
            self.open(row, open);
            return true;
        }
        if let Some(mark) = around().find(|mark| self.pending.starts_with(**mark)) {
            self.take(mark.len());
            self.held.push_str(mark);
            return true;
        }
        self.text(deltas);
        true
    }

    fn open(&mut self, row: &'static Row, open: &'static Open) {
        let raw = if open.is_kept { String::new() } else { self.take(open.text.len()) };
        self.state = State::Call(Box::new(Call {
            reader: Reader::new(row.body, row.opens[0].text, row.close),
            found: Found::default(),
            stage: Stage::Lead,
            raw,
            told: Told::default(),
            is_kept: open.is_kept,
            is_alone: open.at_start,
        }));
    }

    /// Text up to where something else may begin.
    fn text(&mut self, deltas: &mut Deltas) {
        self.is_start = false;
        self.is_after_mark = false;
        let mut begins: Vec<char> = vec!['<'];
        if let Some(row) = self.row {
            let marks =
                self.opens().map(|open| open.text).chain(row.around).chain(row.dropped.iter().copied());
            begins.extend(marks.filter_map(|mark| mark.chars().next()));
        }
        let first = self.pending.chars().next().map_or(0, char::len_utf8);
        let next = self.pending[first..].find(|c: char| begins.contains(&c) || c.is_whitespace());
        let text = self.take(next.map_or(self.pending.len(), |next| first + next));
        deltas.text(&mem::take(&mut self.held));
        deltas.text(&text);
    }

    fn call(&mut self, mut call: Box<Call>, is_end: bool, deltas: &mut Deltas) -> bool {
        let Some(row) = self.row else { return false };
        if call.stage == Stage::Lead {
            let begin = self.pending.find(|c| !row.body.is_separator(c)).unwrap_or(self.pending.len());
            let lead = self.take(begin);
            call.raw.push_str(&lead);
            if self.pending.is_empty() && !is_end {
                self.state = State::Call(call);
                return false;
            }
            call.stage = Stage::Body;
        }
        if call.stage == Stage::Body {
            let (len, step) = call.reader.read(&self.pending, is_end, &mut call.found, &self.tools);
            let read = self.take(len);
            if !call.told.is_begun() {
                call.raw.push_str(&read);
            }
            let is_long = call.found.arguments.len() > HELD && call.found.name.is_some();
            if call.told.is_begun() || is_long {
                self.tell(&mut call, deltas);
            }
            match step {
                Step::Done => call.stage = Stage::Tail,
                Step::More if !is_end => {
                    self.state = State::Call(call);
                    return false;
                }
                Step::More => {
                    if call.told.is_begun() {
                        self.pending.clear();
                    }
                    // The answer was cut off, which its stop reason says.
                    return self.leave_as_text(&call, deltas);
                }
                Step::Broken => return self.give_up(&call, deltas),
            }
        }
        self.tail(row, call, is_end, deltas)
    }

    /// After a call that is whole: it is told if what follows may follow a call.
    fn tail(&mut self, row: &'static Row, mut call: Box<Call>, is_end: bool, deltas: &mut Deltas) -> bool {
        let begin = self.pending.find(|c| !row.body.is_separator(c)).unwrap_or(self.pending.len());
        let rest = &self.pending[begin..];
        let close = row.close;
        let has_close = !close.is_empty();
        if has_close && rest.starts_with(close) {
            self.tell(&mut call, deltas);
            self.take(begin + close.len());
            return true;
        }
        let next = row.body.begins();
        let is_begun = (has_close && close.starts_with(rest))
            || next.is_some_and(|next| !rest.starts_with(next) && next.starts_with(rest));
        let is_open_begun =
            || self.opens().any(|open| open.text.len() > rest.len() && open.text.starts_with(rest));
        if !is_end && (rest.is_empty() || is_begun || is_open_begun()) {
            self.state = State::Call(call);
            return false;
        }
        if rest.is_empty() || (is_begun && has_close && row.body.has_end()) {
            // The end of the text, or of what was written of the end marker.
            if !row.body.has_end() {
                return self.give_up(&call, deltas);
            }
            self.tell(&mut call, deltas);
            self.pending.clear();
            return true;
        }
        if next.is_some_and(|next| rest.starts_with(next)) {
            self.tell(&mut call, deltas);
            self.take(begin);
            call.reader = Reader::new(row.body, row.opens[0].text, row.close);
            call.found = Found::default();
            (call.told, call.stage) = (Told::default(), Stage::Body);
            self.state = State::Call(call);
            return true;
        }
        // Calls without an end marker end where something else begins.
        let is_free = !call.is_alone && (call.is_kept || !has_close);
        if is_free || call.told.is_begun() || self.opens().any(|open| rest.starts_with(open.text)) {
            self.tell(&mut call, deltas);
            return true;
        }
        self.give_up(&call, deltas)
    }

    /// Tells what there is of a call that has not been told.
    fn tell(&mut self, call: &mut Call, deltas: &mut Deltas) {
        self.held.clear();
        self.is_start = false;
        call.raw.clear();
        let name = call.found.name.as_deref().unwrap_or_default();
        call.told.tell(name, &call.found.arguments, &mut self.index, deltas);
    }

    /// There is no call, and the log says so.
    fn give_up(&mut self, call: &Call, deltas: &mut Deltas) -> bool {
        if call.told.is_begun() {
            tracing::warn!("the arguments of a tool call break off");
        } else {
            tracing::warn!("what begins like a tool call cannot be read as one, and stays text");
        }
        self.leave_as_text(call, deltas)
    }

    /// The marker is text, and what follows it is looked at anew. What has been told stays.
    fn leave_as_text(&mut self, call: &Call, deltas: &mut Deltas) -> bool {
        if !call.told.is_begun() {
            self.pending.insert_str(0, &call.raw);
            self.text(deltas);
        }
        true
    }

    fn take(&mut self, len: usize) -> String {
        let rest = self.pending.split_off(len);
        mem::replace(&mut self.pending, rest)
    }
}
