//! One step of the engine: one run of the model for all requests that the plan names.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::request::{Request, Rows, State, Task};
use super::{Requests, StepEvent};
use crate::backend::{BackendError, CancelToken};
use crate::engine::completion::TokenResult;
use crate::engine::event::StopReason;
use crate::engine::handle::Embedding;
use crate::engine::runner::{Input, Run, Runner};
use crate::engine::speculate::{DraftRequest, Drafter, Policy, draft_batch};
use crate::error::Error;
use crate::model::Pass;

/// How long the requests of a step together wait for their constraints.
const PATIENCE: Duration = Duration::from_millis(5);

/// What a request goes on with after logits.
enum Advance {
    /// This token was chosen, and is to be read next.
    Token(u32),
    /// Its constraint is not ready.
    Held,
    /// The end, and the rest of the text if it is known.
    Finished(StopReason, Option<String>),
}

impl Requests {
    /// Runs the step that was [planned](Self::schedule).
    pub(in crate::engine) fn run(
        &mut self,
        runner: &mut Runner,
        policy: &mut Policy,
        events: &mut Vec<StepEvent>,
    ) {
        let rows = std::mem::take(&mut self.plan.rows);
        let reads_any = rows.iter().any(|&rows| rows > 0);
        // Where the step reads nothing, it may as well wait.
        self.patience = Instant::now() + if reads_any { Duration::ZERO } else { PATIENCE };
        self.advance_held(events);
        for (request, rows) in self.requests.iter_mut().zip(rows) {
            request.slice.1 += usize::from(request.is_running());
            request.prepare(rows, runner.model().vocab_size());
        }
        self.draft(runner, policy);
        let members: Vec<usize> =
            (0..self.requests.len()).filter(|&index| self.requests[index].rows != Rows::None).collect();
        self.run_rows(&members, runner, policy, events);
        for request in &mut self.requests {
            request.rows = Rows::None;
        }
    }

    /// Chooses tokens from logits that were held until constraints are ready.
    fn advance_held(&mut self, events: &mut Vec<StepEvent>) {
        for index in 0..self.requests.len() {
            let request = &mut self.requests[index];
            if request.state == State::Decode
                && let Some(logits) = request.held_logits.take()
            {
                let read = request.len();
                let advance = self.advance(index, &logits, read, events);
                self.apply_advance(index, &logits, advance, events);
            }
        }
    }

    /// Drafts tokens for the sequences that decode.
    fn draft(&mut self, runner: &mut Runner, policy: &mut Policy) {
        let decodes = self.requests.iter().filter(|request| matches!(request.rows, Rows::Decode(_))).count();
        let context = runner.model().context_length();
        let cancel = match self.requests.as_slice() {
            [request] => request.cancel_token(),
            _ => None,
        };
        let cancel = cancel.unwrap_or_else(|| self.stop.clone());
        let mut drafts: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut batch = Vec::new();
        for (index, request) in self.requests.iter_mut().enumerate() {
            let (
                Rows::Decode(_),
                Some(drafter),
                Some(sequence),
                Some(pending_token),
                Task::Generate(samples),
            ) = (
                &request.rows,
                &mut request.drafter,
                &request.sequence,
                request.pending_token,
                &request.task,
            )
            else {
                continue;
            };
            let left = samples.first().map_or(0, |sample| sample.completion.left());
            let most = left.min(context - sequence.len()).saturating_sub(1);
            drafts.push((index, Vec::new()));
            batch.push((drafter, sequence, pending_token, most));
        }
        if batch.is_empty() {
            return;
        }
        let mut batch: Vec<DraftRequest<'_>> = batch
            .into_iter()
            .zip(&mut drafts)
            .map(|((drafter, sequence, pending_token, most), (_, drafts))| DraftRequest {
                drafter,
                sequence,
                pending_token,
                most,
                drafts,
            })
            .collect();
        draft_batch(runner, policy, &mut batch, decodes, Some(&cancel));
        drop(batch);
        for (index, drafts) in drafts {
            if let Rows::Decode(tokens) = &mut self.requests[index].rows {
                tokens.extend(drafts);
            }
        }
    }

