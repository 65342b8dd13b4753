//! Continuous batching: many requests over one engine. Each step reads one more token of every sequence that answers and a
//! part of the prompts that are being read, so that the weights, and the experts that have to be streamed, are read once
//! for all of them. A sequence's bits do not depend on what runs beside it.

mod inbox;
mod job;
mod share;
mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use self::inbox::Shared;
use self::inbox::{Inbox, Phase};
pub(super) use self::job::{Goal, Job, Sample};
use self::share::share;
use self::table::{Part, Running, Table};
use super::event::StopReason;
use super::handle::{EngineStats, RequestError};
use super::runner::{Input, Run, Runner};
use crate::backend::BackendError;
use crate::error::Error;
use crate::model::{Model, Pass};
use crate::sequence::{CHECKPOINT_BUDGET, SequenceBytes};

/// What a scheduler keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Sequences that run at once.
    pub(super) running: usize,
    /// Tokens of prompts in a step in which others answer.
    pub(super) mixed: usize,
    /// Memory for states, in bytes: of sequences that run, and of prefixes that are kept.
    pub(super) states: u64,
    /// Whether prefixes are kept.
    pub(super) keeps_prefixes: bool,
    /// Events of a sample that nobody has read, with which it is preempted until they are.
    pub(super) unread_events: usize,
    /// Time after which it then ends; `None` is never.
    pub(super) unread_time: Option<Duration>,
}

/// Time that a sequence runs before another that waits may take its place.
const SLICE: Duration = Duration::from_millis(400);
/// How often to look whether events have been read, where nothing else is to be done.
const LOOK: Duration = Duration::from_millis(20);

/// Decides what each step reads, and hands out what comes of it.
pub(super) struct Scheduler {
    model: Arc<Model>,
    runner: Runner,
    shared: Arc<Shared>,
    limits: Limits,
    table: Table,
    steps: u64,
    busy: Duration,
}

/// Tokens beyond its prompt that a sequence has to have room for to be let in.
const HEADROOM: usize = 256;

impl Scheduler {
    pub(super) fn new(model: Arc<Model>, runner: Runner, shared: Arc<Shared>, limits: Limits) -> Self {
        let table = Table::new(Arc::clone(&model), limits.keeps_prefixes);
        Scheduler { model, runner, shared, limits, table, steps: 0, busy: Duration::ZERO }
    }

    /// Runs until it is asked to end and what was asked for before has been done.
    pub(super) fn run(mut self) {
        while self.turn() {
            let start = Instant::now();
            self.keep_to_memory();
            self.step();
            self.steps += 1;
            self.busy += start.elapsed();
        }
    }

    /// Lets go of who was cancelled and lets in who waits; waits for something to do. Whether there will be any.
    fn turn(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut inbox = shared.lock();
        loop {
            inbox.restored.drain(..).for_each(|sequence| self.table.keep(&sequence));
            let is_late = matches!(inbox.phase, Phase::Draining(end) if Instant::now() >= end);
            if is_late {
                inbox.waiting.iter_mut().for_each(Job::cancel);
                self.table.running.iter_mut().for_each(|running| running.job.cancel());
            }
            let totals = &mut self.table.totals;
            inbox.waiting.retain_mut(|job| job.sweep(totals));
            self.table.running.retain_mut(|running| running.job.sweep(totals));
            self.pause_unread(&mut inbox);
            self.admit(&mut inbox);
            inbox.stats = self.stats(&inbox);
            if !self.table.running.is_empty() {
                return true;
            }
            // What still waits then has answers that nobody reads.
            let is_unread = !inbox.waiting.is_empty();
            if inbox.phase != Phase::Open && !is_unread {
                return false;
            }
            inbox = shared.wait(inbox, is_unread.then_some(LOOK));
        }
    }

    /// Preempts requests whose events nobody reads until half of them are read, and ends them after a while.
    fn pause_unread(&mut self, inbox: &mut Inbox) {
        let Limits { unread_events, unread_time, .. } = self.limits;
        while let Some(index) =
            self.table.running.iter().position(|running| running.job.is_unread(unread_events))
        {
            let mut job = self.table.pause(index);
            job.unread = Some(Instant::now());
            inbox.waiting.push(job);
        }
        for job in &mut inbox.waiting {
            let Some(since) = job.unread else { continue };
            if !job.is_unread(unread_events / 2) {
                job.unread = None;
            } else if unread_time.is_some_and(|time| since.elapsed() > time) {
                job.cancel();
            }
        }
        let totals = &mut self.table.totals;
        inbox.waiting.retain_mut(|job| job.sweep(totals));
        self.table.parked_bytes = parked_bytes(inbox);
    }

