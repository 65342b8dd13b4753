//! What requests and answers of chats and completions look like.

use std::collections::BTreeMap;

use moeflux::text::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// One text or several.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
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

/// What a stream contains besides the answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Whether to end with a chunk of the usage.
    #[serde(default)]
    pub include_usage: Option<bool>,
    /// Accepted, and nothing is done.
    #[serde(default)]
    pub include_obfuscation: Option<bool>,
}

/// A chat to answer.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatCompletionRequest {
    /// The model; without it the server's first.
    pub model: Option<String>,
    /// The conversation so far.
    #[schema(value_type = Vec<Object>, min_items = 1)]
    pub messages: Vec<Message>,
    /// Tools that may be called.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
    /// `none`, `auto`, `required`, or `{type: "function", function: {name}}`.
    #[schema(value_type = Option<Object>)]
    pub tool_choice: Option<Value>,
    /// Whether an answer may call several tools.
    pub parallel_tool_calls: Option<bool>,
    /// `{type: "text"}`, `{type: "json_object"}` or `{type: "json_schema", json_schema: {schema}}`.
    #[schema(value_type = Option<Object>)]
    pub response_format: Option<Value>,
    /// How much to think: `none`, `minimal`, `low`, `medium`, `high` or `xhigh`, as far as the template knows it.
    pub reasoning_effort: Option<String>,
    /// Whether to think first.
    pub enable_thinking: Option<bool>,
    /// Most tokens of thoughts.
    pub reasoning_budget: Option<usize>,
    /// More variables for the template.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// How freely to choose; 0 always takes the likeliest token.
    pub temperature: Option<f32>,
    /// Choose among the likeliest tokens that have this probability together.
    pub top_p: Option<f32>,
    /// Choose among so many likeliest tokens.
    pub top_k: Option<usize>,
    /// Choose among tokens at least this likely, relative to the likeliest.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens seen before.
    pub repetition_penalty: Option<f32>,
    /// Taken off the logits of tokens that the answer has.
    pub presence_penalty: Option<f32>,
    /// Taken off for each time that the answer has the token.
    pub frequency_penalty: Option<f32>,
    /// Added to logits, by token id.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Same seed, same answer.
    pub seed: Option<i64>,
    /// Texts that end the answer.
    pub stop: Option<OneOrMany>,
    /// Most tokens of the answer, thoughts included.
    pub max_tokens: Option<usize>,
    /// The newer name of `max_tokens`.
    pub max_completion_tokens: Option<usize>,
    /// Least tokens of the answer.
    pub min_tokens: Option<usize>,
    /// Whether to go on after the end of the turn.
    pub ignore_eos: Option<bool>,
    /// How many answers.
    pub n: Option<usize>,
    /// Whether to tell log-probabilities.
    pub logprobs: Option<bool>,
    /// Of how many of the likeliest tokens, at most 20.
    pub top_logprobs: Option<usize>,
    /// Who goes first: the highest.
    pub priority: Option<i32>,
    /// Whether to answer in pieces.
    pub stream: Option<bool>,
    /// What the stream contains besides.
    pub stream_options: Option<StreamOptions>,
    /// Accepted, and nothing is done.
    pub user: Option<String>,
    /// Accepted, and nothing is done.
    pub safety_identifier: Option<String>,
    /// Accepted, and nothing is done: what prompts have in common is found without it.
    pub prompt_cache_key: Option<String>,
    /// Accepted, and nothing is done.
    pub service_tier: Option<String>,
    /// Accepted, and nothing is done.
    pub verbosity: Option<String>,
    /// Accepted if false: nothing is stored.
    pub store: Option<bool>,
    /// Accepted, and nothing is done.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
    /// Accepted if it is `["text"]`.
    pub modalities: Option<Vec<String>>,
}

