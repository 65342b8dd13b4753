//! What requests and answers of chats and completions look like.

use std::collections::BTreeMap;

use moeflux::text::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::fields::Unknown;

/// One text, or a list of texts.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One text.
    One(String),
    /// A list of texts.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// Options of a stream.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Whether the last chunk has the token usage.
    #[serde(default)]
    pub include_usage: Option<bool>,
    /// Accepted and ignored.
    #[serde(default)]
    pub include_obfuscation: Option<bool>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Constraints in the forms of vLLM and llama.cpp.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct Guided {
    /// JSON schema of the answer.
    #[schema(value_type = Option<Object>)]
    pub guided_json: Option<Value>,
    /// Regular expression that the answer matches.
    #[schema(value_type = Option<String>)]
    pub guided_regex: Option<Value>,
    /// Texts of which the answer is one.
    #[schema(value_type = Option<Vec<String>>)]
    pub guided_choice: Option<Value>,
    /// JSON schema of the answer.
    #[schema(value_type = Option<Object>)]
    pub json_schema: Option<Value>,
    /// Constraint of the answer: `json`, `regex`, `choice` or `json_object`.
    #[schema(value_type = Option<Object>)]
    pub structured_outputs: Option<Value>,
}

/// A chat completion request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ChatCompletionRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// The conversation so far.
    #[schema(value_type = Vec<Object>, min_items = 1)]
    pub messages: Vec<Message>,
    /// Tools that the model may call.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
    /// Which tools the model may or must call: `none`, `auto`, `required`, or `{type: "function", function: {name}}`.
    #[schema(value_type = Option<Object>)]
    pub tool_choice: Option<Value>,
    /// Whether one answer may call several tools.
    pub parallel_tool_calls: Option<bool>,
    /// Format of the answer: `{type: "text"}`, `{type: "json_object"}` or `{type: "json_schema", json_schema:
    /// {schema}}`.
    #[schema(value_type = Option<Object>)]
    pub response_format: Option<Value>,
    /// Reasoning effort: `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`. `none` disables reasoning. The others
    /// reach templates that use them.
    pub reasoning_effort: Option<String>,
    /// Whether the model reasons before it answers.
    pub enable_thinking: Option<bool>,
    /// Maximum number of reasoning tokens.
    pub reasoning_budget: Option<usize>,
    /// Additional variables for the chat template.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Sampling temperature. 0 always selects the most likely token.
    pub temperature: Option<f32>,
    /// Nucleus sampling: sample from the smallest set of most likely tokens whose probabilities add up to this.
    pub top_p: Option<f32>,
    /// Sample from the N most likely tokens. 0 or -1 disables this.
    pub top_k: Option<i64>,
    /// Sample from tokens whose probability is at least this share of the most likely token's.
    pub min_p: Option<f32>,
    /// Divides the positive logits and multiplies the negative logits of tokens that occur in the prompt or the answer.
    /// 1 disables this.
    pub repetition_penalty: Option<f32>,
    /// llama.cpp's name of `repetition_penalty`.
    pub repeat_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that occur in the answer.
    pub presence_penalty: Option<f32>,
    /// Subtracted from the logit of a token once for each time that it occurs in the answer.
    pub frequency_penalty: Option<f32>,
    /// Added to the logits of these tokens, by token id.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Seed of the sampler. The same seed gives the same answer.
    pub seed: Option<i64>,
    /// Texts that end the answer. They are not part of it.
    pub stop: Option<OneOrMany>,
    /// Maximum number of tokens of the answer, reasoning included. -1 is no limit but the server's.
    pub max_tokens: Option<i64>,
    /// Newer name of `max_tokens`.
    pub max_completion_tokens: Option<i64>,
    /// Minimum number of tokens of the answer.
    pub min_tokens: Option<usize>,
    /// Whether to continue after the end-of-turn token.
    pub ignore_eos: Option<bool>,
    /// Number of answers.
    pub n: Option<usize>,
    /// Whether to return log-probabilities of the answer's tokens.
    pub logprobs: Option<bool>,
    /// Number of most likely tokens to return at each position, at most 20. Requires `logprobs`.
    pub top_logprobs: Option<usize>,
    /// Priority among the waiting requests of a caller. The highest runs first, and it rises while a request waits.
    /// Default: 0.
    pub priority: Option<i32>,
    /// Whether to stream the answer as server-sent events.
    pub stream: Option<bool>,
    /// Options of the stream.
    pub stream_options: Option<StreamOptions>,
    /// Accepted and ignored.
    #[schema(value_type = Option<String>)]
    pub user: Option<Value>,
    /// Accepted and ignored.
    pub safety_identifier: Option<String>,
    /// Accepted and ignored: common prefixes are found without it.
    pub prompt_cache_key: Option<String>,
    /// Accepted and ignored.
    pub service_tier: Option<String>,
    /// Accepted and ignored.
    pub verbosity: Option<String>,
    /// Accepted and ignored: answers are not stored.
    pub store: Option<bool>,
    /// Accepted and ignored.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
    /// Must be `["text"]` if present.
    pub modalities: Option<Vec<String>>,
    /// Whether the answer continues the last message, which is the assistant's. By default it does.
    pub continue_final_message: Option<bool>,
    /// Whether the answer is a new message also after one of the assistant.
    pub add_generation_prompt: Option<bool>,
    /// Whether the model reasons: `{type: "enabled"}` or `{type: "disabled"}`.
    #[schema(value_type = Option<Object>)]
    pub thinking: Option<Value>,
    /// Reasoning effort as `{effort, enabled}`.
    #[schema(value_type = Option<Object>)]
    pub reasoning: Option<Value>,
    /// Constraints in other forms.
    #[serde(flatten)]
    pub guided: Guided,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// A text completion request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct CompletionRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// One or several prompts, as text or token ids.
    pub prompt: Prompts,
    /// Whether the returned text begins with the prompt.
    pub echo: Option<bool>,
    /// Number of most likely tokens whose log-probabilities are returned at each position, at most 20.
    pub logprobs: Option<usize>,
    /// Must equal `n`, or 1.
    pub best_of: Option<usize>,
    /// Must be empty: insertion is not supported.
    pub suffix: Option<String>,
    /// Sampling temperature. 0 always selects the most likely token.
    pub temperature: Option<f32>,
    /// Nucleus sampling: sample from the smallest set of most likely tokens whose probabilities add up to this.
    pub top_p: Option<f32>,
    /// Sample from the N most likely tokens. 0 or -1 disables this.
    pub top_k: Option<i64>,
    /// Sample from tokens whose probability is at least this share of the most likely token's.
    pub min_p: Option<f32>,
    /// Divides the positive logits and multiplies the negative logits of tokens that occur in the prompt or the answer.
    /// 1 disables this.
    pub repetition_penalty: Option<f32>,
    /// llama.cpp's name of `repetition_penalty`.
    pub repeat_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that occur in the answer.
    pub presence_penalty: Option<f32>,
    /// Subtracted from the logit of a token once for each time that it occurs in the answer.
    pub frequency_penalty: Option<f32>,
    /// Added to the logits of these tokens, by token id.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Seed of the sampler. The same seed gives the same text.
    pub seed: Option<i64>,
    /// Texts that end the completion. They are not part of it.
    pub stop: Option<OneOrMany>,
    /// Maximum number of new tokens. -1 is no limit but the server's. Default: 16.
    pub max_tokens: Option<i64>,
    /// Minimum number of new tokens.
    pub min_tokens: Option<usize>,
    /// Whether to continue after the end-of-text token.
    pub ignore_eos: Option<bool>,
    /// Number of completions of each prompt.
    pub n: Option<usize>,
    /// Format of the text, as in a chat completion request.
    #[schema(value_type = Option<Object>)]
    pub response_format: Option<Value>,
    /// Priority among the waiting requests of a caller. The highest runs first, and it rises while a request waits.
    /// Default: 0.
    pub priority: Option<i32>,
    /// Whether to stream the text as server-sent events.
    pub stream: Option<bool>,
    /// Options of the stream.
    pub stream_options: Option<StreamOptions>,
    /// Accepted and ignored.
    #[schema(value_type = Option<String>)]
    pub user: Option<Value>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Prompts, as text or token ids.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, a list of token ids, or a list of either")]
