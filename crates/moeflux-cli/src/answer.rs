//! One answer: runs a request and streams what it gives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use moeflux::chat::{ChatError, Delta, Parser, ToolCall};
use moeflux::experts::{Counters, DeviceCounters, DeviceTally, ExpertStore};
use moeflux::sampling::TokenLogprob;
use moeflux::{Engine, Event, GenerateRequest, Outcome, PromptLogprob, Sequence};

use crate::answer_writer::AnswerWriter;
use crate::expert_stats::ExpertStats;
use crate::gpu_stats::GpuStats;
use crate::progress::Progress;

/// What a model said.
pub(crate) struct Answer {
    /// Without thoughts and calls.
    pub(crate) text: String,
    /// Empty if the model did not think.
    pub(crate) reasoning: String,
    /// Empty if it called no tool.
    pub(crate) tool_calls: Vec<ToolCall>,
    /// Tokens of all of them, in order.
    pub(crate) tokens: Vec<u32>,
    /// What the model made of the prompt's tokens, where it was asked.
    pub(crate) prompt_logprobs: Vec<PromptLogprob>,
    /// Log-probability of each token, and of the likeliest in its place, as many as were asked for.
    pub(crate) logprobs: Vec<(TokenLogprob, Vec<TokenLogprob>)>,
    /// Why it ended, and what it took.
    pub(crate) outcome: Outcome,
    /// From the request to the first token.
    pub(crate) to_first_token: Option<Duration>,
    /// What streaming experts took, if they were.
    pub(crate) experts: Option<ExpertStats>,
    /// What bringing experts to a GPU took, if they were.
    pub(crate) gpu: Option<GpuStats>,
}

/// Events of an answer, each with what of its text is certain.
pub(crate) type Events<'a> = dyn Iterator<Item = Result<(Event, Vec<Delta>), ChatError>> + 'a;

/// Counters of an engine from the start of an answer: time, experts read, experts on a GPU.
pub(crate) struct Meters {
    started: Instant,
    store: Option<(Arc<ExpertStore>, Counters)>,
    tally: Option<(Arc<DeviceTally>, DeviceCounters)>,
}

impl Meters {
    /// Begins to measure.
    pub(crate) fn start(engine: &Engine) -> Self {
        let store = engine.experts().cloned();
        let tally = engine.device_experts().cloned();
        Self {
            started: Instant::now(),
            store: store.map(|store| (store.clone(), store.counters())),
            tally: tally.map(|tally| (tally.clone(), tally.counters())),
        }
    }

    fn experts(&self) -> Option<ExpertStats> {
        let (store, before) = self.store.as_ref()?;
        Some(ExpertStats::between(before, &store.counters(), self.started.elapsed()))
    }

    fn gpu(&self) -> Option<GpuStats> {
        let (tally, before) = self.tally.as_ref()?;
        Some(GpuStats::between(before, &tally.counters(), self.started.elapsed()))
    }
}

/// Runs `request` on `sequence`; `parser` reads its text. With `stream`, the answer is shown while it comes.
pub(crate) fn answer(
    engine: &mut Engine,
    sequence: &mut Sequence,
    request: GenerateRequest,
    mut parser: Parser,
    stream: bool,
) -> Result<Answer> {
    let meters = Meters::start(engine);
    let mut events = engine.generate(sequence, request)?.map(|event| -> Result<_, ChatError> {
        let event = event?;
        let deltas = parser.read(&event);
        Ok((event, deltas))
    });
    follow(&mut events, &meters, stream)
}

/// Follows an answer to its end. With `stream` it is shown while it comes: text and tool calls on stdout, thoughts on stderr.
pub(crate) fn follow(events: &mut Events<'_>, meters: &Meters, stream: bool) -> Result<Answer> {
    let mut writer = AnswerWriter::new(stream);
    let mut progress = Progress::new("reading the prompt");
    let (mut tokens, mut to_first_token, mut outcome) = (Vec::new(), None, None);
    let (mut prompt_logprobs, mut logprobs) = (Vec::new(), Vec::new());
    for event in events {
        let (event, deltas) = match event {
            Ok(event) => event,
            Err(error) => {
                progress.clear();
                writer.finish()?;
                return Err(error.into());
            }
        };
        match event {
            Event::Prefill { done, total, logprobs } => {
                prompt_logprobs.extend(logprobs);
                progress.set(done, total);
                if let Some(experts) = meters.experts() {
                    progress.say(&experts.to_string());
                }
            }
            Event::Token { id, logprob, top_logprobs, .. } => {
                logprobs.push((TokenLogprob { token: id, logprob }, top_logprobs));
                to_first_token.get_or_insert_with(|| meters.started.elapsed());
                progress.clear();
                tokens.push(id);
            }
            Event::Done(done) => {
                progress.clear();
                outcome = Some(done);
            }
        }
        for delta in deltas {
            writer.push(delta)?;
        }
    }
    writer.finish()?;
    let answer = writer.answer;
    Ok(Answer {
        text: answer.text(),
        reasoning: answer.reasoning(),
        tool_calls: answer.tool_calls(),
        tokens,
        prompt_logprobs,
        logprobs,
        outcome: outcome.context("the engine ended an answer without an outcome")?,
        to_first_token,
        experts: meters.experts(),
        gpu: meters.gpu(),
    })
}
