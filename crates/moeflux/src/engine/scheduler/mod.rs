//! Continuous batching: many requests over one engine. Each step reads one more token of every sequence that answers and a
//! part of the prompts that are being read, so that the weights, and the experts that have to be streamed, are read once
//! for all of them. A sequence's bits do not depend on what runs beside it.

mod inbox;
mod job;
mod share;
mod table;

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
use crate::sequence::CHECKPOINT_BUDGET;
use crate::summary::sequence_bytes;

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
}

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
            self.admit(&mut inbox);
            inbox.stats = self.stats(&inbox);
            if !self.table.running.is_empty() {
                return true;
            }
            if inbox.phase != Phase::Open {
                return false;
            }
            inbox = shared.wait(inbox);
        }
    }

    /// Lets in who waits, as far as there are places and memory.
    fn admit(&mut self, inbox: &mut Inbox) {
        while let Some(next) = inbox.next() {
            let job = &inbox.waiting[next];
            let taken: usize = self.table.running.iter().map(|running| running.job.sequences()).sum();
            let bytes = self.estimate(job.prompt.tokens().len(), job.sequences());
            // One at least always runs.
            if taken > 0
                && (taken + job.sequences() > self.limits.running
                    || self.table.own_bytes() + bytes > self.limits.states)
            {
                return;
            }
            let job = inbox.waiting.remove(next);
            let fresh = || self.model.sequence(self.runner.kv_type());
            let mut running = self.table.start(job, fresh);
            let budget = (self.limits.states / (2 * self.limits.running as u64)) as usize;
            running.sequence.set_checkpoint_budget(budget.min(CHECKPOINT_BUDGET));
            self.table.running.push(running);
        }
    }

    /// What a prompt of so many tokens will take at least, in bytes, for so many samples of what follows.
    fn estimate(&self, tokens: usize, samples: usize) -> u64 {
        let bytes = sequence_bytes(self.model.weights()).with(self.runner.kv_type());
        let each = bytes.windows + 2 * bytes.recurrent + bytes.kv_per_token * HEADROOM as u64;
        bytes.kv_per_token * tokens as u64 + each * samples as u64
    }

    /// Has prefixes, then sequences make room for those that grow: who came last waits until there is room again. It will
    /// read again what it had read, and goes on with the same bits.
    fn keep_to_memory(&mut self) {
        let Limits { states, .. } = self.limits;
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
        let running = std::mem::take(&mut self.table.running);
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
            state_bytes: self.table.own_bytes(),
            prefix_bytes: self.table.prefix_bytes(),
            transient_bytes: self.runner.transient_bytes() as u64,
            ..self.table.totals
        }
    }
}
