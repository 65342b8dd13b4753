//! Calls whose arguments are bare text between tags.

use serde_json::Value;

use super::super::schema::{self, Types};
use super::super::tools::Tools;
use super::{Call, Defect, checked};

/// `<function=NAME>`, then for each argument `<parameter=KEY>`, a line break, the value, a line break, `</parameter>`, and
/// `</function>`.
pub(super) fn qwen(body: &str, tools: &Tools) -> Result<Call, Defect> {
    let (name, mut rest) = tag(body, "<function=", ">")?;
    let mut arguments = Arguments::of(name, tools)?;
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix("</function>") {
            if !after.trim().is_empty() {
                return Err(Defect::Nonsense);
            }
            return Ok(arguments.finish());
        }
        let (key, after) = tag(rest, "<parameter=", ">")?;
        let end = value_end(after).ok_or(Defect::Incomplete)?;
        let value = after[..end].strip_prefix('\n').unwrap_or(&after[..end]);
        arguments.push(key.trim(), value.strip_suffix('\n').unwrap_or(value))?;
        rest = &after[end + PARAMETER_END.len()..];
    }
}

const PARAMETER_END: &str = "</parameter>";

/// Where a value ends: at the first end tag that another argument or the call's end follows, since a value may be text
/// with such tags.
fn value_end(text: &str) -> Option<usize> {
    text.match_indices(PARAMETER_END).map(|(at, _)| at).find(|at| {
        let next = text[at + PARAMETER_END.len()..].trim_start();
        next.starts_with("<parameter=") || next.starts_with("</function>")
    })
}

/// The name, then for each argument `<arg_key>KEY</arg_key>` and `<arg_value>VALUE</arg_value>`.
pub(super) fn glm(body: &str, tools: &Tools) -> Result<Call, Defect> {
    let end = body.find(KEY).unwrap_or(body.len());
    let (name, mut rest) = body.split_at(end);
    let mut arguments = Arguments::of(name, tools)?;
    while !rest.trim().is_empty() {
        let (key, after) = tag(rest, KEY, "</arg_key>")?;
        let (value, after) = tag(after, "<arg_value>", "</arg_value>")?;
        arguments.push(key.trim(), value)?;
        rest = after;
    }
    Ok(arguments.finish())
}

const KEY: &str = "<arg_key>";

/// What stands between two marks at the start of a text, and what follows.
fn tag<'t>(text: &'t str, open: &str, close: &str) -> Result<(&'t str, &'t str), Defect> {
    let text = text.trim_start();
    let Some(inner) = text.strip_prefix(open) else {
        return Err(if open.starts_with(text) { Defect::Incomplete } else { Defect::Nonsense });
    };
    inner.split_once(close).ok_or(Defect::Incomplete)
}

/// Arguments as they are gathered.
struct Arguments<'t> {
    name: String,
    parameters: Option<&'t super::super::tools::Tool>,
    keys: Vec<&'t str>,
    json: String,
}

impl<'t> Arguments<'t> {
    fn of(name: &str, tools: &'t Tools) -> Result<Self, Defect> {
        let name = checked(name)?;
        let parameters = tools.get(&name);
        Ok(Self { name, parameters, keys: Vec::new(), json: String::from("{") })
    }

    fn push(&mut self, key: &'t str, text: &str) -> Result<(), Defect> {
        if key.is_empty() || self.keys.contains(&key) {
            return Err(Defect::Nonsense);
        }
        let tool = self.parameters;
        let schema = tool.and_then(|tool| Some((tool.parameter(key)?, &tool.parameters)));
        let types = schema.map_or(Types::ANY, |(schema, root)| Types::of(schema, root));
        if !self.keys.is_empty() {
            self.json.push_str(", ");
        }
        self.keys.push(key);
        self.json.push_str(&Value::from(key).to_string());
        self.json.push_str(": ");
        self.json.push_str(&schema::value(types, text));
        Ok(())
    }

    fn finish(self) -> Call {
        Call { name: self.name, arguments: self.json + "}" }
    }
}
