//! What requests and responses look like.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::fields::Unknown;
use crate::generation;

/// A responses request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
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
    /// Tools that the model may call: `{type: "function", name, description, parameters}`, or `{type: "custom",
    /// name, description, format}` for one that takes a text. Built-in tools are ignored.
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
    /// `disabled` or `auto`. With either, an input that exceeds the context is refused.
    pub truncation: Option<String>,
    /// Additional output: `reasoning.encrypted_content` adds the reasoning in a form that later requests can return; it is encoded
    /// and not encrypted. Others are ignored.
    pub include: Option<Vec<String>>,
    /// Whether to answer at once and go on in the background: `GET /v1/responses/{id}` then shows the state, and
    /// `POST /v1/responses/{id}/cancel` ends it. Requires `store`.
    pub background: Option<bool>,
    /// Accepted and ignored: log-probabilities are returned by `/v1/chat/completions`.
    pub top_logprobs: Option<usize>,
    /// Accepted and ignored: it counts calls of built-in tools.
    pub max_tool_calls: Option<usize>,
    /// Accepted and ignored: prefixes are always cached.
    pub prompt_cache_key: Option<String>,
    /// Accepted and ignored.
    pub safety_identifier: Option<String>,
    /// Accepted and ignored.
    #[schema(value_type = Option<String>)]
    pub user: Option<Value>,
    /// Accepted and ignored.
    pub service_tier: Option<String>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Input of the model: a text, or a list of items.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of items")]
pub enum Input {
    /// A text of the user.
    Text(String),
    /// Items, each with a `type`: `message`, `reasoning`, `function_call`, `function_call_output`, `custom_tool_call`,
    /// `custom_tool_call_output` or `item_reference`.
    Items(Vec<Value>),
}

/// Format of the answer.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct TextOptions {
    /// `{type: "text"}`, `{type: "json_object"}` or `{type: "json_schema", name, schema}`.
    #[schema(value_type = Option<Object>)]
    pub format: Option<Value>,
    /// Verbosity, for templates that use it.
    pub verbosity: Option<String>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Reasoning effort.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct ReasoningOptions {
    /// `none`, `minimal`, `low`, `medium`, `high` or `xhigh`. `none` disables reasoning.
    pub effort: Option<String>,
    /// `auto`, `concise` or `detailed`: the reasoning is returned, unabridged, as its summary.
    #[serde(alias = "generate_summary")]
    pub summary: Option<String>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
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
    /// Time of the end, in Unix seconds.
    pub completed_at: Option<u64>,
    /// `queued`, `in_progress`, `completed`, `incomplete`, `cancelled` or `failed`.
    pub status: &'static str,
    /// The value of the request.
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
    /// The sampling temperature.
    pub temperature: f32,
    /// The value of the request.
    #[schema(value_type = Object)]
    pub text: Value,
    /// The value of the request.
    #[schema(value_type = Value)]
    pub tool_choice: Value,
    /// The value of the request.
    #[schema(value_type = Vec<Object>)]
    pub tools: Vec<Value>,
    /// The share of probability from which tokens were sampled.
    pub top_p: f32,
    /// The penalty of tokens that occur in the answer.
    pub presence_penalty: f32,
    /// The penalty of tokens, once for each time that they occur in the answer.
    pub frequency_penalty: f32,
    /// Always 0.
    pub top_logprobs: usize,
    /// The value of the request.
    pub max_tool_calls: Option<usize>,
    /// The value of the request.
    pub truncation: String,
    /// Always `default`.
    pub service_tier: &'static str,
    /// The value of the request.
    pub safety_identifier: Option<String>,
    /// The value of the request.
    pub prompt_cache_key: Option<String>,
    /// The value of the request.
    #[schema(value_type = Option<String>)]
    pub user: Option<Value>,
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
        /// The reasoning, if a summary was requested.
        summary: Vec<Part>,
        /// The reasoning, if no summary was requested.
        content: Vec<Part>,
        /// The reasoning, encoded, if it was requested.
        #[serde(skip_serializing_if = "Option::is_none")]
        encrypted_content: Option<String>,
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
    /// A call of a custom tool.
    CustomToolCall {
        /// Id of the item.
        id: String,
        /// Id of the call, for its output.
        call_id: String,
        /// Name of the tool.
        name: String,
        /// Input of the tool: a text.
        input: String,
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
    /// Reasoning, as its own summary.
    SummaryText {
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

impl From<&generation::Usage> for Usage {
    fn from(usage: &generation::Usage) -> Self {
        Usage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokens { cached_tokens: usage.cached_tokens },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokens { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
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

/// The input of a stored response.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ItemList {
    /// Always `list`.
    pub object: &'static str,
    /// The items.
    #[schema(value_type = Vec<Object>)]
    pub data: Vec<Value>,
    /// Id of the first.
    pub first_id: Option<String>,
    /// Id of the last.
    pub last_id: Option<String>,
    /// Whether there are more.
    pub has_more: bool,
}
