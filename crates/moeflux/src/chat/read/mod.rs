//! What stands between the markers of a call.

mod json;
mod xml;

use serde_json::value::RawValue;

pub(super) use self::json::SEPARATOR;

use super::Syntax;
use super::tools::Tools;

/// A call as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// A JSON object.
    pub(super) arguments: String,
}

/// Why there is no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    /// There may be one with more text: what looks like the end marker may be part of a value.
    Incomplete,
    /// Nothing can make it one.
    Nonsense,
}

/// The call that a text is.
pub(super) fn call(syntax: Syntax, body: &str, tools: &Tools) -> Result<Call, Defect> {
    match syntax {
        Syntax::Xml => xml::qwen(body, tools),
        Syntax::GlmLines | Syntax::Glm => xml::glm(body, tools),
        Syntax::Hermes => json::hermes(body),
        Syntax::DeepSeek | Syntax::DeepSeekFenced => json::deepseek(body),
    }
}

/// A call with arguments of JSON.
pub(super) fn json_call(name: &str, arguments: &str) -> Result<Call, Defect> {
    let arguments = match arguments.trim() {
        "" => "{}",
        arguments => object(arguments)?,
    };
    Ok(Call { name: checked(name)?, arguments: arguments.to_owned() })
}

/// The text itself, if it is a JSON object.
fn object(text: &str) -> Result<&str, Defect> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| Defect::of(&error))?;
    if raw.get().starts_with('{') { Ok(raw.get()) } else { Err(Defect::Nonsense) }
}

/// The name of a tool, if it can be one.
fn checked(name: &str) -> Result<String, Defect> {
    let name = name.trim();
    let is_name = |c: char| c.is_alphanumeric() || "_-.:/".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(Defect::Nonsense);
    }
    Ok(name.to_owned())
}

impl Defect {
    fn of(error: &serde_json::Error) -> Self {
        if error.is_eof() { Self::Incomplete } else { Self::Nonsense }
    }
}
