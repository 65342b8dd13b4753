//! Generates text: prefill, then sample and decode token by token until there is a reason to stop.

use std::time::{Duration, Instant};

use super::runner::{self, Input, Outputs, Runner};
use crate::backend::{BackendError, CancelToken};
use crate::error::Error;
use crate::model::Model;
use crate::sampling::{Sampled, Sampler, SamplingOptions};
use crate::sequence::Sequence;
use crate::text::{StopStrings, TokenStream};

/// What to generate.
#[derive(Clone, Debug, Default)]
pub struct GenerateRequest {
    /// Tokens to append to the sequence first.
    pub prompt: Vec<u32>,
    /// How to choose each token.
    pub sampling: SamplingOptions,
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Whether to go on after an end-of-sequence token.
    pub ignore_eos: bool,
    /// Stops the generation from elsewhere.
    pub cancel: CancelToken,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A chunk of the prompt has been read.
    Prefill {
        /// Tokens read so far.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was chosen. Special tokens are text too: they delimit thoughts and tool calls.
    Token {
        /// The token.
        id: u32,
        /// Text that is certain now: empty while a character, or what may be a stop string, is incomplete.
        text: String,
        /// Log-probability that the model gave it.
        logprob: f32,
    },
    /// The end; no event follows.
    Done(Outcome),
}

/// How a generation ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Text that was still held back.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// Tokens of the prompt that were read.
    pub prompt_tokens: usize,
    /// Tokens chosen, the end-of-sequence token included.
    pub completion_tokens: usize,
    /// Time to read the prompt.
    pub prefill: Duration,
    /// Time from there to the end, without the time that the caller took between events.
    pub decode: Duration,
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model chose this end-of-sequence token.
    EndOfSequence(u32),
    /// This stop string came up.
    StopString(String),
    /// As many tokens as allowed.
    MaxTokens,
    /// The model's context is full.
    ContextFull,
    /// Someone asked.
    Cancelled,
}

/// A running generation: an iterator of events. Dropping it stops; the sequence keeps the tokens read so far.
///
/// The last token chosen is not read into the sequence: it has no successor yet.
#[derive(Debug)]
pub struct Generation<'a> {
    model: &'a Model,
    runner: &'a mut Runner,
    sequence: &'a mut Sequence,
    prompt: Vec<u32>,
    max_tokens: usize,
    stop_strings: Vec<String>,
    ignore_eos: bool,
    cancel: CancelToken,
    sampler: Sampler,
    text: Option<Text<'a>>,
    phase: Phase,
    completion_tokens: usize,
    prefill: Duration,
    decode: Duration,
}

/// From tokens to text that may be shown.
#[derive(Debug)]
struct Text<'a> {
    stream: TokenStream<'a>,
    stops: StopStrings,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// So many tokens of the prompt have been read.
    Prefill(usize),
    /// A token was chosen and not yet told of.
    Chosen(Sampled),
    /// A token was told of and not yet read.
    Told(u32),
    Finished,
}

impl<'a> Generation<'a> {
    pub(super) fn new(
        model: &'a Model,
        runner: &'a mut Runner,
        sequence: &'a mut Sequence,
        request: GenerateRequest,
    ) -> Result<Self, Error> {
        let GenerateRequest { prompt, sampling, max_tokens, stop, ignore_eos, cancel } = request;
        runner::check(model, sequence, &prompt)?;
        let mut sampler = Sampler::new(sampling, model.vocab_size())?;
        sampler.accept_prompt(sequence.tokens());
        sampler.accept_prompt(&prompt);
        let text = Text { stream: model.tokenizer().stream(false), stops: StopStrings::new(stop.clone())? };
        Ok(Generation {
            model,
            runner,
            sequence,
            prompt,
            max_tokens,
            stop_strings: stop,
            ignore_eos,
            cancel,
            sampler,
            text: Some(text),
            phase: Phase::Prefill(0),
            completion_tokens: 0,
            prefill: Duration::ZERO,
            decode: Duration::ZERO,
        })
    }

