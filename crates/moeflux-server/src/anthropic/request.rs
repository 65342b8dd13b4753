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
use crate::fields::{NONE, SAMPLING, ignore};
use crate::generation::{ChatInput, Controls};
use crate::openai;

impl MessagesRequest {
    /// What it asks for.
    pub(super) fn into_input(self) -> Result<ChatInput, Failure> {
        if self.max_tokens == 0 {
            return Err(Failure::field("max_tokens", "max_tokens: expected at least 1, found 0"));
        }
        let budget = self.thinking.as_ref().filter(|thinking| thinking.kind == "enabled");
        if budget.and_then(|thinking| thinking.budget_tokens).is_some_and(|budget| budget >= self.max_tokens)
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
            output_format: self.output_format,
            unknown: self.unknown,
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
        self.unknown.settle("", &[SAMPLING])?;
        let mut tools = tools(self.tools.unwrap_or_default())?;
        let (tool_choice, parallel_tool_calls) = tool_choice(self.tool_choice, &mut tools)?;
        let OutputConfig { effort, format, unknown } = self.output_config.unwrap_or_default();
        unknown.settle("output_config.", &[NONE])?;
        let mut template_variables = Map::new();
        if let Some(effort) = effort {
            template_variables.insert("reasoning_effort".to_owned(), Value::String(effort));
        }
        let (enable_thinking, reasoning_budget) = thinking(self.thinking)?;
        let mut messages = messages(self.system, self.messages)?;
        let prefill = openai::prefill(&mut messages, None, None)?;
        let format = format.or(self.output_format);
        Ok(ChatInput {
            messages,
            options: ChatOptions {
                tools,
                tool_choice,
                parallel_tool_calls,
                enable_thinking: Some(enable_thinking),
                template_variables,
                prefill,
            },
            constraint: format.map(|OutputFormat::JsonSchema { schema }| Constraint::JsonSchema(schema)),
            reasoning_budget,
            ..ChatInput::default()
        })
    }
}

/// Whether to think, and the most tokens of thoughts.
fn thinking(thinking: Option<Thinking>) -> Result<(bool, Option<usize>), Failure> {
    let wrong = |field: &str, message: &str| Err(Failure::field(field, format!("{field}: {message}")));
    // Who does not ask for thoughts does not expect their blocks.
    let Some(Thinking { kind, budget_tokens, display, unknown }) = thinking else { return Ok((false, None)) };
    unknown.settle("thinking.", &[NONE])?;
    if display.is_some() {
        ignore("thinking.display");
    }
    match (kind.as_str(), budget_tokens) {
        ("enabled", None) => wrong("thinking.budget_tokens", "expected a number of tokens, found none"),
        ("enabled", Some(0)) => wrong("thinking.budget_tokens", "expected at least 1, found 0"),
        ("enabled", budget) => Ok((true, budget)),
        ("adaptive", _) => Ok((true, None)),
        ("disabled", _) => Ok((false, None)),
        _ => wrong("thinking.type", "expected enabled, adaptive or disabled"),
    }
}

/// Tools in the form of OpenAI's chat API. Those that need a service are left out.
fn tools(tools: Vec<Tool>) -> Result<Vec<Value>, Failure> {
    let mut functions = Vec::new();
    for (index, tool) in tools.into_iter().enumerate() {
        if let Some(kind) = tool.kind.as_deref().filter(|kind| *kind != "custom") {
            if openai::is_service(kind) {
                ignore(&format!("tools[].{kind}"));
                continue;
            }
            let param = format!("tools[{index}].type");
            let message =
                format!("{param}: expected custom, found {kind:?}, which this server does not have");
            return Err(Failure::field(param, message));
        }
        tool.unknown.settle("tools[].", &[NONE])?;
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
        functions.push(json!({ "type": "function", "function": function }));
    }
    Ok(openai::tools(functions)?.functions)
}

/// Which tools, and whether several at once.
fn tool_choice(
    choice: Option<ToolChoice>,
    tools: &mut Vec<Value>,
) -> Result<(chat::ToolChoice, bool), Failure> {
    let Some(ToolChoice { kind, name, disable_parallel_tool_use, unknown }) = choice else {
        return Ok((chat::ToolChoice::Auto, true));
    };
    unknown.settle("tool_choice.", &[NONE])?;
    let choice = match (kind.as_str(), name) {
        ("auto", _) => json!("auto"),
        ("any", _) => json!("required"),
        ("none", _) => json!("none"),
        ("tool", Some(name)) => json!({ "type": "function", "function": { "name": name } }),
        _ => {
            let message = "tool_choice: expected the type auto, any or none, or tool with a name";
            return Err(Failure::field("tool_choice", message));
        }
    };
    Ok((openai::tool_choice(Some(choice), tools)?, !disable_parallel_tool_use.unwrap_or(false)))
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
    // The result of a search among tools that the client holds back: all tools are in the prompt.
    ToolReference { tool_name: String },
    Document { source: Source, title: Option<String>, context: Option<String> },
    SearchResult { source: String, title: String, content: Vec<Value> },
}

