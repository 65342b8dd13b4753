//! The requests of an engine, in one table for all of their life: they wait, run and finish in place. A step is
//! [planned](Requests::schedule), [run](Requests::run) and [settled](Requests::settle).

mod request;
mod step;

use std::time::Instant;

pub use self::request::RequestId;
pub(super) use self::request::{Request, Sample};
use self::request::{State, Task};
use super::event::{Event, StopReason};
use super::handle::{Embedding, EngineStats};
use super::runner::Runner;
use super::scheduler::{Limits, Plan, RequestView, StepSize, schedule};
use super::speculate::Drafter;
use crate::backend::CancelToken;
use crate::error::Error;
use crate::sequence::{PrefixCache, RESTORE_POINT_BUDGET, Sequence, SequenceBytes};

/// What a step made of a request.
#[derive(Debug)]
#[non_exhaustive]
pub enum StepEvent {
    /// Something happened in a generation, of which [`Event::Done`] is the last.
    Event {
        /// The request.
        id: RequestId,
        /// What happened.
        event: Event,
    },
    /// The embedding of a text, which is all of its request.
    Embedded {
        /// The request.
        id: RequestId,
        /// The embedding.
        embedding: Embedding,
    },
    /// A sequence has read the tokens that it was to read, which is all of its request.
    Read {
        /// The request.
        id: RequestId,
        /// The sequence.
        sequence: Sequence,
    },
    /// Requests ended with an error: one, or the samples of one prompt.
    Failed {
        /// The requests.
        ids: Vec<RequestId>,
        /// Why.
        error: Error,
    },
    /// A text that was to be embedded, or tokens that were to be read, were cancelled.
    Cancelled {
        /// The request.
        id: RequestId,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Requests {
    requests: Vec<Request>,
    /// Of which the step sizes are those of before any step was measured.
    limits: Limits,
    step_size: StepSize,
    vocab_size: usize,
    context_length: usize,
    bytes: SequenceBytes,
    prefixes: Option<PrefixCache>,
    plan: Plan,
    /// Until when the requests of a step wait for their constraints.
    patience: Instant,
    /// Stops a step that several requests share.
    stop: CancelToken,
    /// Counts since the start; the other fields are not kept here.
    totals: EngineStats,
}

/// Tokens that prompts have to have in common for the step that a restore point at their end takes.
const WORTH_A_MARK: usize = 64;
/// Tokens beyond its prompt that a sequence has to have room for to be admitted.
const HEADROOM: usize = 256;

impl Requests {
    pub(super) fn new(runner: &Runner, limits: Limits, step_size: StepSize, keeps_prefixes: bool) -> Self {
        let model = runner.model();
        Requests {
            requests: Vec::new(),
            limits,
            step_size,
            vocab_size: model.vocab_size(),
            context_length: model.context_length(),
            bytes: SequenceBytes::of(model.weights().states()).with(runner.kv_type()),
            prefixes: keeps_prefixes.then(|| PrefixCache::new(u64::MAX)),
            plan: Plan::default(),
            patience: Instant::now(),
            stop: CancelToken::default(),
            totals: EngineStats::default(),
        }
    }

    pub(super) fn add(&mut self, request: Request) {
        self.requests.push(request);
    }

    /// Stops a step that several requests share.
    pub(super) fn stop_token(&self) -> &CancelToken {
        &self.stop
    }

    /// The requests, for a caller that has put one in.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Request> {
        self.requests.drain(..)
    }

    /// The sequence of a request, or of one of its samples; `None` if it has no states.
    pub(super) fn sequence(&self, id: RequestId) -> Option<&Sequence> {
        let request = self.requests.iter().find(|request| request.has_id(id))?;
        request.sequence.as_ref()
    }

    /// Cancels a request, or one of its samples.
    pub(super) fn cancel(&mut self, id: RequestId) {
        self.requests.iter().for_each(|request| request.cancel(id));
    }

    /// Cancels all requests.
    pub(super) fn cancel_all(&mut self) {
        for request in &self.requests {
            request.ids().into_iter().for_each(|id| request.cancel(id));
        }
    }

    /// Takes a request out of the steps because its client does not read its events, or lets it run again.
    pub(super) fn set_paused(&mut self, id: RequestId, is_paused: bool) {
        self.requests.iter_mut().for_each(|request| request.set_paused(id, is_paused));
    }

    /// Whether the step that is planned has any request in it.
    pub(super) fn is_running(&self) -> bool {
        self.requests.iter().any(Request::is_running)
    }

    /// Whether there is any request that has not finished.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.iter().all(|request| request.state == State::Finished)
    }

