//! An engine that many ask at once.

mod error;
mod stats;
mod ticket;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_channel::{bounded, unbounded};

pub use self::error::{RequestError, SubmitError};
pub use self::stats::EngineStats;
pub use self::ticket::{Pending, Ticket};
use super::Engine;
use super::completion::Completion;
use super::prompt::Prompt;
use super::request::GenerateRequest;
use super::runner::check_tokens;
use super::scheduler::{Goal, Job, Limits, Sample, Scheduler, Shared};
use crate::backend::CancelToken;
use crate::error::Error;
use crate::experts::ExpertStore;
use crate::model::Model;
use crate::placement::free_states;
use crate::sampling::GrammarCompiler;
use crate::sequence::KvType;
use crate::sequence::snapshot::{Expected, Snapshot};

/// How requests share an engine. None of it changes what any of them gets.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// Most sequences that run at once. More of them share what a step reads of the weights, and each takes memory.
    pub max_running: usize,
    /// Most requests that wait; with more, [`submit`](EngineHandle::submit) fails.
    pub max_queued: usize,
    /// Most tokens of prompts in a step in which others answer; `None` lets the engine choose. Fewer let answers flow
    /// while long prompts are read, more read prompts faster.
    pub mixed_tokens: Option<usize>,
    /// Memory for states in bytes, of sequences that run and of prefixes that are kept; `None` is a share of what is free.
    pub state_budget: Option<u64>,
    /// Whether what was read is kept for prompts that begin alike.
    pub prefix_cache: bool,
    /// Events of a completion that may wait to be read; with more it is preempted until half of them have been.
    pub unread_events: usize,
    /// Time after which a completion that is preempted for that is cancelled; `None` is never.
    pub unread_time: Option<Duration>,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        SchedulerOptions {
            max_running: 16,
            max_queued: 256,
            mixed_tokens: None,
            state_budget: None,
            prefix_cache: true,
            unread_events: 1024,
            unread_time: None,
        }
    }
}

/// How one request is treated beside others.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmitOptions {
    /// Which of a caller's requests is let in first: that of the highest. It rises while one waits.
    pub priority: i32,
    /// Whose share of the engine it takes, any number for a caller: callers whose requests wait get equal parts of the places
    /// for sequences that run, however many requests each has.
    pub share: u64,
}

/// What the model makes of a text as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// The mean over all tokens of the rows that the output head reads (the last hidden states after the final norm),
    /// `[hidden_size]`; not normalised.
    pub values: Vec<f32>,
    /// How many tokens there were.
    pub tokens: usize,
}

/// A sequence is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// How many tokens it has.
    pub tokens: usize,
}

/// A sequence is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it had read.
    pub tokens: Vec<u32>,
}

/// A handle on a thread that owns an [`Engine`] and runs many requests at once, each step for all of them. Clones share
/// it; when the last is dropped, what still runs is stopped.
///
/// What a request gets does not depend on what runs beside it. Requests are not [speculated](super::Speculate) on: a step
/// has many tokens already.
#[derive(Clone)]
pub struct EngineHandle(Arc<Inner>);

impl fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

struct Inner {
    model: Arc<Model>,
    grammars: Arc<GrammarCompiler>,
    experts: Option<Arc<ExpertStore>>,
    kv_type: KvType,
    max_running: usize,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Tokens of prompts in a step in which others answer, where experts are in memory: what takes about half a second for a
/// model with three billion active parameters on two cores.
const MIXED_TOKENS: usize = 256;

impl EngineHandle {
    /// Starts the thread.
    pub fn start(engine: Engine, options: &SchedulerOptions) -> Result<Self, Error> {
        let SchedulerOptions { max_running, max_queued, mixed_tokens, state_budget, prefix_cache, .. } =
            *options;
        let SchedulerOptions { unread_events, unread_time, .. } = *options;
        let counts = [
            ("unread_events", Some(unread_events)),
            ("max_running", Some(max_running)),
            ("max_queued", Some(max_queued)),
            ("mixed_tokens", mixed_tokens),
        ];
        for (option, value) in counts {
            if value == Some(0) {
                return Err(Error::Option { option, expected: "at least 1", found: "0".to_owned() });
            }
        }
        let Engine { model, runner, grammars } = engine;
        let experts = runner.experts().map(Arc::clone);
        // A step that streams reads nearly every expert, however few tokens it has.
        let mixed = if experts.is_some() { runner.prefill_chunk() } else { MIXED_TOKENS };
        let states = match state_budget {
            Some(bytes) => bytes,
            None => match runner.state_room() {
                Some(bytes) => bytes,
                None => free_states(&model)?,
            },
        };
        let limits = Limits {
            running: max_running,
            mixed: mixed_tokens.unwrap_or(mixed),
            states,
            keeps_prefixes: prefix_cache,
            unread_events,
            unread_time,
        };
        tracing::info!(max_running, mixed = limits.mixed, states, "requests share an engine");
        let shared = Arc::new(Shared::new(max_queued));
        let kv_type = runner.kv_type();
        let scheduler = Scheduler::new(Arc::clone(&model), runner, Arc::clone(&shared), limits);
        let of_thread = Arc::clone(&shared);
        let run = move || {
            // Whoever waits has to be told, whatever happened; the panic itself has been reported.
            drop(catch_unwind(AssertUnwindSafe(|| scheduler.run())));
            of_thread.end();
        };
        let thread = thread::Builder::new().name("moeflux-engine".to_owned()).spawn(run);
        let thread = Mutex::new(Some(thread.map_err(|source| Error::EngineThread { source })?));
        Ok(EngineHandle(Arc::new(Inner { model, grammars, experts, kv_type, max_running, shared, thread })))
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.0.model
    }

