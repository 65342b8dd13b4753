//! The sequences that run, and the prefixes that are kept of those that ran.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_channel::Sender;

use super::job::{Goal, Job};
use crate::engine::event::StopReason;
use crate::engine::handle::{Embedding, EngineStats, RequestError, Saved, SubmitOptions};
use crate::engine::prompt::Prompt;
use crate::engine::runner::{Input, Outputs};
use crate::error::Error;
use crate::model::Model;
use crate::sequence::snapshot::SnapshotOptions;
use crate::sequence::{PrefixCache, Sequence};

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    model: Arc<Model>,
    pub(super) running: Vec<Running>,
    prefixes: Option<PrefixCache>,
    /// Memory of what is kept of sequences that were preempted, in bytes.
    pub(super) parked_bytes: u64,
    /// Until when sequences of a step wait for what their constraints allow.
    pub(super) patience: Instant,
    /// What has been done so far; the rest of the fields is not kept here.
    pub(super) totals: EngineStats,
}

/// A request and its sequence.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) job: Job,
    pub(super) sequence: Sequence,
}

/// What a step reads of a sequence.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) running: Running,
    /// Of the prompt; `None` is the token told of last.
    rows: Option<Range<usize>>,
    outputs: Outputs,
}

/// How long the sequences of a step together wait for what their constraints allow.
pub(super) const PATIENCE: Duration = Duration::from_millis(5);
/// Tokens that prompts have to have in common for the step that a checkpoint at their end takes.
const WORTH_A_MARK: usize = 64;

impl Part {
    /// The next token of an answer.
    pub(super) fn answer(running: Running) -> Self {
        Part { running, rows: None, outputs: Outputs::Last }
    }

    /// At most so many tokens of the prompt.
    pub(super) fn chunk(running: Running, most: usize, vocab_size: usize) -> Self {
        let (rows, outputs) = running.job.prompt.chunk(&running.sequence, most, vocab_size);
        Part { running, rows: Some(rows), outputs }
    }

    pub(super) fn input(&mut self) -> Input<'_> {
        let Running { job, sequence } = &mut self.running;
        let tokens = match &self.rows {
            Some(rows) => &job.prompt.tokens()[rows.clone()],
            None => job.told.as_slice(),
        };
        Input { outputs: self.outputs, ..Input::new(sequence, tokens) }
    }

    /// How many tokens it has, and how many of them have logits.
    fn counts(&self) -> (usize, usize) {
        let tokens = self.rows.as_ref().map_or(1, ExactSizeIterator::len);
        let outputs = match self.outputs {
            Outputs::None => 0,
            Outputs::Last => 1,
            Outputs::All => tokens,
        };
        (tokens, outputs)
    }
}

impl Table {
    pub(super) fn new(model: Arc<Model>, keeps_prefixes: bool) -> Self {
        let prefixes = keeps_prefixes.then(|| PrefixCache::new(u64::MAX));
        Table {
            model,
            running: Vec::new(),
            prefixes,
            parked_bytes: 0,
            patience: Instant::now(),
            totals: EngineStats::default(),
        }
    }

    /// Memory of states that nobody but the sequences holds, in bytes.
    pub(super) fn own_bytes(&self) -> u64 {
        self.running.iter().map(|running| running.sequence.own_bytes() as u64).sum()
    }

    /// Memory of the prefixes, in bytes, which sequences may hold too.
    pub(super) fn prefix_bytes(&self) -> u64 {
        self.prefixes.as_ref().map_or(0, PrefixCache::bytes)
    }

