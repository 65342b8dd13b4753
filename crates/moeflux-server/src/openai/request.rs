//! What a request asks for, checked, in no API's terms.

use std::collections::BTreeMap;

use moeflux::chat::{ChatOptions, ToolChoice};
use moeflux::sampling::Constraint;
use moeflux::text::{Content, Message};
use serde_json::{Map, Value};

use super::types::{ChatCompletionRequest, CompletionRequest};
use crate::error::Failure;
use crate::generation::{ChatInput, Controls};

/// Both requests name the fields about sampling alike.
macro_rules! controls {
    ($request:expr) => {
        Controls {
            temperature: $request.temperature,
            top_k: $request.top_k,
            top_p: $request.top_p,
            min_p: $request.min_p,
            repetition_penalty: $request.repetition_penalty,
            presence_penalty: $request.presence_penalty,
            frequency_penalty: $request.frequency_penalty,
            logit_bias: logit_bias($request.logit_bias.take())?,
            seed: $request.seed.map(|seed| seed as u64),
            min_tokens: $request.min_tokens.unwrap_or(0),
            stop: $request.stop.take().map(super::types::OneOrMany::into_vec).unwrap_or_default(),
            ignore_eos: $request.ignore_eos.unwrap_or(false),
            n: $request.n,
            priority: $request.priority.unwrap_or(0),
            ..Controls::default()
        }
    };
}

impl ChatCompletionRequest {
    /// What it asks for.
    pub(super) fn into_input(mut self) -> Result<ChatInput, Failure> {
        if self.store == Some(true) {
            return Err(Failure::field("store", "store: expected false: answers are not stored"));
        }
        if self.modalities.as_ref().is_some_and(|kinds| kinds.iter().any(|kind| kind != "text")) {
            return Err(Failure::field(
                "modalities",
                "modalities: expected [\"text\"]: other modalities are not supported",
            ));
        }
        let logprobs = match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (false, Some(1..)) => {
                let message = "top_logprobs: expected only together with `logprobs: true`";
                return Err(Failure::field("top_logprobs", message));
            }
            (asked, top) => asked.then(|| top.unwrap_or(0)),
        };
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        if max_tokens == Some(0) {
            return Err(Failure::field("max_tokens", "max_tokens: expected at least 1, found 0"));
        }
        let controls = Controls { max_tokens, logprobs, ..controls!(self) };
        let tools = tools(self.tools.unwrap_or_default())?;
        let tool_choice = tool_choice(self.tool_choice, &tools)?;
        let constraint = response_format(self.response_format)?;
        let mut variables = self.chat_template_kwargs.unwrap_or_default();
        let mut enable_thinking = self.enable_thinking;
        if let Some(effort) = self.reasoning_effort {
            let thinks = effort_thinks(&effort)?;
            enable_thinking = enable_thinking.or(Some(thinks));
            if thinks {
                variables.entry("reasoning_effort").or_insert(Value::String(effort));
            }
        }
        Ok(ChatInput {
            messages: messages(self.messages)?,
            options: ChatOptions {
                tools,
                tool_choice,
                parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
                enable_thinking,
                template_variables: variables,
            },
            constraint,
            reasoning_budget: self.reasoning_budget,
            controls,
        })
    }
}

impl CompletionRequest {
    /// How to choose tokens.
    pub(super) fn take_controls(&mut self) -> Result<Controls, Failure> {
        if self.best_of.is_some_and(|best| best != self.n.unwrap_or(1)) {
            return Err(Failure::field(
                "best_of",
                "best_of: expected the value of n: selection among answers is not supported",
            ));
        }
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Failure::field("suffix", "suffix: expected none: insertion is not supported"));
        }
        Ok(Controls {
            max_tokens: Some(self.max_tokens.unwrap_or(16)),
            logprobs: self.logprobs,
            ..controls!(self)
        })
    }
}

/// Whether so much effort is any.
pub(crate) fn effort_thinks(effort: &str) -> Result<bool, Failure> {
    const KNOWN: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
    if KNOWN.contains(&effort) {
        return Ok(effort != "none");
    }
    let message = format!("reasoning_effort: expected one of {}, found {effort:?}", KNOWN.join(", "));
    Err(Failure::field("reasoning_effort", message))
}

fn logit_bias(bias: Option<BTreeMap<String, f32>>) -> Result<BTreeMap<u32, f32>, Failure> {
    let token = |(token, bias): (String, f32)| match token.parse() {
        Ok(token) => Ok((token, bias)),
        Err(_) => Err(Failure::field(
            "logit_bias",
            format!("logit_bias: expected token ids as keys, found {token:?}"),
        )),
    };
    bias.unwrap_or_default().into_iter().map(token).collect()
}