    /// The next event, from a phase that is not the last.
    fn advance(&mut self) -> Result<Event, Error> {
        if self.cancel.is_cancelled() {
            return self.done(StopReason::Cancelled);
        }
        let start = Instant::now();
        let event = match self.phase {
            Phase::Prefill(read) => {
                let event = self.read_prompt(read);
                self.prefill += start.elapsed();
                event
            }
            _ => {
                let event = self.decode();
                self.decode += start.elapsed();
                event
            }
        };
        match event {
            Err(Error::Backend(BackendError::Cancelled)) => self.done(StopReason::Cancelled),
            event => event,
        }
    }

    fn read_prompt(&mut self, read: usize) -> Result<Event, Error> {
        let total = self.prompt.len();
        let done = total.min(read + self.runner.prefill_chunk());
        let outputs = if done == total { Outputs::Last } else { Outputs::None };
        let input = Input { outputs, ..Input::new(self.sequence, &self.prompt[read..done]) };
        let logits = self.runner.step(self.model, &mut [input], Some(&self.cancel), None)?;
        self.phase =
            if done == total { Phase::Chosen(self.sampler.sample(logits)?) } else { Phase::Prefill(done) };
        Ok(Event::Prefill { done, total })
    }

    fn decode(&mut self) -> Result<Event, Error> {
        let sampled = match self.phase {
            Phase::Chosen(sampled) => sampled,
            Phase::Told(token) => {
                if self.sequence.len() == self.model.context_length() {
                    return self.done(StopReason::ContextFull);
                }
                let input = Input::new(self.sequence, std::slice::from_ref(&token));
                let logits = self.runner.step(self.model, &mut [input], Some(&self.cancel), None)?;
                self.sampler.sample(logits)?
            }
            Phase::Prefill(_) | Phase::Finished => unreachable!("decode follows prefill and ends once"),
        };
        if self.completion_tokens == self.max_tokens {
            return self.done(StopReason::MaxTokens);
        }
        self.tell(sampled)
    }

    /// Turns a chosen token into text, or into the end.
    fn tell(&mut self, Sampled { token: id, logprob }: Sampled) -> Result<Event, Error> {
        self.completion_tokens += 1;
        self.sampler.accept(id);
        let tokenizer = self.model.tokenizer();
        if !self.ignore_eos && tokenizer.eos_ids().contains(&id) {
            return self.done(StopReason::EndOfSequence(id));
        }
        let mut text = String::new();
        if let Some(Text { stream, stops }) = &mut self.text {
            // Embeddings are padded beyond the tokenizer; a token without a name is no text.
            let piece = if tokenizer.token(id).is_some() { stream.push(id)? } else { "" };
            let outcome = stops.push(piece);
            text = outcome.text;
            if let Some(hit) = outcome.hit {
                self.text = None;
                let stop = StopReason::StopString(self.stop_strings[hit].clone());
                return Ok(self.done_with(stop, text));
            }
        }
        self.phase = Phase::Told(id);
        Ok(Event::Token { id, text, logprob })
    }

    fn done(&mut self, stop: StopReason) -> Result<Event, Error> {
        let mut rest = String::new();
        if let Some(Text { stream, mut stops }) = self.text.take() {
            let outcome = stops.push(&stream.finish()?);
            rest = outcome.text + &stops.finish();
        }
        Ok(self.done_with(stop, rest))
    }

    fn done_with(&mut self, stop: StopReason, text: String) -> Event {
        let prompt_tokens = match self.phase {
            Phase::Prefill(read) => read,
            _ => self.prompt.len(),
        };
        self.phase = Phase::Finished;
        Event::Done(Outcome {
            text,
            stop,
            prompt_tokens,
            completion_tokens: self.completion_tokens,
            prefill: self.prefill,
            decode: self.decode,
        })
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.phase, Phase::Finished) {
            return None;
        }
        let event = self.advance();
        if event.is_err() {
            self.phase = Phase::Finished;
        }
        Some(event)
    }
}
