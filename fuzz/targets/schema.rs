//! Whatever schema the bytes stand for: it is refused with a measure that is beyond its limit, or it compiles or is refused
//! within seconds, and then allows a token.
#![no_main]

mod support;

use libfuzzer_sys::fuzz_target;
use moeflux::sampling::Constraint;
use serde_json::{Map, Value, json};
use support::Bytes;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Bytes::new(bytes);
    let definitions = usize::from(bytes.next()) * usize::from(bytes.next() % 16);
    let mut defs = Map::new();
    for index in 0..definitions {
        defs.insert(format!("a{index}"), schema(&mut bytes, index, 3));
    }
    let mut root = schema(&mut bytes, definitions, 4);
    if let Value::Object(root) = &mut root {
        root.insert("$defs".to_owned(), Value::Object(defs));
    }
    support::compile(&Constraint::JsonSchema(root));
});

/// A schema that may refer to the definition after `index`.
fn schema(bytes: &mut Bytes<'_>, index: usize, depth: usize) -> Value {
    let next = |bytes: &mut Bytes<'_>| match bytes.next() % 8 {
        0 => json!({ "$ref": "#" }),
        1 => json!({ "$ref": format!("#/$defs/a{}", bytes.next()) }),
        2 => json!({ "$ref": bytes.text() }),
        3 if depth > 0 => schema(bytes, index, depth - 1),
        _ => json!({ "$ref": format!("#/$defs/a{}", index + 1) }),
    };
    let some = usize::from(bytes.next() % 5);
    let count = 1_u64 << (bytes.next() % 40);
    match bytes.next() % 14 {
        0 => {
            json!({ "type": "object", "properties": { "x": next(bytes), "y": next(bytes) }, "required": ["x"] })
        }
        1 => json!({ "type": "array", "items": next(bytes), "minItems": count, "maxItems": count * 2 }),
        2 => json!({ "anyOf": (0..some).map(|_| next(bytes)).collect::<Value>() }),
        3 => json!({ "oneOf": (0..some).map(|_| next(bytes)).collect::<Value>() }),
        4 => json!({ "allOf": (0..some).map(|_| next(bytes)).collect::<Value>(), "type": "object" }),
        5 => json!({ "type": "string", "minLength": count, "maxLength": count * 3 }),
        6 => json!({ "type": "string", "pattern": bytes.text() }),
        7 => json!({ "enum": (0..some).map(|_| Value::from(bytes.text())).collect::<Value>() }),
        8 => {
            json!({ "type": "integer", "minimum": -(count as i64), "maximum": count, "multipleOf": bytes.next() })
        }
        9 => json!({ "type": "number", "exclusiveMinimum": f64::from(bytes.next()) / 7.0, "maximum": 1e300 }),
        10 => {
            let properties: Map<String, Value> =
                (0..count.min(600)).map(|name| (format!("p{name}"), json!({ "type": "number" }))).collect();
            json!({ "type": "object", "properties": properties, "additionalProperties": next(bytes) })
        }
        11 => json!({ "type": "string", "format": bytes.text(), bytes.text(): next(bytes) }),
        12 => json!({ "patternProperties": { bytes.text(): next(bytes) }, "minProperties": count }),
        _ => next(bytes),
    }
}