    /// Lets in who waits, as far as there are places and memory; who has had a time slice makes place.
    fn admit(&mut self, inbox: &mut Inbox) {
        loop {
            let mut running_of: HashMap<u64, usize> = HashMap::new();
            for running in &self.table.running {
                *running_of.entry(running.job.share).or_default() += running.job.sequences();
            }
            let of = |share| running_of.get(&share).copied().unwrap_or(0);
            let Some(next) = inbox.next(of) else { return };
            let job = &inbox.waiting[next];
            let taken: usize = running_of.values().sum();
            let fits = taken + job.sequences() <= self.limits.running;
            // One at least always runs.
            if taken > 0 && !fits {
                let Some(index) = self.preemptible(job, of) else { return };
                self.table.totals.preempted += 1;
                let job = self.table.pause(index);
                inbox.waiting.push(job);
                self.table.parked_bytes = parked_bytes(inbox);
                continue;
            }
            // What is kept of others that were preempted can be read again.
            let bytes = match &job.paused {
                Some(_) => 0,
                None => self.estimate(job.prompt.tokens().len(), job.sequences()),
            };
            let is_short =
                |table: &Table| table.own_bytes() + table.parked_bytes + bytes > self.limits.states;
            while taken > 0 && is_short(&self.table) {
                let parked = (0..inbox.waiting.len()).filter(|&index| index != next);
                let last = parked.filter(|&index| inbox.waiting[index].can_forget());
                let Some(index) = last.max_by_key(|&index| inbox.waiting[index].slice.0) else { return };
                self.table.forget(&mut inbox.waiting[index]);
                self.table.parked_bytes = parked_bytes(inbox);
            }
            let mut job = inbox.waiting.remove(next);
            job.slice = (Instant::now(), 0);
            let running = match job.paused.take() {
                Some(sequence) => Running { job, sequence },
                None => {
                    let fresh = || self.model.sequence(self.runner.kv_type());
                    let mut running = self.table.start(job, fresh);
                    let budget = (self.limits.states / (2 * self.limits.running as u64)) as usize;
                    running.sequence.set_checkpoint_budget(budget.min(CHECKPOINT_BUDGET));
                    running
                }
            };
            self.table.running.push(running);
            self.table.parked_bytes = parked_bytes(inbox);
        }
    }

    /// The place of the sequence that makes room for a request: of those that have had their time slice, and whose caller
    /// has more than the other, or as much and no higher priority, the one that has had most.
    fn preemptible(&self, job: &Job, running_of: impl Fn(u64) -> usize) -> Option<usize> {
        let own = running_of(job.share);
        let can = |running: &Running| {
            let (since, steps) = running.job.slice;
            let others = running_of(running.job.share);
            let is_equal = running.job.share == job.share || others == own;
            steps > 0
                && since.elapsed() >= SLICE
                && running.job.can_pause()
                && (others > own || is_equal && i64::from(running.job.priority) <= job.rank())
        };
        let places = self.table.running.iter().enumerate().filter(|(_, running)| can(running));
        let most = |(_, running): &(usize, &Running)| {
            (running_of(running.job.share), std::cmp::Reverse(running.job.slice.0))
        };
        places.max_by_key(most).map(|(index, _)| index)
    }

    /// What a prompt of so many tokens will take at least, in bytes, for so many samples of what follows.
    fn estimate(&self, tokens: usize, samples: usize) -> u64 {
        let bytes = SequenceBytes::of(self.model.weights().states()).with(self.runner.kv_type());
        let each = bytes.windows + 2 * bytes.recurrent + bytes.kv_per_token * HEADROOM as u64;
        bytes.kv_per_token * tokens as u64 + each * samples as u64
    }

    /// Has prefixes, then sequences make room for those that grow: who came last waits until there is room again. It will
    /// read again what it had read, and goes on with the same bits.
    fn keep_to_memory(&mut self) {
        let Limits { states, .. } = self.limits;
        if self.table.parked_bytes > 0 && self.table.own_bytes() + self.table.parked_bytes > states {
            let mut inbox = self.shared.lock();
            while self.table.own_bytes() + self.table.parked_bytes > states {
                let parked = inbox.waiting.iter_mut().filter(|job| job.can_forget());
                let Some(last) = parked.max_by_key(|job| job.slice.0) else { break };
                self.table.forget(last);
                self.table.parked_bytes = parked_bytes(&inbox);
            }
        }
        while self.table.running.len() > 1 && self.table.own_bytes() > states {
            let Some(job) = self.table.suspend() else { break };
            self.shared.lock().waiting.insert(0, job);
        }
        self.table.keep_to(states);
        let bytes = self.table.own_bytes();
        if self.table.running.len() == 1 && bytes > states {
            for running in std::mem::take(&mut self.table.running) {
                if matches!(running.job.goal, Goal::Generate(_)) {
                    self.table.end(running, StopReason::MemoryFull, None);
                } else {
                    let error = Error::StateBudget { bytes, budget: states };
                    self.table.fail(running.job, &error.into());
                }
            }
        }
    }

