//! What requests look like.

use moeflux::text::Content;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::fields::Unknown;

/// A chat request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::ChatRequest)]
pub struct ChatRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// The conversation so far. Without messages, the model is loaded.
    #[serde(default)]
    pub messages: Vec<InputMessage>,
    /// Tools that the model may call, as in `/v1/chat/completions`.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
    /// What both requests have.
    #[serde(flatten)]
    pub common: Common,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// A request for the answer to a prompt.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct GenerateRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// The prompt. Without one, the model is loaded.
    #[serde(default)]
    pub prompt: String,
    /// System prompt.
    pub system: Option<String>,
    /// Whether the prompt goes to the model as it is, without its chat template.
    pub raw: Option<bool>,
    /// Must be empty: insertion is not supported.
    pub suffix: Option<String>,
    /// What both requests have.
    #[serde(flatten)]
    pub common: Common,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// What chats and prompts have in common.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct Common {
    /// Whether to stream the answer, a JSON object on each line. Default: true.
    pub stream: Option<bool>,
    /// Format of the answer: `json`, or a JSON schema.
    #[schema(value_type = Option<Object>)]
    pub format: Option<Value>,
    /// Whether the model reasons before it answers: true, false, `low`, `medium`, `high` or `max`.
    #[schema(value_type = Option<Object>)]
    pub think: Option<Value>,
    /// Sampling and limits.
    pub options: Option<Options>,
    /// Accepted and ignored: the server decides which models stay in memory.
    #[schema(value_type = Option<String>)]
    pub keep_alive: Option<Value>,
    /// Must be empty: this server reads text only.
    pub images: Option<Vec<String>>,
}

/// Sampling and limits.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct Options {
    /// Sampling temperature. 0 always selects the most likely token.
    pub temperature: Option<f32>,
    /// Sample from the N most likely tokens. 0 or -1 disables this.
    pub top_k: Option<i64>,
    /// Sample from the smallest set of most likely tokens whose probabilities add up to this.
    pub top_p: Option<f32>,
    /// Sample from tokens whose probability is at least this share of the most likely token's.
    pub min_p: Option<f32>,
    /// Divides the positive logits and multiplies the negative logits of tokens that occur in the prompt or the answer.
    pub repeat_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that occur in the answer.
    pub presence_penalty: Option<f32>,
    /// Subtracted from the logit of a token once for each time that it occurs in the answer.
    pub frequency_penalty: Option<f32>,
    /// Seed of the sampler.
    pub seed: Option<i64>,
    /// Maximum number of tokens of the answer. -1 and -2 are no limit but the server's.
    pub num_predict: Option<i64>,
    /// Texts that end the answer. They are not part of it.
    #[schema(value_type = Option<Vec<String>>)]
    pub stop: Option<crate::openai::types::OneOrMany>,
    /// All other options.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// A message of a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::InputMessage)]
pub struct InputMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Content of the message.
    #[schema(value_type = Option<String>)]
    pub content: Option<Content>,
    /// Reasoning of the assistant.
    pub thinking: Option<String>,
    /// Must be empty: this server reads text only.
    pub images: Option<Vec<String>>,
    /// Calls of the assistant: `{function: {name, arguments}}`.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tool_calls: Option<Vec<Value>>,
    /// Which tool the result is of.
    #[serde(alias = "name")]
    pub tool_name: Option<String>,
    /// Which call the result is of.
    pub tool_call_id: Option<String>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// A message of the assistant, or in a stream a part of one.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ollama::Said)]
pub struct Said {
    /// Always `assistant`.
    pub role: &'static str,
    /// Text of the answer.
    pub content: String,
    /// Text of the reasoning.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// Tool calls: `{function: {name, arguments}}`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub tool_calls: Vec<Value>,
}

impl Default for Said {
    fn default() -> Self {
        Said { role: "assistant", content: String::new(), thinking: String::new(), tool_calls: Vec::new() }
    }
}

/// A request for embeddings.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct EmbedRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// One or several texts.
    pub input: crate::openai::types::OneOrMany,
    /// Must equal the model's `hidden_size` if present.
    pub dimensions: Option<usize>,
    /// Accepted and ignored: a text that exceeds the context is refused.
    pub truncate: Option<bool>,
    /// Accepted and ignored.
    #[schema(value_type = Option<String>)]
    pub keep_alive: Option<Value>,
    /// Accepted and ignored.
    #[schema(value_type = Option<Object>)]
    pub options: Option<Map<String, Value>>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// A request for one embedding.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct EmbeddingRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// The text.
    pub prompt: String,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// A request about one model.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ModelRequest {
    /// Name of the model.
    #[serde(alias = "name")]
    pub model: String,
    /// Whether to stream progress. Default: true.
    pub stream: Option<bool>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Embeddings of texts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Embedded {
    /// Name of the model.
    pub model: String,
    /// One embedding of length 1 for each text.
    pub embeddings: Vec<Vec<f32>>,
    /// Nanoseconds that the request took.
    pub total_duration: u64,
    /// Nanoseconds until the model was in memory.
    pub load_duration: u64,
    /// Tokens of all texts.
    pub prompt_eval_count: usize,
}

/// The embedding of one text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EmbeddedOne {
    /// The embedding, of length 1.
    pub embedding: Vec<f32>,
}

/// What a failed request gets.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OllamaError {
    /// Message for people.
    pub error: String,
}
