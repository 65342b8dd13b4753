//! What a request asks for, checked, in no API's terms.

use moeflux::chat::ChatOptions;
use moeflux::sampling::Constraint;
use moeflux::text::{Content, Message};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::types::{Input, ReasoningOptions, Response, ResponsesRequest, TextOptions};
use crate::clock::unix_time;
use crate::error::Failure;
use crate::generation::{ChatInput, Controls};
use crate::ids::unique;
use crate::openai;

/// What a request asks for.
pub(super) struct Asked {
    pub(super) input: ChatInput,
    /// How many of the input's messages, at the beginning, are not kept.
    pub(super) instructions: usize,
    /// The response that says nothing yet.
    pub(super) response: Response,
}

impl ResponsesRequest {
    /// What it asks for, after an earlier conversation.
    pub(super) fn asked(self, earlier: Vec<Message>) -> Result<Asked, Failure> {
        self.refuse()?;
        let given_tools = self.tools.unwrap_or_default();
        let tools = openai::tools(given_tools.iter().map(nested).collect())?;
        let choice = self.tool_choice.as_ref().map(nested);
        let tool_choice = openai::tool_choice(choice, &tools)?;
        let TextOptions { format, verbosity } = self.text.unwrap_or_default();
        let constraint = constraint(format.as_ref())?;
        let ReasoningOptions { effort, .. } = self.reasoning.unwrap_or_default();
        let mut variables = Map::new();
        if let Some(verbosity) = &verbosity {
            variables.insert("verbosity".to_owned(), Value::from(verbosity.as_str()));
        }
        let enable_thinking = effort.as_deref().map(openai::effort_thinks).transpose()?;
        if let Some(effort) = effort.as_ref().filter(|_| enable_thinking == Some(true)) {
            variables.insert("reasoning_effort".to_owned(), Value::from(effort.as_str()));
        }
        let mut said: Vec<Message> =
            self.instructions.iter().map(|text| Message::new("system", text.as_str())).collect();
        let instructions = said.len();
        said.extend(earlier);
        match self.input {
            Input::Text(text) => said.push(Message::new("user", text)),
            Input::Items(items) => {
                items.iter().enumerate().try_for_each(|(index, item)| add(item, index, &mut said))?;
            }
        }
        let parallel_tool_calls = self.parallel_tool_calls.unwrap_or(true);
        let input = ChatInput {
            messages: openai::messages(said)?,
            options: ChatOptions {
                tools,
                tool_choice,
                parallel_tool_calls,
                enable_thinking,
                template_variables: variables,
            },
            constraint,
            reasoning_budget: None,
            controls: Controls {
                temperature: self.temperature,
                top_p: self.top_p,
                max_tokens: self.max_output_tokens,
                ..Controls::default()
            },
        };
        let response = Response {
            id: unique("resp_"),
            object: "response",
            created_at: unix_time(),
            status: "in_progress",
            background: false,
            error: None,
            incomplete_details: None,
            instructions: self.instructions,
            max_output_tokens: self.max_output_tokens,
            metadata: self.metadata.unwrap_or_default(),
            // Its name is known when it is found.
            model: String::new(),
            output: Vec::new(),
            parallel_tool_calls,
            previous_response_id: self.previous_response_id,
            reasoning: json!({ "effort": effort, "summary": null }),
            store: self.store.unwrap_or(true),
            temperature: self.temperature,
            text: json!({ "format": format.unwrap_or_else(|| json!({ "type": "text" })) }),
            tool_choice: self.tool_choice.unwrap_or_else(|| json!("auto")),
            tools: given_tools,
            top_p: self.top_p,
            truncation: "disabled",
            usage: None,
        };
        Ok(Asked { input, instructions, response })
    }

