//! Items of an input as the messages of a conversation.

use moeflux::text::{Content, Message};
use serde::Deserialize;
use serde_json::{Value, json};

use super::items::decoded;
use crate::error::Failure;
use crate::fields::ignore;
use crate::ids::unique;
use crate::openai::{self, custom_arguments};

/// An item of a conversation.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    Message { role: String, content: Option<Content> },
    Reasoning { content: Option<Vec<Value>>, summary: Option<Vec<Value>>, encrypted_content: Option<String> },
    FunctionCall { call_id: String, name: String, arguments: String },
    FunctionCallOutput { call_id: String, output: Content },
    CustomToolCall { call_id: String, name: String, input: String },
    CustomToolCallOutput { call_id: String, output: Content },
    LocalShellCall { call_id: String, action: Value },
    LocalShellCallOutput { call_id: Option<String>, id: Option<String>, output: Content },
    Compaction { encrypted_content: Option<String> },
}

/// Types of items that tell of the work of the API's own tools.
const OF_SERVICES: [&str; 24] = [
    "web_search_call",
    "file_search_call",
    "image_generation_call",
    "code_interpreter_call",
    "computer_call",
    "computer_call_output",
    "mcp_list_tools",
    "mcp_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "tool_search_call",
    "tool_search_output",
    "additional_tools",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "compaction_summary",
    "compaction_trigger",
    "context_compaction",
    "ghost_snapshot",
    "program",
    "program_output",
    "other",
];

/// An item with an id; one that is named by its id alone is found among those that are kept.
pub(super) fn found(
    mut given: Value,
    index: usize,
    item: &dyn Fn(&str) -> Option<Value>,
) -> Result<Value, Failure> {
    let id = given.get("id").and_then(Value::as_str).map(str::to_owned);
    let kind = given.get("type").and_then(Value::as_str);
    // A reference may go without its type.
    let is_reference =
        kind == Some("item_reference") || kind.is_none() && given.get("role").is_none() && id.is_some();
    if is_reference {
        let id = id.unwrap_or_default();
        let place = format!("input[{index}]");
        let message = format!("{place}: there is no item {id:?}; it was not stored, or has been evicted");
        return item(&id).ok_or_else(|| Failure::field(place, message));
    }
    if id.is_none()
        && let Some(fields) = given.as_object_mut()
    {
        fields.insert("id".to_owned(), Value::from(unique("item_")));
    }
    Ok(given)
}

/// Adds an item to a conversation in the form of the chat API, in which thoughts and calls are part of a message.
pub(super) fn add(item: &Value, index: usize, said: &mut Vec<Message>) -> Result<(), Failure> {
    let place = format!("input[{index}]");
    let wrong = |message: String| Failure::field(place.as_str(), format!("{place}: {message}"));
    // A message may go without its type.
    let typed = match item.as_object() {
        Some(fields) if !fields.contains_key("type") => {
            let mut fields = fields.clone();
            fields.insert("type".to_owned(), json!("message"));
            &Value::Object(fields)
        }
        _ => item,
    };
    if let Some(kind) = typed.get("type").and_then(Value::as_str).filter(|kind| OF_SERVICES.contains(kind)) {
        ignore(&format!("input[].{kind}"));
        return Ok(());
    }
    let item = Said::deserialize(typed).map_err(|error| wrong(error.to_string()))?;
    match item {
        Said::Message { role, content } => {
            let content = plain(content.unwrap_or(Content::Text(String::new()))).map_err(wrong)?;
            match said.last_mut() {
                // After thoughts, which are a message already.
                Some(last) if role == "assistant" && is_thoughts(last) => last.content = Some(content),
                _ => said.push(Message { content: Some(content), ..Message::new(role, "") }),
            }
        }
        Said::Reasoning { content, summary, encrypted_content } => {
            let parts = content.filter(|parts| !parts.is_empty()).or(summary).unwrap_or_default();
            let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
            let mut thoughts = texts.join("\n");
            if let Some(encrypted) = encrypted_content.filter(|_| thoughts.is_empty()) {
                match decoded(&encrypted) {
                    Some(text) => thoughts = text,
                    None => ignore("input[].encrypted_content"),
                }
            }
            if !thoughts.is_empty() {
                let reasoning_content = Some(thoughts);
                said.push(Message { reasoning_content, content: None, ..Message::new("assistant", "") });
            }
        }
        Said::FunctionCall { call_id, name, arguments } => call(said, &call_id, &name, json!(arguments)),
        Said::CustomToolCall { call_id, name, input } => {
            call(said, &call_id, &name, json!(custom_arguments(&input)));
        }
        Said::LocalShellCall { call_id, action } => call(said, &call_id, "local_shell", action),
        Said::FunctionCallOutput { call_id, output } | Said::CustomToolCallOutput { call_id, output } => {
            result(said, call_id, plain(output).map_err(wrong)?).map_err(wrong)?;
        }
        Said::LocalShellCallOutput { call_id, id, output } => {
            let call_id = call_id.or(id).unwrap_or_default();
            result(said, call_id, plain(output).map_err(wrong)?).map_err(wrong)?;
        }
        Said::Compaction { encrypted_content } => match encrypted_content.as_deref().and_then(decoded) {
            Some(summary) => said.push(Message::new("user", summary)),
            None => ignore("input[].compaction"),
        },
    }
    Ok(())
}

/// Adds a call to the message of the assistant, or as one of its own.
fn call(said: &mut Vec<Message>, id: &str, name: &str, arguments: Value) {
    let call = openai::call(id, name, arguments);
    match said.last_mut() {
        Some(last) if last.role == "assistant" => last.tool_calls.push(call),
        _ => said.push(Message { tool_calls: vec![call], content: None, ..Message::new("assistant", "") }),
    }
}

/// Adds the result of a call that came before it.
fn result(said: &mut Vec<Message>, call_id: String, output: Content) -> Result<(), String> {
    let calls = said.iter().flat_map(|message| &message.tool_calls);
    let name = calls
        .filter(|call| call["id"] == call_id.as_str())
        .find_map(|call| Some(call["function"]["name"].as_str()?.to_owned()));
    if name.is_none() {
        return Err(format!("there is no call {call_id:?} before it"));
    }
    said.push(Message {
        content: Some(output),
        name,
        tool_call_id: Some(call_id),
        ..Message::new("tool", "")
    });
    Ok(())
}

fn is_thoughts(message: &Message) -> bool {
    message.reasoning_content.is_some() && message.content.is_none() && message.tool_calls.is_empty()
}

/// Content as the chat API writes it.
fn plain(content: Content) -> Result<Content, String> {
    let Content::Parts(parts) = content else { return Ok(content) };
    let text = |part: &Value| {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("");
        let field = if kind == "refusal" { "refusal" } else { "text" };
        match (kind, part.get(field)) {
            ("input_text" | "output_text" | "text" | "refusal", Some(Value::String(text))) => {
                Ok(json!({ "type": "text", "text": text }))
            }
            _ => Err(format!(
                "expected content such as {{\"type\": \"input_text\", \"text\": \"…\"}}, found {kind:?}"
            )),
        }
    };
    Ok(Content::Parts(parts.iter().map(text).collect::<Result<_, _>>()?))
}
