//! Reading a JSON object field by field, and knowing at the end which ones nobody asked for.

use super::ignored::{self, IgnoredField};
use crate::error::Error;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;

/// Longest value that an error repeats, in characters.
const SHOWN: usize = 80;

/// A JSON object being read. `null` counts as absent.
pub(crate) struct Fields<'a> {
    path: &'a Path,
    /// Where the object sits in the file: empty, or ends with a dot.
    prefix: String,
    map: &'a Map<String, Value>,
    known: HashSet<&'a str>,
    ignored: &'a [String],
    /// Fields of the whole file that were passed over so far, with the reasons.
    passed_over: &'a RefCell<Vec<IgnoredField>>,
}

/// Why a field is passed over that nothing here knows.
const ASKED_FOR: &str = "unknown, and listed to be ignored";

impl<'a> Fields<'a> {
    /// The object at the top of the file `path`; `ignored` lists dotted fields that may be unknown, `passed_over` takes
    /// note of those that are not used.
    pub(crate) fn new(
        path: &'a Path,
        map: &'a Map<String, Value>,
        ignored: &'a [String],
        passed_over: &'a RefCell<Vec<IgnoredField>>,
    ) -> Self {
        Fields { path, prefix: String::new(), map, known: HashSet::new(), ignored, passed_over }
    }

    /// The value of a field, which is known from now on.
    pub(crate) fn value(&mut self, name: &str) -> Option<&'a Value> {
        let (name, value) = self.map.get_key_value(name)?;
        self.known.insert(name);
        (!value.is_null()).then_some(value)
    }

    /// A field through `convert`; `expected` says what it accepts.
    pub(crate) fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.wrong(name, expected))
    }

    /// An object.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Fields<'a>>, Error> {
        let map = self.read(name, "an object", Value::as_object)?;
        Ok(map.map(|map| Fields {
            prefix: format!("{}{name}.", self.prefix),
            known: HashSet::new(),
            map,
            ..*self
        }))
    }

    /// A string.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<&'a str>, Error> {
        self.read(name, "a string", Value::as_str)
    }

    /// A truth value.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Error> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A finite number above 0.
    pub(crate) fn positive(&mut self, name: &str) -> Result<Option<f64>, Error> {
        self.read(name, "a number above 0", |value| value.as_f64().filter(|x| *x > 0.0 && x.is_finite()))
    }

    /// A whole number from `min` to `max`.
    pub(crate) fn whole(&mut self, name: &str, min: usize, max: usize) -> Result<Option<usize>, Error> {
        self.read(name, &format!("a whole number from {min} to {max}"), |value| {
            value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (min..=max).contains(n))
        })
    }

    /// A whole number from 1 to `max` that must be there.
    pub(crate) fn size(&mut self, name: &str, max: usize) -> Result<usize, Error> {
        self.whole(name, 1, max)?.ok_or_else(|| self.wrong(name, &format!("a whole number from 1 to {max}")))
    }

    /// Refuses a field that is there with another value than those supported.
    pub(crate) fn only(&mut self, name: &str, supported: &[Value]) -> Result<(), Error> {
        match self.value(name) {
            Some(value) if !supported.contains(value) => {
                let supported: Vec<String> = supported.iter().map(Value::to_string).collect();
                Err(self.wrong(name, &supported.join(" or ")))
            }
            _ => Ok(()),
        }
    }

    /// Passes over fields that change nothing in this family, and says why.
    pub(crate) fn pass_over(&mut self, reason: &'static str, names: &[&str]) {
        for name in names {
            if self.value(name).is_some() {
                self.passed_over.borrow_mut().push(IgnoredField { field: self.dotted(name), reason });
            }
        }
    }

    /// Passes over fields that change nothing in any family: see [`ignored`].
    pub(crate) fn pass_over_ignorable(&mut self) -> Result<(), Error> {
        for (name, value) in self.map {
            if let Some(reason) = ignored::reason(name) {
                self.pass_over(reason, &[name]);
            } else if ignored::harmless(name, value) == Some(true) {
                self.value(name);
            } else if ignored::harmless(name, value) == Some(false) && !value.is_null() {
                return Err(self.wrong(name, "false"));
            }
        }
        Ok(())
    }

    /// Fields that were not read yet, without empty ones and without those that the caller lists to be ignored.
    pub(crate) fn rest(&self) -> Vec<(&'a str, &'a Value)> {
        self.unread().filter(|(name, _)| !self.ignored.contains(&self.dotted(name))).collect()
    }

    /// Refuses the object if it has a field that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), Error> {
        if let Some((name, value)) = self.rest().first() {
            return Err(Error::UnknownField {
                path: self.path.to_owned(),
                field: self.dotted(name),
                found: shown(value),
            });
        }
        let note = |(name, _)| IgnoredField { field: self.dotted(name), reason: ASKED_FOR };
        self.passed_over.borrow_mut().extend(self.unread().map(note));
        Ok(())
    }

    fn unread(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let unread = |(name, value): &(&String, &Value)| {
            !ignored::is_empty(value) && !self.known.contains(name.as_str())
        };
        self.map.iter().filter(unread).map(|(name, value)| (name.as_str(), value))
    }

    /// The error for a field that is missing or has a value other than `expected`.
    pub(crate) fn wrong(&self, name: &str, expected: &str) -> Error {
        let (path, field, expected) = (self.path.to_owned(), self.dotted(name), expected.to_owned());
        match self.map.get(name) {
            None | Some(Value::Null) => Error::MissingField { path, field, expected },
            Some(value) => Error::Field { path, field, expected, found: shown(value) },
        }
    }

    /// The error for a field whose value, taken together with others, is impossible.
    pub(crate) fn impossible(&self, name: &str, expected: String, found: &impl ToString) -> Error {
        Error::Field {
            path: self.path.to_owned(),
            field: self.dotted(name),
            expected,
            found: found.to_string(),
        }
    }

    fn dotted(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// A value as errors show it.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
