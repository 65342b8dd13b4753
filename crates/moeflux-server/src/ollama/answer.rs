//! `/api/chat` and `/api/generate`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_stream::stream;
use axum::Json as JsonAnswer;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use moeflux::chat::Delta;
use serde_json::{Map, Value, json};

use super::request::unused;
use super::types::{ChatRequest, GenerateRequest, OllamaError, Said};
use super::{error_body, nanoseconds};
use crate::app::App;
use crate::body::Json;
use crate::clock::{rfc3339, unix_time};
use crate::error::{Failure, FailureKind};
use crate::generation::{self, Finish, Generation, Output, Prompt, TextInput, Usage};
use crate::models::Lease;

/// Answers a chat, as a stream unless that is switched off.
#[utoipa::path(
    post,
    path = "/api/chat",
    tag = "Ollama",
    request_body = ChatRequest,
    responses(
        (status = 200, content((Object = "application/json"), (Object = "application/x-ndjson"))),
        (status = "4XX", body = OllamaError),
        (status = "5XX", body = OllamaError),
    )
)]
pub async fn chat(
    State(app): State<Arc<App>>,
    Json(request): Json<ChatRequest>,
) -> Result<Response, Failure> {
    let start = Instant::now();
    let streams = request.common.stream.unwrap_or(true);
    unused("keep_alive", request.common.keep_alive.as_ref());
    let model = app.model(request.model.as_deref()).await?;
    let form = Form { is_chat: true, model: named(request.model.as_deref(), &model), start };
    if request.messages.is_empty() {
        return Ok(form.loaded());
    }
    let load = form.start.elapsed();
    let generation = generation::chat(model, &app.config().limits, request.into_input()?).await?;
    respond(generation, form, load, streams).await
}

/// Answers a prompt, as a stream unless that is switched off.
#[utoipa::path(
    post,
    path = "/api/generate",
    tag = "Ollama",
    request_body = GenerateRequest,
    responses(
        (status = 200, content((Object = "application/json"), (Object = "application/x-ndjson"))),
        (status = "4XX", body = OllamaError),
        (status = "5XX", body = OllamaError),
    )
)]
pub async fn generate(
    State(app): State<Arc<App>>,
    Json(request): Json<GenerateRequest>,
) -> Result<Response, Failure> {
    let start = Instant::now();
    let streams = request.common.stream.unwrap_or(true);
    unused("keep_alive", request.common.keep_alive.as_ref());
    request.settle()?;
    let model = app.model(request.model.as_deref()).await?;
    let form = Form { is_chat: false, model: named(request.model.as_deref(), &model), start };
    if request.prompt.is_empty() {
        return Ok(form.loaded());
    }
    let load = form.start.elapsed();
    let limits = &app.config().limits;
    let generation = if request.raw == Some(true) {
        let asked = request.common.asked()?;
        let (constraint, controls) = (asked.constraint, asked.controls);
        let prompt = Prompt::Text(request.prompt);
        generation::text(model, limits, TextInput { prompt, prompt_logprobs: None, constraint, controls })
            .await?
    } else {
        generation::chat(model, limits, request.into_input()?).await?
    };
    respond(generation, form, load, streams).await
}

/// The model's name as the request has it, or its own.
fn named(asked: Option<&str>, model: &Lease) -> String {
    asked.filter(|name| !name.is_empty()).unwrap_or(model.name()).to_owned()
}

/// How the answer is written.
struct Form {
    is_chat: bool,
    model: String,
    start: Instant,
}

