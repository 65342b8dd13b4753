//! What a request asks for, checked, in no API's terms.

use moeflux::chat::ChatOptions;
use moeflux::sampling::Constraint;
use moeflux::text::{Content, Message};
use serde_json::{Map, Value, json};

use super::types::{ChatRequest, Common, GenerateRequest, InputMessage, Options};
use crate::error::Failure;
use crate::fields::{GENERATE, NONE, SAMPLING, asks, ignore};
use crate::generation::{ChatInput, Controls};
use crate::openai;

impl ChatRequest {
    /// What it asks for.
    pub(super) fn into_input(self) -> Result<ChatInput, Failure> {
        self.unknown.settle("", &[SAMPLING])?;
        let asked = self.common.asked()?;
        let messages = self.messages.into_iter().enumerate();
        let messages = messages.map(|(index, said)| message(index, said)).collect::<Result<Vec<_>, _>>()?;
        let tools = openai::tools(self.tools.unwrap_or_default())?.functions;
        asked.chat(openai::messages(with_ids(messages))?, tools)
    }
}

impl GenerateRequest {
    /// What it asks for, as a chat of one question.
    pub(super) fn into_input(self) -> Result<ChatInput, Failure> {
        let asked = self.common.asked()?;
        let system = self.system.filter(|system| !system.is_empty());
        let system = system.map(|system| Message::new("system", system));
        let messages = system.into_iter().chain([Message::new("user", self.prompt)]).collect();
        asked.chat(messages, Vec::new())
    }

    /// Refuses what this server does not do.
    pub(super) fn settle(&self) -> Result<(), Failure> {
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Failure::field("suffix", "suffix: expected none: insertion is not supported"));
        }
        self.unknown.settle("", &[SAMPLING, GENERATE])
    }
}

/// What both requests ask for.
pub(super) struct Asked {
    pub(super) constraint: Option<Constraint>,
    pub(super) controls: Controls,
    enable_thinking: Option<bool>,
    variables: Map<String, Value>,
}

impl Common {
    pub(super) fn asked(&self) -> Result<Asked, Failure> {
        if self.images.as_ref().is_some_and(|images| !images.is_empty()) {
            return Err(images("images"));
        }
        let constraint = match &self.format {
            None | Some(Value::Null) => None,
            Some(Value::String(format)) if format.is_empty() => None,
            Some(Value::String(format)) if format == "json" => Some(Constraint::JsonObject),
            Some(schema @ Value::Object(_)) => Some(Constraint::JsonSchema(schema.clone())),
            Some(_) => return Err(Failure::field("format", "format: expected \"json\" or a JSON schema")),
        };
        let mut variables = Map::new();
        let enable_thinking = match &self.think {
            None | Some(Value::Null) => None,
            Some(Value::Bool(thinks)) => Some(*thinks),
            Some(Value::String(effort)) => {
                let thinks = openai::effort_thinks(effort).map_err(|_| {
                    let message =
                        format!("think: expected true, false, low, medium, high or max, found {effort:?}");
                    Failure::field("think", message)
                })?;
                if thinks {
                    variables.insert("reasoning_effort".to_owned(), Value::from(effort.as_str()));
                }
                Some(thinks)
            }
            Some(_) => return Err(Failure::field("think", "think: expected true, false or an effort")),
        };
        Ok(Asked {
            constraint,
            controls: controls(self.options.clone().unwrap_or_default())?,
            enable_thinking,
            variables,
        })
    }
}

impl Asked {
    fn chat(self, mut messages: Vec<Message>, tools: Vec<Value>) -> Result<ChatInput, Failure> {
        let prefill = openai::prefill(&mut messages, None, None)?;
        Ok(ChatInput {
            messages,
            options: ChatOptions {
                tools,
                enable_thinking: self.enable_thinking,
                template_variables: self.variables,
                prefill,
                ..ChatOptions::default()
            },
            constraint: self.constraint,
            controls: self.controls,
            ..ChatInput::default()
        })
    }
}

fn controls(options: Options) -> Result<Controls, Failure> {
    // Where and how a model is computed is the server's to say.
    options.unknown.settle("options.", &[SAMPLING])?;
    let top_k = options.top_k.map(|top_k| usize::try_from(top_k).unwrap_or(0));
    Ok(Controls {
        temperature: options.temperature,
        top_k,
        top_p: options.top_p,
        min_p: options.min_p,
        repetition_penalty: options.repeat_penalty,
        presence_penalty: options.presence_penalty,
        frequency_penalty: options.frequency_penalty,
        seed: options.seed.map(|seed| seed as u64),
        max_tokens: options.num_predict.and_then(|tokens| usize::try_from(tokens).ok()),
        stop: options.stop.map(openai::types::OneOrMany::into_vec).unwrap_or_default(),
        ..Controls::default()
    })
}

fn message(index: usize, said: InputMessage) -> Result<Message, Failure> {
    let place = format!("messages[{index}].");
    if said.images.as_ref().is_some_and(|images| !images.is_empty()) {
        return Err(images(&format!("{place}images")));
    }
    said.unknown.settle("messages[].", &[NONE])?;
    let content = said.content.or_else(|| Some(Content::Text(String::new())));
    let tool_calls = said.tool_calls.unwrap_or_default();
    // Beside calls, a text of no characters is none.
    let is_blank = matches!(&content, Some(Content::Text(text)) if text.is_empty()) && !tool_calls.is_empty();
    Ok(Message {
        content: content.filter(|_| !is_blank),
        reasoning_content: said.thinking.filter(|thinking| !thinking.is_empty()),
        tool_calls,
        tool_call_id: said.tool_call_id,
        name: said.tool_name,
        ..Message::new(said.role, "")
    })
}

/// Calls and results with ids, which this API may leave out: results are in the order of the calls.
fn with_ids(mut messages: Vec<Message>) -> Vec<Message> {
    let mut pending: Vec<(String, String)> = Vec::new();
    let mut calls = 0;
    for message in &mut messages {
        if !message.tool_calls.is_empty() {
            pending.clear();
        }
        for call in &mut message.tool_calls {
            let id = call
                .get("id")
                .and_then(Value::as_str)
                .map_or_else(|| format!("call{calls:05}"), str::to_owned);
            calls += 1;
            let mut function = call.get("function").cloned().unwrap_or_default();
            if let Some(fields) = function.as_object_mut() {
                fields.remove("index");
                fields.entry("arguments").or_insert_with(|| json!({}));
            }
            let name = function.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            *call = json!({ "id": id, "type": "function", "function": function });
            pending.push((id, name));
        }
        if message.role == "tool" {
            let named = |(id, name): &(String, String)| {
                message.tool_call_id.as_ref().is_some_and(|own| own == id)
                    || message.tool_call_id.is_none() && message.name.as_ref().is_none_or(|own| own == name)
            };
            if let Some(place) = pending.iter().position(named) {
                let (id, name) = pending.remove(place);
                message.tool_call_id = Some(id);
                message.name = Some(name);
            }
        }
    }
    messages
}

fn images(field: &str) -> Failure {
    Failure::field(field, format!("{field}: this server reads text only, and this model takes no images"))
}

/// Notes a field that is accepted and has no effect.
pub(super) fn unused(name: &str, value: Option<&Value>) {
    if value.is_some_and(|value| asks(value, &[])) {
        ignore(name);
    }
}
