//! Generates text: prefill, then sample and decode token by token until there is a reason to stop.

use std::time::{Duration, Instant};

use super::completion::{Chosen, Completion, Told};
use super::event::{Event, Outcome, PromptLogprob, StopReason};
use super::request::GenerateRequest;
use super::runner::{Input, Outputs, Run, Runner};
use super::speculate::{Ahead, Drafter};
use crate::backend::{BackendError, CancelToken};
use crate::error::Error;
use crate::model::{Model, Pass};
use crate::sampling::{GrammarCompiler, LogSoftmax, SamplingError};
use crate::sequence::Sequence;

/// A running generation: an iterator of events. Dropping it stops; the sequence keeps the tokens read so far.
///
/// The last token chosen is not read into the sequence: it has no successor yet.
#[derive(Debug)]
pub struct Generation<'a> {
    model: &'a Model,
    runner: &'a mut Runner,
    sequence: &'a mut Sequence,
    prompt: Vec<u32>,
    /// Where the prompt's messages end, in order.
    marks: Vec<usize>,
    /// How many of the most likely tokens to tell with each token of the prompt.
    prompt_logprobs: Option<usize>,
    cancel: CancelToken,
    completion: Completion<'a>,
    drafter: Option<Drafter>,
    /// A step that has run and is not committed: the sequence keeps of it what is told of.
    ahead: Option<Ahead>,
    phase: Phase,
    prefill: Duration,
    decode: Duration,
}

#[derive(Clone, Debug)]
enum Phase {
    /// So many tokens of the prompt have been read.
    Prefill(usize),
    /// The prompt has been read, and no token is wanted.
    Read,
    /// A token was chosen and not yet told of.
    Chosen(Chosen),
    /// A token was told of and not yet read.
    Told(u32),
    Finished,
}

/// Most logits that a chunk of the prompt asks for where each token wants its own: 64 MiB.
const PROMPT_LOGITS: usize = 16 << 20;

