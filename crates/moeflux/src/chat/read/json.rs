//! Values of JSON and of what resembles it, read while they are written.
//!
//! What comes out is JSON. The text is kept as it was written, but for what only one reading has: raw control characters in
//! strings, Python's constants, a comma before a closing bracket, and the quotes of other dialects.

use std::fmt::Write;

use super::Step;

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chat) enum Dialect {
    /// JSON.
    Json,
    /// Python's literals.
    Python,
    /// Gemma's: keys without quotes, strings between `<|"|>` without escapes.
    Gemma,
}

/// The quote of Gemma's strings.
const GEMMA_QUOTE: &str = "<|\"|>";

/// How deep values may be nested; JSON parsers give up at 128.
const DEPTH: usize = 100;
/// Longest number or constant.
const BARE: usize = 400;

/// Reader of one value.
#[derive(Debug)]
pub(in crate::chat) struct Reader {
    dialect: Dialect,
    state: State,
    /// The brackets that are open; true: of an object.
    open: Vec<bool>,
    /// Separators that were read and not written: a comma before a closing bracket is dropped.
    gap: String,
    /// Whether the value has to be an object.
    is_object: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    /// A value, or the end of the list.
    ValueOrEnd,
    /// A key, or the end of the object.
    Key,
    Colon,
    /// After a value in an object or list.
    After,
    /// In a string that this quote ends.
    Text {
        quote: &'static str,
        is_key: bool,
    },
    Done,
}

impl Reader {
    /// A reader of an object.
    pub(in crate::chat) fn object(dialect: Dialect) -> Self {
        Self { is_object: true, ..Self::value(dialect) }
    }

    /// A reader of any value.
    pub(super) fn value(dialect: Dialect) -> Self {
        Self { dialect, state: State::Value, open: Vec::new(), gap: String::new(), is_object: false }
    }

    /// Reads on and appends JSON to `out`; returns the bytes that were read.
    pub(in crate::chat) fn read(&mut self, text: &str, out: &mut String) -> (usize, Step) {
        let mut at = 0;
        loop {
            let rest = &text[at..];
            let read = match self.state {
                State::Done => return (at, Step::Done),
                State::Text { quote, is_key } => self.string(rest, quote, is_key, out),
                _ => self.structure(rest, out),
            };
            match read {
                Read::Taken(len) => at += len,
                Read::Partly(len) => return (at + len, Step::More),
                Read::Broken(len) => return (at + len, Step::Broken),
            }
        }
    }

    fn structure(&mut self, rest: &str, out: &mut String) -> Read {
        let Some(c) = rest.chars().next() else { return Read::Partly(0) };
        if matches!(c, ' ' | '\t' | '\n' | '\r') {
            if !(self.open.is_empty() && self.state == State::Value) {
                self.gap.push(c);
            }
            return Read::Taken(1);
        }
        match (self.state, c) {
            (State::Value | State::ValueOrEnd, '{') if self.open.len() < DEPTH => {
                self.write("{", out);
                self.open.push(true);
                self.state = State::Key;
            }
            (State::Value | State::ValueOrEnd, '[') if self.open.len() < DEPTH && !self.is_top_object() => {
                self.write("[", out);
                self.open.push(false);
                self.state = State::ValueOrEnd;
            }
            (State::ValueOrEnd | State::After, ']') if self.open.last() == Some(&false) => {
                self.close("]", out);
            }
            (State::Key | State::After, '}') if self.open.last() == Some(&true) => self.close("}", out),
            (State::After, ',') => {
                self.gap.push(',');
                self.state = if self.open.last() == Some(&true) { State::Key } else { State::ValueOrEnd };
            }
            (State::Colon, ':') => {
                self.write(":", out);
                self.state = State::Value;
            }
            (State::Value | State::ValueOrEnd | State::Key, _) if !self.is_top_object() => {
                return self.scalar(rest, out);
            }
            _ => return Read::Broken(0),
        }
        Read::Taken(1)
    }

    /// A string's beginning, a key without quotes, a number or a constant.
    fn scalar(&mut self, rest: &str, out: &mut String) -> Read {
        let is_key = self.state == State::Key;
        let quotes: &[&'static str] = match self.dialect {
            Dialect::Json => &["\""],
            Dialect::Python => &["\"", "'"],
            Dialect::Gemma => &[GEMMA_QUOTE, "\""],
        };
        if let Some(&quote) = quotes.iter().find(|&&quote| rest.starts_with(quote)) {
            self.write("\"", out);
            self.state = State::Text { quote, is_key };
            return Read::Taken(quote.len());
        }
        if quotes.iter().any(|quote| quote.starts_with(rest)) {
            return Read::Partly(0);
        }
        let is_bare = |c: char| c.is_alphanumeric() || "+-._".contains(c);
        let end = rest.find(|c| !is_bare(c));
        if end.unwrap_or(rest.len()) > BARE {
            return Read::Broken(0);
        }
        // What follows decides where it ends.
        let Some(end) = end else { return Read::Partly(0) };
        let bare = &rest[..end];
        if is_key {
            if self.dialect != Dialect::Gemma || bare.is_empty() {
                return Read::Broken(0);
            }
            self.write("\"", out);
            out.push_str(bare);
            out.push('"');
            self.state = State::Colon;
            return Read::Taken(end);
        }
        let json = match bare {
            "true" | "True" => "true",
            "false" | "False" => "false",
            "null" | "None" => "null",
            number if serde_json::from_str::<serde_json::Number>(number).is_ok() => number,
            _ => return Read::Broken(0),
        };
        self.write(json, out);
        self.end_value();
        Read::Taken(end)
    }

