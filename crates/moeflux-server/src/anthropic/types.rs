//! What requests and answers look like.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::fields::Unknown;

/// A messages request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct MessagesRequest {
    /// Name of the model.
    pub model: String,
    /// Maximum number of tokens of the answer, reasoning included.
    #[schema(minimum = 1)]
    pub max_tokens: usize,
    /// The conversation so far.
    #[schema(min_items = 1)]
    pub messages: Vec<InputMessage>,
    /// System prompt.
    pub system: Option<Content>,
    /// Tools that the model may call.
    pub tools: Option<Vec<Tool>>,
    /// Which tools the model may or must call.
    pub tool_choice: Option<ToolChoice>,
    /// Whether the model reasons before it answers.
    pub thinking: Option<Thinking>,
    /// Format of the answer, and reasoning effort.
    pub output_config: Option<OutputConfig>,
    /// Texts that end the answer. They are not part of it.
    pub stop_sequences: Option<Vec<String>>,
    /// Whether to stream the answer as server-sent events.
    pub stream: Option<bool>,
    /// Sampling temperature. 0 always selects the most likely token.
    pub temperature: Option<f32>,
    /// Sample from the N most likely tokens. 0 disables this.
    pub top_k: Option<usize>,
    /// Nucleus sampling: sample from the smallest set of most likely tokens whose probabilities add up to this.
    pub top_p: Option<f32>,
    /// Accepted and ignored.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
    /// Accepted and ignored.
    pub service_tier: Option<String>,
    /// Accepted and ignored: prefixes are always cached.
    #[schema(value_type = Option<Object>)]
    pub cache_control: Option<Value>,
    /// The older name of `output_config.format`.
    pub output_format: Option<OutputFormat>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// A request to count the tokens of a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct CountTokensRequest {
    /// Name of the model.
    pub model: String,
    /// The conversation so far.
    #[schema(min_items = 1)]
    pub messages: Vec<InputMessage>,
    /// System prompt.
    pub system: Option<Content>,
    /// Tools that the model may call.
    pub tools: Option<Vec<Tool>>,
    /// Which tools the model may or must call.
    pub tool_choice: Option<ToolChoice>,
    /// Whether the model reasons before it answers.
    pub thinking: Option<Thinking>,
    /// Format of the answer, and reasoning effort.
    pub output_config: Option<OutputConfig>,
    /// Accepted and ignored.
    #[schema(value_type = Option<Object>)]
    pub cache_control: Option<Value>,
    /// The older name of `output_config.format`.
    pub output_format: Option<OutputFormat>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Number of tokens of a conversation.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct TokenCount {
    /// Number of tokens.
    pub input_tokens: usize,
}

/// A message of a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct InputMessage {
    /// Role of the author.
    pub role: Role,
    /// Content of the message.
    pub content: Content,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Role of the author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The user.
    User,
    /// The model.
    Assistant,
    /// Who runs the model. Where a template has no place for a system message between others, it becomes part of the turn of
    /// the user beside it.
    System,
}

/// Content: a text, or a list of blocks.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of blocks")]
pub enum Content {
    /// A text.
    Text(String),
    /// Blocks, each with a `type`: `text`, `document`, `search_result`, `thinking`, `redacted_thinking`, `tool_use`
    /// or `tool_result`.
    Blocks(Vec<Value>),
}