/// What a document is read from.
#[derive(Deserialize)]
struct Source {
    #[serde(rename = "type")]
    kind: String,
    media_type: Option<String>,
    data: Option<String>,
    content: Option<Content>,
}

/// Blocks that tell of the work of the API's own tools.
const OF_SERVICES: [&str; 12] = [
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "mcp_tool_use",
    "mcp_tool_result",
    "container_upload",
    "compaction",
    "fallback",
];

/// Messages in the form of OpenAI's chat API.
fn messages(system: Option<Content>, messages: Vec<InputMessage>) -> Result<Vec<Message>, Failure> {
    let mut said = Vec::new();
    if let Some(system) = system {
        said.push(Message::new("system", text(system, "system")?));
    }
    if !messages.is_empty() && messages.iter().all(|message| message.role != Role::User) {
        let message = "messages: expected a message of the user; role 'system' alone is not supported";
        return Err(Failure::field("messages", message));
    }
    let mut tools = BTreeMap::new();
    for (index, InputMessage { role, content, unknown }) in messages.into_iter().enumerate() {
        unknown.settle("messages[].", &[NONE])?;
        let place = format!("messages[{index}].content");
        if role == Role::System {
            said.push(Message::new("system", text(content, &place)?));
            continue;
        }
        let blocks = blocks(content, &place)?;
        match role {
            Role::User => user(blocks, &place, &tools, &mut said)?,
            _ => said.push(assistant(blocks, &place, &mut tools)?),
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
            Block::Text { .. }
            | Block::Document { .. }
            | Block::SearchResult { .. }
            | Block::ToolReference { .. } => {
                texts.push(as_text(block, &place)?);
            }
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
                calls.push(openai::call(&id, &name, input));
            }
            Block::ToolResult { .. }
            | Block::Document { .. }
            | Block::SearchResult { .. }
            | Block::ToolReference { .. } => {
                let expected = "text, thinking and tool_use in a message of the assistant";
                return Err(misplaced(format!("{place}[{index}]"), expected));
            }
        }
    }
    let reasoning_content = (!thoughts.is_empty()).then_some(thoughts);
    Ok(Message { reasoning_content, tool_calls: calls, ..Message::new("assistant", texts) })
}

fn blocks(content: Content, place: &str) -> Result<Vec<Block>, Failure> {
    let values = match content {
        Content::Text(text) => return Ok(vec![Block::Text { text }]),
        Content::Blocks(values) => values,
    };
    let mut blocks = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        if let Some(kind) =
            value.get("type").and_then(Value::as_str).filter(|kind| OF_SERVICES.contains(kind))
        {
            ignore(&format!("content[].{kind}"));
            continue;
        }
        blocks.push(Block::deserialize(&value).map_err(|error| {
            let place = format!("{place}[{index}]");
            let message = format!("{place}: {error}");
            Failure::field(place, message)
        })?);
    }
    Ok(blocks)
}

/// Content that may be text alone.
fn text(content: Content, place: &str) -> Result<String, Failure> {
    let texts = blocks(content, place)?.into_iter().enumerate();
    let texts = texts.map(|(index, block)| as_text(block, &format!("{place}[{index}]")));
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// A block as text.
fn as_text(block: Block, place: &str) -> Result<String, Failure> {
    let titled = |title: Option<String>, more: Option<String>, body: String| {
        let parts = [title, more, Some(body)].into_iter().flatten().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("\n")
    };
    match block {
        Block::Text { text } => Ok(text),
        Block::ToolReference { tool_name } => Ok(tool_name),
        Block::SearchResult { source, title, content } => {
            let body = text(Content::Blocks(content), &format!("{place}.content"))?;
            Ok(titled(Some(title), Some(source), body))
        }
        Block::Document { source, title, context } => {
            let place = format!("{place}.source");
            let body = match (source.kind.as_str(), source.data, source.content) {
                ("text", Some(data), _) => data,
                ("content", _, Some(content)) => text(content, &format!("{place}.content"))?,
                (kind, ..) => {
                    let media_type = source.media_type.unwrap_or_default();
                    let message = format!(
                        "{place}: expected a document of the type text or content, found {kind} {media_type}: this \
                         server reads text only"
                    );
                    return Err(Failure::field(place, message));
                }
            };
            Ok(titled(title, context, body))
        }
        _ => Err(misplaced(place.to_owned(), "text")),
    }
}

fn misplaced(place: String, expected: &str) -> Failure {
    let message = format!("{place}: expected {expected}");
    Failure::field(place, message)
}
