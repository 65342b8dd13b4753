//! The tools that may be called.

use serde_json::{Map, Value};

/// The tools that may be called, from the form of OpenAI's chat API.
#[derive(Clone, Debug, Default)]
pub(super) struct Tools(Vec<Tool>);

/// A tool.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    /// JSON schema of its arguments.
    pub(super) parameters: Value,
}

impl Tools {
    pub(super) fn new(tools: &[Value]) -> Self {
        let tool = |tool: &Value| {
            let name = name(tool)?.to_owned();
            let parameters = function(tool).get("parameters").filter(|schema| schema.is_object()).cloned();
            Some(Tool { name, parameters: parameters.unwrap_or_else(|| Value::Object(Map::new())) })
        };
        Self(tools.iter().filter_map(tool).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Tool> {
        self.0.iter()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tool> {
        self.iter().find(|tool| tool.name == name)
    }

    /// The tool that a model means by a name: the one of that name, or the only one that it can be with the namespace, the
    /// index or the quotes that models put around names.
    pub(super) fn resolve(&self, written: &str) -> Option<&Tool> {
        let written = written.trim();
        if let Some(tool) = self.get(written) {
            return Some(tool);
        }
        let bare = written.trim_matches(['"', '\'', '`']).trim();
        let bare = match bare.rsplit_once(':') {
            Some((before, index)) if !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()) => {
                before
            }
            _ => bare,
        };
        let bare = bare.strip_prefix("functions.").unwrap_or(bare);
        if let Some(tool) = self.get(bare) {
            return Some(tool);
        }
        let mut alike = self.iter().filter(|tool| !bare.is_empty() && tool.name.eq_ignore_ascii_case(bare));
        alike.next().filter(|_| alike.next().is_none())
    }
}

/// The name of a tool in that form; `None` if it has none.
pub(super) fn name(tool: &Value) -> Option<&str> {
    function(tool).get("name")?.as_str()
}

/// The function of a tool; some clients leave the object around it out.
fn function(tool: &Value) -> &Value {
    tool.get("function").unwrap_or(tool)
}

impl Tool {
    /// Whether a call has to have this argument.
    pub(super) fn requires(&self, key: &str) -> bool {
        let required = self.parameters.get("required").and_then(Value::as_array);
        required.is_some_and(|keys| keys.iter().any(|name| name == key))
    }

    /// The schema of one argument; `None` if the tool names no such argument.
    pub(super) fn parameter(&self, key: &str) -> Option<&Value> {
        self.parameters.get("properties")?.get(key)
    }
}