    fn string(&mut self, rest: &str, quote: &'static str, is_key: bool, out: &mut String) -> Read {
        let has_escapes = quote != GEMMA_QUOTE;
        let first = quote.as_bytes()[0];
        let special = |&byte: &u8| byte == first || byte < 0x20 || byte == b'"' || byte == b'\\';
        let plain = rest.as_bytes().iter().position(special).unwrap_or(rest.len());
        out.push_str(&rest[..plain]);
        let text = &rest[plain..];
        let Some(c) = text.chars().next() else { return Read::Partly(plain) };
        if text.starts_with(quote) {
            out.push('"');
            if is_key {
                self.state = State::Colon;
            } else {
                self.end_value();
            }
            return Read::Taken(plain + quote.len());
        }
        if quote.starts_with(text) {
            return Read::Partly(plain);
        }
        if c == '\\' && has_escapes {
            return match escape(text, self.dialect == Dialect::Python, out) {
                Read::Taken(len) => Read::Taken(plain + len),
                Read::Partly(_) => Read::Partly(plain),
                Read::Broken(_) => Read::Broken(plain),
            };
        }
        push_escaped(c, out);
        Read::Taken(plain + c.len_utf8())
    }

    /// Whether only an object may come next.
    fn is_top_object(&self) -> bool {
        self.is_object && self.open.is_empty()
    }

    fn write(&mut self, token: &str, out: &mut String) {
        out.push_str(&self.gap);
        self.gap.clear();
        out.push_str(token);
    }

    fn close(&mut self, bracket: &str, out: &mut String) {
        self.gap.retain(|c| c != ',');
        self.write(bracket, out);
        self.open.pop();
        self.end_value();
    }

    fn end_value(&mut self) {
        self.state = if self.open.is_empty() { State::Done } else { State::After };
    }
}

/// What was read of the beginning of a text.
enum Read {
    Taken(usize),
    /// This much, and more text decides on the rest.
    Partly(usize),
    /// This much, and what follows is nonsense.
    Broken(usize),
}

/// An escape sequence as JSON has it. Python keeps the backslash of those that it does not know; in JSON they have no meaning.
fn escape(text: &str, is_python: bool, out: &mut String) -> Read {
    let Some(c) = text[1..].chars().next() else { return Read::Partly(0) };
    match c {
        '"' | '\\' | 'b' | 'f' | 'n' | 'r' | 't' => out.extend(['\\', c]),
        '/' if !is_python => out.push_str("\\/"),
        '\'' => out.push('\''),
        'u' => return unicode(text, out),
        'x' if is_python => {
            let Some(digits) = text.get(2..4) else {
                return if text.len() < 4 { Read::Partly(0) } else { Read::Broken(0) };
            };
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Read::Broken(0);
            }
            out.push_str("\\u00");
            out.push_str(digits);
            return Read::Taken(4);
        }
        '\n' if is_python => {}
        // Octal digits and names of characters.
        '0'..='9' | 'a' | 'v' | 'N' | 'U' => return Read::Broken(0),
        c if is_python => {
            out.push_str("\\\\");
            push_escaped(c, out);
        }
        _ => return Read::Broken(0),
    }
    Read::Taken(1 + c.len_utf8())
}

/// `\uXXXX`, or two of them that make a pair of surrogates.
fn unicode(text: &str, out: &mut String) -> Read {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let is_begun = |text: &str| {
        text.len() < 6
            && text.bytes().enumerate().all(|(at, byte)| match at {
                0 => byte == b'\\',
                1 => byte == b'u',
                _ => byte.is_ascii_hexdigit(),
            })
    };
    let Some(first) = unit(text) else {
        return if is_begun(text) { Read::Partly(0) } else { Read::Broken(0) };
    };
    let len = match first {
        0xD800..0xDC00 => match unit(&text[6..]) {
            Some(0xDC00..0xE000) => 12,
            None if is_begun(&text[6..]) => return Read::Partly(0),
            _ => return Read::Broken(0),
        },
        0xDC00..0xE000 => return Read::Broken(0),
        _ => 6,
    };
    out.push_str(&text[..len]);
    Read::Taken(len)
}

/// Appends a character of a string as JSON has it.
pub(super) fn push_escaped(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if (c as u32) < 0x20 => {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{:04x}", c as u32);
        }
        c => out.push(c),
    }
}
