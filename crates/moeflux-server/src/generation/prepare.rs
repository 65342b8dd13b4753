//! From what an API asks for to what the engine is asked for.

use std::hash::{BuildHasher, Hasher, RandomState};

use moeflux::text::{ChatRequest, Tokenizer};
use moeflux::{CancelToken, GenerateRequest, SamplingOptions};

use super::run::{Generation, Telling};
use super::{ChatInput, Controls, Prompt, TextInput, ToolChoice};
use crate::error::{Failure, from_error, from_submit};
use crate::limits::Limits;
use crate::models::Lease;
use crate::output::{Format, Parser};
use crate::work::{self, Size};
use moeflux::SubmitOptions;

/// Most marks of a prompt: each keeps recurrent states.
const MARKS: usize = 4;

/// Starts a chat.
pub async fn chat(model: Lease, limits: &Limits, input: ChatInput) -> Result<Generation, Failure> {
    let limits = limits.clone();
    let must_call = matches!(input.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
    let size = if input.constraint.is_some() || must_call { Size::Slow } else { Size::OfBody };
    let share = work::share();
    work::run(size, move |cancel| {
        let prompt = chat_prompt(&model, &input)?;
        let tokens = encode(&model, &prompt, cancel)?;
        let ChatInput { mut tools, tool_choice, constraint, controls, .. } = input;
        if tool_choice == ToolChoice::None {
            tools.clear();
        }
        let format = model.format();
        if constraint.is_some() && !tools.is_empty() {
            let message = "an answer that must have a format can't call tools: leave out one of the two, or let the tool \
                           choice be none";
            return Err(Failure::field("response_format", message));
        }
        let forced = format.constraint(model.tokenizer(), &tools, &tool_choice, input.parallel_tool_calls);
        if forced.is_none() && matches!(tool_choice, ToolChoice::Required | ToolChoice::Named(_)) {
            let message = "the format of this model's tool calls is unknown, so a call cannot be required";
            return Err(Failure::field("tool_choice", message));
        }
        let mut request = request(model.tokenizer(), tokens, &controls, &limits, cancel)?;
        request.constraint = forced.or(constraint);
        request.reasoning_budget = input.reasoning_budget;
        submit(model, request, &controls, share, &limits, Telling::Text, &|| Parser::new(format, &tools, &prompt))
    })
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
            Parser::new(Format::Plain, &[], "")
        })
    })
    .await
}

/// The prompt that the model's template makes of a chat. It takes a while: not for a thread that serves connections.
pub fn chat_prompt(model: &Lease, input: &ChatInput) -> Result<String, Failure> {
    if input.messages.is_empty() {
        return Err(Failure::field("messages", "messages: expected at least one message, found none"));
    }
    let offered = !input.tools.is_empty() && input.tool_choice != ToolChoice::None;
    let request = ChatRequest {
        messages: &input.messages,
        tools: offered.then_some(input.tools.as_slice()),
        add_generation_prompt: true,
        enable_thinking: input.enable_thinking,
        extra: input.template_variables.clone(),
        now: None,
    };
    let rendered = model.tokenizer().render_chat(&request);
    rendered.map_err(|error| Failure { param: Some("messages".to_owned()), ..from_error(&error.into()) })
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
    let model = tokenizer.generation_defaults();
    // As in the reference implementation, a model that does not say `do_sample` is decoded greedily.
    let sampled = model.do_sample == Some(true);
    let temperature = if sampled { model.temperature.unwrap_or(1.0) } else { 0.0 };
    let off = SamplingOptions::default();
    SamplingOptions {
        temperature: controls.temperature.unwrap_or(temperature),
        top_k: controls.top_k.or(model.top_k).unwrap_or(off.top_k),
        top_p: controls.top_p.or(model.top_p).unwrap_or(off.top_p),
        min_p: controls.min_p.or(model.min_p).unwrap_or(off.min_p),
        repetition_penalty: controls
            .repetition_penalty
            .or(model.repetition_penalty)
            .unwrap_or(off.repetition_penalty),
        presence_penalty: controls.presence_penalty.unwrap_or(off.presence_penalty),
        frequency_penalty: controls.frequency_penalty.unwrap_or(off.frequency_penalty),
        logit_bias: controls.logit_bias.clone(),
        seed: controls.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32),
        ..off
    }
}

fn submit(
    model: Lease,
    request: GenerateRequest,
    controls: &Controls,
    share: u64,
    limits: &Limits,
    telling: Telling,
    parser: &dyn Fn() -> Parser,
) -> Result<Generation, Failure> {
    let n = controls.n.unwrap_or(1);
    let options = SubmitOptions { priority: controls.priority, share };
    let (prompt_tokens, cancel) = (request.prompt.len(), request.cancel.clone());
    let tickets = model.handle().submit_samples(request, n, options).map_err(from_submit)?;
    let samples = tickets.into_iter().map(|ticket| (ticket, parser())).collect();
    let telling = if controls.logprobs.is_some() { telling } else { Telling::Nothing };
    Ok(Generation::new(model, samples, prompt_tokens, telling, cancel, limits.request_time))
}
