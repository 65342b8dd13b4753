//! `/v1/completions`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream::SelectAll;
use futures_util::{Stream, StreamExt};
use moeflux::chat::Delta;
use serde::Serialize;
use utoipa::ToSchema;

use super::chat::finish_reason;
use super::chat_stream::{done, failed};
use super::logprobs::TextLogprobs;
use super::request::response_format;
use super::types::{CompletionRequest, FINGERPRINT, Prompts, Usage};
use crate::app::App;
use crate::body::Json;
use crate::clock::unix_time;
use crate::error::Failure;
use crate::generation::{self, Generation, Output, Prompt, TextInput};
use crate::ids::unique;
use crate::models::Lease;
use crate::openapi::ErrorBody;
use crate::sse;
use crate::work::{self, Size};

/// A text completion, or in a stream a part of one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Completion {
    /// Id of the completion.
    pub id: String,
    /// Always `text_completion`.
    pub object: &'static str,
    /// Creation time, in Unix seconds.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// The completions of each prompt, in order.
    pub choices: Vec<TextChoice>,
    /// Token usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Name and version of the server.
    pub system_fingerprint: &'static str,
}

/// One completion.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TextChoice {
    /// Index of the completion.
    pub index: usize,
    /// The new text, after the prompt if `echo` is set.
    pub text: String,
    /// Log-probabilities, if they were requested.
    pub logprobs: Option<TextLogprobs>,
    /// Why the completion ended: `stop` or `length`. Null in a stream before the last part.
    pub finish_reason: Option<&'static str>,
}