/// A tool.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Tool {
    /// `custom`, or absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Name of the tool.
    pub name: String,
    /// What the tool does.
    pub description: Option<String>,
    /// JSON schema of the tool's arguments.
    #[schema(value_type = Option<Object>)]
    pub input_schema: Option<Map<String, Value>>,
    /// Accepted and ignored: arguments are always a JSON object, and follow the schema where a call is required.
    pub strict: Option<bool>,
    /// Accepted and ignored: a call is sent when it is complete.
    pub eager_input_streaming: Option<bool>,
    /// Accepted and ignored.
    #[schema(value_type = Option<Object>)]
    pub cache_control: Option<Value>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Which tools the model may or must call.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct ToolChoice {
    /// `auto`, `any`, `tool` or `none`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the tool, with the type `tool`.
    pub name: Option<String>,
    /// Whether the answer has at most one call.
    pub disable_parallel_tool_use: Option<bool>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Whether the model reasons before it answers.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct Thinking {
    /// `enabled`, `adaptive` or `disabled`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Maximum number of reasoning tokens, with the type `enabled`.
    #[schema(minimum = 1)]
    pub budget_tokens: Option<usize>,
    /// Accepted and ignored: reasoning is returned unabridged.
    pub display: Option<String>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Format of the answer, and reasoning effort.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct OutputConfig {
    /// Reasoning effort, for templates that use it.
    pub effort: Option<String>,
    /// Format of the answer.
    pub format: Option<OutputFormat>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Format of an answer.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputFormat {
    /// JSON that follows a schema.
    JsonSchema {
        /// The JSON schema.
        #[schema(value_type = Object)]
        schema: Value,
    },
}

/// An answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = anthropic::AnswerMessage)]
pub struct AnswerMessage {
    /// Id of the answer.
    pub id: String,
    /// Always `message`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Always `assistant`.
    pub role: &'static str,
    /// Name of the model.
    pub model: String,
    /// Content of the answer.
    pub content: Vec<Block>,
    /// Why the answer ended: `end_turn`, `max_tokens`, `stop_sequence` or `tool_use`. Null until it has ended.
    pub stop_reason: Option<&'static str>,
    /// The stop sequence that ended the answer.
    pub stop_sequence: Option<String>,
    /// Always null: a model that refuses says so in its text.
    #[schema(value_type = Option<Object>)]
    pub stop_details: Option<Value>,
    /// Token usage.
    pub usage: Usage,
    /// Always null: code is not executed.
    #[schema(value_type = Option<Object>)]
    pub container: Option<Value>,
}

/// A content block of an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// Reasoning.
    Thinking {
        /// Text of the reasoning.
        thinking: String,
        /// Always empty: reasoning is not signed.
        signature: &'static str,
    },
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Always null: sources are not cited.
        #[schema(value_type = Option<Vec<Object>>)]
        citations: Option<Value>,
    },
    /// A tool call.
    ToolUse {
        /// Id of the call, for its result.
        id: String,
        /// Name of the tool.
        name: String,
        /// Arguments, as the model wrote them.
        #[schema(value_type = Object)]
        input: Box<RawValue>,
        /// Who calls: always the model itself.
        caller: Caller,
    },
}

/// Who calls a tool.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Caller {
    /// The model itself, not code that it wrote.
    #[default]
    Direct,
}

/// Token usage of an answer.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[schema(as = anthropic::Usage)]
pub struct Usage {
    /// Tokens of the prompt that the prefix cache did not contain.
    pub input_tokens: usize,
    /// Always 0: caching is free.
    pub cache_creation_input_tokens: usize,
    /// Tokens of the prompt that the prefix cache contained.
    pub cache_read_input_tokens: usize,
    /// Tokens of the answer.
    pub output_tokens: usize,
    /// Details of the output tokens.
    pub output_tokens_details: OutputDetails,
    /// Always 0: caching is free.
    pub cache_creation: CacheCreation,
    /// Always null.
    pub inference_geo: Option<&'static str>,
    /// Always null: this server has no tools of its own.
    #[schema(value_type = Option<Object>)]
    pub server_tool_use: Option<u8>,
    /// Always `standard`.
    pub service_tier: ServiceTier,
}

/// Details of the output tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct OutputDetails {
    /// Tokens of the reasoning.
    pub thinking_tokens: usize,
}

/// Tokens written to caches, by lifetime.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct CacheCreation {
    /// Always 0.
    pub ephemeral_5m_input_tokens: usize,
    /// Always 0.
    pub ephemeral_1h_input_tokens: usize,
}

/// The tier that served a request.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    /// The only one.
    #[default]
    Standard,
}
