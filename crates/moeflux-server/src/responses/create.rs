//! Making responses.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::{Extension, Json as JsonAnswer};
use moeflux::SamplingOptions;
use moeflux::text::Message;
use serde_json::Value;

use super::items::{self, Items, Style};
use super::request::Asked;
use super::stream;
use super::types::{IncompleteDetails, Item, Response, ResponsesRequest, Usage};
use crate::app::App;
use crate::auth::Caller;
use crate::body::Json;
use crate::clock::unix_time;
use crate::error::{Failure, FailureKind};
use crate::generation::{self, Finish, Generation};
use crate::openai::types::InputTokenCount;
use crate::openapi::ErrorBody;

/// Answers a conversation, at once or as events.
#[utoipa::path(
    post,
    path = "/v1/responses",
    tag = "OpenAI",
    request_body = ResponsesRequest,
    responses(
        (status = 200, content((Response = "application/json"), (serde_json::Value = "text/event-stream"))),
        (status = "4XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<ResponsesRequest>,
) -> Result<HttpResponse, Failure> {
    let streams = request.stream.unwrap_or(false);
    let (temperature, top_p, name) = (request.temperature, request.top_p, request.model.clone());
    let Asked { input, instructions, items, style, mut response } = asked(&app, caller, request)?;
    let model = app.model(name.as_deref()).await?;
    model.name().clone_into(&mut response.model);
    let recommended = SamplingOptions::recommended(model.tokenizer().generation_defaults());
    response.temperature = temperature.unwrap_or(recommended.temperature);
    response.top_p = top_p.unwrap_or(recommended.top_p);
    response.presence_penalty = recommended.presence_penalty;
    response.frequency_penalty = recommended.frequency_penalty;
    let messages = input.messages[instructions..].to_vec();
    let generation = generation::chat(model, &app.config().limits, input).await?;
    let mut running = Running { app, caller, messages, input: items, style, response };
    if streams {
        return Ok(stream::respond(generation, running));
    }
    if running.response.background {
        return Ok(in_background(generation, running));
    }
    running.complete(generation).await?;
    Ok(JsonAnswer(running.response).into_response())
}

/// Counts the tokens of a request's input.
#[utoipa::path(
    post,
    path = "/v1/responses/input_tokens",
    tag = "OpenAI",
    request_body = ResponsesRequest,
    responses((status = 200, body = InputTokenCount), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn input_tokens(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<ResponsesRequest>,
) -> Result<JsonAnswer<InputTokenCount>, Failure> {
    let name = request.model.clone();
    let Asked { input, .. } = asked(&app, caller, request)?;
    let model = app.model(name.as_deref()).await?;
    let input_tokens = generation::count_tokens(model, input).await?;
    Ok(JsonAnswer(InputTokenCount { object: "response.input_tokens", input_tokens }))
}

/// What a request asks for, with what it names of earlier responses.
pub(super) fn asked(app: &App, caller: Caller, request: ResponsesRequest) -> Result<Asked, Failure> {
    let earlier = match &request.previous_response_id {
        Some(id) => {
            let missing = || not_found(id, "previous_response_id");
            let response = app.responses().response(id, caller).ok_or_else(missing)?;
            if !matches!(response["status"].as_str(), Some("completed" | "incomplete")) {
                let field = "previous_response_id";
                let message =
                    format!("{field}: the response {id:?} is not complete: it is {}", response["status"]);
                return Err(Failure::field(field, message));
            }
            app.responses().messages(id, caller).ok_or_else(missing)?
        }
        None => Vec::new(),
    };
    request.asked(earlier, &|id| app.responses().item(id, caller))
}

/// Starts a task that makes the response, and returns what there is of it.
fn in_background(generation: Generation, mut running: Running) -> HttpResponse {
    running.response.status = "queued";
    running.keep(&[]);
    let answer = JsonAnswer(running.response.clone()).into_response();
    let (app, id) = (Arc::clone(&running.app), running.response.id.clone());
    running.response.status = "in_progress";
    let task = tokio::spawn(async move {
        if let Err(failure) = running.complete(generation).await {
            running.fail(&failure);
            running.keep(&[]);
        }
    });
    app.responses().made_by(&id, task.abort_handle());
    answer
}

/// A response on its way.
pub(super) struct Running {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller,
    /// What was said before it.
    pub(super) messages: Vec<Message>,
    /// The items of its input.
    pub(super) input: Vec<Value>,
    /// How the items of its answer are written.
    pub(super) style: Style,
    pub(super) response: Response,
}

impl Running {
    /// Waits for the end of a generation.
    async fn complete(&mut self, generation: Generation) -> Result<(), Failure> {
        let answer = generation.collect().await?.pop().ok_or_else(Failure::internal)?;
        let mut items = Items::new(self.style.clone());
        for delta in answer.content.deltas {
            items.push(delta);
        }
        items.end(answer.finish != Some(Finish::Length));
        self.end(items, answer.finish.as_ref(), &answer.usage)
    }

    /// Completes the response, and keeps it if that was asked for.
    pub(super) fn end(
        &mut self,
        items: Items,
        finish: Option<&Finish>,
        usage: &generation::Usage,
    ) -> Result<(), Failure> {
        let response = &mut self.response;
        response.status = match finish {
            Some(Finish::EndOfTurn | Finish::StopText(_) | Finish::ToolCalls) => "completed",
            Some(Finish::Length) => {
                response.incomplete_details = Some(IncompleteDetails { reason: "max_output_tokens" });
                "incomplete"
            }
            Some(Finish::Cancelled) | None => {
                let message = "the server stopped before the response was complete";
                return Err(Failure::new(FailureKind::Unavailable, message));
            }
        };
        response.completed_at = Some(unix_time());
        response.output = items.into_vec();
        response.usage = Some(Usage::from(usage));
        if response.store {
            self.messages.push(items::message(&response.output));
            self.keep(&self.response.output);
        }
        Ok(())
    }

    /// Keeps the response as it is now.
    fn keep(&self, items: &[Item]) {
        let Self { app, caller, messages, input, response, .. } = self;
        app.responses().put(&response.id, *caller, response, items, messages, input);
    }
}

/// There is no response of this name, or it is somebody else's.
pub(super) fn not_found(id: &str, param: &str) -> Failure {
    let message = format!("{param}: there is no response {id:?}; it may have been evicted");
    Failure { param: Some(param.to_owned()), ..Failure::new(FailureKind::NotFound, message) }
}
