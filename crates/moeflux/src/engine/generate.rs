//! Generates text on a sequence that the caller keeps: the engine's loop for one request, or for the samples of one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Engine;
use super::core::new_request;
use super::event::{Event, Outcome};
use super::handle::SubmitOptions;
use super::request::GenerateRequest;
use super::requests::{RequestId, Requests, StepEvent};
use super::scheduler::{Limits, StepSize};
use super::speculate::Drafter;
use crate::error::Error;
use crate::sequence::Sequence;

/// A running generation: an iterator of events. Dropping it stops; the sequence keeps the tokens read so far.
///
/// The last token chosen is not read into the sequence: it has no successor yet.
#[derive(Debug)]
pub struct Generation<'a> {
    samples: Samples<'a>,
    /// Where the sequence goes in the end. Until then it is the request's.
    sequence: &'a mut Sequence,
}

/// Several completions of one prompt that run at once: an iterator of events, each with the number of its completion.
#[derive(Debug)]
pub struct Samples<'a> {
    engine: &'a mut Engine,
    requests: Requests,
    ids: Vec<RequestId>,
    /// What happened and was not taken.
    events: VecDeque<Result<(usize, Event), Error>>,
    /// Whether the prompt has been read.
    is_prefilled: bool,
    prefill: Duration,
    decode: Duration,
    /// Memory of the states of each completion after the last step, in bytes.
    state_bytes: Vec<usize>,
    /// Completions that have not ended.
    left: usize,
}

impl<'a> Samples<'a> {
    pub(super) fn new(
        engine: &'a mut Engine,
        sequence: &Sequence,
        request: GenerateRequest,
        n: usize,
    ) -> Result<Self, Error> {
        Self::start(engine, sequence, request, n, Sequence::fork)
    }

    fn start<S: std::ops::Deref<Target = Sequence>>(
        engine: &'a mut Engine,
        sequence: S,
        request: GenerateRequest,
        n: usize,
        take: impl FnOnce(S) -> Sequence,
    ) -> Result<Self, Error> {
        let runner = &engine.runner;
        runner.check(&sequence, &request.prompt)?;
        let (cancel, speculate) = (request.cancel.clone(), request.speculate);
        let model = runner.model();
        let mut request =
            new_request(model, &engine.grammars, sequence.tokens(), request, n, SubmitOptions::default())?;
        let prefill_chunk = runner.prefill_chunk();
        // One sequence may take what memory there is. Of several, those that do not fit wait for the others.
        let state_bytes = match n {
            1 => None,
            _ => Some(runner.state_limit()?),
        };
        let limits = Limits {
            running: n,
            prefill_chunk,
            shared_tokens: prefill_chunk,
            mixed_tokens: prefill_chunk,
            state_bytes,
        };
        let mut requests = Requests::new(runner, limits, StepSize::new(Some(prefill_chunk)), false);
        let ids = request.ids();
        request.cancel_steps_by(&cancel);
        request.start_on(take(sequence), Drafter::new(speculate, runner));
        requests.add(request);
        Ok(Samples {
            engine,
            requests,
            left: ids.len(),
            state_bytes: vec![0; ids.len()],
            ids,
            events: VecDeque::new(),
            is_prefilled: false,
            prefill: Duration::ZERO,
            decode: Duration::ZERO,
        })
    }

    /// Memory of the states of a completion after the last step that read any of it, in bytes; what several completions
    /// share counts for each.
    pub fn state_bytes(&self, index: usize) -> usize {
        self.state_bytes[index]
    }

    /// One step of the engine's loop.
    fn step(&mut self) {
        let start = Instant::now();
        let mut events = Vec::new();
        let Engine { runner, policy, .. } = &mut *self.engine;
        self.requests.settle(runner, &mut events);
        self.requests.schedule(runner, &mut events);
        self.requests.run(runner, policy, &mut events);
        for (&id, bytes) in self.ids.iter().zip(&mut self.state_bytes) {
            *bytes = self.requests.sequence(id).map_or(*bytes, Sequence::state_bytes);
        }
        let time = start.elapsed();
        *if self.is_prefilled { &mut self.decode } else { &mut self.prefill } += time;
        for event in events {
            match event {
                StepEvent::Event { id, event } => {
                    if let Event::Prefill { done, total, .. } = event {
                        self.is_prefilled = done == total;
                    }
                    let index = self.ids.iter().position(|&own| own == id).unwrap_or(0);
                    self.events.push_back(Ok((index, event)));
                }
                StepEvent::Failed { error, .. } => self.events.push_back(Err(error)),
                StepEvent::Embedded { .. } | StepEvent::Read { .. } | StepEvent::Cancelled { .. } => {}
            }
        }
    }
}

impl Iterator for Samples<'_> {
    type Item = Result<(usize, Event), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.events.is_empty() && self.left > 0 {
            self.step();
        }
        let mut event = self.events.pop_front()?;
        match &mut event {
            Ok((_, Event::Done(outcome))) => {
                self.left -= 1;
                // Without the time that the caller took between events.
                (outcome.queued, outcome.prefill, outcome.decode) =
                    (Duration::ZERO, self.prefill, self.decode);
            }
            Ok(_) => {}
            Err(_) => {
                self.left = 0;
                self.events.clear();
            }
        }
        Some(event)
    }
}

impl<'a> Generation<'a> {
    pub(super) fn new(
        engine: &'a mut Engine,
        sequence: &'a mut Sequence,
        request: GenerateRequest,
    ) -> Result<Self, Error> {
        let empty = engine.sequence();
        let take = |sequence: &mut Sequence| std::mem::replace(sequence, empty);
        let samples = Samples::start(engine, &mut *sequence, request, 1, take)?;
        Ok(Generation { samples, sequence })
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.samples.next()?.map(|(_, event)| event))
    }
}

impl Drop for Generation<'_> {
    /// The sequence keeps what was told of the last step: a token whose choice was not taken is not read.
    fn drop(&mut self) {
        let Samples { requests, events, .. } = &mut self.samples;
        let untold = events.iter().filter(|event| match event {
            Ok((_, Event::Token { .. } | Event::Done(Outcome { last: Some(_), .. }))) => true,
            Ok((_, Event::Prefill { .. } | Event::Done(_))) | Err(_) => false,
        });
        let untold = untold.count();
        for mut request in requests.drain() {
            // The one error that a commit has is about positions that someone gave.
            request.commit(request.uncommitted().saturating_sub(untold)).unwrap_or(());
            if let Some(sequence) = request.take_sequence() {
                *self.sequence = sequence;
            }
        }
    }
}
