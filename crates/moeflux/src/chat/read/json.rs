//! Calls whose arguments are JSON.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Call, Defect, json_call};

#[derive(Deserialize)]
struct Hermes<'a> {
    name: String,
    #[serde(borrow, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

/// `{"name": NAME, "arguments": {…}}`, where the arguments may be JSON in a string.
pub(super) fn hermes(body: &str) -> Result<Call, Defect> {
    if body.trim().is_empty() {
        return Err(Defect::Nonsense);
    }
    let call: Hermes = serde_json::from_str(body).map_err(|error| Defect::of(&error))?;
    let arguments = match call.arguments.map(RawValue::get) {
        None | Some("null") => return json_call(&call.name, ""),
        Some(arguments) => arguments,
    };
    let quoted = arguments.starts_with('"').then(|| serde_json::from_str::<String>(arguments));
    // All of it is there, so nothing that follows can complete it.
    match quoted.transpose().map_err(|_| Defect::Nonsense)? {
        Some(inner) => json_call(&call.name, &inner),
        None => json_call(&call.name, arguments),
    }
    .map_err(|_| Defect::Nonsense)
}

/// What separates name and arguments, or kind and name.
pub(in crate::chat) const SEPARATOR: &str = "<｜tool▁sep｜>";

/// `NAME separator {…}`, or `function separator NAME`, a line break and the arguments in a fenced block.
pub(super) fn deepseek(body: &str) -> Result<Call, Defect> {
    let (before, after) = body.split_once(SEPARATOR).ok_or(Defect::Nonsense)?;
    if after.trim_start().starts_with('{') {
        return json_call(before, after);
    }
    let (name, block) = after.split_once('\n').ok_or(Defect::Nonsense)?;
    let block = block.trim();
    let arguments = block.strip_prefix("```json").ok_or(Defect::Nonsense)?;
    json_call(name, arguments.strip_suffix("```").ok_or(Defect::Incomplete)?)
}
