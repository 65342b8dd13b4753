//! An engine that many ask at once.

mod clients;
mod error;
mod inbox;
mod stats;
mod thread;
mod ticket;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_channel::{bounded, unbounded};

use self::clients::Client;
pub use self::error::{RequestError, SubmitError};
use self::inbox::Shared;
pub use self::stats::EngineStats;
use self::thread::EngineThread;
pub use self::ticket::{Pending, Ticket};
use super::core::{EngineCore, new_request};
use super::request::GenerateRequest;
use super::requests::Request;
use super::runner::check_tokens;
use super::{Engine, Speculate};
use crate::error::Error;
use crate::experts::ExpertStore;
use crate::model::Model;
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
    /// Most tokens of prompts in a step in which others answer; `None` is what a tenth of a second is enough for, as measured.
    /// Fewer let answers flow while long prompts are read, more read prompts faster.
    pub mixed_tokens: Option<usize>,
    /// Memory for states in bytes, of sequences that run and of prefixes that are kept; `None` is a share of what is free.
    pub state_budget: Option<u64>,
    /// Whether what was read is kept for prompts that begin alike.
    pub prefix_cache: bool,
    /// How to draft tokens of requests that are [off](Speculate::Off).
    pub speculate: Speculate,
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
            speculate: Speculate::Off,
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
/// What a request gets does not depend on what runs beside it, nor on [speculation](super::Speculate), which each request asks
/// for itself and which gives it as many drafts as pay beside the others.
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
    speculate: Speculate,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EngineHandle {
    /// Starts the thread.
    pub fn start(engine: Engine, options: &SchedulerOptions) -> Result<Self, Error> {
        let SchedulerOptions { max_running, max_queued, unread_events, unread_time, .. } = *options;
        for (option, value) in [("unread_events", unread_events), ("max_queued", max_queued)] {
            if value == 0 {
                return Err(Error::Option { option, expected: "at least 1", found: "0".to_owned() });
            }
        }
        let core = EngineCore::new(engine, options)?;
        let speculate = options.speculate;
        let Engine { runner, grammars, .. } = core.engine();
        let model = Arc::clone(runner.model());
        let grammars = Arc::clone(grammars);
        let experts = runner.experts().map(Arc::clone);
        let kv_type = runner.kv_type();
        let shared = Arc::new(Shared::new(max_queued, core.stop_token()));
        let thread = EngineThread::new(core, Arc::clone(&shared), unread_events, unread_time);
        let thread_shared = Arc::clone(&shared);
        let run = move || {
            // Clients have to hear of the end, whatever happened; the panic itself has been reported.
            drop(catch_unwind(AssertUnwindSafe(|| thread.run())));
            thread_shared.end();
        };
        let thread = std::thread::Builder::new().name("moeflux-engine".to_owned()).spawn(run);
        let thread = Mutex::new(Some(thread.map_err(|source| Error::EngineThread { source })?));
        let inner = Inner { model, grammars, experts, kv_type, max_running, speculate, shared, thread };
        Ok(EngineHandle(Arc::new(inner)))
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
        let Inner { model, grammars, shared, max_running, speculate, .. } = &*self.0;
        check_tokens(model, 0, &request.prompt)?;
        if n > *max_running {
            let (option, expected) = ("samples", "at least 1 and at most what may run at once");
            return Err(Error::Option { option, expected, found: n.to_string() }.into());
        }
        request.speculate = request.speculate.or(*speculate);
        let request = new_request(model, grammars, &[], request, n, options)?;
        let (mut clients, mut tickets) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for (id, cancel) in request.cancel_tokens() {
            let (sender, receiver) = unbounded();
            clients.push((id, Client::events(sender)));
            tickets.push(Ticket::new(receiver, cancel));
        }
        shared.submit((request, clients))?;
        Ok(tickets)
    }

    /// Asks what the model makes of a text as a whole.
    pub fn embed(&self, tokens: Vec<u32>, options: SubmitOptions) -> Result<Pending<Embedding>, SubmitError> {
        check_tokens(self.model(), 0, &tokens)?;
        let (reply, receiver) = bounded(1);
        self.submit_for(Request::embed(tokens, options), Client::Embedding(reply))?;
        Ok(Pending::new(receiver))
    }

    /// Has tokens read, as far as they have not been, and the sequence written to a file, in whole or not at all.
    pub fn save(&self, tokens: Vec<u32>, path: impl Into<PathBuf>) -> Result<Pending<Saved>, SubmitError> {
        check_tokens(self.model(), 0, &tokens)?;
        let (reply, receiver) = bounded(1);
        let client = Client::Saved { model: Arc::clone(self.model()), path: path.into(), reply };
        self.submit_for(Request::read(tokens, SubmitOptions::default()), client)?;
        Ok(Pending::new(receiver))
    }

    fn submit_for(&self, request: Request, client: Client) -> Result<(), SubmitError> {
        let clients = request.ids().into_iter().zip([client]).collect();
        self.0.shared.submit((request, clients))
    }

    /// Reads a sequence that was saved: prompts that begin with its tokens go on from there.
    pub fn restore(&self, path: impl Into<PathBuf>) -> Result<Pending<Restored>, SubmitError> {
        let path = path.into();
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
        let thread = std::thread::Builder::new().name("moeflux-restore".to_owned()).spawn(read);
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
