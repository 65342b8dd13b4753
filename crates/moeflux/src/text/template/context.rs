//! The variables that a template sees.

use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use minijinja::Value;
use serde_json::{Map, Value as Json};

use super::capabilities::{ArgumentsForm, Capabilities, ContentForm, in_form};
use super::{ChatRequest, environment, history, json};
use crate::text::{Content, Message, TextError};

/// All variables of a request, with messages that [`messages`] has prepared.
pub(super) fn variables(
    request: &ChatRequest,
    messages: Value,
    special_tokens: &BTreeMap<String, String>,
    now: NaiveDateTime,
) -> Value {
    let mut variables: BTreeMap<&str, Value> =
        special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))).collect();
    let tools = request.tools.map(|tools| tools.iter().map(json::to_value).collect::<Value>());
    variables.insert("messages", messages);
    variables.insert("tools", Value::from(tools));
    variables.insert("documents", Value::from(()));
    variables.insert("add_generation_prompt", Value::from(request.add_generation_prompt));
    variables.insert("strftime_now", environment::strftime_now(now));
    if let Some(thinking) = request.enable_thinking {
        variables.insert("enable_thinking", Value::from(thinking));
        variables.insert("thinking", Value::from(thinking));
    }
    variables.extend(request.extra.iter().map(|(name, value)| (name.as_str(), json::to_value(value))));
    Value::from_pairs(variables)
}

/// The messages in the form that the template takes.
pub(super) fn messages(
    messages: &[Message],
    capabilities: Capabilities,
    calls: history::Calls,
) -> Result<Value, TextError> {
    let messages = history::arranged(messages, capabilities, calls);
    messages.iter().enumerate().map(|(index, message)| prepare(index, message, capabilities)).collect()
}

fn prepare(index: usize, message: &Message, capabilities: Capabilities) -> Result<Value, TextError> {
    let mut fields = Map::new();
    fields.insert("role".to_owned(), Json::from(message.role.as_str()));
    if let Some(content) = content(index, message, capabilities)? {
        fields.insert("content".to_owned(), content);
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| tool_call(index, call, capabilities.arguments));
        fields.insert("tool_calls".to_owned(), Json::Array(calls.collect::<Result<_, _>>()?));
    }
    for (name, value) in [("tool_call_id", &message.tool_call_id), ("name", &message.name)] {
        if let Some(value) = value {
            fields.insert(name.to_owned(), Json::from(value.as_str()));
        }
    }
    // Null says nothing, and many templates would print it.
    fields.extend(message.extra.clone().into_iter().filter(|(_, value)| !value.is_null()));
    // Templates read reasoning under one of two names, whatever the caller called it.
    let named = |name: &str| message.extra.get(name).filter(|value| !value.is_null()).cloned();
    let reasoning = message.reasoning_content.clone().map(Json::from);
    if let Some(reasoning) = reasoning.or_else(|| named("thinking")).or_else(|| named("reasoning")) {
        fields.entry("thinking").or_insert_with(|| reasoning.clone());
        fields.insert("reasoning_content".to_owned(), reasoning);
    }
    Ok(json::to_value(&Json::Object(fields)))
}

/// The content of a message in the form that the template takes; `None` leaves it out.
fn content(index: usize, message: &Message, capabilities: Capabilities) -> Result<Option<Json>, TextError> {
    let form = capabilities.contents.of(&message.role);
    let only_calls = !message.tool_calls.is_empty();
    let content = match &message.content {
        Some(Content::Text(text)) if only_calls && text.is_empty() && !capabilities.takes_blank => None,
        Some(Content::Parts(parts)) if only_calls && parts.is_empty() => None,
        content => content.as_ref(),
    };
    Ok(Some(match (content, form) {
        (None, _) if only_calls => return Ok(capabilities.only_calls.value()),
        (None, _) => return Ok(capabilities.no_content.value()),
        (Some(Content::Text(text)), _) => in_form(form, text),
        (Some(Content::Parts(parts)), ContentForm::Text | ContentForm::OnePart) => {
            let texts = parts.iter().map(|part| part_text(index, part)).collect::<Result<Vec<_>, _>>()?;
            in_form(form, &texts.join("\n"))
        }
        (Some(Content::Parts(parts)), _) => Json::Array(parts.iter().map(text_of_refusal).collect()),
    }))
}

/// A refusal is text that the model wrote; templates know text.
fn text_of_refusal(part: &Json) -> Json {
    match part.get("refusal") {
        Some(text @ Json::String(_)) => serde_json::json!({"type": "text", "text": text}),
        _ => part.clone(),
    }
}

fn part_text(index: usize, part: &Json) -> Result<&str, TextError> {
    part.get("text").or_else(|| part.get("refusal")).unwrap_or(part).as_str().ok_or_else(|| {
        let kind = part.get("type").and_then(Json::as_str).unwrap_or("unknown");
        TextError::UnsupportedContent { message: index, kind: kind.to_owned() }
    })
}

/// A tool call with its arguments in the form that the template takes; the call may be wrapped in `function`
/// or not.
fn tool_call(index: usize, call: &Json, form: ArgumentsForm) -> Result<Json, TextError> {
    let mut call = call.clone();
    let function = if call.get("function").is_some() { &mut call["function"] } else { &mut call };
    let name = function.get("name").and_then(Json::as_str).unwrap_or_default().to_owned();
    let Some(arguments) = function.get_mut("arguments") else { return Ok(call) };
    let bad = |detail: String| TextError::ToolArguments { message: index, function: name.clone(), detail };
    let object = match &*arguments {
        Json::Object(_) => arguments.clone(),
        Json::Null => Json::Object(Map::new()),
        Json::String(text) if text.trim().is_empty() => Json::Object(Map::new()),
        Json::String(text) => {
            serde_json::from_str(text).map_err(|error| bad(format!("{error} in `{text}`")))?
        }
        other => other.clone(),
    };
    if !object.is_object() {
        return Err(bad(format!("found `{object}`")));
    }
    *arguments = match (form, &*arguments) {
        (ArgumentsForm::Object, _) => object,
        // Text that a model wrote goes back to it as it was.
        (ArgumentsForm::Text, Json::String(text)) if !text.trim().is_empty() => Json::from(text.as_str()),
        (ArgumentsForm::Text, _) => {
            Json::from(json::dumps(&json::to_value(&object), &json::Style::default()).unwrap_or_default())
        }
    };
    Ok(call)
}