    /// Refuses what this server does not do.
    fn refuse(&self) -> Result<(), Failure> {
        let wrong = |field: &str, message: &str| Err(Failure::field(field, format!("{field}: {message}")));
        if self.background == Some(true) {
            return wrong("background", "expected false: background responses are not supported");
        }
        if self.max_output_tokens == Some(0) {
            return wrong("max_output_tokens", "expected at least 1, found 0");
        }
        if self.truncation.as_ref().is_some_and(|how| how != "disabled") {
            return wrong("truncation", "expected disabled: truncation is not supported");
        }
        if self.include.iter().flatten().any(|what| what != "reasoning.encrypted_content") {
            return wrong("include", "expected only reasoning.encrypted_content");
        }
        if self.stream_options.is_some() && self.stream != Some(true) {
            return wrong("stream_options", "expected only together with `stream: true`");
        }
        Ok(())
    }
}

/// A tool, or the choice of one, as the chat API writes it: with what belongs to the function in `function`.
fn nested(tool: &Value) -> Value {
    let Some(fields) = tool.as_object() else { return tool.clone() };
    let mut function = fields.clone();
    let kind = function.remove("type");
    json!({ "type": kind, "function": function })
}

/// The constraint that the format of an answer is.
fn constraint(format: Option<&Value>) -> Result<Option<Constraint>, Failure> {
    let Some(format) = format else { return Ok(None) };
    match (format.get("type").and_then(Value::as_str), format.get("schema")) {
        (Some("text"), _) => Ok(None),
        (Some("json_object"), _) => Ok(Some(Constraint::JsonObject)),
        (Some("json_schema"), Some(schema @ Value::Object(_))) => {
            Ok(Some(Constraint::JsonSchema(schema.clone())))
        }
        _ => {
            let expected = "expected the type text, json_object, or json_schema with a schema";
            Err(Failure::field("text.format", format!("text.format: {expected}")))
        }
    }
}

/// An item of a conversation.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    Message { role: String, content: Content },
    Reasoning { content: Option<Vec<Value>>, summary: Option<Vec<Value>> },
    FunctionCall { call_id: String, name: String, arguments: String },
    FunctionCallOutput { call_id: String, output: Content },
}

/// Adds an item to a conversation in the form of the chat API, in which thoughts and calls are part of a message.
fn add(item: &Value, index: usize, said: &mut Vec<Message>) -> Result<(), Failure> {
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
    let item = Said::deserialize(typed).map_err(|error| wrong(error.to_string()))?;
    match item {
        Said::Message { role, content } => {
            let content = plain(content).map_err(wrong)?;
            match said.last_mut() {
                // After thoughts, which are a message already.
                Some(last) if role == "assistant" && is_thoughts(last) => last.content = Some(content),
                _ => said.push(Message { content: Some(content), ..Message::new(role, "") }),
            }
        }
        Said::Reasoning { content, summary } => {
            let parts = content.filter(|parts| !parts.is_empty()).or(summary).unwrap_or_default();
            let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
            let reasoning_content = Some(texts.join("\n"));
            said.push(Message { reasoning_content, content: None, ..Message::new("assistant", "") });
        }
        Said::FunctionCall { call_id, name, arguments } => {
            let function = json!({ "name": name, "arguments": arguments });
            let call = json!({ "id": call_id, "type": "function", "function": function });
            match said.last_mut() {
                Some(last) if last.role == "assistant" => last.tool_calls.push(call),
                _ => said.push(Message {
                    tool_calls: vec![call],
                    content: None,
                    ..Message::new("assistant", "")
                }),
            }
        }
        Said::FunctionCallOutput { call_id, output } => {
            let calls = said.iter().flat_map(|message| &message.tool_calls);
            let name = calls
                .filter(|call| call["id"] == call_id.as_str())
                .find_map(|call| Some(call["function"]["name"].as_str()?.to_owned()));
            if name.is_none() {
                return Err(wrong(format!("there is no call {call_id:?} before it")));
            }
            let content = Some(plain(output).map_err(wrong)?);
            said.push(Message { content, name, tool_call_id: Some(call_id), ..Message::new("tool", "") });
        }
    }
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