    /// Leaves prefixes what is left of so many bytes.
    pub(super) fn keep_to(&mut self, bytes: u64) {
        let left = bytes.saturating_sub(self.own_bytes() + self.parked_bytes);
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.resize(left);
        }
    }

    /// Keeps what a sequence has read for those that begin alike.
    pub(super) fn keep(&mut self, sequence: &Sequence) {
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.put(sequence);
        }
    }

    /// Gives a request its sequence: of the longest prefix that is known, or else a new one.
    pub(super) fn start(&mut self, mut job: Job, fresh: impl FnOnce() -> Sequence) -> Running {
        if let Goal::Generate(samples) = &mut job.goal {
            samples.iter_mut().for_each(|sample| sample.completion.look_ahead());
        }
        let reads_all = job.prompt.wants_logprobs() || matches!(job.goal, Goal::Embed { .. });
        let tokens = job.prompt.tokens();
        let (known, common) = match self.prefixes.as_mut().filter(|_| !reads_all) {
            Some(prefixes) => (prefixes.get(tokens), prefixes.common(tokens)),
            None => (None, 0),
        };
        let sequence = known.unwrap_or_else(fresh);
        if sequence.needs_checkpoints() && common >= sequence.len() + WORTH_A_MARK {
            // The next one that begins so is to find a state to go on from.
            job.prompt.mark_at(common);
        }
        job.prompt.skip(sequence.len());
        if job.record.started.replace(job.record.started.unwrap_or_else(Instant::now)).is_none() {
            job.record.cached_tokens = sequence.len();
            job.record.prompt_tokens = sequence.len();
            self.totals.cached_tokens += sequence.len() as u64;
        }
        Running { job, sequence }
    }

    /// Takes back a request that runs, with what it has read.
    pub(super) fn pause(&mut self, index: usize) -> Job {
        let Running { mut job, sequence } = self.running.swap_remove(index);
        job.slice.0 = Instant::now();
        job.paused = Some(sequence);
        job
    }

    /// Lets go of what a request has read that was taken back: it will read it again.
    pub(super) fn forget(&mut self, job: &mut Job) {
        let Some(sequence) = job.paused.take() else { return };
        self.keep(&sequence);
        match (job.told.take(), job.held.take()) {
            // It has read what it told of last.
            (_, Some(_)) => job.prompt = Prompt::again(sequence.tokens().to_vec()),
            (Some(told), None) => job.prompt = Prompt::again([sequence.tokens(), &[told]].concat()),
            (None, None) => {}
        }
        if let Goal::Embed { sum, .. } = &mut job.goal {
            sum.clear();
        }
        job.prompt.skip(0);
    }

    /// Takes back the request that was submitted last, to be let in again; it will read again what it has read.
    pub(super) fn suspend(&mut self) -> Option<Job> {
        let last = |running: &Running| (-i64::from(running.job.priority), running.job.record.submitted);
        let places = self.running.iter().enumerate().filter(|(_, running)| running.job.can_pause());
        let (index, _) = places.max_by_key(|(_, running)| last(running))?;
        let mut job = self.pause(index);
        self.forget(&mut job);
        Some(job)
    }

    /// The sequences have read their parts of a step: its logits, `[n_outputs, vocab_size]`, and if it keeps them the rows
    /// that the head reads, `[n_tokens, hidden_size]`.
    pub(super) fn took(&mut self, parts: Vec<Part>, mut logits: &[f32], hidden: &[f32]) {
        self.patience = Instant::now() + PATIENCE;
        let vocab_size = self.model.vocab_size();
        let n_tokens: usize = parts.iter().map(|part| part.counts().0).sum();
        let mut rows = hidden.chunks_exact((hidden.len() / n_tokens).max(1));
        for part in parts {
            let (tokens, outputs) = part.counts();
            let (own, others) = logits.split_at(outputs * vocab_size);
            logits = others;
            let rows = rows.by_ref().take(tokens);
            let Part { mut running, rows: of_prompt, .. } = part;
            let Some(of_prompt) = of_prompt else {
                self.go_on(running, own);
                continue;
            };
            if let Goal::Embed { sum, .. } = &mut running.job.goal {
                for row in rows {
                    sum.resize(row.len(), 0.0);
                    sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                }
            }
            self.read(running, of_prompt, own);
        }
    }

    /// A sequence has read a part of its prompt.
    fn read(&mut self, mut running: Running, rows: Range<usize>, logits: &[f32]) {
        let Running { job, sequence } = &mut running;
        let n = rows.len();
        let event = match job.prompt.took(sequence, rows, logits, self.model.vocab_size()) {
            Ok(event) => event,
            Err(error) => return self.fail(running.job, &Error::from(error).into()),
        };
        // What is read again after a suspension has been told of.
        if job.record.read.is_none() {
            self.totals.prompt_tokens += n as u64;
            job.record.prompt_tokens = job.prompt.read().max(job.record.prompt_tokens);
            job.tell(&event);
        }
        if !job.prompt.is_read() {
            self.running.push(running);
            return;
        }
        job.record.read.get_or_insert_with(Instant::now);
        if !matches!(job.goal, Goal::Embed { .. }) {
            self.keep(&running.sequence);
        }
        let Running { job: Job { goal, priority, share, slice, record, .. }, sequence } = running;
        match goal {
            Goal::Generate(samples) => {
                let last = logits.rchunks_exact(self.model.vocab_size()).next().unwrap_or(&[]);
                for sample in samples {
                    let (prompt, goal) = (Prompt::again(Vec::new()), Goal::Generate(vec![sample]));
                    let options = SubmitOptions { priority, share };
                    let job = Job { slice, ..Job::of(prompt, goal, options, record) };
                    self.go_on(Running { job, sequence: sequence.fork() }, last);
                }
            }
            Goal::Embed { sum, reply } => {
                let n = sequence.len() as f64;
                let values = sum.iter().map(|sum| (sum / n) as f32).collect();
                self.totals.finished += 1;
                drop(reply.try_send(Ok(Embedding { values, tokens: sequence.len() })));
            }
            Goal::Save { path, reply } => {
                self.totals.finished += 1;
                save(Arc::clone(&self.model), sequence, path, reply);
            }
        }
    }

    /// Chooses what a sequence goes on with, from the logits of its last token.
    pub(super) fn go_on(&mut self, mut running: Running, logits: &[f32]) {
        let Goal::Generate(samples) = &mut running.job.goal else { return };
        let Some(sample) = samples.first_mut() else { return };
        if sample.completion.is_full() {
            return self.end(running, StopReason::MaxTokens, None);
        }
        // The others are not to wait for one with a constraint that takes long.
        if !sample.completion.is_ready(self.patience.saturating_duration_since(Instant::now())) {
            running.job.held = Some(logits.to_vec());
            self.running.push(running);
            return;
        }
        self.totals.completion_tokens += 1;
        match sample.go_on(logits) {
            Ok(Ok(_)) if running.sequence.len() == self.model.context_length() => {
                self.end(running, StopReason::ContextFull, None);
            }
            Ok(Ok(token)) => {
                sample.completion.look_ahead();
                running.job.told = Some(token);
                self.running.push(running);
            }
            Ok(Err((stop, text))) => self.end(running, stop, text),
            Err(error) => self.fail(running.job, &error.into()),
        }
    }

    /// Ends what is left of a request.
    pub(super) fn end(&mut self, running: Running, stop: StopReason, text: Option<String>) {
        let Running { job, mut sequence } = running;
        if !job.is_reading() {
            sequence.mark();
            self.keep(&sequence);
        }
        if let Goal::Generate(samples) = job.goal {
            for sample in samples {
                self.totals.finished += 1;
                sample.end(stop.clone(), text.clone(), &job.record);
            }
        }
    }

    /// Tells of a failure.
    pub(super) fn fail(&mut self, job: Job, error: &RequestError) {
        self.totals.failed += job.sequences() as u64;
        job.fail(error);
    }
}

/// Writes a snapshot, while the engine goes on.
fn save(model: Arc<Model>, sequence: Sequence, path: PathBuf, reply: Sender<Result<Saved, RequestError>>) {
    let write = move || {
        let options = SnapshotOptions::default();
        let result = sequence.save(&path, model.fingerprint(), &options);
        let tokens = sequence.len();
        let result = result.map(|()| Saved { tokens }).map_err(|source| Error::Snapshot { path, source });
        drop(reply.try_send(result.map_err(RequestError::from)));
    };
    // If there is no thread, the closed channel tells.
    drop(std::thread::Builder::new().name("moeflux-save".to_owned()).spawn(write));
}
