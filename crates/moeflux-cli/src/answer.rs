//! One answer: runs a request and streams what it gives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use moeflux::chat::{ChatError, Delta, Parser, ToolCall};
use moeflux::engine::{Outcome, PromptLogprob};
use moeflux::experts::{Counters, DeviceCounters, DeviceTally, ExpertStore};
use moeflux::sampling::TokenLogprob;
use moeflux::{Engine, Event, GenerateRequest, Sequence};

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
    let mut reader = AnswerReader::new(meters, stream);
    for event in events {
        match event {
            Ok((event, deltas)) => {
                reader.apply(event);
                reader.show(deltas)?;
            }
            Err(error) => {
                reader.stop()?;
                return Err(error.into());
            }
        }
    }
    reader.finish()
}

/// Collects the events of one answer, and shows its text.
pub(crate) struct AnswerReader<'a> {
    meters: &'a Meters,
    writer: AnswerWriter,
    progress: Progress,
    tokens: Vec<u32>,
    prompt_logprobs: Vec<PromptLogprob>,
    logprobs: Vec<(TokenLogprob, Vec<TokenLogprob>)>,
    outcome: Option<Outcome>,
    to_first_token: Option<Duration>,
}

impl<'a> AnswerReader<'a> {
    /// A reader of an answer that `meters` measures. With `stream` the answer is printed.
    pub(crate) fn new(meters: &'a Meters, stream: bool) -> Self {
        Self {
            meters,
            writer: AnswerWriter::new(stream),
            progress: Progress::new("reading the prompt"),
            tokens: Vec::new(),
            prompt_logprobs: Vec::new(),
            logprobs: Vec::new(),
            outcome: None,
            to_first_token: None,
        }
    }

    /// Takes the next event, and shows how far the prompt is.
    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::Prefill { done, total, logprobs } => {
                self.prompt_logprobs.extend(logprobs);
                self.progress.set(done, total);
                if let Some(experts) = self.meters.experts() {
                    self.progress.say(&experts.to_string());
                }
            }
            Event::Token { id, logprob, top_logprobs, .. } => {
                self.logprobs.push((TokenLogprob { token: id, logprob }, top_logprobs));
                self.to_first_token.get_or_insert_with(|| self.meters.started.elapsed());
                self.progress.clear();
                self.tokens.push(id);
            }
            Event::Done(outcome) => {
                self.progress.clear();
                self.outcome = Some(outcome);
            }
            _ => {}
        }
    }

    /// Takes the next of the text, and shows it.
    pub(crate) fn show(&mut self, deltas: impl IntoIterator<Item = Delta>) -> Result<()> {
        deltas.into_iter().try_for_each(|delta| self.writer.push(delta))?;
        Ok(())
    }

    /// Whether the answer is complete: its last event was applied.
    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }

    /// Ends what is shown before there is an answer.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.progress.clear();
        self.writer.finish()?;
        Ok(())
    }

    /// The answer, after its last event.
    pub(crate) fn finish(mut self) -> Result<Answer> {
        self.stop()?;
        let answer = self.writer.answer;
        Ok(Answer {
            text: answer.text(),
            reasoning: answer.reasoning(),
            tool_calls: answer.tool_calls(),
            tokens: self.tokens,
            prompt_logprobs: self.prompt_logprobs,
            logprobs: self.logprobs,
            outcome: self.outcome.context("the engine ended an answer without an outcome")?,
            to_first_token: self.to_first_token,
            experts: self.meters.experts(),
            gpu: self.meters.gpu(),
        })
    }
}
