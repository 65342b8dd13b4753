//! What a request asks for, checked, in no API's terms.

use std::collections::BTreeMap;

use moeflux::chat::{self, ChatOptions};
use moeflux::sampling::Constraint;
use moeflux::text::Message;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::types::{
    Content, CountTokensRequest, InputMessage, MessagesRequest, OutputConfig, OutputFormat, Role, Thinking,
    Tool, ToolChoice,
};
use crate::error::Failure;
use crate::generation::{ChatInput, Controls};
use crate::openai;

impl MessagesRequest {
    /// What it asks for.
    pub(super) fn into_input(self) -> Result<ChatInput, Failure> {
        if self.max_tokens == 0 {
            return Err(Failure::field("max_tokens", "max_tokens: expected at least 1, found 0"));
        }
        if let Some(Thinking::Enabled { budget_tokens }) = self.thinking
            && budget_tokens >= self.max_tokens
        {
            let message =
                "thinking.budget_tokens: expected less than max_tokens, which includes the reasoning";
            return Err(Failure::field("thinking.budget_tokens", message));
        }
        let conversation = CountTokensRequest {
            model: self.model,
            messages: self.messages,
            system: self.system,
            tools: self.tools,
            tool_choice: self.tool_choice,
            thinking: self.thinking,
            output_config: self.output_config,
            cache_control: None,
        };
        let controls = Controls {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            max_tokens: Some(self.max_tokens),
            stop: self.stop_sequences.unwrap_or_default(),
            ..Controls::default()
        };
        Ok(ChatInput { controls, ..conversation.into_input()? })
    }
}

impl CountTokensRequest {
    /// The chat that it is about.
    pub(super) fn into_input(self) -> Result<ChatInput, Failure> {
        let tools = tools(self.tools.unwrap_or_default())?;
        let (tool_choice, parallel_tool_calls) = tool_choice(self.tool_choice, &tools)?;
        let OutputConfig { effort, format } = self.output_config.unwrap_or_default();
        let mut template_variables = Map::new();
        if let Some(effort) = effort {
            template_variables.insert("reasoning_effort".to_owned(), Value::String(effort));
        }
        let (enable_thinking, reasoning_budget) = match self.thinking {
            Some(Thinking::Enabled { budget_tokens: 0 }) => {
                let message = "thinking.budget_tokens: expected at least 1, found 0";
                return Err(Failure::field("thinking.budget_tokens", message));
            }
            Some(Thinking::Enabled { budget_tokens }) => (true, Some(budget_tokens)),
            Some(Thinking::Adaptive {}) => (true, None),
            // Who does not ask for thoughts does not expect their blocks.
            Some(Thinking::Disabled {}) | None => (false, None),
        };
        Ok(ChatInput {
            messages: messages(self.system, self.messages)?,
            options: ChatOptions {
                tools,
                tool_choice,
                parallel_tool_calls,
                enable_thinking: Some(enable_thinking),
                template_variables,
            },
            constraint: format.map(|OutputFormat::JsonSchema { schema }| Constraint::JsonSchema(schema)),
            reasoning_budget,
            controls: Controls::default(),
        })
    }
}

/// Tools in the form of OpenAI's chat API.
fn tools(tools: Vec<Tool>) -> Result<Vec<Value>, Failure> {
    let tool = |(index, tool): (usize, Tool)| {
        if tool.kind.as_ref().is_some_and(|kind| kind != "custom") {
            let param = format!("tools[{index}].type");
            let message = format!("{param}: expected custom: this server has no built-in tools");
            return Err(Failure::field(param, message));
        }
        let Some(schema) = tool.input_schema else {
            let param = format!("tools[{index}].input_schema");
            let message = format!("{param}: expected a JSON schema, found none");
            return Err(Failure::field(param, message));
        };
        let mut function = json!({ "name": tool.name });
        if let Some(description) = tool.description {
            function["description"] = Value::String(description);
        }
        function["parameters"] = Value::Object(schema);
        Ok(json!({ "type": "function", "function": function }))
    };
    openai::tools(tools.into_iter().enumerate().map(tool).collect::<Result<_, _>>()?)
}

/// Which tools, and whether several at once.
fn tool_choice(choice: Option<ToolChoice>, tools: &[Value]) -> Result<(chat::ToolChoice, bool), Failure> {
    let (choice, single) = match choice {
        None => (None, None),
        Some(ToolChoice::Auto { disable_parallel_tool_use }) => {
            (Some(json!("auto")), disable_parallel_tool_use)
        }
        Some(ToolChoice::Any { disable_parallel_tool_use }) => {
            (Some(json!("required")), disable_parallel_tool_use)
        }
        Some(ToolChoice::Tool { name, disable_parallel_tool_use }) => {
            (Some(json!({ "type": "function", "function": { "name": name } })), disable_parallel_tool_use)
        }
        Some(ToolChoice::None {}) => (Some(json!("none")), None),
    };
    Ok((openai::tool_choice(choice, tools)?, !single.unwrap_or(false)))
}

