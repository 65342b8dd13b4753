//! Calls whose arguments are bare text between tags.

use serde_json::value::RawValue;

use super::json::push_escaped;
use super::{Found, NAME_LENGTH, Step};
use crate::chat::schema::{self, Types};
use crate::chat::tools::Tools;

/// How such calls are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chat) struct Tags {
    /// What the name follows; empty: the name comes first, and a line break or another tag ends it.
    pub(in crate::chat) open: &'static str,
    /// What may follow the name.
    pub(in crate::chat) after_name: &'static str,
    /// What a key follows.
    pub(in crate::chat) key_open: &'static str,
    pub(in crate::chat) key_end: KeyEnd,
    /// What ends a value.
    pub(in crate::chat) value_close: &'static str,
    /// What ends the call; empty: the marker after it.
    pub(in crate::chat) close: &'static str,
    /// Whether a value stands on lines of its own.
    pub(in crate::chat) on_lines: bool,
}

/// What stands between a key and its value; names end likewise, where they stand in a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chat) enum KeyEnd {
    /// The end of a tag.
    Tag(&'static str),
    /// A quotation mark, attributes, and the end of a tag. `string="true"` and `type="string"` say what the value is.
    Quoted(&'static str),
    /// The end tag of the key and the start tag of the value.
    Pair(&'static str, &'static str),
}

/// Reader of one such call.
#[derive(Debug)]
pub(in crate::chat) struct Reader {
    spec: &'static Tags,
    /// The markers around the call.
    opens: &'static str,
    closes: &'static str,
    state: State,
    types: Types,
    /// Whether the value was said to be no string.
    is_json: bool,
    /// A value whose type is not certain yet.
    buffer: String,
    /// Whether the value is a string whose beginning has been written.
    streams: bool,
    /// Whether the place is the beginning of a line.
    at_line: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Name,
    AfterName,
    Between,
    Key,
    /// At the first byte of a value.
    Start,
    Value,
}

/// Where a value ends.
enum End {
    /// Behind its content there are this many bytes of end tag.
    At(usize, usize),
    /// Not before this place; more text decides.
    NotBefore(usize),
    /// Two readings are possible from this place on.
    Unclear(usize),
}

/// Whether a text begins with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    Yes,
    No,
    /// More text decides.
    Maybe,
}

impl Reader {
    pub(super) fn new(spec: &'static Tags, opens: &'static str, closes: &'static str) -> Self {
        Self {
            spec,
            opens,
            closes,
            state: State::Name,
            types: Types::ANY,
            is_json: false,
            buffer: String::new(),
            streams: false,
            at_line: true,
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
            let read = match self.state {
                State::Name => self.name(rest, found, tools),
                State::AfterName => self.after_name(rest),
                State::Between => self.between(rest, is_end, found),
                State::Key => self.key(rest, found, tools),
                State::Start => self.start(rest),
                State::Value => self.value(rest, is_end, found, tools),
            };
            match read {
                Ok((len, step)) => {
                    at += len;
                    if let Some(step) = step {
                        return (at, step);
                    }
                }
                Err(()) => return (at, Step::Broken),
            }
        }
    }

    fn name(&mut self, rest: &str, found: &mut Found, tools: &Tools) -> Read {
        let space = rest.len() - rest.trim_start().len();
        let text = &rest[space..];
        let (name, len) = if self.spec.open.is_empty() {
            match text.find(['\n', '<']) {
                Some(len) if len <= NAME_LENGTH => (&text[..len], len),
                None if text.len() <= NAME_LENGTH => return MORE,
                _ => return Err(()),
            }
        } else {
            let Some(inner) = text.strip_prefix(self.spec.open) else {
                return if self.spec.open.starts_with(text) { MORE } else { Err(()) };
            };
            let end = match self.spec.key_end {
                KeyEnd::Pair(..) => KeyEnd::Tag(">"),
                end => end,
            };
            match tag_end(inner, end)? {
                Some((name, _, len)) => (name, self.spec.open.len() + len),
                None => return MORE,
            }
        };
        if !found.call(name, tools) {
            return Err(());
        }
        found.arguments.push('{');
        self.state = State::AfterName;
        Ok((space + len, None))
    }

    #[expect(clippy::unnecessary_wraps, reason = "what reads each state returns the same")]
    fn after_name(&mut self, rest: &str) -> Read {
        let space = rest.len() - rest.trim_start().len();
        let text = &rest[space..];
        let mark = self.spec.after_name;
        if !mark.is_empty() && !text.starts_with(mark) && mark.starts_with(text) {
            return Ok((space, Some(Step::More)));
        }
        self.state = State::Between;
        let len = if text.starts_with(mark) { mark.len() } else { 0 };
        Ok((space + len, None))
    }