pub enum Prompts {
    /// One prompt, as text.
    Text(String),
    /// One prompt, as token ids.
    Tokens(Vec<u32>),
    /// Several prompts, as texts.
    Texts(Vec<String>),
    /// Several prompts, as lists of token ids.
    TokenLists(Vec<Vec<u32>>),
}

/// Token usage of a request.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of all answers.
    pub completion_tokens: usize,
    /// Sum of prompt and completion tokens.
    pub total_tokens: usize,
    /// Details of the prompt tokens.
    pub prompt_tokens_details: PromptDetails,
    /// Details of the completion tokens.
    pub completion_tokens_details: CompletionDetails,
}

/// Details of the prompt tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct PromptDetails {
    /// Tokens that the prefix cache contained.
    pub cached_tokens: usize,
}

/// Details of the completion tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct CompletionDetails {
    /// Tokens of the reasoning.
    pub reasoning_tokens: usize,
}

impl Usage {
    /// Adds a sample; all samples of a prompt read it once.
    pub fn add(&mut self, sample: &crate::generation::Usage, is_first_of_prompt: bool) {
        if is_first_of_prompt {
            self.prompt_tokens += sample.prompt_tokens;
            self.prompt_tokens_details.cached_tokens += sample.cached_tokens;
        }
        self.completion_tokens += sample.completion_tokens;
        self.completion_tokens_details.reasoning_tokens += sample.reasoning_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

/// A chat completion.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    /// Id of the completion.
    pub id: String,
    /// Always `chat.completion`.
    pub object: &'static str,
    /// Creation time, in Unix seconds.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// Token usage.
    pub usage: Usage,
    /// Name and version of the server.
    pub system_fingerprint: &'static str,
}

/// Name and version of the server: with the same model and seed, the same version gives the same answer.
pub const FINGERPRINT: &str = concat!("moeflux-", env!("CARGO_PKG_VERSION"));

/// Number of tokens of a prompt.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct InputTokenCount {
    /// Always `response.input_tokens`.
    pub object: &'static str,
    /// Number of tokens.
    pub input_tokens: usize,
}