/// A text to go on with.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompletionRequest {
    /// The model; without it the server's first.
    pub model: Option<String>,
    /// Text or token ids, or a list of either.
    pub prompt: Prompts,
    /// Whether to begin with the prompt.
    pub echo: Option<bool>,
    /// Log-probabilities of the tokens, and of so many of the likeliest, at most 20.
    pub logprobs: Option<usize>,
    /// Must be `n`, or 1.
    pub best_of: Option<usize>,
    /// Must be empty: models here write forwards.
    pub suffix: Option<String>,
    /// How freely to choose; 0 always takes the likeliest token.
    pub temperature: Option<f32>,
    /// Choose among the likeliest tokens that have this probability together.
    pub top_p: Option<f32>,
    /// Choose among so many likeliest tokens.
    pub top_k: Option<usize>,
    /// Choose among tokens at least this likely, relative to the likeliest.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens seen before.
    pub repetition_penalty: Option<f32>,
    /// Taken off the logits of tokens that the answer has.
    pub presence_penalty: Option<f32>,
    /// Taken off for each time that the answer has the token.
    pub frequency_penalty: Option<f32>,
    /// Added to logits, by token id.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Same seed, same text.
    pub seed: Option<i64>,
    /// Texts that end it.
    pub stop: Option<OneOrMany>,
    /// Most new tokens; without it 16.
    pub max_tokens: Option<usize>,
    /// Least new tokens.
    pub min_tokens: Option<usize>,
    /// Whether to go on after the end of the text.
    pub ignore_eos: Option<bool>,
    /// How many of each prompt.
    pub n: Option<usize>,
    /// What the text must look like; see the chat.
    #[schema(value_type = Option<Object>)]
    pub response_format: Option<Value>,
    /// Who goes first: the highest.
    pub priority: Option<i32>,
    /// Whether to answer in pieces.
    pub stream: Option<bool>,
    /// What the stream contains besides.
    pub stream_options: Option<StreamOptions>,
    /// Accepted, and nothing is done.
    pub user: Option<String>,
}

/// Prompts, as text or token ids.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, a list of token ids, or a list of either")]
pub enum Prompts {
    /// One text.
    Text(String),
    /// One, as token ids.
    Tokens(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Several, as token ids.
    TokenLists(Vec<Vec<u32>>),
}

/// What a request took, in tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Of all answers.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// More about the prompt's.
    pub prompt_tokens_details: PromptDetails,
    /// More about the answers'.
    pub completion_tokens_details: CompletionDetails,
}

/// More about a prompt's tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct PromptDetails {
    /// Those that the prefix cache had.
    pub cached_tokens: usize,
}

/// More about an answer's tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct CompletionDetails {
    /// Those of thoughts.
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

/// The answer to a chat.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    /// Its name.
    pub id: String,
    /// `chat.completion`.
    pub object: &'static str,
    /// Unix time.
    pub created: u64,
    /// The model.
    pub model: String,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// What it took.
    pub usage: Usage,
}

/// One answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    /// Which.
    pub index: usize,
    /// What was said.
    pub message: AnswerMessage,
    /// Log-probabilities, if they were asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// `stop`, `length`, `tool_calls`.
    pub finish_reason: &'static str,
}

/// What was said.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnswerMessage {
    /// `assistant`.
    pub role: &'static str,
    /// The answer; null if only tools are called.
    pub content: Option<String>,
    /// Always null.
    #[schema(value_type = Option<String>)]
    pub refusal: Option<&'static str>,
    /// The thoughts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// A call of a tool, or a piece of one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ToolCall {
    /// In streams: which call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Its name, in a stream's first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`, in a stream's first piece.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// What is called.
    pub function: FunctionCall,
}

/// What is called.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FunctionCall {
    /// The tool, in a stream's first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// JSON text, or a piece of it.
    pub arguments: String,
}

/// Log-probabilities of an answer's tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// Of each token.
    pub content: Vec<ChatLogprob>,
}

/// A token and what the model made of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatLogprob {
    /// Its text.
    pub token: String,
    /// Its log-probability.
    pub logprob: f64,
    /// Its bytes: part of a character has no text.
    pub bytes: Option<Vec<u8>>,
    /// The likeliest in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub top_logprobs: Option<Vec<ChatLogprob>>,
}