    /// A step for what is to be embedded, and one for all that answer and for prompts.
    fn step(&mut self) {
        let states = self.table.own_bytes() + self.table.prefix_bytes();
        let mut running = std::mem::take(&mut self.table.running);
        running.iter_mut().for_each(|running| running.job.slice.1 += 1);
        let (held, running): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|running| running.job.held.is_some());
        // Where nothing else is to be done, one may as well wait.
        let patience = if running.is_empty() { table::PATIENCE } else { Duration::ZERO };
        self.table.patience = Instant::now() + patience;
        for mut running in held {
            if let Some(logits) = running.job.held.take() {
                self.table.go_on(running, &logits);
            }
        }
        let (embeds, others): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|running| matches!(running.job.goal, Goal::Embed { .. }));
        let (reading, answering): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|running| running.job.is_reading());
        let chunk = self.runner.prefill_chunk();
        let embeds = self.read(embeds, chunk);
        self.run_parts(Pass::Kept, embeds, states);
        let most = if answering.is_empty() { chunk } else { chunk.min(self.limits.mixed) };
        let mut parts: Vec<Part> = answering.into_iter().map(Part::answer).collect();
        parts.extend(self.read(reading, most));
        self.run_parts(Pass::Tokens, parts, states);
    }

    /// The parts of prompts that are read in a step of so many tokens. Who has none waits for the next.
    fn read(&mut self, reading: Vec<Running>, most: usize) -> Vec<Part> {
        let wants: Vec<usize> = reading.iter().map(|running| running.job.prompt.left()).collect();
        let mut parts = Vec::with_capacity(reading.len());
        for (running, most) in reading.into_iter().zip(share(&wants, most)) {
            if most > 0 {
                parts.push(Part::chunk(running, most, self.model.vocab_size()));
            } else {
                self.table.running.push(running);
            }
        }
        parts
    }

    /// Runs these together; if that fails, each alone, so that only those fail that can't be run.
    fn run_parts(&mut self, pass: Pass, mut parts: Vec<Part>, states: u64) {
        if parts.is_empty() {
            return;
        }
        let cancel = match parts.as_slice() {
            [part] => part.running.job.cancel_token(),
            _ => None,
        };
        let cancel = cancel.unwrap_or_else(|| self.shared.stop.clone());
        let mut hidden = Vec::new();
        let mut inputs: Vec<Input<'_>> = parts.iter_mut().map(Part::input).collect();
        let kept = (pass == Pass::Kept).then_some(&mut hidden);
        let run = Run { kept, states: Some(states), ..Run::new(pass, Some(&cancel)) };
        let result = self.runner.forward(&self.model, &mut inputs, run, None).and_then(|logits| {
            inputs.iter_mut().try_for_each(|input| input.commit(input.tokens.len()))?;
            Ok(logits)
        });
        drop(inputs);
        match result {
            Ok(logits) => self.table.took(parts, logits, &hidden),
            // Who asked for it is let go of before the next step.
            Err(Error::Backend(BackendError::Cancelled)) => {
                self.table.running.extend(parts.into_iter().map(|part| part.running));
            }
            Err(error) if parts.len() == 1 => {
                let error = RequestError::from(error);
                for part in parts {
                    self.table.fail(part.running.job, &error);
                }
            }
            Err(error) => {
                tracing::warn!(%error, sequences = parts.len(), "a step failed: each sequence is run alone");
                for part in parts {
                    self.run_parts(pass, vec![part], states);
                }
            }
        }
    }

    fn stats(&self, inbox: &Inbox) -> EngineStats {
        EngineStats {
            running: self.table.running.iter().map(|running| running.job.sequences()).sum(),
            queued: inbox.waiting.len(),
            steps: self.steps,
            busy: self.busy,
            state_bytes: self.table.own_bytes() + self.table.parked_bytes,
            prefix_bytes: self.table.prefix_bytes(),
            transient_bytes: self.runner.transient_bytes() as u64,
            ..self.table.totals
        }
    }
}

/// Memory of what is kept of sequences that were preempted, in bytes.
fn parked_bytes(inbox: &Inbox) -> u64 {
    inbox
        .waiting
        .iter()
        .filter_map(|job| job.paused.as_ref())
        .map(|sequence| sequence.own_bytes() as u64)
        .sum()
}