    /// Before a key or the end.
    #[expect(clippy::unnecessary_wraps, reason = "what reads each state returns the same")]
    fn between(&mut self, rest: &str, is_end: bool, found: &mut Found) -> Read {
        let space = rest.len() - rest.trim_start().len();
        let text = &rest[space..];
        if text.starts_with(self.spec.key_open) {
            self.state = State::Key;
            return Ok((space + self.spec.key_open.len(), None));
        }
        let close = self.spec.close;
        if !close.is_empty() && text.starts_with(close) {
            found.arguments.push('}');
            return Ok((space + close.len(), Some(Step::Done)));
        }
        // The call's own end tag may be left out where the marker follows.
        if !self.closes.is_empty() && text.starts_with(self.closes) {
            found.arguments.push('}');
            return Ok((space, Some(Step::Done)));
        }
        let marks = [self.spec.key_open, close, self.closes];
        if !is_end && marks.iter().any(|mark| mark.starts_with(text)) {
            return Ok((space, Some(Step::More)));
        }
        Ok((space, Some(if text.is_empty() { Step::More } else { Step::Broken })))
    }

    fn key(&mut self, rest: &str, found: &mut Found, tools: &Tools) -> Read {
        let Some((key, attributes, len)) = tag_end(rest, self.spec.key_end)? else { return MORE };
        let key = key.trim();
        if key.is_empty() || !found.argument(key) {
            return Err(());
        }
        let tool = found.name.as_ref().and_then(|name| tools.get(name));
        let schema = tool.and_then(|tool| Some((tool.parameter(key)?, &tool.parameters)));
        self.types = schema.map_or(Types::ANY, |(schema, root)| Types::of(schema, root));
        self.is_json = false;
        let says = |what: &str| attributes.contains(what);
        if says("string=\"true\"") || says("type=\"string\"") {
            self.types = Types::STRING;
        } else if says("string=\"false\"") || says("type=\"") {
            self.is_json = true;
        }
        self.buffer.clear();
        self.streams = false;
        self.at_line = true;
        self.state = State::Start;
        Ok((len, None))
    }

    fn start(&mut self, rest: &str) -> Read {
        if self.spec.on_lines && rest.is_empty() {
            return MORE;
        }
        self.state = State::Value;
        Ok((usize::from(self.spec.on_lines && rest.starts_with('\n')), None))
    }

    #[expect(clippy::unnecessary_wraps, reason = "what reads each state returns the same")]
    fn value(&mut self, rest: &str, is_end: bool, found: &mut Found, tools: &Tools) -> Read {
        let (content, len, has_ended, is_unclear) = match self.end(rest, is_end, found, tools) {
            End::At(content, tag) => (content, content + tag, true, false),
            End::NotBefore(place) => (place, place, false, false),
            End::Unclear(place) => (place, place, false, true),
        };
        let mut text = &rest[..content];
        if has_ended && self.spec.on_lines {
            text = text.strip_suffix('\n').unwrap_or(text);
        }
        if self.take(text, has_ended, &mut found.arguments).is_err() || is_unclear {
            return Ok((len, Some(Step::Broken)));
        }
        if has_ended {
            self.state = State::Between;
            return Ok((len, None));
        }
        Ok((len, Some(Step::More)))
    }

    /// Appends text to the value.
    fn take(&mut self, text: &str, has_ended: bool, arguments: &mut String) -> Result<(), ()> {
        if let Some(last) = text.chars().next_back() {
            self.at_line = last == '\n';
        }
        if self.streams {
            text.chars().for_each(|c| push_escaped(c, arguments));
        } else {
            self.buffer.push_str(text);
            let is_certain = !self.is_json && self.types.is_string_for_certain(&self.buffer);
            if has_ended {
                arguments.push_str(&self.whole()?);
                return Ok(());
            }
            if !is_certain {
                return Ok(());
            }
            self.streams = true;
            arguments.push('"');
            self.buffer.chars().for_each(|c| push_escaped(c, arguments));
            self.buffer.clear();
        }
        if has_ended {
            arguments.push('"');
        }
        Ok(())
    }

    /// The JSON text of a value that has been gathered.
    fn whole(&self) -> Result<String, ()> {
        let bare = self.buffer.trim();
        let is_json = serde_json::from_str::<&RawValue>(bare).is_ok();
        if self.is_json && is_json && bare.starts_with('"') {
            return Ok(bare.to_owned());
        }
        let value = schema::value(self.types, &self.buffer);
        // What was said to be JSON and is not has no certain meaning.
        if self.is_json && !is_json && value.starts_with('"') { Err(()) } else { Ok(value) }
    }

