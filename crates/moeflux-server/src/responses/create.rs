//! Making responses.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::{Extension, Json as JsonAnswer};
use moeflux::text::Message;

use super::items::{self, Items};
use super::request::Asked;
use super::stream;
use super::types::{IncompleteDetails, InputTokens, OutputTokens, Response, ResponsesRequest, Usage};
use crate::app::App;
use crate::auth::Caller;
use crate::body::Json;
use crate::error::{Failure, FailureKind};
use crate::generation::{self, Finish};
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
    let earlier = match &request.previous_response_id {
        Some(id) => {
            app.responses().messages(id, caller).ok_or_else(|| not_found(id, "previous_response_id"))?
        }
        None => Vec::new(),
    };
    let name = request.model.clone();
    let Asked { input, instructions, mut response } = request.asked(earlier)?;
    let model = app.model(name.as_deref()).await?;
    model.name().clone_into(&mut response.model);
    let messages = input.messages[instructions..].to_vec();
    let generation = generation::chat(model, &app.config().limits, input).await?;
    let mut running = Running { app, caller, messages, response };
    if streams {
        return Ok(stream::respond(generation, running));
    }
    let answer = generation.collect().await?.pop().ok_or_else(Failure::internal)?;
    let mut items = Items::default();
    for delta in answer.content.deltas {
        items.push(delta);
    }
    items.end(answer.finish != Some(Finish::Length));
    running.end(items, answer.finish.as_ref(), &answer.usage)?;
    Ok(JsonAnswer(running.response).into_response())
}

/// A response on its way.
pub(super) struct Running {
    pub(super) app: Arc<App>,
    caller: Caller,
    /// What was said before it.
    messages: Vec<Message>,
    pub(super) response: Response,
}

impl Running {
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
        response.output = items.into_vec();
        response.usage = Some(Usage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokens { cached_tokens: usage.cached_tokens },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokens { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        });
        if response.store {
            self.messages.push(items::message(&response.output));
            self.app.responses().put(&response.id, self.caller, response, &self.messages);
        }
        Ok(())
    }
}

/// There is no response of this name, or it is somebody else's.
pub(super) fn not_found(id: &str, param: &str) -> Failure {
    let message = format!("{param}: there is no response {id:?}; it may have been evicted");
    Failure { param: Some(param.to_owned()), ..Failure::new(FailureKind::NotFound, message) }
}
