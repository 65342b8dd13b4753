//! What a JSON schema will cost.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    ALTERNATIVES, BYTES, ConstraintLimits, DEPTH, NODES, OPTIONAL, TooLarge, deepest, measure_regex, within,
};

/// Keywords whose values are data or are only reached through references: the compiler does not descend into them.
const NOT_FOLLOWED: [&str; 8] =
    ["$defs", "definitions", "const", "enum", "default", "examples", "description", "x-guidance"];

/// Checks a schema.
pub(super) fn measure(schema: &Value, limits: &ConstraintLimits) -> Result<(), TooLarge> {
    sizes(schema, limits)?;
    let parts = Parts::of(schema, limits)?;
    within(DEPTH, deepest(&parts.levels, &parts.edges), limits.depth)?;
    parts.alternatives(limits)
}

/// Counts everything that is there, whether or not it is reached.
fn sizes(schema: &Value, limits: &ConstraintLimits) -> Result<(), TooLarge> {
    let (mut nodes, mut bytes) = (0, 0);
    let mut rest = vec![(schema, 1)];
    while let Some((value, depth)) = rest.pop() {
        nodes += 1;
        within(DEPTH, depth, limits.depth)?;
        match value {
            Value::String(text) => bytes += text.len(),
            Value::Array(values) => {
                within(NODES, nodes + rest.len() + values.len(), limits.nodes)?;
                rest.extend(values.iter().map(|value| (value, depth + 1)));
            }
            Value::Object(members) => {
                within(NODES, nodes + rest.len() + members.len(), limits.nodes)?;
                within(OPTIONAL, optional(members), limits.optional_properties)?;
                let keys = members.get("patternProperties").and_then(Value::as_object);
                let keys = keys.into_iter().flat_map(|patterns| patterns.keys().map(String::as_str));
                for pattern in members.get("pattern").and_then(Value::as_str).into_iter().chain(keys) {
                    measure_regex(pattern, limits)?;
                }
                bytes += members.keys().map(String::len).sum::<usize>();
                rest.extend(members.values().map(|value| (value, depth + 1)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => bytes += 8,
        }
        within(BYTES, bytes, limits.bytes)?;
    }
    Ok(())
}

/// How many properties of an object may be missing.
fn optional(members: &Map<String, Value>) -> usize {
    let Some(Value::Object(properties)) = members.get("properties") else { return 0 };
    let required = members.get("required").and_then(Value::as_array).map_or(0, |names| {
        let names: std::collections::HashSet<&str> = names.iter().filter_map(Value::as_str).collect();
        names.iter().filter(|name| properties.contains_key(**name)).count()
    });
    properties.len() - required
}

/// The root and everything that references lead to.
struct Parts<'s> {
    root: &'s Value,
    schemas: Vec<&'s Value>,
    /// By the reference's text; references to one place by two names are two parts.
    names: HashMap<&'s str, usize>,
    /// Levels of each part, up to its references.
    levels: Vec<usize>,
    /// The parts that each refers to.
    edges: Vec<Vec<usize>>,
}

impl<'s> Parts<'s> {
    fn of(root: &'s Value, limits: &ConstraintLimits) -> Result<Self, TooLarge> {
        let (schemas, names) = (vec![root], HashMap::new());
        let mut parts = Parts { root, schemas, names, levels: Vec::new(), edges: Vec::new() };
        let mut walked = 0;
        while let Some(&schema) = parts.schemas.get(parts.levels.len()) {
            let (mut levels, mut edges) = (0, Vec::new());
            let mut rest = vec![(schema, 1)];
            while let Some((value, depth)) = rest.pop() {
                walked += 1;
                // Parts may lie within each other, so the same values may be walked again.
                within(NODES, walked, limits.nodes.saturating_mul(8))?;
                levels = levels.max(depth);
                match value {
                    Value::Array(values) => rest.extend(values.iter().map(|value| (value, depth + 1))),
                    Value::Object(members) => {
                        if let Some(part) = reference(members).and_then(|name| parts.part(name)) {
                            edges.push(part);
                        }
                        let followed =
                            members.iter().filter(|(key, _)| !NOT_FOLLOWED.contains(&key.as_str()));
                        rest.extend(followed.map(|(_, value)| (value, depth + 1)));
                    }
                    _ => {}
                }
            }
            parts.levels.push(levels);
            parts.edges.push(edges);
        }
        Ok(parts)
    }

    /// The part of a reference; `None` if it leads nowhere, which the compiler will say.
    fn part(&mut self, name: &'s str) -> Option<usize> {
        if let Some(&part) = self.names.get(name) {
            return Some(part);
        }
        let path = name.strip_prefix('#')?;
        let schema = if path == "/" { self.root } else { self.root.pointer(path)? };
        self.schemas.push(schema);
        self.names.insert(name, self.schemas.len() - 1);
        Some(self.schemas.len() - 1)
    }

    /// Checks in how many ways each place can be read. The depth has been checked, so recursion is bounded.
    fn alternatives(&self, limits: &ConstraintLimits) -> Result<(), TooLarge> {
        let mut known = vec![None; self.schemas.len()];
        for &schema in &self.schemas {
            let mut rest = vec![schema];
            while let Some(value) = rest.pop() {
                match value {
                    Value::Array(values) => rest.extend(values),
                    Value::Object(members) => {
                        within(ALTERNATIVES, self.ways(value, &mut known), limits.alternatives)?;
                        let followed =
                            members.iter().filter(|(key, _)| !NOT_FOLLOWED.contains(&key.as_str()));
                        rest.extend(followed.map(|(_, value)| value));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Ways to read a schema where it stands: what it holds further in counts there.
    fn ways(&self, schema: &Value, known: &mut [Option<usize>]) -> usize {
        let Value::Object(members) = schema else { return 1 };
        let mut ways = 1_usize;
        for (key, value) in members {
            ways = ways.saturating_mul(match (key.as_str(), value) {
                ("anyOf" | "oneOf", Value::Array(of)) => of
                    .iter()
                    .fold(0, |sum: usize, schema| sum.saturating_add(self.ways(schema, known)))
                    .max(1),
                ("allOf", Value::Array(of)) => of
                    .iter()
                    .fold(1, |product: usize, schema| product.saturating_mul(self.ways(schema, known))),
                ("$ref", Value::String(name)) => match self.names.get(name.as_str()) {
                    Some(&part) => match known[part] {
                        Some(ways) => ways,
                        None => {
                            // Where it refers to itself, that counts as one.
                            known[part] = Some(1);
                            let ways = self.ways(self.schemas[part], known);
                            known[part] = Some(ways);
                            ways
                        }
                    },
                    None => 1,
                },
                _ => 1,
            });
        }
        ways
    }
}

fn reference(members: &Map<String, Value>) -> Option<&str> {
    members.get("$ref").and_then(Value::as_str)
}
