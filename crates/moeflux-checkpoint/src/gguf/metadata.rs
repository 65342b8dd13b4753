//! The key-value pairs at the start of a GGUF file.

use crate::error::Error;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Longest text that an error repeats, in characters.
const SHOWN: usize = 80;

/// A value, its integers and floats widened.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "one value or an array, of the type that the name says")]
pub enum Value {
    Flag(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Flags(Vec<bool>),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Flag(value) => write!(f, "{value}"),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Text(value) => match value.char_indices().nth(SHOWN) {
                Some((end, _)) => write!(f, "{:?}…", &value[..end]),
                None => write!(f, "{value:?}"),
            },
            Value::Flags(values) => write!(f, "{} truth values", values.len()),
            Value::Integers(values) => write!(f, "{} whole numbers", values.len()),
            Value::Floats(values) => write!(f, "{} numbers", values.len()),
            Value::Texts(values) => write!(f, "{} strings", values.len()),
        }
    }
}

/// A file's key-value pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
    /// Where the pairs end in the file.
    pub(super) end: usize,
}

impl Metadata {
    /// No pairs yet; `path` names the file in errors.
    pub(super) fn new(path: &Path) -> Self {
        Metadata { path: path.to_owned(), values: BTreeMap::new(), end: 0 }
    }

    /// Sets a key; false if it has a value already.
    pub(super) fn insert(&mut self, key: String, value: Value) -> bool {
        self.values.insert(key, value).is_none()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// A value through `convert`; an error if it is there and `convert` refuses it.
    pub fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.wrong(key, expected))
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        self.read(key, "a string", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A truth value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        self.read(key, "true or false", |value| match value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A whole number that is not negative.
    pub fn whole(&self, key: &str) -> Result<Option<u64>, Error> {
        self.read(key, "a whole number", |value| match value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        })
    }

    /// Strings.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, Error> {
        self.read(key, "strings", |value| match value {
            Value::Texts(texts) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// Whole numbers.
    pub fn integers(&self, key: &str) -> Result<Option<&[i64]>, Error> {
        self.read(key, "whole numbers", |value| match value {
            Value::Integers(numbers) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// Numbers.
    pub fn floats(&self, key: &str) -> Result<Option<&[f64]>, Error> {
        self.read(key, "numbers", |value| match value {
            Value::Floats(numbers) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// The error for a key that is missing or has a value other than `expected`.
    pub fn wrong(&self, key: &str, expected: &str) -> Error {
        let (path, field, expected) = (self.path.clone(), key.to_owned(), expected.to_owned());
        match self.get(key) {
            None => Error::MissingField { path, field, expected },
            Some(value) => Error::Field { path, field, expected, found: value.to_string() },
        }
    }
}