    /// How many requests wait that have never run.
    pub(super) fn queued(&self) -> usize {
        let waiting = self.requests.iter().filter(|request| request.state == State::Waiting);
        waiting.filter(|request| request.timing.started.is_none()).count()
    }

    pub(super) fn stats(&self) -> EngineStats {
        let running = self.requests.iter().filter(|request| request.is_running());
        EngineStats {
            running: running.map(Request::sequences).sum(),
            queued: self.requests.iter().filter(|request| request.state == State::Waiting).count(),
            state_bytes: self.state_bytes(),
            prefix_bytes: self.prefix_bytes(),
            ..self.totals
        }
    }

    /// Memory of states that nothing but the requests holds, in bytes.
    fn state_bytes(&self) -> u64 {
        self.requests.iter().map(Request::own_bytes).sum()
    }

    /// Memory of the prefixes, in bytes, which sequences may hold too.
    fn prefix_bytes(&self) -> u64 {
        self.prefixes.as_ref().map_or(0, PrefixCache::bytes)
    }

    /// Keeps what a sequence has read for prompts that begin alike.
    pub(super) fn keep_prefix(&mut self, sequence: &Sequence) {
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.put(sequence);
        }
    }

    /// Plans the next step: cancelled requests finish, others are preempted, evicted and admitted as the scheduler decides.
    pub(super) fn schedule(&mut self, runner: &Runner, events: &mut Vec<StepEvent>) {
        self.finish_cancelled(events);
        let now = Instant::now();
        let limits = self.step_size.limits(self.limits);
        let view = |request: &Request| RequestView {
            needed_bytes: if limits.state_bytes.is_some() { self.needed_bytes(request) } else { 0 },
            ..request.view(now, limits.state_bytes.is_some())
        };
        let views: Vec<RequestView> = self.requests.iter().map(view).collect();
        let plan = schedule(&views, &limits);
        self.totals.preempted += plan.sliced as u64;
        if let (Some(index), Some(budget)) = (plan.out_of_memory, limits.state_bytes) {
            self.finish_out_of_memory(index, budget, events);
        }
        for &index in &plan.preempt {
            self.requests[index].preempt();
        }
        for &index in &plan.evict {
            if let Some(sequence) = self.requests[index].evict() {
                self.keep_prefix(&sequence);
            }
        }
        for &index in &plan.admit {
            self.admit(index, runner);
        }
        if let (Some(limit), Some(prefixes)) = (limits.state_bytes, &mut self.prefixes) {
            let held = self.requests.iter().map(Request::own_bytes).sum();
            prefixes.resize(limit.saturating_sub(held));
        }
        self.plan = plan;
    }

    /// Memory that a request's states take at least once its prompt is read, in bytes, with [`HEADROOM`] for each sample.
    fn needed_bytes(&self, request: &Request) -> u64 {
        let SequenceBytes { kv_per_token, windows, recurrent } = self.bytes;
        let each = windows + 2 * recurrent + kv_per_token * HEADROOM as u64;
        let prompt = request.prompt.tokens().len();
        let tokens = request.len().max(prompt);
        kv_per_token * tokens as u64 + each * request.sequences() as u64
    }

    /// Has a waiting request run, on a sequence of the longest prefix that is known.
    fn admit(&mut self, index: usize, runner: &Runner) {
        let request = &mut self.requests[index];
        request.slice = (Instant::now(), 0);
        if request.sequence.is_none() {
            if let Task::Generate(samples) = &mut request.task {
                for sample in samples {
                    sample.completion.look_ahead();
                }
            }
            let tokens = request.prompt.tokens();
            let prefixes = self.prefixes.as_mut().filter(|_| !request.reads_whole_prompt());
            let (known, common) = match prefixes {
                Some(prefixes) => (prefixes.get(tokens), prefixes.common(tokens)),
                None => (None, 0),
            };
            let mut sequence = known.unwrap_or_else(|| runner.model().sequence(runner.kv_type()));
            if sequence.needs_restore_points() && common >= sequence.len() + WORTH_A_MARK {
                // The next prompt that begins so is to find a state to go on from.
                request.prompt.mark_at(common);
            }
            if let Some(limit) = self.limits.state_bytes {
                let budget = (limit / (2 * self.limits.running as u64)) as usize;
                sequence.set_restore_point_budget(budget.min(RESTORE_POINT_BUDGET));
            }
            request.prompt.skip(sequence.len());
            match &mut request.drafter {
                Some(drafter) => drafter.restart(runner),
                None => request.drafter = Drafter::new(request.speculate, runner),
            }
            if request.timing.started.is_none() {
                request.timing.started = Some(Instant::now());
                request.timing.cached_tokens = sequence.len();
                request.timing.prompt_tokens = sequence.len();
                self.totals.cached_tokens += sequence.len() as u64;
            }
            request.sequence = Some(sequence);
        }
        request.state = if request.prompt.is_read() { State::Decode } else { State::Prefill };
    }

    /// Ends requests and samples that were cancelled.
    fn finish_cancelled(&mut self, events: &mut Vec<StepEvent>) {
        for request in self.requests.iter_mut().filter(|request| request.state != State::Finished) {
            let speculated = request.drafter.as_ref().map(Drafter::speculated).unwrap_or_default();
            match &mut request.task {
                Task::Generate(samples) => {
                    for mut sample in samples.extract_if(.., |sample| sample.is_cancelled()) {
                        self.totals.cancelled += 1;
                        let id = sample.id();
                        let done = sample.finish(StopReason::Cancelled, None, &request.timing, speculated);
                        events.push(match done {
                            Ok(event) => StepEvent::Event { id, event },
                            Err(error) => StepEvent::Failed { ids: vec![id], error },
                        });
                    }
                    if samples.is_empty() {
                        request.state = State::Finished;
                    }
                }
                Task::Embed { id, cancel, .. } | Task::Read { id, cancel } => {
                    if cancel.is_cancelled() {
                        self.totals.cancelled += 1;
                        events.push(StepEvent::Cancelled { id: *id });
                        request.state = State::Finished;
                    }
                }
            }
        }
    }

    /// Ends a request whose states alone take more memory than there is.
    fn finish_out_of_memory(&mut self, index: usize, budget: u64, events: &mut Vec<StepEvent>) {
        let bytes = self.requests[index].own_bytes();
        if matches!(self.requests[index].task, Task::Generate(_)) {
            self.finish(index, &StopReason::MemoryFull, None, events);
        } else {
            self.fail(index, Error::StateBudget { bytes, budget }, events);
        }
    }

    /// Ends all samples of a request. `text` is the rest of the text, unless that is still held back.
    fn finish(&mut self, index: usize, stop: &StopReason, text: Option<String>, events: &mut Vec<StepEvent>) {
        let request = &mut self.requests[index];
        let speculated = request.drafter.as_ref().map(Drafter::speculated).unwrap_or_default();
        if let Task::Generate(samples) = &mut request.task {
            for sample in samples {
                self.totals.finished += 1;
                let (id, text) = (sample.id(), text.clone());
                events.push(match sample.finish(stop.clone(), text, &request.timing, speculated) {
                    Ok(event) => StepEvent::Event { id, event },
                    Err(error) => StepEvent::Failed { ids: vec![id], error },
                });
            }
        }
        request.keeps_prefix = request.prompt.is_read();
        request.state = State::Finished;
    }

    /// Ends a request with an error.
    fn fail(&mut self, index: usize, error: Error, events: &mut Vec<StepEvent>) {
        let request = &mut self.requests[index];
        self.totals.failed += request.sequences() as u64;
        events.push(StepEvent::Failed { ids: request.ids(), error });
        request.state = State::Finished;
    }

    /// Commits what the last step read, and lets drafters take it. Finished requests are removed.
    pub(super) fn settle(&mut self, runner: &mut Runner, events: &mut Vec<StepEvent>) {
        for index in 0..self.requests.len() {
            let request = &mut self.requests[index];
            let mut result = request.commit(request.uncommitted());
            let hidden = std::mem::take(&mut request.hidden);
            if let (Some(drafter), Some(sequence), true) = (
                &mut request.drafter,
                &request.sequence,
                !hidden.is_empty() && request.state != State::Finished,
            ) {
                result = result.and_then(|()| drafter.read(runner, sequence, &hidden));
            }
            if let Err(error) = result
                && self.requests[index].state != State::Finished
            {
                self.fail(index, error, events);
            }
        }
        self.remove_finished();
    }

    /// Removes finished requests. Prompts that begin alike may go on from what they have read.
    fn remove_finished(&mut self) {
        for request in self.requests.extract_if(.., |request| request.state == State::Finished) {
            if let (true, Some(mut sequence), Some(prefixes)) =
                (request.keeps_prefix, request.sequence, &mut self.prefixes)
            {
                sequence.mark();
                prefixes.put(&sequence);
            }
        }
    }
}