    /// Runs these requests' rows together; if that fails, each alone, so that only those fail that can't be run.
    fn run_rows(
        &mut self,
        members: &[usize],
        runner: &mut Runner,
        policy: &mut Policy,
        events: &mut Vec<StepEvent>,
    ) {
        if members.is_empty() {
            return;
        }
        let cancel = match members {
            [index] => self.requests[*index].cancel_token(),
            _ => None,
        };
        let cancel: CancelToken = cancel.unwrap_or_else(|| self.stop.clone());
        let states = self.limits.state_bytes.map(|_| self.state_bytes() + self.prefix_bytes());
        let needs_hidden = members.iter().any(|&index| self.requests[index].needs_hidden());
        let pass = if needs_hidden { Pass::WithHidden } else { Pass::Tokens };
        let rows: Vec<Rows> = members.iter().map(|&index| self.requests[index].rows.clone()).collect();
        let keep_each: Vec<bool> =
            rows.iter().map(|rows| matches!(rows, Rows::Decode(tokens) if tokens.len() > 1)).collect();
        let mut next = members.iter().peekable();
        let mut inputs: Vec<Input<'_>> = Vec::with_capacity(members.len());
        for (index, request) in self.requests.iter_mut().enumerate() {
            if next.next_if(|&&member| member == index).is_some() {
                inputs.extend(request.input());
            }
        }
        let mut hidden = Vec::new();
        let kept = needs_hidden.then_some(&mut hidden);
        let run = Run { keep_each: &keep_each, kept, states, ..Run::new(pass, Some(&cancel)) };
        let start = Instant::now();
        let result = runner.forward(&mut inputs, run, None);
        drop(inputs);
        let vocab_size = self.vocab_size;
        match result {
            Ok(logits) => {
                let n_tokens: usize = rows.iter().map(|rows| rows.counts().0).sum();
                if rows.iter().all(|rows| matches!(rows, Rows::Decode(_))) {
                    policy.stepped(n_tokens, start.elapsed());
                } else {
                    self.step_size.note(n_tokens, start.elapsed());
                }
                self.patience = Instant::now() + PATIENCE;
                let hidden_size = hidden.len() / n_tokens;
                let (mut logits, mut hidden) = (logits, hidden.as_slice());
                for (&index, rows) in members.iter().zip(rows) {
                    let (tokens, outputs) = rows.counts();
                    let (own_logits, other_logits) = logits.split_at(outputs * vocab_size);
                    let (own_hidden, other_hidden) = hidden.split_at(tokens * hidden_size);
                    (logits, hidden) = (other_logits, other_hidden);
                    match rows {
                        Rows::Prompt(range, _) => {
                            self.apply_prefill(index, range, own_logits, own_hidden, events);
                        }
                        Rows::Decode(tokens) => {
                            self.apply_decode(index, tokens, own_logits, own_hidden, policy, events);
                        }
                        Rows::None => {}
                    }
                }
            }
            // A request that asked for it is finished before the next step.
            Err(Error::Backend(BackendError::Cancelled)) => {}
            Err(error) => match members {
                [index] => self.fail(*index, error, events),
                _ => {
                    tracing::warn!(%error, sequences = members.len(), "a step failed: each sequence is run alone");
                    for &index in members {
                        self.run_rows(&[index], runner, policy, events);
                    }
                }
            },
        }
    }

    /// A request has read a part of its prompt.
    fn apply_prefill(
        &mut self,
        index: usize,
        range: Range<usize>,
        logits: &[f32],
        hidden: &[f32],
        events: &mut Vec<StepEvent>,
    ) {
        match self.read_prompt(index, range, logits, hidden, events) {
            Err(error) => self.fail(index, error, events),
            Ok(()) if self.requests[index].prompt.is_read() => self.finish_prefill(index, logits, events),
            Ok(()) => {}
        }
    }

    fn read_prompt(
        &mut self,
        index: usize,
        range: Range<usize>,
        logits: &[f32],
        hidden: &[f32],
        events: &mut Vec<StepEvent>,
    ) -> Result<(), Error> {
        let request = &mut self.requests[index];
        let n = range.len();
        if let Some(mut input) = request.input() {
            input.commit(n)?;
        }
        let Some(sequence) = &mut request.sequence else { return Ok(()) };
        let event = request.prompt.apply_chunk(sequence, range, logits, self.vocab_size)?;
        if request.drafter.as_ref().is_some_and(|drafter| drafter.pass() == Pass::WithHidden) {
            request.hidden.extend_from_slice(hidden);
        }
        if let Task::Embed { sum, .. } = &mut request.task {
            for row in hidden.chunks_exact(hidden.len() / n) {
                sum.resize(row.len(), 0.0);
                sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            }
        }
        // What is read again after an eviction has been told.
        if request.timing.prefilled.is_none() {
            self.totals.prompt_tokens += n as u64;
            request.timing.prompt_tokens = request.prompt.read().max(request.timing.prompt_tokens);
            if let Task::Generate(samples) = &request.task {
                for sample in samples {
                    events.push(StepEvent::Event { id: sample.id(), event: event.clone() });
                }
            }
        }
        Ok(())
    }

