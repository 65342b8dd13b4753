//! What requests and responses look like.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A conversation to go on with.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponsesRequest {
    /// The model; without it the server's first.
    pub model: Option<String>,
    /// What is said.
    pub input: Input,
    /// What the model is told first. It is not part of what later responses go on from.
    pub instructions: Option<String>,
    /// The response to go on from.
    pub previous_response_id: Option<String>,
    /// Whether later responses may go on from this one; yes if nothing is said.
    pub store: Option<bool>,
    /// Whether to answer as events.
    pub stream: Option<bool>,
    /// What a stream contains.
    #[schema(value_type = Option<Object>)]
    pub stream_options: Option<Map<String, Value>>,
    /// Most tokens of the answer, thoughts included.
    #[schema(minimum = 1)]
    pub max_output_tokens: Option<usize>,
    /// How far from the likeliest.
    pub temperature: Option<f32>,
    /// The likeliest tokens that have this probability together are chosen from.
    pub top_p: Option<f32>,
    /// Tools that may be called: `{type: "function", name, description, parameters}`.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
    /// `none`, `auto`, `required`, or `{type: "function", name}`.
    #[schema(value_type = Option<Object>)]
    pub tool_choice: Option<Value>,
    /// Whether an answer may call several tools.
    pub parallel_tool_calls: Option<bool>,
    /// What the answer must look like.
    pub text: Option<TextOptions>,
    /// Whether to think first.
    pub reasoning: Option<ReasoningOptions>,
    /// Kept with the response.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
    /// `disabled`: what is too long for the model is refused.
    pub truncation: Option<String>,
    /// What to tell besides: `reasoning.encrypted_content` is accepted, and nothing is done, since thoughts are plain here.
    pub include: Option<Vec<String>>,
    /// Accepted if false.
    pub background: Option<bool>,
    /// Accepted, and nothing is done: prefixes are always cached.
    pub prompt_cache_key: Option<String>,
    /// Accepted, and nothing is done.
    pub safety_identifier: Option<String>,
    /// Accepted, and nothing is done.
    pub user: Option<String>,
    /// Accepted, and nothing is done: there is one tier.
    pub service_tier: Option<String>,
}

/// What is said.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of items")]
pub enum Input {
    /// A text of the user.
    Text(String),
    /// Items, each with a `type`: `message`, `reasoning`, `function_call` or `function_call_output`.
    Items(Vec<Value>),
}

/// What the answer must look like.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    /// `{type: "text"}`, `{type: "json_object"}` or `{type: "json_schema", name, schema}`.
    #[schema(value_type = Option<Object>)]
    pub format: Option<Value>,
    /// For templates that know it.
    pub verbosity: Option<String>,
}

/// Whether to think first.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasoningOptions {
    /// `none`, `minimal`, `low`, `medium`, `high` or `xhigh`.
    pub effort: Option<String>,
    /// Accepted, and nothing is done: thoughts are told as they are.
    pub summary: Option<String>,
}

/// An answer, or what there is of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Response {
    /// Its name.
    pub id: String,
    /// `response`.
    pub object: &'static str,
    /// When it began, Unix time.
    pub created_at: u64,
    /// `in_progress`, `completed`, `incomplete` or `failed`.
    pub status: &'static str,
    /// False.
    pub background: bool,
    /// Why it failed.
    pub error: Option<ResponseError>,
    /// Why it is incomplete.
    pub incomplete_details: Option<IncompleteDetails>,
    /// As asked for.
    pub instructions: Option<String>,
    /// As asked for.
    pub max_output_tokens: Option<usize>,
    /// As asked for.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// The model.
    pub model: String,
    /// What it says.
    pub output: Vec<Item>,
    /// As asked for.
    pub parallel_tool_calls: bool,
    /// As asked for.
    pub previous_response_id: Option<String>,
    /// As asked for.
    #[schema(value_type = Object)]
    pub reasoning: Value,
    /// As asked for.
    pub store: bool,
    /// As asked for.
    pub temperature: Option<f32>,
    /// As asked for.
    #[schema(value_type = Object)]
    pub text: Value,
    /// As asked for.
    #[schema(value_type = Value)]
    pub tool_choice: Value,
    /// As asked for.
    #[schema(value_type = Vec<Object>)]
    pub tools: Vec<Value>,
    /// As asked for.
    pub top_p: Option<f32>,
    /// `disabled`.
    pub truncation: &'static str,
    /// What it took; null while it goes on.
    pub usage: Option<Usage>,
}

/// Why a response failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseError {
    /// What kind of failure.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// Why a response is incomplete.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct IncompleteDetails {
    /// `max_output_tokens`.
    pub reason: &'static str,
}

/// A part of an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// Thoughts.
    Reasoning {
        /// Its name.
        id: String,
        /// Empty: thoughts are told as they are.
        #[schema(value_type = Vec<Object>)]
        summary: Vec<Value>,
        /// The thoughts.
        content: Vec<Part>,
        /// `in_progress`, `completed` or `incomplete`.
        status: &'static str,
    },
    /// The answer itself.
    Message {
        /// Its name.
        id: String,
        /// `assistant`.
        role: &'static str,
        /// What it says.
        content: Vec<Part>,
        /// `in_progress`, `completed` or `incomplete`.
        status: &'static str,
    },
    /// A call.
    FunctionCall {
        /// Its name.
        id: String,
        /// Its name, which its output refers to.
        call_id: String,
        /// The tool.
        name: String,
        /// The text of a JSON object.
        arguments: String,
        /// `in_progress`, `completed` or `incomplete`.
        status: &'static str,
    },
}

/// A part of thoughts or of a message.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Thoughts.
    ReasoningText {
        /// The text.
        text: String,
    },
    /// The answer itself.
    OutputText {
        /// The text.
        text: String,
        /// Empty.
        #[schema(value_type = Vec<Object>)]
        annotations: Vec<Value>,
        /// Empty.
        #[schema(value_type = Vec<Object>)]
        logprobs: Vec<Value>,
    },
}

/// What a response took, in tokens.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = responses::Usage)]
pub struct Usage {
    /// Of the prompt.
    pub input_tokens: usize,
    /// Of these.
    pub input_tokens_details: InputTokens,
    /// Of the answer, thoughts included.
    pub output_tokens: usize,
    /// Of these.
    pub output_tokens_details: OutputTokens,
    /// Both.
    pub total_tokens: usize,
}

/// Tokens of a prompt.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct InputTokens {
    /// Those that the cache had.
    pub cached_tokens: usize,
}

/// Tokens of an answer.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct OutputTokens {
    /// Those of thoughts.
    pub reasoning_tokens: usize,
}

/// A response that is no more.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Deleted {
    /// Its name.
    pub id: String,
    /// `response`.
    pub object: &'static str,
    /// True.
    pub deleted: bool,
}
