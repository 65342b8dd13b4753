//! The engine's loop over many requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::completion::Completion;
use super::handle::{EngineStats, SchedulerOptions, SubmitOptions};
use super::prompt::Prompt;
use super::request::GenerateRequest;
use super::requests::{Request, RequestId, Requests, Sample, StepEvent};
use super::runner::check_tokens;
use super::scheduler::{Limits, StepSize};
use super::speculate::Drafter;
use super::{Engine, Speculate};
use crate::cancel::CancelToken;
use crate::error::Error;
use crate::model::Model;
use crate::sampling::GrammarCompiler;
use crate::sequence::Sequence;

/// Runs many requests on one [`Engine`], a step at a time: [`submit`](Self::submit) adds a request, each
/// [`step`](Self::step) advances all that run and returns what happened, [`cancel`](Self::cancel) ends one early.
///
/// What a request gets does not depend on what runs beside it: neither on the batch nor on
/// [speculation](super::Speculate). An [`EngineHandle`](super::EngineHandle) runs this loop on a thread of its own.
#[derive(Debug)]
pub struct EngineCore {
    engine: Engine,
    requests: Requests,
    speculate: Speculate,
    steps: u64,
    busy: Duration,
}

impl EngineCore {
    /// A loop without requests. Of the options those apply that are not about clients.
    pub fn new(engine: Engine, options: &SchedulerOptions) -> Result<Self, Error> {
        let SchedulerOptions { max_running, mixed_tokens, state_budget, prefix_cache, .. } = *options;
        for (option, value) in [("max_running", Some(max_running)), ("mixed_tokens", mixed_tokens)] {
            if value == Some(0) {
                return Err(Error::Option { option, expected: "at least 1", found: "0".to_owned() });
            }
        }
        let runner = &engine.runner;
        Drafter::check(options.speculate, runner.model())?;
        // A step that streams reads nearly every expert, however few tokens it has.
        let mixed_tokens = mixed_tokens.or_else(|| runner.experts().map(|_| runner.prefill_chunk()));
        let state_bytes = state_budget.map_or_else(|| runner.state_limit(), Ok)?;
        let limits = Limits {
            running: max_running,
            prefill_chunk: runner.prefill_chunk(),
            shared_tokens: runner.prefill_chunk(),
            mixed_tokens: runner.prefill_chunk(),
            state_bytes: Some(state_bytes),
        };
        tracing::info!(max_running, mixed_tokens, state_bytes, "requests share an engine");
        let requests = Requests::new(runner, limits, StepSize::new(mixed_tokens), prefix_cache);
        Ok(EngineCore { engine, requests, speculate: options.speculate, steps: 0, busy: Duration::ZERO })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Adds a request for a completion. The prompt is whole, from the beginning: what an earlier sequence has read of it is
    /// not read again.
    pub fn submit(&mut self, request: GenerateRequest, options: SubmitOptions) -> Result<RequestId, Error> {
        let ids = self.submit_samples(request, 1, options)?;
        Ok(ids[0])
    }

    /// Adds a request for `n` completions of one prompt, which is read once; each has a name of its own. The first is the one
    /// that [`submit`](Self::submit) would give; each further one has a seed larger by one.
    pub fn submit_samples(
        &mut self,
        mut request: GenerateRequest,
        n: usize,
        options: SubmitOptions,
    ) -> Result<Vec<RequestId>, Error> {
        let Engine { runner, grammars, .. } = &self.engine;
        check_tokens(runner.model(), 0, &request.prompt)?;
        request.speculate = request.speculate.or(self.speculate);
        let request = new_request(runner.model(), grammars, &[], request, n, options)?;
        let ids = request.ids();
        self.add(request);
        Ok(ids)
    }

    /// Adds a request for the embedding of a text.
    pub fn embed(&mut self, tokens: Vec<u32>, options: SubmitOptions) -> Result<RequestId, Error> {
        check_tokens(self.engine.model(), 0, &tokens)?;
        let request = Request::embed(tokens, options);
        let id = request.ids()[0];
        self.add(request);
        Ok(id)
    }

    /// Runs one step and returns what happened, in order. Without requests it does nothing.
    pub fn step(&mut self) -> Vec<StepEvent> {
        let mut events = self.schedule();
        self.run(&mut events);
        self.settle(&mut events);
        events
    }

    /// Cancels a request: its last event will come with one of the next steps.
    pub fn cancel(&mut self, id: RequestId) {
        self.requests.cancel(id);
    }

    /// Whether all requests have finished.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// What it does now and has done so far.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            steps: self.steps,
            busy: self.busy,
            transient_bytes: self.engine.transient_bytes() as u64,
            ..self.requests.stats()
        }
    }

    pub(super) fn add(&mut self, request: Request) {
        self.requests.add(request);
    }

    /// Cancels all requests.
    pub(super) fn cancel_all(&mut self) {
        self.requests.cancel_all();
    }

    /// Takes a request out of the steps because its client does not read its events, or lets it run again.
    pub(super) fn set_paused(&mut self, id: RequestId, is_paused: bool) {
        self.requests.set_paused(id, is_paused);
    }

    /// Whether the step that was [planned](Self::schedule) has any request in it.
    pub(super) fn is_running(&self) -> bool {
        self.requests.is_running()
    }

    /// How many requests wait that have never run.
    pub(super) fn queued(&self) -> usize {
        self.requests.queued()
    }

    /// Keeps a sequence for prompts that begin alike.
    pub(super) fn keep_prefix(&mut self, sequence: &Sequence) {
        self.requests.keep_prefix(sequence);
    }

    /// Stops a step that several requests share.
    pub(super) fn stop_token(&self) -> CancelToken {
        self.requests.stop_token().clone()
    }

    /// The first part of a [step](Self::step): decides what it reads. It computes nothing.
    pub(super) fn schedule(&mut self) -> Vec<StepEvent> {
        let mut events = Vec::new();
        self.requests.schedule(&self.engine.runner, &mut events);
        events
    }

    /// The second part: the run of the model.
    pub(super) fn run(&mut self, events: &mut Vec<StepEvent>) {
        if !self.requests.is_running() {
            return;
        }
        let start = Instant::now();
        let Engine { runner, policy, .. } = &mut self.engine;
        self.requests.run(runner, policy, events);
        self.steps += 1;
        self.busy += start.elapsed();
    }

    /// The last part: sequences take what was read, and finished requests go.
    pub(super) fn settle(&mut self, events: &mut Vec<StepEvent>) {
        let start = Instant::now();
        self.requests.settle(&mut self.engine.runner, events);
        self.busy += start.elapsed();
    }
}

/// A request for `n` completions of `past`, the tokens that its sequence has, and the prompt.
pub(super) fn new_request(
    model: &Arc<Model>,
    grammars: &GrammarCompiler,
    past: &[u32],
    mut request: GenerateRequest,
    n: usize,
    options: SubmitOptions,
) -> Result<Request, Error> {
    if n == 0 {
        return Err(Error::Option { option: "samples", expected: "at least 1", found: n.to_string() });
    }
    Drafter::check(request.speculate, model)?;
    let seed = request.sampling.seed;
    let mut samples = Vec::with_capacity(n);
    for index in 0..n as u64 {
        request.sampling.seed = seed.wrapping_add(index);
        let completion = Completion::new(model, grammars, past, &request)?;
        samples.push(Sample::new(completion, request.cancel.clone()));
    }
    Ok(Request::generate(Prompt::of(&mut request), samples, request.speculate, options))
}
