//! Text to tokens and back, and chats to text.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use moeflux::chat::ChatOptions;
use moeflux::text::{ChatRequest, Message};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::app::App;
use crate::body::Json;
use crate::error::{Failure, from_error};
use crate::fields::{CHAT, NONE, Unknown};
use crate::generation::{ChatInput, Prompt, chat_prompt};
use crate::openai::{messages, prefill, tools};
use crate::openapi::ErrorBody;
use crate::work::{self, Size};

/// A text to tokenize.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// The text. Names of special tokens in it become those tokens.
    #[serde(alias = "content")]
    pub text: String,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Tokens of a text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Tokens {
    /// Ids of the tokens.
    pub tokens: Vec<u32>,
    /// Number of tokens.
    pub count: usize,
    /// Context length of the model, in tokens.
    pub context_length: usize,
}

/// Tokens to turn into text.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct DetokenizeRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// Ids of the tokens.
    pub tokens: Vec<u32>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// A text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Text {
    /// The text.
    pub text: String,
}

/// A chat to render.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ApplyTemplateRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// The conversation so far, as in `/v1/chat/completions`.
    #[schema(value_type = Vec<Object>, min_items = 1)]
    pub messages: Vec<Message>,
    /// Tools that the model may call.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
    /// Whether the model reasons before it answers.
    pub enable_thinking: Option<bool>,
    /// Additional variables for the chat template.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Whether the prompt ends with the start of the answer. Default: true.
    pub add_generation_prompt: Option<bool>,
    /// Whether the prompt ends within the last message, which is the assistant's. By default it does.
    pub continue_final_message: Option<bool>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// A chat rendered by the chat template.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Rendered {
    /// Text of the prompt.
    pub prompt: String,
}

/// Turns a text into tokens.
#[utoipa::path(
    post,
    path = "/tokenize",
    tag = "Server",
    request_body = TokenizeRequest,
    responses((status = 200, body = Tokens), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn tokenize(
    State(app): State<Arc<App>>,
    Json(request): Json<TokenizeRequest>,
) -> Result<JsonAnswer<Tokens>, Failure> {
    request.unknown.settle("", &[NONE])?;
    let model = app.model(request.model.as_deref()).await?;
    work::run(Size::OfBody, move |cancel| {
        let tokens = Prompt::Text(request.text).tokens(&model, cancel)?;
        Ok(JsonAnswer(Tokens { count: tokens.len(), tokens, context_length: model.context_length() }))
    })
    .await
}

/// Turns tokens into text.
#[utoipa::path(
    post,
    path = "/detokenize",
    tag = "Server",
    request_body = DetokenizeRequest,
    responses((status = 200, body = Text), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn detokenize(
    State(app): State<Arc<App>>,
    Json(request): Json<DetokenizeRequest>,
) -> Result<JsonAnswer<Text>, Failure> {
    request.unknown.settle("", &[NONE])?;
    let model = app.model(request.model.as_deref()).await?;
    work::run(Size::OfBody, move |_| {
        let text = model.tokenizer().decode(&request.tokens, false);
        Ok(JsonAnswer(Text { text: text.map_err(|error| from_error(&error.into()))? }))
    })
    .await
}

/// Renders a chat with the model's chat template.
#[utoipa::path(
    post,
    path = "/apply-template",
    tag = "Server",
    request_body = ApplyTemplateRequest,
    responses((status = 200, body = Rendered), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn apply_template(
    State(app): State<Arc<App>>,
    Json(request): Json<ApplyTemplateRequest>,
) -> Result<JsonAnswer<Rendered>, Failure> {
    request.unknown.settle("", &[CHAT])?;
    let mut messages = messages(request.messages)?;
    let functions = tools(request.tools.unwrap_or_default())?.functions;
    let model = app.model(request.model.as_deref()).await?;
    let is_closed =
        request.add_generation_prompt == Some(false) && request.continue_final_message != Some(true);
    if is_closed {
        return work::run(Size::OfBody, move |_| {
            let prompt = model.tokenizer().render_chat(&ChatRequest {
                messages: &messages,
                tools: (!functions.is_empty()).then_some(&functions),
                enable_thinking: request.enable_thinking,
                extra: request.chat_template_kwargs.unwrap_or_default(),
                ..ChatRequest::default()
            });
            Ok(JsonAnswer(Rendered { prompt: prompt.map_err(|error| from_error(&error.into()))? }))
        })
        .await;
    }
    let prefill = prefill(&mut messages, request.continue_final_message, request.add_generation_prompt)?;
    let input = ChatInput {
        messages,
        options: ChatOptions {
            tools: functions,
            enable_thinking: request.enable_thinking,
            template_variables: request.chat_template_kwargs.unwrap_or_default(),
            prefill,
            ..ChatOptions::default()
        },
        ..ChatInput::default()
    };
    work::run(Size::OfBody, move |_| Ok(JsonAnswer(Rendered { prompt: chat_prompt(&model, &input)? }))).await
}