/// A block of a message.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text { text: String },
    Thinking { thinking: String },
    // What nobody can read says nothing.
    RedactedThinking {},
    ToolUse { id: String, name: String, input: Map<String, Value> },
    ToolResult { tool_use_id: String, content: Option<Content>, is_error: Option<bool> },
}

/// Messages in the form of OpenAI's chat API.
fn messages(system: Option<Content>, messages: Vec<InputMessage>) -> Result<Vec<Message>, Failure> {
    let mut said = Vec::new();
    if let Some(system) = system {
        said.push(Message::new("system", text(system, "system")?));
    }
    if messages.last().is_some_and(|message| message.role == Role::Assistant) {
        let message =
            "messages: expected the last message to be the user's: prefilling the answer is not supported";
        return Err(Failure::field("messages", message));
    }
    let mut tools = BTreeMap::new();
    for (index, InputMessage { role, content }) in messages.into_iter().enumerate() {
        let place = format!("messages[{index}].content");
        let blocks = blocks(content, &place)?;
        match role {
            Role::User => user(blocks, &place, &tools, &mut said)?,
            Role::Assistant => said.push(assistant(blocks, &place, &mut tools)?),
        }
    }
    Ok(said)
}

/// What a user says: results are messages of their own.
fn user(
    blocks: Vec<Block>,
    place: &str,
    tools: &BTreeMap<String, String>,
    said: &mut Vec<Message>,
) -> Result<(), Failure> {
    let mut texts = Vec::new();
    for (index, block) in blocks.into_iter().enumerate() {
        let place = format!("{place}[{index}]");
        match block {
            Block::Text { text } => texts.push(text),
            Block::ToolResult { tool_use_id, content, is_error } => {
                if !texts.is_empty() {
                    said.push(Message::new("user", texts.join("\n")));
                    texts.clear();
                }
                let Some(name) = tools.get(&tool_use_id) else {
                    let message = format!("{place}.tool_use_id: there is no call {tool_use_id:?} before it");
                    return Err(Failure::field(place, message));
                };
                let text = content.map_or(Ok(String::new()), |content| text(content, &place))?;
                let text = if is_error == Some(true) { format!("Error: {text}") } else { text };
                let (tool_call_id, name) = (Some(tool_use_id), Some(name.clone()));
                said.push(Message { tool_call_id, name, ..Message::new("tool", text) });
            }
            Block::Thinking { .. } | Block::RedactedThinking {} | Block::ToolUse { .. } => {
                return Err(misplaced(place, "text and tool_result in a message of the user"));
            }
        }
    }
    if !texts.is_empty() {
        said.push(Message::new("user", texts.join("\n")));
    }
    Ok(())
}

/// What the model has said; the tools of its calls are noted by the calls' names.
fn assistant(
    blocks: Vec<Block>,
    place: &str,
    tools: &mut BTreeMap<String, String>,
) -> Result<Message, Failure> {
    let (mut texts, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
    for (index, block) in blocks.into_iter().enumerate() {
        match block {
            Block::Text { text } => texts.push_str(&text),
            Block::Thinking { thinking } => thoughts.push_str(&thinking),
            Block::RedactedThinking {} => {}
            Block::ToolUse { id, name, input } => {
                tools.insert(id.clone(), name.clone());
                let function = json!({ "name": name, "arguments": input });
                calls.push(json!({ "id": id, "type": "function", "function": function }));
            }
            Block::ToolResult { .. } => {
                let expected = "text, thinking and tool_use in a message of the assistant";
                return Err(misplaced(format!("{place}[{index}]"), expected));
            }
        }
    }
    let reasoning_content = (!thoughts.is_empty()).then_some(thoughts);
    Ok(Message { reasoning_content, tool_calls: calls, ..Message::new("assistant", texts) })
}

fn blocks(content: Content, place: &str) -> Result<Vec<Block>, Failure> {
    match content {
        Content::Text(text) => Ok(vec![Block::Text { text }]),
        Content::Blocks(blocks) => {
            let read = |(index, block)| {
                Block::deserialize(&block).map_err(|error| {
                    let place = format!("{place}[{index}]");
                    let message = format!("{place}: {error}");
                    Failure::field(place, message)
                })
            };
            blocks.into_iter().enumerate().map(read).collect()
        }
    }
}

/// Content that may be text alone.
fn text(content: Content, place: &str) -> Result<String, Failure> {
    let mut texts = Vec::new();
    for (index, block) in blocks(content, place)?.into_iter().enumerate() {
        match block {
            Block::Text { text } => texts.push(text),
            _ => return Err(misplaced(format!("{place}[{index}]"), "text")),
        }
    }
    Ok(texts.join("\n"))
}

fn misplaced(place: String, expected: &str) -> Failure {
    let message = format!("{place}: expected {expected}");
    Failure::field(place, message)
}
