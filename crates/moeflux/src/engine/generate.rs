//! Generates text: prefill, then sample and decode token by token until there is a reason to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::completion::{Chosen, Completion, Told};
use super::event::{Event, Outcome, StopReason};
use super::prompt::Prompt;
use super::request::GenerateRequest;
use super::runner::{Input, Run, Runner};
use super::speculate::{Ahead, Drafter};
use crate::backend::{BackendError, CancelToken};
use crate::error::Error;
use crate::model::{Model, Pass};
use crate::sampling::GrammarCompiler;
use crate::sequence::Sequence;

/// A running generation: an iterator of events. Dropping it stops; the sequence keeps the tokens read so far.
///
/// The last token chosen is not read into the sequence: it has no successor yet.
#[derive(Debug)]
pub struct Generation<'a> {
    model: &'a Arc<Model>,
    runner: &'a mut Runner,
    sequence: &'a mut Sequence,
    prompt: Prompt,
    cancel: CancelToken,
    completion: Completion,
    drafter: Option<Drafter>,
    /// A step that has run and is not committed: the sequence keeps of it what is told of.
    ahead: Option<Ahead>,
    phase: Phase,
    prefill: Duration,
    decode: Duration,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The prompt is being read.
    Prefill,
    /// The prompt has been read, and no token is wanted.
    Read,
    /// A token was chosen and not yet told of.
    Chosen(Chosen),
    /// A token was told of and not yet read.
    Told(u32),
    Finished,
}

impl<'a> Generation<'a> {
    pub(super) fn new(
        model: &'a Arc<Model>,
        runner: &'a mut Runner,
        grammars: &GrammarCompiler,
        sequence: &'a mut Sequence,
        mut request: GenerateRequest,
    ) -> Result<Self, Error> {
        runner.check(model, sequence, &request.prompt)?;
        let completion = Completion::new(model, grammars, sequence.tokens(), &request)?;
        let drafter = Drafter::new(request.speculate, model, runner)?;
        Ok(Generation {
            model,
            runner,
            sequence,
            prompt: Prompt::of(&mut request),
            cancel: request.cancel,
            completion,
            drafter,
            ahead: None,
            phase: Phase::Prefill,
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
            Phase::Prefill => {
                let event = self.read_prompt();
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

    fn read_prompt(&mut self) -> Result<Event, Error> {
        let vocab_size = self.model.vocab_size();
        let (rows, outputs) = self.prompt.chunk(self.sequence, self.runner.prefill_chunk(), vocab_size);
        let tokens = &self.prompt.tokens()[rows.clone()];
        let mut input = Input { outputs, ..Input::new(self.sequence, tokens) };
        let mut hidden = Vec::new();
        let pass = self.drafter.as_ref().map_or(Pass::Tokens, Drafter::pass);
        let run = Run { kept: Some(&mut hidden), ..Run::new(pass, Some(&self.cancel)) };
        let logits = self.runner.forward(self.model, std::slice::from_mut(&mut input), run, None)?;
        input.commit(rows.len())?;
        let event = self.prompt.took(self.sequence, rows, logits, vocab_size)?;
        if self.prompt.is_read() {
            self.phase = match logits.rchunks_exact(vocab_size).next() {
                Some(logits) if !self.completion.is_full() => Phase::Chosen(self.completion.choose(logits)?),
                _ => Phase::Read,
            };
        }
        if let Some(drafter) = &mut self.drafter {
            drafter.read(self.model, self.runner, self.sequence, &hidden)?;
        }
        Ok(event)
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
            Phase::Prefill | Phase::Read | Phase::Finished => {
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
        self.phase = Phase::Finished;
        let mut speculated = self.drafter.as_ref().map(Drafter::speculated).unwrap_or_default();
        if let Some(Ahead { tokens, used, .. }) = &self.ahead {
            speculated.drafted += tokens.len() - 1;
            speculated.accepted += used.saturating_sub(1);
        }
        Event::Done(Outcome {
            text,
            stop,
            last: self.completion.take_last(),
            prompt_tokens: self.prompt.read(),
            cached_tokens: 0,
            completion_tokens: self.completion.tokens(),
            speculated,
            queued: Duration::ZERO,
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
