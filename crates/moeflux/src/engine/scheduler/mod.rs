//! Continuous batching: which requests run in the next step, and how many tokens of each the step reads.
//!
//! [`schedule`] is a pure function of what is known of the requests and of the limits; it knows no model, no clock and no
//! thread. Each step reads one more token of every sequence that decodes and a part of the prompts in prefill, so that the
//! weights, and the experts that have to be streamed, are read once for all of them.

mod share;
mod step_size;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use self::share::share;
pub(super) use self::step_size::StepSize;

/// Limits that a plan keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most sequences that run at once.
    pub(super) running: usize,
    /// Most tokens of prompts in a step.
    pub(super) prefill_chunk: usize,
    /// The same while requests of several callers are there.
    pub(super) shared_tokens: usize,
    /// The same in a step after which a token is chosen: a sequence decodes, or a short prompt ends.
    pub(super) mixed_tokens: usize,
    /// Memory for the states of all requests, in bytes; `None` is without a limit.
    pub(super) state_bytes: Option<u64>,
}

/// What the scheduler sees of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestView {
    pub(super) stage: Stage,
    /// Sequences that it takes, or will take once its prompt is read: one for each of its samples.
    pub(super) sequences: usize,
    /// Tokens of the prompt that are still to be read.
    pub(super) prompt_left: usize,
    /// The caller whose share of the engine it takes.
    pub(super) share: u64,
    pub(super) priority: i32,
    /// Time since it was submitted.
    pub(super) age: Duration,
    /// Time since it was preempted last, if it waits and has run before.
    pub(super) preempted: Option<Duration>,
    /// Time since it was admitted last, and the steps since.
    pub(super) slice: (Duration, usize),
    /// Whether its client leaves too many events unread: then it does not run.
    pub(super) is_paused: bool,
    /// Whether its tokens may be read a second time, so that its states can be evicted.
    pub(super) can_preempt: bool,
    /// Whether it has states.
    pub(super) has_states: bool,
    /// Memory of its states that nothing else shares, in bytes.
    pub(super) state_bytes: u64,
    /// Memory that its states would take at least, in bytes, if it began now.
    pub(super) needed_bytes: u64,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not begun, or was preempted.
    Waiting,
    /// Its prompt is being read.
    Prefill,
    /// Its next token is chosen after each step.
    Decode,
    /// Its next token is chosen from logits that it has already, as soon as its constraint is ready. A step reads nothing of it.
    Held,
    /// Nothing is left to do.
    Finished,
}

/// What the next step does. Requests are named by their index. To apply it: end, preempt, evict, admit, then run the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Running requests that wait from now on. They keep their states unless they are evicted too.
    pub(super) preempt: Vec<usize>,
    /// How many of those, at the end of the list, had had their time slice.
    pub(super) sliced: usize,
    /// Waiting requests that lose their states, and will read their tokens again.
    pub(super) evict: Vec<usize>,
    /// Waiting requests that run from now on.
    pub(super) admit: Vec<usize>,
    /// Most tokens that the step reads of each request: of prompts a part, of sequences that decode one, drafts not counted.
    pub(super) rows: Vec<usize>,
    /// The only request that runs, if its states alone take more memory than there is: it ends.
    pub(super) out_of_memory: Option<usize>,
}

/// Time that a sequence runs before another that waits may take its place.
const TIME_SLICE: Duration = Duration::from_millis(400);
/// The same where the other has not begun, and the sequence has its first token: a first token is waited for most.
const FIRST_SLICE: Duration = Duration::from_millis(100);
/// A waiting request counts as one of a higher priority after each such time, so that none waits for ever.
const AGING: Duration = Duration::from_secs(10);

/// Plans the next step.
pub(super) fn schedule(requests: &[RequestView], limits: &Limits) -> Plan {
    let mut planner = Planner {
        limits,
        requests: requests.to_vec(),
        plan: Plan { rows: vec![0; requests.len()], ..Plan::default() },
    };
    planner.preempt_paused();
    planner.keep_to_memory();
    planner.admit();
    planner.assign_rows();
    planner.plan
}

