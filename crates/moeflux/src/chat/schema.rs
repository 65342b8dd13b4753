//! Values that are written as bare text: what they are, only the tool's schema says.

use std::cell::Cell;

use serde_json::Value;
use serde_json::value::RawValue;

/// How deep references and combinations are followed, and how many of them: they may name the same ones again.
const DEPTH: usize = 8;
const FOLLOWED: usize = 1000;

/// The JSON types that a value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Types(u8);

const STRING: Types = Types::STRING;
const NUMBER: Types = Types(2);
const INTEGER: Types = Types(4);
const BOOLEAN: Types = Types(8);
const NULL: Types = Types(16);
const OBJECT: Types = Types(32);
const ARRAY: Types = Types(64);

impl Types {
    /// All of them.
    pub(super) const ANY: Self = Self(127);
    /// Strings alone.
    pub(super) const STRING: Self = Self(1);

    /// What a schema allows. `root` is where its references lead.
    pub(super) fn of(schema: &Value, root: &Value) -> Self {
        Self::at(schema, root, 0, &Cell::new(FOLLOWED))
    }

    /// Whether text as it stands is a value.
    pub(super) fn has_string(self) -> bool {
        self.meets(STRING)
    }

    /// Whether a value that begins like this is a string, whatever follows: no other type is allowed, or none that could begin
    /// so. The beginning of a number may become a date.
    pub(super) fn is_string_for_certain(self, begun: &str) -> bool {
        if self == STRING {
            return true;
        }
        let begun = begun.trim_start();
        let could_be =
            |words: &[&str]| words.iter().any(|word| word.starts_with(begun) || begun.trim_end() == *word);
        let others = [
            (NULL, could_be(&["null", "None"])),
            (BOOLEAN, could_be(&["true", "false", "True", "False"])),
            (
                NUMBER.or(INTEGER),
                begun.is_empty() || begun.starts_with(|c: char| c == '-' || c.is_ascii_digit()),
            ),
            (OBJECT, begun.is_empty() || begun.starts_with('{')),
            (ARRAY, begun.is_empty() || begun.starts_with('[')),
        ];
        self.has_string() && !others.iter().any(|&(types, could)| self.meets(types) && could)
    }

    fn at(schema: &Value, root: &Value, depth: usize, left: &Cell<usize>) -> Self {
        let Some(schema) = schema.as_object().filter(|_| depth < DEPTH && left.get() > 0) else {
            return Self::ANY;
        };
        left.set(left.get() - 1);
        let mut types = Self::ANY;
        let join = |schemas: &[Value], of: &dyn Fn(&Value) -> Types| {
            schemas.iter().fold(Types(0), |types, schema| types.or(of(schema)))
        };
        let deeper = |schema: &Value| Self::at(schema, root, depth + 1, left);
        for (key, value) in schema {
            types = types.and(match (key.as_str(), value) {
                ("type", Value::String(name)) => Self::named(name),
                ("type", Value::Array(names)) => {
                    join(names, &|name| name.as_str().map_or(Self::ANY, Self::named))
                }
                ("enum", Value::Array(values)) => join(values, &Self::of_value),
                ("const", value) => Self::of_value(value),
                ("anyOf" | "oneOf", Value::Array(schemas)) => join(schemas, &deeper),
                ("allOf", Value::Array(schemas)) => {
                    schemas.iter().fold(Self::ANY, |types, schema| types.and(deeper(schema)))
                }
                ("$ref", Value::String(path)) => {
                    path.strip_prefix('#').and_then(|path| root.pointer(path)).map_or(Self::ANY, deeper)
                }
                _ => Self::ANY,
            });
        }
        if schema.get("nullable") == Some(&Value::Bool(true)) { types.or(NULL) } else { types }
    }

    fn named(name: &str) -> Self {
        match name {
            "string" => STRING,
            "number" => NUMBER.or(INTEGER),
            "integer" => INTEGER,
            "boolean" => BOOLEAN,
            "null" => NULL,
            "object" => OBJECT,
            "array" => ARRAY,
            _ => Self::ANY,
        }
    }

    fn of_value(value: &Value) -> Self {
        match value {
            Value::String(_) => STRING,
            Value::Number(number) if number.is_f64() && number.as_f64().is_none_or(|n| n.fract() != 0.0) => {
                NUMBER
            }
            Value::Number(_) => INTEGER,
            Value::Bool(_) => BOOLEAN,
            Value::Null => NULL,
            Value::Object(_) => OBJECT,
            Value::Array(_) => ARRAY,
        }
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The JSON text of a value that was written as bare text. Text that is JSON of another type than string, where such is
/// allowed, stands for that; all else is a string, also where none is allowed: the tool can then say what is wrong.
pub(super) fn value(types: Types, text: &str) -> String {
    let bare = match text.trim() {
        // Templates that print values in Python's way teach models to do the same.
        "True" => "true",
        "False" => "false",
        "None" => "null",
        bare => bare,
    };
    let json = serde_json::from_str::<&RawValue>(bare).ok().zip(serde_json::from_str::<Value>(bare).ok());
    match json.map(|(raw, value)| (raw, Types::of_value(&value))) {
        Some((raw, of)) if of != STRING && types.meets(of) => raw.get().to_owned(),
        _ => Value::from(text).to_string(),
    }
}
