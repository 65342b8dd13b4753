//! Tools that requests offer: functions, and custom tools, whose only argument is a text. Tools that need a service of the
//! API's maker are ignored.

use std::collections::BTreeSet;

use moeflux::chat::ToolChoice;
use serde_json::{Map, Value, json};

use crate::error::Failure;
use crate::fields::ignore;

/// Tools that the model may call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Offered {
    /// All of them, in the form of the chat API's functions.
    pub(crate) functions: Vec<Value>,
    /// Names of the custom tools among them.
    pub(crate) customs: BTreeSet<String>,
}

/// Most tools of a request.
const TOOLS: usize = 1024;
/// Most bytes of a tool's name.
const NAME: usize = 128;
/// The argument of a custom tool.
const INPUT: &str = "input";

/// Tools that a service of the API's maker, or a program that the model was trained with, stands behind. The names may end
/// in a version.
const SERVICES: [&str; 25] = [
    "web_search",
    "web_fetch",
    "file_search",
    "code_interpreter",
    "code_execution",
    "computer",
    "image_generation",
    "mcp",
    "local_shell",
    "shell",
    "bash",
    "text_editor",
    "memory",
    "apply_patch",
    "tool_search",
    "namespace",
    "advisor",
    "builtin_function",
    "google_search",
    "url_context",
    "browser_search",
    "x_search",
    "live_search",
    "collections_search",
    "programmatic_tool_calling",
];

/// Whether tools of this type need a service.
pub(crate) fn is_service(kind: &str) -> bool {
    SERVICES.iter().any(|service| {
        kind.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', ':']))
    })
}