/// A plan in the making, and the requests as they will be once it is applied.
struct Planner<'a> {
    limits: &'a Limits,
    requests: Vec<RequestView>,
    plan: Plan,
}

impl RequestView {
    fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Prefill | Stage::Decode | Stage::Held)
    }

    /// Whether it waits and has states that may be evicted.
    fn is_evictable(&self) -> bool {
        self.stage == Stage::Waiting && self.has_states && self.can_preempt
    }

    /// Its priority, which rises while it waits: since it was submitted, or since it was preempted.
    fn rank(&self) -> i64 {
        let waited = match self.stage {
            Stage::Waiting => self.preempted.unwrap_or(self.age),
            Stage::Prefill | Stage::Decode | Stage::Held | Stage::Finished => Duration::ZERO,
        };
        i64::from(self.priority).saturating_add_unsigned(waited.as_secs() / AGING.as_secs())
    }
}

impl Planner<'_> {
    fn indices(&self, is: impl Fn(&RequestView) -> bool) -> impl Iterator<Item = usize> {
        (0..self.requests.len()).filter(move |&index| is(&self.requests[index]))
    }

    /// Sequences that run, by caller.
    fn running_by_share(&self) -> HashMap<u64, usize> {
        let mut running = HashMap::new();
        for request in self.requests.iter().filter(|request| request.is_running()) {
            *running.entry(request.share).or_default() += request.sequences;
        }
        running
    }

    fn state_bytes(&self) -> u64 {
        self.requests.iter().map(|request| request.state_bytes).sum()
    }

    fn preempt(&mut self, index: usize) {
        self.requests[index].stage = Stage::Waiting;
        self.requests[index].preempted = Some(Duration::ZERO);
        self.plan.preempt.push(index);
    }

    fn evict(&mut self, index: usize) {
        let request = &mut self.requests[index];
        request.needed_bytes = request.needed_bytes.max(request.state_bytes);
        (request.has_states, request.state_bytes) = (false, 0);
        self.plan.evict.push(index);
    }

    /// Takes the requests out of the step whose events are not read.
    fn preempt_paused(&mut self) {
        let paused: Vec<usize> = self.indices(|request| request.is_running() && request.is_paused).collect();
        for index in paused {
            self.preempt(index);
        }
    }

    /// Evicts states of waiting requests, then preempts the newest requests, until the states fit.
    fn keep_to_memory(&mut self) {
        let Some(limit) = self.limits.state_bytes else { return };
        while self.state_bytes() > limit {
            let last = self
                .indices(RequestView::is_evictable)
                .min_by_key(|&index| self.requests[index].preempted.unwrap_or_default());
            if let Some(index) = last {
                self.evict(index);
                continue;
            }
            let running: Vec<usize> = self.indices(RequestView::is_running).collect();
            let newest = running
                .iter()
                .copied()
                .filter(|&index| self.requests[index].can_preempt)
                .min_by_key(|&index| (self.requests[index].priority, self.requests[index].age));
            match newest {
                Some(index) if running.len() > 1 => {
                    self.preempt(index);
                    self.evict(index);
                }
                _ => {
                    if let [index] = running[..]
                        && self.requests[index].state_bytes > limit
                    {
                        self.requests[index].stage = Stage::Finished;
                        self.plan.out_of_memory = Some(index);
                    }
                    return;
                }
            }
        }
    }

    /// Admits waiting requests while there are places and memory. A request that has had its time slice makes place.
    fn admit(&mut self) {
        loop {
            let running = self.running_by_share();
            let running_of = |share: u64| running.get(&share).copied().unwrap_or(0);
            let Some(next) = self.next(running_of) else { return };
            let request = self.requests[next];
            let taken: usize = running.values().sum();
            // One at least always runs.
            if taken > 0 && taken + request.sequences > self.limits.running {
                let Some(index) = self.preemptible(&request, running_of) else { return };
                self.plan.sliced += 1;
                self.preempt(index);
                continue;
            }
            let bytes = if request.has_states { 0 } else { request.needed_bytes };
            let is_short = |planner: &Self| {
                planner.limits.state_bytes.is_some_and(|limit| planner.state_bytes() + bytes > limit)
            };
            while taken > 0 && is_short(self) {
                let evictable = self.indices(RequestView::is_evictable).filter(|&index| index != next);
                let last = evictable.min_by_key(|&index| self.requests[index].preempted.unwrap_or_default());
                let Some(index) = last else { return };
                self.evict(index);
            }
            let request = &mut self.requests[next];
            request.stage = if request.prompt_left > 0 { Stage::Prefill } else { Stage::Decode };
            request.slice = (Duration::ZERO, 0);
            request.state_bytes += bytes;
            self.plan.admit.push(next);
        }
    }

    /// The request to admit next: of the caller that has the fewest sequences running, the one of the highest priority; of
    /// equals, one that has not begun before one that was preempted, then the first.
    fn next(&self, running_of: impl Fn(u64) -> usize) -> Option<usize> {
        let waiting = self.indices(|request| request.stage == Stage::Waiting && !request.is_paused);
        // A request that made place in this plan waits for the next one.
        let sliced = &self.plan.preempt[self.plan.preempt.len() - self.plan.sliced..];
        let waiting = waiting.filter(|index| !sliced.contains(index));
        waiting.min_by_key(|&index| {
            let request = &self.requests[index];
            let rank = Reverse(request.rank());
            (running_of(request.share), rank, request.preempted.map(Reverse), Reverse(request.age))
        })
    }

    /// The request that makes place for another: of those that have had their time slice, and whose caller has more sequences
    /// than the other's, or as many and no higher priority, the one whose caller has most and that has run longest.
    fn preemptible(&self, other: &RequestView, running_of: impl Fn(u64) -> usize) -> Option<usize> {
        let candidates = self.indices(RequestView::is_running).filter(|&index| {
            let request = &self.requests[index];
            let (time, steps) = request.slice;
            let (running, running_of_other) = (running_of(request.share), running_of(other.share));
            let is_equal = request.share == other.share || running == running_of_other;
            let gives_way = request.stage == Stage::Decode && other.preempted.is_none();
            steps > 0
                && time >= if gives_way { FIRST_SLICE } else { TIME_SLICE }
                && request.can_preempt
                && (running > running_of_other || is_equal && request.rank() <= other.rank())
        });
        candidates.max_by_key(|&index| (running_of(self.requests[index].share), self.requests[index].slice.0))
    }

    /// Gives each sequence that decodes its token, and prompts equal parts of the rest of the step.
    fn assign_rows(&mut self) {
        let decode: Vec<usize> = self.indices(|request| request.stage == Stage::Decode).collect();
        let prefill: Vec<usize> = self.indices(|request| request.stage == Stage::Prefill).collect();
        let left: Vec<usize> = prefill.iter().map(|&index| self.requests[index].prompt_left).collect();
        let most = self.prompt_tokens(!decode.is_empty(), &left);
        for index in decode {
            self.plan.rows[index] = 1;
        }
        for (index, rows) in prefill.into_iter().zip(share(&left, most)) {
            self.plan.rows[index] = rows;
        }
    }

    /// Most tokens of prompts in the step, of which the prompts have so many `left`. Who waits for a token, or comes while the
    /// step runs, waits no longer than the step.
    fn prompt_tokens(&self, decodes: bool, left: &[usize]) -> usize {
        let Limits { prefill_chunk, shared_tokens, mixed_tokens, .. } = *self.limits;
        let ends = |&left_of_one: &usize| left_of_one * left.len() <= mixed_tokens;
        let active =
            self.requests.iter().filter(|request| request.stage != Stage::Finished && !request.is_paused);
        let callers: HashSet<u64> = active.map(|request| request.share).collect();
        let most = if decodes || left.iter().any(ends) {
            mixed_tokens
        } else if callers.len() > 1 {
            shared_tokens
        } else {
            prefill_chunk
        };
        most.min(prefill_chunk)
    }
}
