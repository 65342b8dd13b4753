//! JSON schemas at random, each with finitely many documents, so that an output that meets one must end.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

/// The schema that belongs to a number.
pub(crate) fn schema(seed: u64) -> Value {
    let mut dice = Dice(ChaCha8Rng::seed_from_u64(seed));
    let mut schema = dice.schema(3);
    // A part that is referred to from elsewhere.
    if dice.one_in(4) {
        let shared = dice.schema(1);
        schema = json!({
            "$defs": { "shared": shared },
            "type": "object",
            "properties": { "first": { "$ref": "#/$defs/shared" }, "second": schema, "third": { "$ref": "#/$defs/shared" } },
            "required": ["first", "second"],
            "additionalProperties": false,
        });
    }
    schema
}

struct Dice(ChaCha8Rng);

impl Dice {
    /// A number below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn schema(&mut self, depth: u64) -> Value {
        let kinds = if depth == 0 { 7 } else { 11 };
        match self.below(kinds) {
            0 | 1 => self.string(),
            2 => self.integer(),
            3 => self.decimal(),
            4 => json!({ "type": (["boolean", "null"])[self.below(2) as usize] }),
            5 => self.choice(),
            6 => json!({ "const": self.value() }),
            7 => self.array(depth - 1),
            8 => json!({ "anyOf": [self.schema(depth - 1), self.schema(depth - 1)] }),
            _ => self.object(depth - 1),
        }
    }

    fn string(&mut self) -> Value {
        match self.below(5) {
            0 => json!({ "type": "string", "pattern": "^[A-Z][a-z]{1,6}( [A-Z][a-z]{1,6}){0,2}$" }),
            1 => json!({ "type": "string", "pattern": "^(\\+|-)?[0-9]{2,4}$" }),
            2 => json!({ "type": "string", "format": (["uuid", "ipv4", "date"])[self.below(2) as usize] }),
            _ => {
                let shortest = self.below(4);
                json!({ "type": "string", "minLength": shortest, "maxLength": shortest + self.below(12) })
            }
        }
    }

    fn integer(&mut self) -> Value {
        let least = self.below(2000) as i64 - 1000;
        let schema =
            json!({ "type": "integer", "minimum": least, "maximum": least + self.below(500) as i64 });
        if self.one_in(3) {
            json!({ "type": "integer", "exclusiveMinimum": -5, "maximum": 5 })
        } else {
            schema
        }
    }

    /// Numbers with a bounded fraction.
    fn decimal(&mut self) -> Value {
        json!({ "enum": [0, -1.5, 3.25, self.below(1000), 1e10] })
    }

    fn value(&mut self) -> Value {
        match self.below(5) {
            0 => json!("naïve \"quoted\" \\ line\nbreak 日本 🙂"),
            1 => json!(self.below(100)),
            2 => json!({ "a": [1, true, null], "": "empty" }),
            3 => json!(false),
            _ => json!("plain"),
        }
    }

    fn choice(&mut self) -> Value {
        let values: Vec<Value> = (0..=self.below(4)).map(|_| self.value()).collect();
        json!({ "enum": values })
    }

    fn array(&mut self, depth: u64) -> Value {
        let least = self.below(3);
        let items = self.schema(depth);
        if self.one_in(4) {
            let prefix = [self.schema(depth), self.schema(depth)];
            return json!({ "type": "array", "prefixItems": prefix, "items": false, "minItems": 2 });
        }
        json!({ "type": "array", "items": items, "minItems": least, "maxItems": least + self.below(3) })
    }

    fn object(&mut self, depth: u64) -> Value {
        let names = ["name", "age", "tags", "a key", "ключ", "id", "q\"uote"];
        let first = self.below(names.len() as u64) as usize;
        let mut properties = Map::new();
        let mut required = Vec::new();
        for index in 0..=self.below(4) as usize {
            let name = names[(first + index) % names.len()];
            properties.insert(name.to_owned(), self.schema(depth));
            if !self.one_in(3) {
                required.push(name);
            }
        }
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    }
}