/// The tools of a request, each with a name of its own.
pub(crate) fn tools(tools: Vec<Value>) -> Result<Offered, Failure> {
    if tools.len() > TOOLS {
        let message = format!("tools: expected at most {TOOLS}, found {}", tools.len());
        return Err(Failure::field("tools", message));
    }
    let mut offered = Offered::default();
    let mut names = BTreeSet::new();
    for (index, tool) in tools.into_iter().enumerate() {
        let param = format!("tools[{index}]");
        let wrong = |expected: &str| Failure::field(param.as_str(), format!("{param}: {expected}"));
        let kind = tool.get("type").and_then(Value::as_str).unwrap_or("");
        if is_service(kind) {
            ignore(&format!("tools[].{kind}"));
            continue;
        }
        let is_custom = kind == "custom";
        let own = tool.get("custom").filter(|_| is_custom);
        let fields = own.or_else(|| tool.get("function")).filter(|_| is_custom || kind == "function");
        let Some(fields) = fields.and_then(Value::as_object) else {
            let expected = "expected a tool of type function, {name, description, parameters}, or custom, {name, \
                            description, format}";
            return Err(wrong(&format!("{expected}; found type {kind:?}")));
        };
        let name =
            fields.get("name").and_then(Value::as_str).ok_or_else(|| wrong("expected a name"))?.to_owned();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || name.len() > NAME || !name.bytes().all(is_plain) {
            return Err(wrong(&format!("name: expected 1 to {NAME} letters, digits, `_`, `-` and `.`")));
        }
        if !names.insert(name.clone()) {
            return Err(wrong("name: another tool has the same name"));
        }
        if fields.get("parameters").is_some_and(|schema| !schema.is_object() && !schema.is_null()) {
            return Err(wrong("parameters: expected a JSON schema"));
        }
        let function = if is_custom {
            offered.customs.insert(name);
            custom(fields).map_err(|expected| wrong(&expected))?
        } else {
            // Templates would print null.
            let named = fields.iter().filter(|(_, value)| !value.is_null());
            named.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        offered.functions.push(json!({ "type": "function", "function": function }));
    }
    Ok(offered)
}

/// A custom tool as a function of one text.
fn custom(fields: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut description = fields.get("description").and_then(Value::as_str).unwrap_or("").to_owned();
    let mut input = json!({ "type": "string" });
    let format = fields.get("format").filter(|format| !format.is_null());
    if let Some(format) = format {
        let grammar = format.get("grammar").unwrap_or(format);
        let part = |name: &str| grammar.get(name).and_then(Value::as_str);
        let tell =
            |kind: &str, definition: &str| format!("\n\nThe input must follow this {kind}:\n{definition}");
        match (format.get("type").and_then(Value::as_str), part("syntax"), part("definition")) {
            (Some("text"), ..) => {}
            (Some("grammar"), Some("regex"), Some(definition)) => {
                description += &tell("regular expression", definition);
                input["pattern"] = Value::from(format!("^(?:{definition})$"));
            }
            (Some("grammar"), Some("lark"), Some(definition)) => {
                description += &tell("Lark grammar", definition);
            }
            _ => {
                return Err("format: expected the type text, or grammar with syntax lark or regex".to_owned());
            }
        }
    }
    let schema = json!({
        "type": "object", "properties": { INPUT: input }, "required": [INPUT], "additionalProperties": false,
    });
    let mut function = Map::new();
    function.insert("name".to_owned(), fields.get("name").cloned().unwrap_or_default());
    function.insert("description".to_owned(), Value::from(description.trim_start()));
    function.insert("parameters".to_owned(), schema);
    Ok(function)
}

/// A call in the form of the chat API.
pub(crate) fn call(id: &str, name: &str, arguments: impl Into<Value>) -> Value {
    let function = json!({ "name": name, "arguments": arguments.into() });
    json!({ "id": id, "type": "function", "function": function })
}

/// The arguments of a custom tool's function that has this input.
pub(crate) fn custom_arguments(input: &str) -> String {
    json!({ INPUT: input }).to_string()
}

/// The input of a custom tool, from the arguments of its function.
pub(crate) fn custom_input(arguments: &str) -> String {
    let parsed = serde_json::from_str::<Map<String, Value>>(arguments);
    let input = parsed.ok().and_then(|arguments| Some(arguments.get(INPUT)?.as_str()?.to_owned()));
    input.unwrap_or_else(|| arguments.to_owned())
}

/// Which tools may or must be called. A choice of allowed tools leaves only those.
pub(crate) fn tool_choice(choice: Option<Value>, tools: &mut Vec<Value>) -> Result<ToolChoice, Failure> {
    const EXPECTED: &str = "expected auto, none, required or {type: \"function\", function: {name}}";
    let wrong = |message: &str| Err(Failure::field("tool_choice", format!("tool_choice: {message}")));
    let choice = match choice {
        None | Some(Value::Null) => ToolChoice::Auto,
        Some(Value::String(choice)) => match mode(&choice) {
            Some(choice) => choice,
            None => return wrong(EXPECTED),
        },
        Some(choice @ Value::Object(_)) => match choice.get("type").and_then(Value::as_str) {
            Some("auto" | "none" | "required") => {
                mode(choice["type"].as_str().unwrap_or_default()).unwrap_or_default()
            }
            Some("allowed_tools") => {
                let allowed = ["allowed_tools", "function"].into_iter().find_map(|key| choice.get(key));
                let allowed = allowed.unwrap_or(&choice);
                let names: Option<Vec<&str>> = allowed
                    .get("tools")
                    .and_then(Value::as_array)
                    .map(|tools| tools.iter().filter_map(named).collect());
                let Some(names) = names else { return wrong("expected allowed_tools with a list of tools") };
                tools.retain(|tool| named(tool).is_some_and(|name| names.contains(&name)));
                let mode = allowed.get("mode").and_then(Value::as_str).map_or(Some(ToolChoice::Auto), mode);
                match mode {
                    Some(mode) => mode,
                    None => return wrong("expected the mode auto or required"),
                }
            }
            Some(kind) if is_service(kind) => {
                return wrong(&format!("this server has no tool of type {kind:?}"));
            }
            _ => match named(&choice) {
                Some(name) => ToolChoice::Named(name.to_owned()),
                None => return wrong(EXPECTED),
            },
        },
        Some(_) => return wrong("expected a text or an object"),
    };
    match &choice {
        ToolChoice::Auto | ToolChoice::None => Ok(choice),
        ToolChoice::Named(name) if !tools.iter().any(|tool| named(tool) == Some(name)) => {
            wrong("`tools` has no tool of this name")
        }
        _ if tools.is_empty() => wrong("a call cannot be required without `tools`"),
        _ => Ok(choice),
    }
}

fn mode(name: &str) -> Option<ToolChoice> {
    match name {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::None),
        "required" | "any" => Some(ToolChoice::Required),
        _ => None,
    }
}

/// The name of a tool or of the choice of one, wherever the API has it.
fn named(tool: &Value) -> Option<&str> {
    let inner = ["function", "custom"].into_iter().find_map(|key| tool.get(key)).unwrap_or(tool);
    inner.get("name")?.as_str()
}