    /// Where the value ends: at the first end tag that another argument or the call's end follows, since a value may be text
    /// with such tags. It also ends without a tag, where a line begins with the tag of an argument that the tool requires and
    /// that is still missing, or where the call ends and nothing but another call follows.
    fn end(&self, text: &str, is_end: bool, found: &Found, tools: &Tools) -> End {
        let Tags { value_close, key_open, close, .. } = *self.spec;
        let marks = [value_close, key_open, close];
        let first: Vec<char> = marks.iter().filter_map(|mark| mark.chars().next()).collect();
        let mut from = 0;
        while let Some(place) = text[from..].find(first.as_slice()).map(|place| from + place) {
            let rest = &text[place..];
            let is_line = if place == 0 { self.at_line } else { text[..place].ends_with('\n') };
            if let Some(after) = rest.strip_prefix(value_close) {
                match self.continues(after, is_end) {
                    Begins::Yes => return End::At(place, value_close.len()),
                    Begins::Maybe => return End::NotBefore(self.before(text, place)),
                    Begins::No => {}
                }
            } else if is_line && self.spec.on_lines && rest.starts_with(key_open) {
                match tag_end(&rest[key_open.len()..], self.spec.key_end) {
                    Ok(None) => return End::NotBefore(self.before(text, place)),
                    Ok(Some((key, ..))) => {
                        let tool = found.name.as_ref().and_then(|name| tools.get(name));
                        let key = key.trim();
                        let is_open = !found.has(key);
                        match tool.filter(|tool| is_open && tool.parameter(key).is_some()) {
                            Some(tool) if tool.requires(key) => return End::At(place, 0),
                            Some(_) => return End::Unclear(self.before(text, place)),
                            None => {}
                        }
                    }
                    Err(()) => {}
                }
            } else if is_line && self.spec.on_lines && !close.is_empty() && rest.starts_with(close) {
                match self.is_last(&rest[close.len()..], is_end) {
                    Begins::Yes => return End::At(place, 0),
                    Begins::Maybe => return End::NotBefore(self.before(text, place)),
                    Begins::No => {}
                }
            } else if marks.iter().any(|mark| mark.starts_with(rest)) {
                return End::NotBefore(self.before(text, place));
            }
            from = place + rest.chars().next().map_or(1, char::len_utf8);
        }
        End::NotBefore(self.before(text, text.len()))
    }

    /// The place before the line break that may belong to the end tag.
    fn before(&self, text: &str, place: usize) -> usize {
        if self.spec.on_lines && text[..place].ends_with('\n') { place - 1 } else { place }
    }

    /// Whether another argument or the call's end follows an end tag.
    fn continues(&self, after: &str, is_end: bool) -> Begins {
        let next = after.trim_start();
        let close = self.spec.close;
        if next.starts_with(self.spec.key_open) || (!close.is_empty() && next.starts_with(close)) {
            return Begins::Yes;
        }
        if !self.closes.is_empty() && next.starts_with(self.closes) {
            // Without a tag of its own the call ends there; else that tag was left out, if this is the end.
            return if close.is_empty() { Begins::Yes } else { self.is_last(next, is_end) };
        }
        let marks = [self.spec.key_open, close, self.closes];
        if marks.iter().any(|mark| mark.starts_with(next)) { Begins::Maybe } else { Begins::No }
    }

    /// Whether nothing follows but the marker that ends the call, and another call or the end of the text.
    fn is_last(&self, after: &str, is_end: bool) -> Begins {
        let next = after.trim_start();
        let rest = next.strip_prefix(self.closes).unwrap_or(next).trim_start();
        if rest.is_empty() {
            return if is_end { Begins::Yes } else { Begins::Maybe };
        }
        if !self.opens.is_empty() && rest.starts_with(self.opens) {
            return Begins::Yes;
        }
        let marks = [self.closes, self.opens];
        let is_begun = marks.iter().any(|mark| mark.starts_with(rest));
        if is_begun { Begins::Maybe } else { Begins::No }
    }
}

/// Bytes that were read, and what it came to if the reader has to stop.
type Read = Result<(usize, Option<Step>), ()>;

const MORE: Read = Ok((0, Some(Step::More)));

/// A name or key, its attributes, and the length up to its value; `None` if more text is needed.
fn tag_end(text: &str, end: KeyEnd) -> Result<Option<(&str, &str, usize)>, ()> {
    let too_long = text.len() > 2 * NAME_LENGTH;
    let undecided = if too_long { Err(()) } else { Ok(None) };
    let (name, attributes, len) = match end {
        KeyEnd::Tag(end) => {
            let Some(len) = text.find(end) else { return undecided };
            (&text[..len], "", len + end.len())
        }
        KeyEnd::Quoted(end) => {
            let Some(quote) = text.find('"') else { return undecided };
            let Some(len) = text[quote..].find(end) else { return undecided };
            (&text[..quote], &text[quote + 1..quote + len], quote + len + end.len())
        }
        KeyEnd::Pair(close, open) => {
            let Some(len) = text.find(close) else { return undecided };
            let after = &text[len + close.len()..];
            let space = after.len() - after.trim_start().len();
            if !after[space..].starts_with(open) {
                return if open.starts_with(&after[space..]) { Ok(None) } else { Err(()) };
            }
            (&text[..len], "", len + close.len() + space + open.len())
        }
    };
    if name.len() > NAME_LENGTH || len > 2 * NAME_LENGTH {
        Err(())
    } else {
        Ok(Some((name, attributes, len)))
    }
}
