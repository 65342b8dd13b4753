//! From what an API asks for to what the engine is asked for.

use std::hash::{BuildHasher, Hasher, RandomState};

use moeflux::chat::{ChatError, Format, Parser};
use moeflux::text::Tokenizer;
use moeflux::{CancelToken, GenerateRequest, SamplingOptions};

use super::run::{Generation, Telling};
use super::stops::Stops;
use super::{ChatInput, Controls, Prompt, TextInput};
use crate::error::{Failure, from_chat, from_error, from_submit};
use crate::limits::Limits;
use crate::models::Lease;
use crate::work::{self, Size};
use moeflux::engine::SubmitOptions;

/// Most marks of a prompt: each keeps recurrent states.
const MARKS: usize = 4;

/// Starts a chat.
pub async fn chat(model: Lease, limits: &Limits, input: ChatInput) -> Result<Generation, Failure> {
    let limits = limits.clone();
    // Calls meet their tools' schemas wherever there may be any.
    let is_constrained = input.constraint.is_some() || input.options.offers_tools();
    let size = if is_constrained { Size::Slow } else { Size::OfBody };
    let share = work::share();
    work::run(size, move |cancel| {
        let prompt = chat_prompt(&model, &input)?;
        let tokens = encode(&model, &prompt, cancel)?;
        let ChatInput { options, constraint, controls, reasoning_budget, .. } = input;
        let format = model.format();
        let constraint = options
            .constraint(model.tokenizer(), format, &prompt, constraint)
            .map_err(|error| from_chat(&error))?;
        let mut request = request(model.tokenizer(), tokens, &controls, &limits, cancel)?;
        request.constraint = constraint;
        request.reasoning_budget = reasoning_budget;
        // The engine's text has thoughts and markup, in which stop texts mean nothing.
        let stop = std::mem::take(&mut request.stop);
        let min_tokens = request.min_tokens;
        let stops = || Stops::new(stop.clone(), min_tokens);
        submit(model, request, &controls, share, &limits, Telling::Text, &|| {
            (options.parser(format, &prompt), stops())
        })
    })
    .await
}

/// Counts the tokens of the prompt that a chat makes.
pub async fn count_tokens(model: Lease, input: ChatInput) -> Result<usize, Failure> {
    work::run(Size::OfBody, move |cancel| Ok(encode(&model, &chat_prompt(&model, &input)?, cancel)?.len()))
        .await
}

/// Starts the continuation of a text.
pub async fn text(model: Lease, limits: &Limits, input: TextInput) -> Result<Generation, Failure> {
    let limits = limits.clone();
    let size = if input.constraint.is_some() { Size::Slow } else { Size::OfBody };
    let share = work::share();
    work::run(size, move |cancel| {
        let TextInput { prompt, prompt_logprobs, constraint, controls } = input;
        let tokens = prompt.tokens(&model, cancel)?;
        let mut request = request(model.tokenizer(), tokens, &controls, &limits, cancel)?;
        request.prompt_logprobs = prompt_logprobs;
        request.constraint = constraint;
        submit(model, request, &controls, share, &limits, Telling::TextAndEnd, &|| {
            (Parser::new(Format::Plain, &[], ""), Stops::default())
        })
    })
    .await
}

/// The prompt that the model's template makes of a chat. It takes a while: not for a thread that serves connections.
pub fn chat_prompt(model: &Lease, input: &ChatInput) -> Result<String, Failure> {
    let rendered = input.options.prompt(model.tokenizer(), &input.messages);
    rendered.map_err(|error| match &error {
        ChatError::Engine(error) => Failure { param: Some("messages".to_owned()), ..from_error(error) },
        error => from_chat(error),
    })
}

/// The tokens of a text, unless there are more than the model's context holds.
pub(crate) fn encode(model: &Lease, text: &str, cancel: &CancelToken) -> Result<Vec<u32>, Failure> {
    let tokens = model.tokenizer().encode_within(text, model.context_length(), cancel);
    tokens.map_err(|error| from_error(&error.into()))
}

impl Prompt {
    /// Its text.
    pub(crate) fn text(&self, tokenizer: &Tokenizer) -> Result<String, Failure> {
        match self {
            Prompt::Text(text) => Ok(text.clone()),
            Prompt::Tokens(tokens) => {
                tokenizer.decode(tokens, false).map_err(|error| from_error(&error.into()))
            }
        }
    }

    /// Its tokens.
    pub(crate) fn tokens(self, model: &Lease, cancel: &CancelToken) -> Result<Vec<u32>, Failure> {
        match self {
            Prompt::Text(text) => encode(model, &text, cancel),
            Prompt::Tokens(tokens) => Ok(tokens),
        }
    }
}

fn request(
    tokenizer: &Tokenizer,
    prompt: Vec<u32>,
    controls: &Controls,
    limits: &Limits,
    cancel: &CancelToken,
) -> Result<GenerateRequest, Failure> {
    limits.check(controls)?;
    let ends = prompt.iter().enumerate().filter(|(_, token)| tokenizer.eos_ids().contains(token));
    let mut marks: Vec<usize> = ends.map(|(index, _)| index + 1).collect();
    marks.drain(..marks.len().saturating_sub(MARKS));
    let most = limits.max_tokens.unwrap_or(usize::MAX);
    Ok(GenerateRequest {
        prompt,
        marks,
        sampling: sampling(controls, tokenizer),
        max_tokens: controls.max_tokens.unwrap_or(most).min(most),
        min_tokens: controls.min_tokens,
        stop: controls.stop.clone(),
        ignore_eos: controls.ignore_eos,
        logprobs: controls.logprobs,
        cancel: cancel.clone(),
        ..GenerateRequest::default()
    })
}

/// What was asked for, completed by the model's own recommendation.
fn sampling(controls: &Controls, tokenizer: &Tokenizer) -> SamplingOptions {
    let model = SamplingOptions::recommended(tokenizer.generation_defaults());
    SamplingOptions {
        temperature: controls.temperature.unwrap_or(model.temperature),
        top_k: controls.top_k.unwrap_or(model.top_k),
        top_p: controls.top_p.unwrap_or(model.top_p),
        min_p: controls.min_p.unwrap_or(model.min_p),
        repetition_penalty: controls.repetition_penalty.unwrap_or(model.repetition_penalty),
        presence_penalty: controls.presence_penalty.unwrap_or(model.presence_penalty),
        frequency_penalty: controls.frequency_penalty.unwrap_or(model.frequency_penalty),
        logit_bias: controls.logit_bias.clone(),
        seed: controls.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32),
        ..model
    }
}

fn submit(
    model: Lease,
    request: GenerateRequest,
    controls: &Controls,
    share: u64,
    limits: &Limits,
    telling: Telling,
    parser: &dyn Fn() -> (Parser, Stops),
) -> Result<Generation, Failure> {
    let n = controls.n.unwrap_or(1);
    let options = SubmitOptions { priority: controls.priority, share };
    let (prompt_tokens, cancel) = (request.prompt.len(), request.cancel.clone());
    let tickets = model.handle().submit_samples(request, n, options).map_err(from_submit)?;
    let samples = tickets
        .into_iter()
        .map(|ticket| {
            let (parser, stops) = parser();
            (ticket, parser, stops)
        })
        .collect();
    let telling = if controls.logprobs.is_some() { telling } else { Telling::Nothing };
    Ok(Generation::new(model, samples, prompt_tokens, telling, cancel, limits.request_time))
}