/// Messages in the form that templates know, each with a role and a content that it may have.
pub(crate) fn messages(mut messages: Vec<Message>) -> Result<Vec<Message>, Failure> {
    for (index, message) in messages.iter_mut().enumerate() {
        let wrong = |field: &str, message: String| {
            let param = format!("messages[{index}].{field}");
            let message = format!("{param}: {message}");
            Failure::field(param, message)
        };
        match message.role.as_str() {
            "system" | "user" | "assistant" | "tool" => {}
            // Templates know it by its older name.
            "developer" => "system".clone_into(&mut message.role),
            role => {
                let expected = "expected system, developer, user, assistant or tool";
                return Err(wrong("role", format!("{expected}, found {role:?}")));
            }
        }
        match &message.content {
            Some(Content::Text(_)) => {}
            Some(Content::Parts(parts)) => {
                for part in parts {
                    let kind = part.get("type").and_then(Value::as_str).unwrap_or("");
                    if !matches!(kind, "text" | "refusal") || !part.get(kind).is_some_and(Value::is_string) {
                        let expected = "expected parts such as {\"type\": \"text\", \"text\": \"…\"}";
                        return Err(wrong("content", format!("{expected}, found one of type {kind:?}")));
                    }
                }
            }
            None if message.role == "assistant" => {}
            None => return Err(wrong("content", "expected a text, found none".to_owned())),
        }
        for call in &message.tool_calls {
            let function = call.get("function");
            let name = function.and_then(|function| function.get("name")).is_some_and(Value::is_string);
            let arguments = match function.and_then(|function| function.get("arguments")) {
                Some(Value::String(text)) => {
                    text.trim().is_empty() || serde_json::from_str::<Map<String, Value>>(text).is_ok()
                }
                Some(Value::Object(_)) => true,
                _ => false,
            };
            if !name || !arguments {
                let expected = "expected {id, type, function: {name, arguments}}, with arguments that are the text of \
                                a JSON object";
                return Err(wrong("tool_calls", expected.to_owned()));
            }
        }
    }
    Ok(messages)
}

/// Most tools of a request.
const TOOLS: usize = 128;

/// Tools, each with a name of its own.
pub(crate) fn tools(tools: Vec<Value>) -> Result<Vec<Value>, Failure> {
    if tools.len() > TOOLS {
        return Err(Failure::field(
            "tools",
            format!("tools: expected at most {TOOLS}, found {}", tools.len()),
        ));
    }
    let mut names = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        let wrong = |expected: &str| {
            let param = format!("tools[{index}]");
            Failure::field(param.as_str(), format!("{param}: {expected}"))
        };
        let kind = tool.get("type").and_then(Value::as_str);
        let function = tool.get("function").filter(|_| kind == Some("function"));
        let name = function.and_then(|function| function.get("name")).and_then(Value::as_str);
        let Some((function, name)) = function.zip(name) else {
            return Err(wrong("expected {type: \"function\", function: {name, description, parameters}}"));
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            return Err(wrong("function.name: expected 1 to 64 letters, digits, `_`, `-` and `.`"));
        }
        if names.contains(&name) {
            return Err(wrong("function.name: another tool has the same name"));
        }
        if function.get("parameters").is_some_and(|schema| !schema.is_object() && !schema.is_null()) {
            return Err(wrong("function.parameters: expected a JSON schema"));
        }
        names.push(name);
    }
    Ok(tools)
}

/// Which tools may or must be called.
pub(crate) fn tool_choice(choice: Option<Value>, tools: &[Value]) -> Result<ToolChoice, Failure> {
    let wrong = |message: &str| Err(Failure::field("tool_choice", format!("tool_choice: {message}")));
    let choice = match choice {
        None | Some(Value::Null) => return Ok(ToolChoice::Auto),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => return Ok(ToolChoice::Auto),
            "none" => return Ok(ToolChoice::None),
            "required" => ToolChoice::Required,
            _ => return wrong("expected auto, none, required or {type: \"function\", function: {name}}"),
        },
        Some(Value::Object(choice)) => match choice.get("function").and_then(|function| function.get("name"))
        {
            Some(Value::String(name)) => ToolChoice::Named(name.clone()),
            _ => return wrong("expected {type: \"function\", function: {name}}"),
        },
        Some(_) => return wrong("expected a text or an object"),
    };
    match &choice {
        ToolChoice::Named(name) if !tools.iter().any(|tool| tool["function"]["name"] == name.as_str()) => {
            wrong("`tools` has no tool of this name")
        }
        _ if tools.is_empty() => wrong("a call cannot be required without `tools`"),
        _ => Ok(choice),
    }
}

/// The constraint that a response format is.
pub(crate) fn response_format(format: Option<Value>) -> Result<Option<Constraint>, Failure> {
    let wrong = |message: &str| Err(Failure::field("response_format", format!("response_format: {message}")));
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(None) };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Constraint::JsonObject)),
        Some("json_schema") => match format.get("json_schema").and_then(|named| named.get("schema")) {
            Some(schema @ Value::Object(_)) => Ok(Some(Constraint::JsonSchema(schema.clone()))),
            _ => wrong("expected a JSON schema as json_schema.schema"),
        },
        _ => wrong("expected the type text, json_object or json_schema"),
    }
}
