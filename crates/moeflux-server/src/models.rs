//! Models by name: loaded when somebody asks for them, unloaded when another needs the room.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use moeflux::Engine;
use moeflux::chat::{ChatOptions, Format};
use moeflux::experts::Counters;
use moeflux::placement::needs;
use moeflux::text::{Message, Tokenizer};
use serde_json::json;

use crate::clock::unix_time;
use crate::error::{Failure, FailureKind, shutting_down};
use crate::metrics::{Meter, ModelMetrics, Totals};
use moeflux::EngineHandle;
use moeflux::engine::{EngineStats, SchedulerOptions};

/// Makes an engine of a model that the server knows by name; of the budget that models share for their experts, if there
/// is one, it gets so many bytes.
pub type Load = Box<dyn Fn(Option<u64>) -> Result<Engine, Box<dyn Error + Send + Sync>> + Send + Sync>;
/// What is to be done with an engine that has ended.
pub type Unload = Box<dyn Fn(&EngineHandle) + Send + Sync>;

/// A model that can be asked for.
pub struct ModelSource {
    /// What requests call it.
    pub name: String,
    /// Makes its engine.
    pub load: Load,
    /// Called when it has been unloaded.
    pub unload: Unload,
}

/// All models of a server.
pub(crate) struct Models {
    /// In the order in which they were named; the first is for requests that name none.
    entries: Vec<Entry>,
    max_loaded: usize,
    expert_budget: Option<u64>,
    scheduler: SchedulerOptions,
    /// Held by whoever loads or unloads.
    turn: tokio::sync::Mutex<()>,
    loaded: Mutex<Table>,
    uses: AtomicU64,
    created: u64,
}

/// Those in memory.
#[derive(Default)]
struct Table {
    models: BTreeMap<String, Arc<Loaded>>,
    /// On their way out; they still count.
    leaving: BTreeMap<String, Arc<Loaded>>,
    closed: bool,
}

struct Entry {
    source: ModelSource,
    metrics: Arc<ModelMetrics>,
    /// Known once it has been loaded.
    facts: OnceLock<Facts>,
}

/// What clients choose a model by.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The longest sequence, in tokens.
    pub(crate) context_length: usize,
    /// Tokens that it knows.
    pub(crate) vocab_size: usize,
    /// Bytes of its weights.
    pub(crate) bytes: u64,
    /// Whether it has a chat template.
    pub(crate) chats: bool,
    /// The format in which it writes tool calls, if it is known.
    pub(crate) call_format: Option<&'static str>,
    /// Whether it can write thoughts apart from its answer.
    pub(crate) thinks: bool,
}

/// A model in memory.
pub(crate) struct Loaded {
    name: String,
    handle: EngineHandle,
    format: Format,
    /// Bytes of its weights that are mapped.
    weights: u64,
    metrics: Arc<ModelMetrics>,
    /// When it was asked for last: larger is later.
    used: AtomicU64,
    /// Bytes of its tokens, once somebody asked.
    token_bytes: OnceLock<Vec<Vec<u8>>>,
}

/// A model that stays in memory while this lives.
#[derive(Clone)]
pub struct Lease {
    model: Arc<Loaded>,
    asked: Instant,
}

/// How often to look whether a busy model has become idle.
const LOOK: Duration = Duration::from_millis(20);
/// How long to wait for that.
const PATIENCE: Duration = Duration::from_mins(1);

impl Models {
    pub(crate) fn new(
        sources: Vec<ModelSource>,
        max_loaded: usize,
        expert_budget: Option<u64>,
        scheduler: SchedulerOptions,
    ) -> Self {
        let entry = |source| Entry { source, metrics: Arc::default(), facts: OnceLock::new() };
        Models {
            entries: sources.into_iter().map(entry).collect(),
            max_loaded: max_loaded.max(1),
            expert_budget,
            scheduler,
            turn: tokio::sync::Mutex::default(),
            loaded: Mutex::default(),
            uses: AtomicU64::new(0),
            created: unix_time(),
        }
    }