/// Completes texts, at once or as a stream.
#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "OpenAI",
    request_body = CompletionRequest,
    responses(
        (status = 200, content((Completion = "application/json"), (serde_json::Value = "text/event-stream"))),
        (status = "4XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody),
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Json(mut request): Json<CompletionRequest>,
) -> Result<Response, Failure> {
    let limits = &app.config().limits;
    let controls = request.take_controls()?;
    limits.check(&controls)?;
    let samples = controls.n.unwrap_or(1);
    let prompts = request.prompt.into_list();
    if prompts.is_empty() || prompts.len() > limits.texts {
        let message = format!("prompt: expected 1 to {} prompts, found {}", limits.texts, prompts.len());
        return Err(Failure::field("prompt", message));
    }
    let streams = request.stream.unwrap_or(false);
    let echo = request.echo.unwrap_or(false);
    let constraint = response_format(request.response_format)?;
    let model = app.model(request.model.as_deref()).await?;

    let mut running = SelectAll::new();
    let mut parts = Vec::new();
    for (index, prompt) in prompts.into_iter().enumerate() {
        let (text, prompt) = if echo {
            let asked = model.clone();
            work::run(Size::OfBody, move |_| Ok((prompt.text(asked.tokenizer())?, prompt))).await?
        } else {
            (String::new(), prompt)
        };
        let input = TextInput {
            prompt,
            prompt_logprobs: controls.logprobs.filter(|_| echo),
            constraint: constraint.clone(),
            controls: controls.clone(),
        };
        let generation = generation::text(model.clone(), limits, input).await?;
        for sample in 0..samples {
            parts.push(Part::new(index * samples + sample, text.clone(), controls.logprobs.is_some()));
        }
        running.push(numbered(generation, index * samples));
    }

    let frame = Frame { id: unique("cmpl-"), created: unix_time(), model };
    if streams {
        let usage = request.stream_options.unwrap_or_default().include_usage.unwrap_or(false);
        return Ok(respond(running, parts, frame, usage, app.config().keep_alive, samples));
    }
    let mut choices: Vec<TextChoice> = parts.iter().map(Part::empty).collect();
    let mut usage = Usage::default();
    while let Some((first, output)) = running.next().await {
        if let Some(piece) = take(&mut parts, first, output?, &mut usage, samples, &frame.model)? {
            let choice = &mut choices[piece.index];
            choice.text.push_str(&piece.text);
            choice.finish_reason = piece.finish_reason;
            if let (Some(all), Some(more)) = (&mut choice.logprobs, piece.logprobs) {
                all.append(more);
            }
        }
    }
    Ok(JsonAnswer(frame.completion(choices, Some(usage))).into_response())
}

/// The outputs of a prompt's samples, with the index of the first.
type Numbered = Pin<Box<dyn Stream<Item = (usize, Result<Output, Failure>)> + Send>>;

fn numbered(generation: Generation, first: usize) -> Numbered {
    generation.map(move |output| (first, output)).boxed()
}

fn respond(
    mut running: SelectAll<Numbered>,
    mut parts: Vec<Part>,
    frame: Frame,
    include_usage: bool,
    keep_alive: Duration,
    samples: usize,
) -> Response {
    let events = stream! {
        let mut usage = Usage::default();
        while let Some((first, output)) = running.next().await {
            let taken = output.and_then(|output| take(&mut parts, first, output, &mut usage, samples, &frame.model));
            match taken {
                Ok(Some(piece)) => yield sse::json(&frame.completion(vec![piece], None)),
                Ok(None) => {}
                Err(failure) => {
                    yield failed(&failure);
                    return;
                }
            }
        }
        if include_usage {
            yield sse::json(&frame.completion(Vec::new(), Some(usage)));
        }
        yield done();
    };
    sse::respond(events, keep_alive)
}

/// What an output adds to its choice, if anything.
fn take(
    parts: &mut [Part],
    first: usize,
    output: Output,
    usage: &mut Usage,
    samples: usize,
    model: &Lease,
) -> Result<Option<TextChoice>, Failure> {
    match output {
        Output::Prefill { sample, logprobs, done, total } => {
            let part = &mut parts[first + sample];
            let mut piece = part.empty();
            for told in logprobs {
                part.push(&mut piece, told.token, told.logprob, &told.top_logprobs, model);
            }
            if done == total {
                piece.text = std::mem::take(&mut part.prompt);
            }
            let says =
                !piece.text.is_empty() || piece.logprobs.as_ref().is_some_and(|told| !told.tokens.is_empty());
            Ok(says.then_some(piece))
        }
        Output::Piece { sample, deltas, token } => {
            let part = &mut parts[first + sample];
            let mut piece = part.empty();
            if let Some(token) = token {
                part.push(&mut piece, token.id, Some(token.logprob), &token.top, model);
            }
            for delta in deltas {
                if let Delta::Text(text) = delta {
                    piece.text.push_str(&text);
                }
            }
            Ok(Some(piece))
        }
        Output::Done { sample, finish, usage: of_sample } => {
            let index = first + sample;
            usage.add(&of_sample, index.is_multiple_of(samples));
            let mut piece = parts[index].empty();
            piece.finish_reason = Some(finish_reason(Some(&finish))?);
            Ok(Some(piece))
        }
    }
}

/// What is known of a choice between its pieces.
struct Part {
    index: usize,
    /// What it begins with, until that was told.
    prompt: String,
    logprobs: bool,
    /// Characters of the tokens told so far.
    offset: usize,
}

impl Part {
    fn new(index: usize, prompt: String, logprobs: bool) -> Self {
        Self { index, prompt, logprobs, offset: 0 }
    }

    fn empty(&self) -> TextChoice {
        let logprobs = self.logprobs.then(TextLogprobs::default);
        TextChoice { index: self.index, text: String::new(), logprobs, finish_reason: None }
    }

    fn push(
        &mut self,
        piece: &mut TextChoice,
        token: u32,
        logprob: Option<f32>,
        top: &[moeflux::sampling::TokenLogprob],
        model: &Lease,
    ) {
        if let Some(logprobs) = &mut piece.logprobs {
            self.offset = logprobs.push(token, logprob, top, self.offset, model);
        }
    }
}

/// What all pieces of an answer have.
struct Frame {
    id: String,
    created: u64,
    model: Lease,
}

impl Frame {
    fn completion(&self, choices: Vec<TextChoice>, usage: Option<Usage>) -> Completion {
        let (id, model) = (self.id.clone(), self.model.name().to_owned());
        Completion {
            id,
            object: "text_completion",
            created: self.created,
            model,
            choices,
            usage,
            system_fingerprint: FINGERPRINT,
        }
    }
}

impl Prompts {
    /// Each by itself.
    pub(super) fn into_list(self) -> Vec<Prompt> {
        match self {
            Self::Text(text) => vec![Prompt::Text(text)],
            Self::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
            Self::Tokens(tokens) => vec![Prompt::Tokens(tokens)],
            Self::TokenLists(lists) => lists.into_iter().map(Prompt::Tokens).collect(),
        }
    }
}