impl<'a> Generation<'a> {
    pub(super) fn new(
        model: &'a Model,
        runner: &'a mut Runner,
        grammars: &GrammarCompiler,
        sequence: &'a mut Sequence,
        request: GenerateRequest,
    ) -> Result<Self, Error> {
        runner.check(model, sequence, &request.prompt)?;
        let completion = Completion::new(model, grammars, sequence.tokens(), &request)?;
        let drafter = Drafter::new(request.speculate, model, runner)?;
        let GenerateRequest { prompt, mut marks, prompt_logprobs, cancel, .. } = request;
        marks.sort_unstable();
        Ok(Generation {
            model,
            runner,
            sequence,
            prompt,
            marks,
            prompt_logprobs,
            cancel,
            completion,
            drafter,
            ahead: None,
            phase: Phase::Prefill(0),
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
        let (total, vocab_size) = (self.prompt.len(), self.model.vocab_size());
        let mut chunk = self.runner.prefill_chunk();
        if self.prompt_logprobs.is_some() {
            chunk = chunk.min((PROMPT_LOGITS / vocab_size).max(1));
        }
        let goal = self.marks.iter().copied().find(|&mark| mark > read).map_or(total, |mark| mark.min(total));
        let done = read + self.sequence.chunk_towards(self.sequence.len() + goal - read, chunk);
        let is_last = done == total && !self.completion.is_full();
        let outputs = match self.prompt_logprobs {
            Some(_) => Outputs::All,
            None if is_last => Outputs::Last,
            None => Outputs::None,
        };
        let mut input = Input { outputs, ..Input::new(self.sequence, &self.prompt[read..done]) };
        let mut hidden = Vec::new();
        let pass = self.drafter.as_ref().map_or(Pass::Tokens, Drafter::pass);
        let run = Run { kept: Some(&mut hidden), ..Run::new(pass, Some(&self.cancel)) };
        let logits = self.runner.forward(self.model, std::slice::from_mut(&mut input), run, None)?;
        input.commit(done - read)?;
        if done == goal {
            self.sequence.mark();
        }
        let mut logprobs = Vec::new();
        if let Some(n) = self.prompt_logprobs {
            if read == 0 {
                logprobs.push(PromptLogprob {
                    token: self.prompt[0],
                    logprob: None,
                    top_logprobs: Vec::new(),
                });
            }
            let successors = &self.prompt[read + 1..total.min(done + 1)];
            for (&token, logits) in successors.iter().zip(logits.chunks_exact(vocab_size)) {
                logprobs.push(prompt_logprob(token, logits, n)?);
            }
        }
        self.phase = if is_last {
            Phase::Chosen(self.completion.choose(&logits[logits.len() - vocab_size..])?)
        } else if done == total {
            Phase::Read
        } else {
            Phase::Prefill(done)
        };
        if let Some(drafter) = &mut self.drafter {
            drafter.read(self.model, self.runner, self.sequence, &hidden)?;
        }
        Ok(Event::Prefill { done, total, logprobs })
    }

    fn decode(&mut self) -> Result<Event, Error> {
        if self.completion.is_full() {
            return self.done(StopReason::MaxTokens);
        }
        let chosen = match self.phase {
            Phase::Chosen(ref chosen) => chosen.clone(),
            Phase::Told(token) => match self.choose_after(token)? {
                Some(chosen) => chosen,
                None => return self.done(StopReason::ContextFull),
            },
            Phase::Prefill(_) | Phase::Read | Phase::Finished => {
                unreachable!("decode follows prefill, where a token is wanted, and ends once")
            }
        };
        match self.completion.tell(chosen)? {
            Told::Token(token, event) => {
                self.phase = Phase::Told(token);
                Ok(event)
            }
            Told::End(stop, text) => Ok(self.done_with(stop, text)),
        }
    }

    /// Chooses what follows a token, reading it if no step has yet; `None` if there is no room for it.
    fn choose_after(&mut self, token: u32) -> Result<Option<Chosen>, Error> {
        if let Some(logits) = self.ahead.as_mut().and_then(|ahead| ahead.take(token)) {
            return self.completion.choose(logits).map(Some);
        }
        self.settle()?;
        let Some(room) = (self.model.context_length() - self.sequence.len()).checked_sub(1) else {
            return Ok(None);
        };
        let cancel = Some(&self.cancel);
        let Some(drafter) = &mut self.drafter else {
            let input = Input::new(self.sequence, std::slice::from_ref(&token));
            let logits = self.runner.step(self.model, &mut [input], cancel, None)?;
            return self.completion.choose(logits).map(Some);
        };
        let most = room.min(self.completion.left() - 1);
        let ahead = Ahead::run((self.model, self.runner), self.sequence, drafter, token, most, cancel)?;
        match self.ahead.insert(ahead).take(token) {
            Some(logits) => self.completion.choose(logits).map(Some),
            None => unreachable!("the step begins with the token"),
        }
    }

    /// Commits what was told of the step that ran ahead, and lets go of the rest.
    fn settle(&mut self) -> Result<(), Error> {
        let Some(ahead) = self.ahead.take() else { return Ok(()) };
        ahead.commit(self.sequence)?;
        if let Some(drafter) = &mut self.drafter {
            drafter.judge(self.runner, ahead.tokens.len() - 1, ahead.used - 1);
            drafter.read(self.model, self.runner, self.sequence, ahead.hidden())?;
        }
        Ok(())
    }

    fn done(&mut self, stop: StopReason) -> Result<Event, Error> {
        let text = self.completion.finish()?;
        Ok(self.done_with(stop, text))
    }

    fn done_with(&mut self, stop: StopReason, text: String) -> Event {
        let prompt_tokens = match self.phase {
            Phase::Prefill(read) => read,
            _ => self.prompt.len(),
        };
        self.phase = Phase::Finished;
        let mut speculated = self.drafter.as_ref().map(Drafter::speculated).unwrap_or_default();
        if let Some(Ahead { tokens, used, .. }) = &self.ahead {
            speculated.drafted += tokens.len() - 1;
            speculated.accepted += used.saturating_sub(1);
        }
        Event::Done(Outcome {
            text,
            stop,
            prompt_tokens,
            completion_tokens: self.completion.tokens(),
            speculated,
            prefill: self.prefill,
            decode: self.decode,
        })
    }
}

impl Drop for Generation<'_> {
    /// The sequence keeps what was told of a step that ran ahead.
    fn drop(&mut self) {
        if let Some(ahead) = &self.ahead {
            // The one error that a commit has is about positions that someone gave.
            ahead.commit(self.sequence).unwrap_or(());
        }
    }
}

/// What the model made of a token, from the logits of the one before it.
fn prompt_logprob(token: u32, logits: &[f32], n: usize) -> Result<PromptLogprob, SamplingError> {
    let model = LogSoftmax::new(logits)?;
    Ok(PromptLogprob { token, logprob: Some(model.of(token)), top_logprobs: model.top(n) })
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
