//! What a schema says only as a remark.

use serde_json::{Map, Value};

/// Formats of strings that are enforced.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];
/// Keywords with a schema, with a list of schemas, and with schemas by name.
const SCHEMAS: [&str; 9] = [
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "additionalItems",
];
const LISTS: [&str; 5] = ["anyOf", "oneOf", "allOf", "prefixItems", "items"];
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// How deep schemas are followed; deeper ones are refused when they are measured.
const DEPTH: usize = 512;

/// A schema without formats that are not enforced: JSON Schema has them as remarks.
pub(crate) fn without_unknown_formats(mut schema: Map<String, Value>) -> Map<String, Value> {
    clean(&mut schema, 0);
    schema
}

fn clean(schema: &mut Map<String, Value>, depth: usize) {
    if depth > DEPTH {
        return;
    }
    let is_unknown = |format: &Value| format.as_str().is_some_and(|format| !FORMATS.contains(&format));
    if schema.get("format").is_some_and(is_unknown) {
        schema.shift_remove("format");
    }
    for (key, value) in schema.iter_mut() {
        let key = key.as_str();
        match value {
            Value::Object(schema) if SCHEMAS.contains(&key) => clean(schema, depth + 1),
            Value::Object(schemas) if NAMED.contains(&key) => clean_each(schemas.values_mut(), depth),
            Value::Array(schemas) if LISTS.contains(&key) => clean_each(schemas.iter_mut(), depth),
            _ => {}
        }
    }
}

fn clean_each<'s>(schemas: impl Iterator<Item = &'s mut Value>, depth: usize) {
    for schema in schemas.filter_map(Value::as_object_mut) {
        clean(schema, depth + 1);
    }
}