    /// What streams the experts; `None` if they are mapped.
    pub fn experts(&self) -> Option<&Arc<ExpertStore>> {
        self.0.experts.as_ref()
    }

    /// Asks for a completion. The prompt is whole, from the beginning: what an earlier sequence has read of it is not
    /// read again.
    pub fn submit(&self, request: GenerateRequest, options: SubmitOptions) -> Result<Ticket, SubmitError> {
        let mut tickets = self.submit_samples(request, 1, options)?;
        tickets.pop().ok_or(SubmitError::Stopped)
    }

    /// Asks for several completions of one prompt, which is read once. The first is the one that [`submit`](Self::submit)
    /// would give; each further one has a seed larger by one.
    pub fn submit_samples(
        &self,
        mut request: GenerateRequest,
        n: usize,
        options: SubmitOptions,
    ) -> Result<Vec<Ticket>, SubmitError> {
        let Inner { model, grammars, shared, max_running, .. } = &*self.0;
        check_tokens(model, 0, &request.prompt)?;
        if n == 0 || n > *max_running {
            let (option, expected) = ("samples", "at least 1 and at most what may run at once");
            return Err(Error::Option { option, expected, found: n.to_string() }.into());
        }
        let seed = request.sampling.seed;
        let (mut samples, mut tickets) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for index in 0..n {
            request.sampling.seed = seed.wrapping_add(index as u64);
            let completion = Completion::new(model, grammars, &[], &request)?;
            let (events, receiver) = unbounded();
            let own = CancelToken::default();
            samples.push(Sample { completion, events, cancel: [request.cancel.clone(), own.clone()] });
            tickets.push(Ticket::new(receiver, own));
        }
        let prompt = Prompt::of(&mut request);
        shared.submit(Job::new(prompt, Goal::Generate(samples), options))?;
        Ok(tickets)
    }

    /// Asks what the model makes of a text as a whole.
    pub fn embed(&self, tokens: Vec<u32>, options: SubmitOptions) -> Result<Pending<Embedding>, SubmitError> {
        check_tokens(self.model(), 0, &tokens)?;
        let (reply, receiver) = bounded(1);
        let goal = Goal::Embed { sum: Vec::new(), reply };
        self.0.shared.submit(Job::new(Prompt::only(tokens), goal, options))?;
        Ok(Pending::new(receiver))
    }

    /// Has tokens read, as far as they have not been, and the sequence written to a file, in whole or not at all.
    pub fn save(&self, tokens: Vec<u32>, path: PathBuf) -> Result<Pending<Saved>, SubmitError> {
        check_tokens(self.model(), 0, &tokens)?;
        let (reply, receiver) = bounded(1);
        self.0.shared.submit(Job::new(
            Prompt::only(tokens),
            Goal::Save { path, reply },
            SubmitOptions::default(),
        ))?;
        Ok(Pending::new(receiver))
    }

    /// Reads a sequence that was saved: prompts that begin with its tokens go on from there.
    pub fn restore(&self, path: PathBuf) -> Result<Pending<Restored>, SubmitError> {
        let (reply, receiver) = bounded(1);
        let inner = Arc::clone(&self.0);
        let read = move || {
            let empty = inner.model.sequence(inner.kv_type);
            let result = match Snapshot::load(&path, &Expected::by(&inner.model, empty)) {
                Ok(Snapshot { sequence, .. }) => {
                    let tokens = sequence.tokens().to_vec();
                    inner.shared.restore(sequence);
                    Ok(Restored { tokens })
                }
                Err(source) => Err(RequestError::from(Error::Snapshot { path, source })),
            };
            drop(reply.try_send(result));
        };
        let thread = thread::Builder::new().name("moeflux-restore".to_owned()).spawn(read);
        thread.map_err(|source| Error::EngineThread { source })?;
        Ok(Pending::new(receiver))
    }

    /// What it does now and has done so far.
    pub fn stats(&self) -> EngineStats {
        self.0.shared.lock().stats
    }

    /// Takes no more requests, lets those that are there go on for so long, then stops them; returns when all is done.
    pub fn shutdown(&self, drain: Duration) {
        self.0.shared.drain(drain);
        let end = Instant::now().checked_add(drain);
        if !self.0.shared.wait_for_end(end) {
            self.0.shared.stop();
        }
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It does not panic: what it runs is caught.
            drop(thread.join());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.drain(Duration::ZERO);
        self.shared.stop();
    }
}
