//! One answer: runs a request and streams what it gives.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use moeflux::sampling::TokenLogprob;
use moeflux::{Engine, Event, GenerateRequest, Outcome, PromptLogprob, Sequence};

use crate::expert_stats::ExpertStats;
use crate::gpu_stats::GpuStats;
use crate::progress::Progress;
use crate::reasoning::{Part, ReasoningSplitter};
use crate::terminal;

/// What a model said.
pub(crate) struct Answer {
    /// Without the reasoning.
    pub(crate) text: String,
    /// Empty if the model did not think.
    pub(crate) reasoning: String,
    /// Tokens of both, in order.
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

/// Runs `request` on `sequence`. `splitter` separates reasoning; without one all text is the answer. With
/// `stream`, the answer goes to stdout and the reasoning to stderr while they come.
pub(crate) fn answer(
    engine: &mut Engine,
    sequence: &mut Sequence,
    request: GenerateRequest,
    splitter: Option<ReasoningSplitter>,
    stream: bool,
) -> Result<Answer> {
    let started = Instant::now();
    let mut writer = AnswerWriter { splitter, stream, ..AnswerWriter::default() };
    let mut progress = Progress::new("reading the prompt");
    let (mut tokens, mut to_first_token, mut outcome) = (Vec::new(), None, None);
    let (mut prompt_logprobs, mut logprobs) = (Vec::new(), Vec::new());
    let store = engine.experts().cloned();
    let before = store.as_ref().map(|store| store.counters());
    let experts = || {
        let (store, before) = store.as_ref().zip(before.as_ref())?;
        Some(ExpertStats::between(before, &store.counters(), started.elapsed()))
    };
    let tally = engine.device_experts().cloned();
    let before_on_gpu = tally.as_ref().map(|tally| tally.counters());
    for event in engine.generate(sequence, request)? {
        match event {
            Ok(Event::Prefill { done, total, logprobs }) => {
                prompt_logprobs.extend(logprobs);
                progress.set(done, total);
                if let Some(experts) = experts() {
                    progress.say(&experts.to_string());
                }
            }
            Ok(Event::Token { id, text, logprob, top_logprobs }) => {
                logprobs.push((TokenLogprob { token: id, logprob }, top_logprobs));
                to_first_token.get_or_insert_with(|| started.elapsed());
                progress.clear();
                tokens.push(id);
                writer.push(&text)?;
            }
            Ok(Event::Done(done)) => {
                writer.push(&done.text)?;
                outcome = Some(done);
            }
            Err(error) => {
                writer.finish()?;
                return Err(error.into());
            }
        }
    }
    progress.clear();
    writer.finish()?;
    let experts = experts();
    let gpu = tally
        .zip(before_on_gpu)
        .map(|(tally, before)| GpuStats::between(&before, &tally.counters(), started.elapsed()));
    let AnswerWriter { text, reasoning, .. } = writer;
    let outcome = outcome.context("the engine ended an answer without an outcome")?;
    Ok(Answer { text, reasoning, tokens, prompt_logprobs, logprobs, outcome, to_first_token, experts, gpu })
}

#[derive(Default)]
struct AnswerWriter {
    splitter: Option<ReasoningSplitter>,
    stream: bool,
    text: String,
    reasoning: String,
}

impl AnswerWriter {
    fn push(&mut self, text: &str) -> io::Result<()> {
        self.split(|splitter, give| splitter.push(text, give), text)
    }

    /// Gives out what was held back and ends the line that the text left open.
    fn finish(&mut self) -> io::Result<()> {
        self.split(|splitter, give| splitter.finish(give), "")?;
        if !self.stream {
            return Ok(());
        }
        if self.text.is_empty() && !self.reasoning.is_empty() {
            terminal::show_dim("\n");
        }
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            terminal::show("\n")?;
        }
        Ok(())
    }

    /// Lets the splitter give out parts; without one, `whole` is the answer's.
    fn split(
        &mut self,
        work: impl FnOnce(&mut ReasoningSplitter, &mut dyn FnMut(Part, &str)),
        whole: &str,
    ) -> io::Result<()> {
        let Some(mut splitter) = self.splitter.take() else { return self.give(Part::Answer, whole) };
        let mut result = Ok(());
        work(&mut splitter, &mut |part, text| {
            if result.is_ok() {
                result = self.give(part, text);
            }
        });
        self.splitter = Some(splitter);
        result
    }

    fn give(&mut self, part: Part, text: &str) -> io::Result<()> {
        match part {
            Part::Reasoning => {
                self.reasoning.push_str(text);
                if self.stream {
                    terminal::show_dim(text);
                }
            }
            Part::Answer => {
                if self.stream && self.text.is_empty() && !self.reasoning.is_empty() && !text.is_empty() {
                    terminal::show_dim("\n\n");
                }
                self.text.push_str(text);
                if self.stream {
                    terminal::show(text)?;
                }
            }
        }
        Ok(())
    }
}