    /// Names of all models.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.source.name.as_str())
    }

    /// What is known of a model since it was loaded first.
    pub(crate) fn facts(&self, index: usize) -> Option<&Facts> {
        self.entries[index].facts.get()
    }

    /// Names of those in memory.
    pub(crate) fn in_memory_now(&self) -> Vec<String> {
        self.table().models.keys().cloned().collect()
    }

    /// Since when they are offered, Unix time.
    pub(crate) fn created(&self) -> u64 {
        self.created
    }

    /// The model of that name, or the first, loaded if it is not in memory.
    pub(crate) async fn get(self: &Arc<Self>, name: Option<&str>) -> Result<Lease, Failure> {
        let asked = Instant::now();
        let index = self.find(name)?;
        let model = match self.in_memory(index)? {
            Some(model) => model,
            None => {
                // A client that goes away does not stop what others may wait for.
                let models = Arc::clone(self);
                let loading = tokio::spawn(async move { models.load(index).await }).await;
                loading.unwrap_or_else(|error| {
                    tracing::error!(%error, "loading a model ended early");
                    Err(Failure::internal())
                })?
            }
        };
        Ok(Lease { model, asked })
    }

    /// Whether there is such a model.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<usize, Failure> {
        let index = match name {
            None | Some("") => (!self.entries.is_empty()).then_some(0),
            // Ollama's clients add the tag that it takes for granted.
            Some(name) => self
                .names()
                .position(|known| known == name)
                .or_else(|| self.names().position(|known| name.strip_suffix(":latest") == Some(known))),
        };
        index.ok_or_else(|| {
            let known: Vec<&str> = self.names().collect();
            let message = format!(
                "model: {:?} is not served here; available: {}",
                name.unwrap_or(""),
                known.join(", ")
            );
            Failure { param: Some("model".to_owned()), ..Failure::new(FailureKind::ModelNotFound, message) }
        })
    }

    /// What each model has done and holds, in the order of their names.
    pub(crate) fn report(&self) -> Vec<ModelReport<'_>> {
        // Held throughout, so that a model which is unloaded now counts once.
        let table = self.table();
        let mut reports = Vec::new();
        for Entry { source, metrics, .. } in &self.entries {
            let model = table.models.get(&source.name).or_else(|| table.leaving.get(&source.name));
            let stats = model.map(|model| model.numbers());
            let (name, totals) = (source.name.as_str(), metrics.totals(stats.as_ref()));
            reports.push(ModelReport { name, metrics: Arc::clone(metrics), totals, stats });
        }
        reports
    }

    /// Whether every model that was asked for can be had.
    pub(crate) fn is_open(&self) -> bool {
        !self.table().closed
    }

    /// Takes no more requests: those that run may finish within `drain`.
    pub(crate) async fn shutdown(self: &Arc<Self>, drain: Duration) {
        let models: Vec<Arc<Loaded>> = {
            let mut table = self.table();
            table.closed = true;
            table.models.values().cloned().collect()
        };
        self.end(models, drain).await;
    }

    /// Ends the engines of these models, all at once.
    async fn end(self: &Arc<Self>, ending: impl IntoIterator<Item = Arc<Loaded>>, drain: Duration) {
        let mut endings = Vec::new();
        for model in ending {
            let models = Arc::clone(self);
            endings.push(tokio::task::spawn_blocking(move || {
                model.handle.shutdown(drain);
                let mut table = models.table();
                if table.leaving.remove(&model.name).is_some() {
                    model.metrics.keep(&model.numbers());
                }
                drop(table);
                if let Some(entry) = models.entries.iter().find(|entry| entry.source.name == model.name) {
                    (entry.source.unload)(&model.handle);
                }
            }));
        }
        for ending in endings {
            if let Err(error) = ending.await {
                tracing::error!(%error, "a model's engine did not end well");
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_memory(&self, index: usize) -> Result<Option<Arc<Loaded>>, Failure> {
        let table = self.table();
        if table.closed {
            return Err(shutting_down());
        }
        let model = table.models.get(&self.entries[index].source.name).cloned();
        if let Some(model) = &model {
            model.used.store(self.uses.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        Ok(model)
    }

    async fn load(self: Arc<Self>, index: usize) -> Result<Arc<Loaded>, Failure> {
        let _turn = self.turn.lock().await;
        if let Some(model) = self.in_memory(index)? {
            return Ok(model);
        }
        self.make_room().await?;
        self.share_budget(1);
        let models = Arc::clone(&self);
        let loaded = tokio::task::spawn_blocking(move || models.open(index)).await;
        let model = loaded.unwrap_or_else(|error| {
            tracing::error!(%error, "loading a model ended early");
            Err(Failure::internal())
        })?;
        let model = Arc::new(model);
        {
            let mut table = self.table();
            if table.closed {
                return Err(shutting_down());
            }
            table.models.insert(model.name.clone(), Arc::clone(&model));
        }
        // Those that do not stream leave their parts to the others.
        self.share_budget(0);
        self.in_memory(index)?.ok_or_else(Failure::internal)
    }

    /// Unloads the models used least recently until there is room for one more.
    async fn make_room(self: &Arc<Self>) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let victim = {
                let mut table = self.table();
                if table.models.len() < self.max_loaded {
                    return Ok(());
                }
                let idle = table.models.values().filter(|model| Arc::strong_count(model) == 1);
                let name = idle
                    .min_by_key(|model| model.used.load(Ordering::Relaxed))
                    .map(|model| model.name.clone());
                let victim = name.and_then(|name| table.models.remove(&name));
                if let Some(model) = &victim {
                    table.leaving.insert(model.name.clone(), Arc::clone(model));
                }
                victim
            };
            if let Some(model) = victim {
                tracing::info!(model = model.name, "model unloaded");
                self.end([model], Duration::ZERO).await;
            } else if start.elapsed() > PATIENCE {
                let message =
                    "all models in memory are in use, and there is no memory for another one; try again";
                return Err(
                    Failure::new(FailureKind::Unavailable, message).retry_after(Duration::from_secs(10))
                );
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    fn open(&self, index: usize) -> Result<Loaded, Failure> {
        let Entry { source, metrics, facts } = &self.entries[index];
        let start = Instant::now();
        let unavailable = |error: &dyn std::fmt::Display| {
            tracing::error!(model = source.name, %error, "the model cannot be loaded");
            let message =
                format!("the model {:?} cannot be loaded now; the server's log says why", source.name);
            Failure::new(FailureKind::Unavailable, message)
        };
        let share = self.expert_budget.map(|budget| budget / (self.table().models.len() as u64 + 1));
        let engine = (source.load)(share).map_err(|error| unavailable(&error))?;
        let handle = EngineHandle::start(engine, &self.scheduler).map_err(|error| unavailable(&error))?;
        let needs = needs(handle.model(), 1, 0).map_err(|error| unavailable(&error))?;
        let weights = needs.dense + if handle.experts().is_some() { 0 } else { needs.experts };
        let format = Format::of(handle.model().tokenizer());
        let facts = facts.get_or_init(|| Facts::of(&handle, format, needs.dense + needs.experts));
        if facts.call_format.is_none() && shows_tools(handle.model().tokenizer()) {
            tracing::warn!(
                model = source.name,
                "how the model writes tool calls is not known: a call is part of the answer's text"
            );
        }
        tracing::info!(model = source.name, seconds = start.elapsed().as_secs_f64(), "model loaded");
        Ok(Loaded {
            name: source.name.clone(),
            handle,
            format,
            weights,
            metrics: Arc::clone(metrics),
            used: AtomicU64::new(0),
            token_bytes: OnceLock::new(),
        })
    }

    /// Gives each model that streams its experts an equal part of the budget, and leaves as many for models to come.
    fn share_budget(&self, coming: usize) {
        let Some(budget) = self.expert_budget else { return };
        let table = self.table();
        let stores: Vec<_> =
            table.models.values().filter_map(|model| Some((&model.name, model.handle.experts()?))).collect();
        for (name, store) in &stores {
            if let Err(error) = store.resize(budget / (stores.len() + coming) as u64) {
                tracing::error!(model = name.as_str(), %error, "the model's experts keep the memory that they have");
            }
        }
    }
}

/// Whether the model's template shows it the tools of a request.
fn shows_tools(tokenizer: &Tokenizer) -> bool {
    const NAME: &str = "tool_of_nobody";
    let tool = json!({ "type": "function", "function": { "name": NAME, "description": "", "parameters": { "type": "object" } } });
    let options = ChatOptions { tools: vec![tool], ..ChatOptions::default() };
    options.prompt(tokenizer, &[Message::new("user", "Hello")]).is_ok_and(|prompt| prompt.contains(NAME))
}

impl Facts {
    fn of(handle: &EngineHandle, format: Format, bytes: u64) -> Self {
        let model = handle.model();
        let tokenizer = model.tokenizer();
        let has_marks = ["<think>", "[THINK]", "<|channel|>"].iter().any(|mark| tokenizer.id(mark).is_some());
        Self {
            context_length: model.context_length(),
            vocab_size: model.vocab_size(),
            bytes,
            chats: tokenizer.chat_template().is_some(),
            call_format: format.calls(),
            thinks: has_marks && format != Format::Plain,
        }
    }

    /// Names of what it can do, as Ollama has them.
    pub(crate) fn capabilities(&self) -> Vec<&'static str> {
        let more = [("tools", self.call_format.is_some()), ("thinking", self.thinks)];
        let more = more.into_iter().filter(|(_, has)| *has).map(|(name, _)| name);
        ["completion", "embedding"].into_iter().chain(more).collect()
    }
}

/// What a model in memory has done and holds.
pub(crate) struct Numbers {
    pub(crate) engine: EngineStats,
    /// Bytes of weights that are mapped.
    pub(crate) weights: u64,
    /// If its experts are streamed.
    pub(crate) experts: Option<Counters>,
}

impl Numbers {
    /// Bytes of memory that are known by their use, but for mapped files.
    pub(crate) fn accounted_bytes(&self) -> u64 {
        let experts = self.experts.as_ref().map_or(0, |experts| experts.bytes_used);
        experts + self.engine.state_bytes + self.engine.prefix_bytes + self.engine.transient_bytes
    }
}

impl Loaded {
    fn numbers(&self) -> Numbers {
        let experts = self.handle.experts().map(|store| store.counters());
        Numbers { engine: self.handle.stats(), weights: self.weights, experts }
    }
}

impl Lease {
    /// What requests call the model.
    pub fn name(&self) -> &str {
        &self.model.name
    }

    /// How it writes thoughts and calls.
    pub fn format(&self) -> Format {
        self.model.format
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.model.handle.model().tokenizer()
    }

    /// A token's bytes; `None` if it has none, or they can't be found.
    pub(crate) fn token_bytes(&self, token: u32) -> Option<&[u8]> {
        let bytes = self.model.token_bytes.get_or_init(|| self.tokenizer().token_bytes().unwrap_or_default());
        bytes.get(token as usize).map(Vec::as_slice).filter(|bytes| !bytes.is_empty())
    }

    /// The longest sequence it was made for, in tokens.
    pub fn context_length(&self) -> usize {
        self.model.handle.model().context_length()
    }

    /// Measures one answer from the moment that the model was asked for.
    pub(crate) fn meter(&self) -> Meter {
        Meter::new(Arc::clone(&self.model.metrics), self.asked)
    }

    pub(crate) fn handle(&self) -> &EngineHandle {
        &self.model.handle
    }
}

/// What a model has done and holds.
pub(crate) struct ModelReport<'a> {
    pub(crate) name: &'a str,
    pub(crate) metrics: Arc<ModelMetrics>,
    pub(crate) totals: Totals,
    /// If it is in memory.
    pub(crate) stats: Option<Numbers>,
}

impl Deref for ModelReport<'_> {
    type Target = Totals;

    fn deref(&self) -> &Totals {
        &self.totals
    }
}
