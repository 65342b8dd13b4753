//! What requests and responses look like.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A responses request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponsesRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// Input of the model.
    pub input: Input,
    /// System prompt. Later responses that continue this one do not inherit it.
    pub instructions: Option<String>,
    /// Id of the response to continue.
    pub previous_response_id: Option<String>,
    /// Whether later responses can continue this one. Default: true.
    pub store: Option<bool>,
    /// Whether to stream the response as events.
    pub stream: Option<bool>,
    /// Options of the stream.
    #[schema(value_type = Option<Object>)]
    pub stream_options: Option<Map<String, Value>>,
    /// Maximum number of tokens of the answer, reasoning included.
    #[schema(minimum = 1)]
    pub max_output_tokens: Option<usize>,
    /// Sampling temperature. 0 always selects the most likely token.
    pub temperature: Option<f32>,
    /// Nucleus sampling: sample from the smallest set of most likely tokens whose probabilities add up to this.
    pub top_p: Option<f32>,
    /// Tools that the model may call: `{type: "function", name, description, parameters}`.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
    /// Which tools the model may or must call: `none`, `auto`, `required`, or `{type: "function", name}`.
    #[schema(value_type = Option<Object>)]
    pub tool_choice: Option<Value>,
    /// Whether one answer may call several tools.
    pub parallel_tool_calls: Option<bool>,
    /// Format of the answer.
    pub text: Option<TextOptions>,
    /// Reasoning effort.
    pub reasoning: Option<ReasoningOptions>,
    /// Stored with the response.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
    /// Must be `disabled` if present: an input that exceeds the context is refused.
    pub truncation: Option<String>,
    /// Additional output. `reasoning.encrypted_content` is accepted and ignored: reasoning is not encrypted.
    pub include: Option<Vec<String>>,
    /// Must be false if present.
    pub background: Option<bool>,
    /// Accepted and ignored: prefixes are always cached.
    pub prompt_cache_key: Option<String>,
    /// Accepted and ignored.
    pub safety_identifier: Option<String>,
    /// Accepted and ignored.
    pub user: Option<String>,
    /// Accepted and ignored.
    pub service_tier: Option<String>,
}

/// Input of the model: a text, or a list of items.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of items")]
pub enum Input {
    /// A text of the user.
    Text(String),
    /// Items, each with a `type`: `message`, `reasoning`, `function_call` or `function_call_output`.
    Items(Vec<Value>),
}

/// Format of the answer.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    /// `{type: "text"}`, `{type: "json_object"}` or `{type: "json_schema", name, schema}`.
    #[schema(value_type = Option<Object>)]
    pub format: Option<Value>,
    /// Verbosity, for templates that use it.
    pub verbosity: Option<String>,
}

/// Reasoning effort.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasoningOptions {
    /// `none`, `minimal`, `low`, `medium`, `high` or `xhigh`. `none` disables reasoning.
    pub effort: Option<String>,
    /// Accepted and ignored: reasoning is returned unabridged.
    pub summary: Option<String>,
}

/// A response, complete or in progress.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Response {
    /// Id of the response.
    pub id: String,
    /// Always `response`.
    pub object: &'static str,
    /// Creation time, in Unix seconds.
    pub created_at: u64,
    /// `in_progress`, `completed`, `incomplete` or `failed`.
    pub status: &'static str,
    /// Always false.
    pub background: bool,
    /// Why the response failed.
    pub error: Option<ResponseError>,
    /// Why the response is incomplete.
    pub incomplete_details: Option<IncompleteDetails>,
    /// The value of the request.
    pub instructions: Option<String>,
    /// The value of the request.
    pub max_output_tokens: Option<usize>,
    /// The value of the request.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Name of the model.
    pub model: String,
    /// Output of the model.
    pub output: Vec<Item>,
    /// The value of the request.
    pub parallel_tool_calls: bool,
    /// The value of the request.
    pub previous_response_id: Option<String>,
    /// The value of the request.
    #[schema(value_type = Object)]
    pub reasoning: Value,
    /// The value of the request.
    pub store: bool,
    /// The value of the request.
    pub temperature: Option<f32>,
    /// The value of the request.
    #[schema(value_type = Object)]
    pub text: Value,
    /// The value of the request.
    #[schema(value_type = Value)]
    pub tool_choice: Value,
    /// The value of the request.
    #[schema(value_type = Vec<Object>)]
    pub tools: Vec<Value>,
    /// The value of the request.
    pub top_p: Option<f32>,
    /// Always `disabled`.
    pub truncation: &'static str,
    /// Token usage. Null while the response is in progress.
    pub usage: Option<Usage>,
}

/// Why a response failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseError {
    /// Kind of the failure.
    pub code: &'static str,
    /// Message for people.
    pub message: String,
}

/// Why a response is incomplete.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct IncompleteDetails {
    /// Always `max_output_tokens`.
    pub reason: &'static str,
}

/// An output item.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// Reasoning.
    Reasoning {
        /// Id of the item.
        id: String,
        /// Always empty: reasoning is returned unabridged.
        #[schema(value_type = Vec<Object>)]
        summary: Vec<Value>,
        /// The reasoning.
        content: Vec<Part>,
        /// `in_progress`, `completed` or `incomplete`.
        status: &'static str,
    },
    /// A message.
    Message {
        /// Id of the item.
        id: String,
        /// Always `assistant`.
        role: &'static str,
        /// Content of the message.
        content: Vec<Part>,
        /// `in_progress`, `completed` or `incomplete`.
        status: &'static str,
    },
    /// A tool call.
    FunctionCall {
        /// Id of the item.
        id: String,
        /// Id of the call, for its output.
        call_id: String,
        /// Name of the tool.
        name: String,
        /// Arguments: JSON text of an object.
        arguments: String,
        /// `in_progress`, `completed` or `incomplete`.
        status: &'static str,
    },
}

/// A part of reasoning or of a message.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Reasoning.
    ReasoningText {
        /// The text.
        text: String,
    },
    /// Text of a message.
    OutputText {
        /// The text.
        text: String,
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        annotations: Vec<Value>,
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        logprobs: Vec<Value>,
    },
}

/// Token usage of a response.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = responses::Usage)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: usize,
    /// Details of the prompt tokens.
    pub input_tokens_details: InputTokens,
    /// Tokens of the answer, reasoning included.
    pub output_tokens: usize,
    /// Details of the output tokens.
    pub output_tokens_details: OutputTokens,
    /// Sum of input and output tokens.
    pub total_tokens: usize,
}

/// Details of the prompt tokens.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct InputTokens {
    /// Tokens that the prefix cache contained.
    pub cached_tokens: usize,
}

/// Details of the output tokens.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct OutputTokens {
    /// Tokens of the reasoning.
    pub reasoning_tokens: usize,
}

/// A deleted response.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Deleted {
    /// Id of the response.
    pub id: String,
    /// Always `response`.
    pub object: &'static str,
    /// Always true.
    pub deleted: bool,
}