async fn respond(
    mut generation: Generation,
    form: Form,
    load: Duration,
    streams: bool,
) -> Result<Response, Failure> {
    if !streams {
        let answer = generation.collect().await?.pop().ok_or_else(Failure::internal)?;
        let mut said = Said::default();
        let mut calls = Calls::default();
        for delta in answer.content.deltas {
            calls.push(delta, &mut said);
        }
        calls.end(&mut said);
        let finish = answer.finish.as_ref();
        return Ok(JsonAnswer(form.last(said, finish, &answer.usage, load)?).into_response());
    }
    let lines = stream! {
        let mut calls = Calls::default();
        while let Some(output) = generation.next().await {
            let line = match output {
                Ok(Output::Prefill { .. }) => continue,
                Ok(Output::Piece { deltas, .. }) => {
                    let mut said = Said::default();
                    for delta in deltas {
                        calls.push(delta, &mut said);
                    }
                    if said.content.is_empty() && said.thinking.is_empty() && said.tool_calls.is_empty() {
                        continue;
                    }
                    Ok(form.piece(said))
                }
                Ok(Output::Done { finish, usage, .. }) => {
                    let mut said = Said::default();
                    calls.end(&mut said);
                    if !said.tool_calls.is_empty() {
                        yield line(&form.piece(std::mem::take(&mut said)));
                    }
                    form.last(said, Some(&finish), &usage, load)
                }
                Err(failure) => Err(failure),
            };
            match line {
                Ok(value) => yield self::line(&value),
                Err(failure) => {
                    yield self::line(&error_body(&failure));
                    return;
                }
            }
        }
    };
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

#[expect(clippy::unnecessary_wraps, reason = "an item of the body's stream")]
fn line(value: &Value) -> Result<String, Infallible> {
    Ok(format!("{value}\n"))
}

/// The call that is open: its arguments are told when they are complete.
#[derive(Default)]
struct Calls(Option<(String, String)>);

impl Calls {
    fn push(&mut self, delta: Delta, said: &mut Said) {
        match delta {
            Delta::Arguments { piece, .. } => {
                if let Some((_, arguments)) = &mut self.0 {
                    arguments.push_str(&piece);
                }
            }
            Delta::ToolCall { name, .. } => {
                self.end(said);
                self.0 = Some((name, String::new()));
            }
            Delta::Text(text) => {
                self.end(said);
                said.content.push_str(&text);
            }
            Delta::Reasoning(text) => {
                self.end(said);
                said.thinking.push_str(&text);
            }
        }
    }

    fn end(&mut self, said: &mut Said) {
        if let Some((name, arguments)) = self.0.take() {
            let arguments: Map<String, Value> = serde_json::from_str(&arguments).unwrap_or_default();
            said.tool_calls.push(json!({ "function": { "name": name, "arguments": arguments } }));
        }
    }
}

impl Form {
    fn piece(&self, said: Said) -> Value {
        let mut value = json!({ "model": self.model, "created_at": rfc3339(unix_time()), "done": false });
        if self.is_chat {
            value["message"] = json!(said);
        } else {
            value["response"] = Value::from(said.content);
            if !said.thinking.is_empty() {
                value["thinking"] = Value::from(said.thinking);
            }
        }
        value
    }

    /// The end, with what it took.
    fn last(
        &self,
        said: Said,
        finish: Option<&Finish>,
        usage: &Usage,
        load: Duration,
    ) -> Result<Value, Failure> {
        let reason = match finish {
            Some(Finish::EndOfTurn | Finish::StopText(_) | Finish::ToolCalls) => "stop",
            Some(Finish::Length) => "length",
            Some(Finish::Cancelled) | None => {
                let message = "the server stopped before the answer was complete";
                return Err(Failure::new(FailureKind::Unavailable, message));
            }
        };
        let mut value = self.piece(said);
        value["done"] = Value::from(true);
        value["done_reason"] = Value::from(reason);
        value["total_duration"] = Value::from(nanoseconds(self.start.elapsed()));
        value["load_duration"] = Value::from(nanoseconds(load));
        value["prompt_eval_count"] = Value::from(usage.prompt_tokens);
        value["prompt_eval_duration"] = Value::from(nanoseconds(usage.prefill));
        value["eval_count"] = Value::from(usage.completion_tokens);
        value["eval_duration"] = Value::from(nanoseconds(usage.decode));
        Ok(value)
    }

    /// The answer to a request that has the model loaded.
    fn loaded(&self) -> Response {
        let mut value = self.piece(Said::default());
        value["done"] = Value::from(true);
        value["done_reason"] = Value::from("load");
        JsonAnswer(value).into_response()
    }
}
