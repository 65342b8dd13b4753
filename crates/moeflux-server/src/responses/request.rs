//! What a request asks for, checked, in no API's terms.

use moeflux::chat::ChatOptions;
use moeflux::sampling::Constraint;
use moeflux::text::Message;
use serde_json::{Map, Value, json};

use super::input::{add, found};
use super::items::Style;
use super::types::{Input, ReasoningOptions, Response, ResponsesRequest, TextOptions};
use crate::clock::unix_time;
use crate::error::Failure;
use crate::fields::{NONE, RESPONSES, SAMPLING, ignore};
use crate::generation::{ChatInput, Controls};
use crate::ids::unique;
use crate::openai;

/// What a request asks for.
pub(super) struct Asked {
    pub(super) input: ChatInput,
    /// How many of the input's messages, at the beginning, are not kept.
    pub(super) instructions: usize,
    /// The items of the input, each with an id.
    pub(super) items: Vec<Value>,
    /// How the items of the answer are written.
    pub(super) style: Style,
    /// The response that says nothing yet.
    pub(super) response: Response,
}

impl ResponsesRequest {
    /// What it asks for, after an earlier conversation; `item` finds items that are kept.
    pub(super) fn asked(
        self,
        earlier: Vec<Message>,
        item: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<Asked, Failure> {
        self.settle()?;
        let given_tools = self.tools.unwrap_or_default();
        let openai::Offered { functions: mut tools, customs } =
            openai::tools(given_tools.iter().map(nested).collect())?;
        let choice = self.tool_choice.as_ref().map(nested);
        let tool_choice = openai::tool_choice(choice, &mut tools)?;
        let TextOptions { format, verbosity, unknown } = self.text.unwrap_or_default();
        unknown.settle("text.", &[NONE])?;
        let constraint = constraint(format.as_ref())?;
        let ReasoningOptions { effort, summary, unknown } = self.reasoning.unwrap_or_default();
        unknown.settle("reasoning.", &[NONE])?;
        let summary = summary.filter(|summary| summary != "none");
        let encodes = self.include.iter().flatten().any(|what| what == ENCRYPTED);
        let mut variables = Map::new();
        if let Some(verbosity) = &verbosity {
            variables.insert("verbosity".to_owned(), Value::from(verbosity.as_str()));
        }
        let enable_thinking = effort.as_deref().map(openai::effort_thinks).transpose()?;
        if let Some(effort) = effort.as_ref().filter(|_| enable_thinking == Some(true)) {
            variables.insert("reasoning_effort".to_owned(), Value::from(effort.as_str()));
        }
        let instructions = self.instructions.as_ref().filter(|text| !text.is_empty());
        let mut said: Vec<Message> =
            instructions.iter().map(|text| Message::new("system", text.as_str())).collect();
        let instructions = said.len();
        said.extend(earlier);
        let items = match self.input {
            Input::Text(text) => vec![json!({ "type": "message", "role": "user", "content": text })],
            Input::Items(items) => items,
        };
        let items = items.into_iter().enumerate();
        let items = items.map(|(index, given)| found(given, index, item)).collect::<Result<Vec<_>, _>>()?;
        items.iter().enumerate().try_for_each(|(index, item)| add(item, index, &mut said))?;
        let parallel_tool_calls = self.parallel_tool_calls.unwrap_or(true);
        let input = ChatInput {
            messages: openai::messages(said)?,
            options: ChatOptions {
                tools,
                tool_choice,
                parallel_tool_calls,
                enable_thinking,
                template_variables: variables,
                ..ChatOptions::default()
            },
            constraint,
            customs: customs.clone(),
            controls: Controls {
                temperature: self.temperature,
                top_p: self.top_p,
                max_tokens: self.max_output_tokens,
                ..Controls::default()
            },
            ..ChatInput::default()
        };
        let style = Style { customs, summarizes: summary.is_some(), encodes };
        let response = Response {
            id: unique("resp_"),
            object: "response",
            created_at: unix_time(),
            completed_at: None,
            status: "in_progress",
            background: self.background.unwrap_or(false),
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
            reasoning: json!({ "effort": effort, "summary": summary }),
            store: self.store.unwrap_or(true),
            // What the model recommends is known when it is found.
            temperature: 1.0,
            text: json!({ "format": format.unwrap_or_else(|| json!({ "type": "text" })) }),
            tool_choice: self.tool_choice.unwrap_or_else(|| json!("auto")),
            tools: given_tools.into_iter().map(complete).collect(),
            top_p: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            top_logprobs: 0,
            max_tool_calls: self.max_tool_calls,
            truncation: self.truncation.unwrap_or_else(|| "disabled".to_owned()),
            service_tier: "default",
            safety_identifier: self.safety_identifier,
            prompt_cache_key: self.prompt_cache_key,
            user: self.user,
            usage: None,
        };
        Ok(Asked { input, instructions, items, style, response })
    }

    /// Refuses what this server does not do, and notes what it ignores.
    fn settle(&self) -> Result<(), Failure> {
        let wrong = |field: &str, message: &str| Err(Failure::field(field, format!("{field}: {message}")));
        self.unknown.settle("", &[SAMPLING, RESPONSES])?;
        if self.background == Some(true) && self.store == Some(false) {
            return wrong("background", "expected false together with `store: false`");
        }
        if self.max_output_tokens == Some(0) {
            return wrong("max_output_tokens", "expected at least 1, found 0");
        }
        if self.truncation.as_ref().is_some_and(|how| !matches!(how.as_str(), "auto" | "disabled")) {
            return wrong("truncation", "expected auto or disabled");
        }
        if self.stream_options.is_some() && self.stream != Some(true) {
            return wrong("stream_options", "expected only together with `stream: true`");
        }
        for what in self.include.iter().flatten().filter(|what| *what != ENCRYPTED) {
            ignore(&format!("include.{what}"));
        }
        for (name, value) in [("top_logprobs", self.top_logprobs), ("max_tool_calls", self.max_tool_calls)] {
            if value.is_some_and(|value| value > 0) {
                ignore(name);
            }
        }
        Ok(())
    }
}

/// What `include` calls the reasoning in a form that later requests can return.
const ENCRYPTED: &str = "reasoning.encrypted_content";

/// A tool with all fields that a response's tools have.
fn complete(mut tool: Value) -> Value {
    if tool["type"] == "function"
        && let Some(fields) = tool.as_object_mut()
    {
        for (name, value) in
            [("description", Value::Null), ("parameters", Value::Null), ("strict", json!(false))]
        {
            let field = fields.entry(name).or_insert(value);
            if name == "strict" && field.is_null() {
                *field = json!(false);
            }
        }
    }
    tool
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
