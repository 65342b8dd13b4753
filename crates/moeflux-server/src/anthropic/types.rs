//! What requests and answers look like.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A conversation to answer.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MessagesRequest {
    /// The model.
    pub model: String,
    /// Most tokens of the answer, thoughts included.
    #[schema(minimum = 1)]
    pub max_tokens: usize,
    /// The conversation so far.
    #[schema(min_items = 1)]
    pub messages: Vec<InputMessage>,
    /// What the model is told first.
    pub system: Option<Content>,
    /// Tools that may be called.
    pub tools: Option<Vec<Tool>>,
    /// Which of them may or must be called.
    pub tool_choice: Option<ToolChoice>,
    /// Whether to think first.
    pub thinking: Option<Thinking>,
    /// What the answer must look like, and how much effort to spend.
    pub output_config: Option<OutputConfig>,
    /// Texts that end the answer.
    pub stop_sequences: Option<Vec<String>>,
    /// Whether to answer in pieces.
    pub stream: Option<bool>,
    /// How far from the likeliest.
    pub temperature: Option<f32>,
    /// So many of the likeliest tokens are chosen from.
    pub top_k: Option<usize>,
    /// The likeliest tokens that have this probability together are chosen from.
    pub top_p: Option<f32>,
    /// Accepted, and nothing is done.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
    /// Accepted, and nothing is done: there is one tier.
    pub service_tier: Option<String>,
    /// Accepted, and nothing is done: prefixes are always cached.
    #[schema(value_type = Option<Object>)]
    pub cache_control: Option<Value>,
}

/// A conversation whose tokens are to be counted.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CountTokensRequest {
    /// The model.
    pub model: String,
    /// The conversation so far.
    #[schema(min_items = 1)]
    pub messages: Vec<InputMessage>,
    /// What the model is told first.
    pub system: Option<Content>,
    /// Tools that may be called.
    pub tools: Option<Vec<Tool>>,
    /// Which of them may or must be called.
    pub tool_choice: Option<ToolChoice>,
    /// Whether to think first.
    pub thinking: Option<Thinking>,
    /// As for an answer.
    pub output_config: Option<OutputConfig>,
    /// Accepted, and nothing is done.
    #[schema(value_type = Option<Object>)]
    pub cache_control: Option<Value>,
}

/// How many tokens a conversation has.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct TokenCount {
    /// So many.
    pub input_tokens: usize,
}

/// A message of a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InputMessage {
    /// Who says it.
    pub role: Role,
    /// What.
    pub content: Content,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// A text, or blocks.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of blocks")]
pub enum Content {
    /// Text.
    Text(String),
    /// Blocks, each with a `type`: `text`, `thinking`, `redacted_thinking`, `tool_use` or `tool_result`.
    Blocks(Vec<Value>),
}

/// A tool.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// `custom`, or nothing.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of what it takes.
    #[schema(value_type = Option<Object>)]
    pub input_schema: Option<Map<String, Value>>,
    /// Accepted, and nothing is done: a call always has a JSON object, and the schema binds it where a call is required.
    pub strict: Option<bool>,
    /// Accepted, and nothing is done: a call is told when it is complete.
    pub eager_input_streaming: Option<bool>,
    /// Accepted, and nothing is done.
    #[schema(value_type = Option<Object>)]
    pub cache_control: Option<Value>,
}

/// Which tools may or must be called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToolChoice {
    /// The model chooses.
    Auto {
        /// At most one.
        disable_parallel_tool_use: Option<bool>,
    },
    /// At least one.
    Any {
        /// At most one.
        disable_parallel_tool_use: Option<bool>,
    },
    /// This one.
    Tool {
        /// Its name.
        name: String,
        /// At most one.
        disable_parallel_tool_use: Option<bool>,
    },
    /// None.
    None {},
}

/// Whether to think first.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Thinking {
    /// Yes.
    Enabled {
        /// Most tokens of thoughts.
        #[schema(minimum = 1)]
        budget_tokens: usize,
    },
    /// As long as it takes.
    Adaptive {},
    /// No.
    Disabled {},
}

/// What an answer must look like, and how much effort to spend.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// For templates that know it.
    pub effort: Option<String>,
    /// What the answer must look like.
    pub format: Option<OutputFormat>,
}

/// What an answer must look like.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum OutputFormat {
    /// JSON that meets a schema.
    JsonSchema {
        /// The schema.
        #[schema(value_type = Object)]
        schema: Value,
    },
}

/// An answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = anthropic::AnswerMessage)]
pub struct AnswerMessage {
    /// Its name.
    pub id: String,
    /// `message`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `assistant`.
    pub role: &'static str,
    /// The model.
    pub model: String,
    /// What it says.
    pub content: Vec<Block>,
    /// Why it ended: `end_turn`, `max_tokens`, `stop_sequence` or `tool_use`; null while it goes on.
    pub stop_reason: Option<&'static str>,
    /// The text that ended it.
    pub stop_sequence: Option<String>,
    /// What it took.
    pub usage: Usage,
}

/// A part of an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// Thoughts.
    Thinking {
        /// The text.
        thinking: String,
        /// Nothing: thoughts are not signed here.
        signature: &'static str,
    },
    /// The answer itself.
    Text {
        /// The text.
        text: String,
    },
    /// A call.
    ToolUse {
        /// Its name, which its result refers to.
        id: String,
        /// The tool.
        name: String,
        /// What it is given, as the model wrote it.
        #[schema(value_type = Object)]
        input: Box<RawValue>,
    },
}

/// What an answer took, in tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[schema(as = anthropic::Usage)]
pub struct Usage {
    /// Of the prompt, without those that the cache had.
    pub input_tokens: usize,
    /// 0: what is kept in the cache costs nothing.
    pub cache_creation_input_tokens: usize,
    /// Of the prompt, those that the cache had.
    pub cache_read_input_tokens: usize,
    /// Of the answer.
    pub output_tokens: usize,
}