    /// A request has read its whole prompt: its task is worked on.
    fn finish_prefill(&mut self, index: usize, logits: &[f32], events: &mut Vec<StepEvent>) {
        let request = &mut self.requests[index];
        request.timing.prefilled.get_or_insert_with(Instant::now);
        let Some(sequence) = &request.sequence else { return };
        match &mut request.task {
            Task::Generate(samples) => {
                if let Some(prefixes) = &mut self.prefixes {
                    prefixes.put(sequence);
                }
                request.state = State::Decode;
                let others = samples.split_off(1);
                let first = self.requests.len();
                for sample in others {
                    let request = self.requests[index].fork(sample);
                    self.requests.push(request);
                }
                let last = logits.rchunks_exact(self.vocab_size).next().unwrap_or(&[]);
                for index in [index].into_iter().chain(first..self.requests.len()) {
                    let read = self.requests[index].len();
                    let advance = self.advance(index, last, read, events);
                    self.apply_advance(index, last, advance, events);
                }
            }
            Task::Embed { id, sum, .. } => {
                let tokens = sequence.len();
                let values = sum.iter().map(|sum| (sum / tokens as f64) as f32).collect();
                self.totals.finished += 1;
                events.push(StepEvent::Embedded { id: *id, embedding: Embedding { values, tokens } });
                request.state = State::Finished;
            }
            Task::Read { id, .. } => {
                if let Some(prefixes) = &mut self.prefixes {
                    prefixes.put(sequence);
                }
                self.totals.finished += 1;
                events.push(StepEvent::Read { id: *id, sequence: sequence.fork() });
                request.state = State::Finished;
            }
        }
    }

    /// A sequence has read its pending token and drafts of those after it: tokens are chosen as long as each is the next draft.
    fn apply_decode(
        &mut self,
        index: usize,
        tokens: Vec<u32>,
        logits: &[f32],
        hidden: &[f32],
        policy: &mut Policy,
        events: &mut Vec<StepEvent>,
    ) {
        let read = self.requests[index].len();
        let (mut kept, mut last, mut advance) = (0, logits, Ok(Advance::Held));
        for logits in logits.chunks_exact(self.vocab_size) {
            kept += 1;
            last = logits;
            advance = self.advance(index, logits, read + kept, events);
            if !matches!(advance, Ok(Advance::Token(token)) if tokens.get(kept) == Some(&token)) {
                break;
            }
        }
        let request = &mut self.requests[index];
        if let Some(drafter) = &mut request.drafter {
            let has_ended = !matches!(advance, Ok(Advance::Token(_)));
            drafter.judge(policy, tokens.len() - 1, kept - 1, has_ended);
            if drafter.pass() == Pass::WithHidden {
                request.hidden.extend_from_slice(&hidden[..hidden.len() / tokens.len() * kept]);
            }
        }
        request.pending_token = None;
        request.uncommitted = Some((tokens, kept));
        self.apply_advance(index, last, advance, events);
    }

    /// Chooses the next token from the logits after a sequence's `read` tokens.
    fn advance(
        &mut self,
        index: usize,
        logits: &[f32],
        read: usize,
        events: &mut Vec<StepEvent>,
    ) -> Result<Advance, Error> {
        let Task::Generate(samples) = &mut self.requests[index].task else {
            return Ok(Advance::Held);
        };
        let Some(sample) = samples.first_mut() else { return Ok(Advance::Held) };
        let id = sample.id();
        let completion = &mut sample.completion;
        if completion.is_full() {
            return Ok(Advance::Finished(StopReason::MaxTokens, None));
        }
        // The others are not to wait for one whose constraint takes long.
        if !completion.is_ready(self.patience.saturating_duration_since(Instant::now())) {
            return Ok(Advance::Held);
        }
        self.totals.completion_tokens += 1;
        let chosen = completion.choose(logits)?;
        match completion.apply(chosen)? {
            TokenResult::Token(token, event) => {
                events.push(StepEvent::Event { id, event });
                if completion.is_full() {
                    return Ok(Advance::Finished(StopReason::MaxTokens, None));
                }
                if read == self.context_length {
                    return Ok(Advance::Finished(StopReason::ContextFull, None));
                }
                completion.look_ahead();
                Ok(Advance::Token(token))
            }
            TokenResult::Finished(stop, text) => Ok(Advance::Finished(stop, Some(text))),
        }
    }

    /// Has a request go on as was chosen; `logits` are those that it was chosen from.
    fn apply_advance(
        &mut self,
        index: usize,
        logits: &[f32],
        advance: Result<Advance, Error>,
        events: &mut Vec<StepEvent>,
    ) {
        match advance {
            Ok(Advance::Token(token)) => self.requests[index].pending_token = Some(token),
            Ok(Advance::Held) => self.requests[index].held_logits = Some(logits.to_vec()),
            Ok(Advance::Finished(stop, text)) => self.finish(index, &stop, text, events),
            Err(error) => self.fail(index, error, events),
        }
    }
}

impl Request {
    /// Decides what the step reads of it, of at most so many tokens.
    fn prepare(&mut self, most: usize, vocab_size: usize) {
        self.rows = match (self.state, &self.sequence, self.pending_token) {
            (State::Prefill, Some(sequence), _) if most > 0 => {
                let (range, outputs) = self.prompt.chunk(sequence, most, vocab_size);
                Rows::Prompt(range, outputs)
            }
            (State::Decode, _, Some(token)) if most > 0 && self.held_logits.is_none() => {
                Rows::Decode(vec![token])
            }
            _ => Rows::None,
        };
    }

    /// Whether the step has to give the hidden states of its tokens.
    fn needs_hidden(&self) -> bool {
        let drafts = self.drafter.as_ref().map(Drafter::pass);
        matches!(self.task, Task::Embed { .. }) || drafts == Some(Pass::WithHidden)
    }
}