/// One answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    /// Index of the answer.
    pub index: usize,
    /// The message of the assistant.
    pub message: AnswerMessage,
    /// Log-probabilities, if they were requested.
    pub logprobs: Option<ChatLogprobs>,
    /// Why the answer ended: `stop`, `length` or `tool_calls`.
    pub finish_reason: &'static str,
}

/// A message of the assistant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnswerMessage {
    /// Always `assistant`.
    pub role: &'static str,
    /// Text of the answer. Null if the answer consists of tool calls.
    pub content: Option<String>,
    /// Always null.
    #[schema(value_type = Option<String>)]
    pub refusal: Option<&'static str>,
    /// Text of the reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Tool calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// A tool call, or in a stream a part of one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ToolCall {
    /// Index of the call. Only in streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Id of the call. In a stream, only in its first part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function` or `custom`. In a stream, only in its first part.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The called function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionCall>,
    /// The called custom tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomCall>,
}

/// A called custom tool.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CustomCall {
    /// Name of the tool. In a stream, only in the first part of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Input of the tool.
    pub input: String,
}

/// A called function.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FunctionCall {
    /// Name of the tool. In a stream, only in the first part of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Arguments as JSON text, or in a stream a part of it.
    pub arguments: String,
}

/// Log-probabilities of an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// Log-probability of each token.
    pub content: Vec<ChatLogprob>,
}

/// A token with its log-probability.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatLogprob {
    /// Text of the token.
    pub token: String,
    /// Natural logarithm of the token's probability.
    pub logprob: f64,
    /// UTF-8 bytes of the token. A part of a character has bytes but no text.
    pub bytes: Option<Vec<u8>>,
    /// The most likely tokens at this position.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub top_logprobs: Option<Vec<ChatLogprob>>,
}
