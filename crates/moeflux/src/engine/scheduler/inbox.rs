//! Where the handles put requests and the scheduler finds them.

use std::cmp::Reverse;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::job::Job;
use crate::backend::CancelToken;
use crate::engine::handle::{EngineStats, RequestError, SubmitError};
use crate::sequence::Sequence;

/// Shared by the handles and the thread that runs the engine.
#[derive(Debug)]
pub(in crate::engine) struct Shared {
    inbox: Mutex<Inbox>,
    /// Told when there is something new for the scheduler.
    arrived: Condvar,
    /// Told when the thread has ended.
    ended: Condvar,
    /// Stops the step that runs.
    pub(super) stop: CancelToken,
    max_queued: usize,
}

#[derive(Debug)]
pub(in crate::engine) struct Inbox {
    /// In the order of arrival.
    pub(super) waiting: Vec<Job>,
    /// Sequences to put into the prefix cache.
    pub(super) restored: Vec<Sequence>,
    pub(super) phase: Phase,
    /// What the scheduler told last.
    pub(in crate::engine) stats: EngineStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are taken.
    Open,
    /// Those that are there may go on until then.
    Draining(Instant),
    /// The thread has ended.
    Ended,
}

/// A waiting request counts as one of a higher priority after each such time, so that none waits for ever.
const AGING: Duration = Duration::from_secs(10);

impl Shared {
    pub(in crate::engine) fn new(max_queued: usize) -> Self {
        let stats = EngineStats::default();
        let inbox = Inbox { waiting: Vec::new(), restored: Vec::new(), phase: Phase::Open, stats };
        Shared {
            inbox: Mutex::new(inbox),
            arrived: Condvar::new(),
            ended: Condvar::new(),
            stop: CancelToken::default(),
            max_queued,
        }
    }

    /// The inbox. What a thread that panicked left there is whole: each change is one step.
    pub(in crate::engine) fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request, unless there are too many.
    pub(in crate::engine) fn submit(&self, job: Job) -> Result<(), SubmitError> {
        let mut inbox = self.lock();
        match inbox.phase {
            Phase::Open => {}
            Phase::Draining(_) => return Err(SubmitError::ShuttingDown),
            Phase::Ended => return Err(SubmitError::Stopped),
        }
        // Those that were preempted have been let in before.
        let waiting = inbox.waiting.iter().filter(|job| job.record.started.is_none()).count();
        if waiting >= self.max_queued {
            return Err(SubmitError::QueueFull { limit: self.max_queued });
        }
        inbox.waiting.push(job);
        inbox.stats.queued = inbox.waiting.len();
        drop(inbox);
        self.arrived.notify_all();
        Ok(())
    }

    /// Adds a sequence to the prefix cache.
    pub(in crate::engine) fn restore(&self, sequence: Sequence) {
        self.lock().restored.push(sequence);
        self.arrived.notify_all();
    }

    /// Takes no more requests, and lets those that are there go on for so long.
    pub(in crate::engine) fn drain(&self, time: Duration) {
        let mut inbox = self.lock();
        let now = Instant::now();
        let end = now.checked_add(time).unwrap_or(now + Duration::from_hours(24));
        match &mut inbox.phase {
            phase @ Phase::Open => *phase = Phase::Draining(end),
            Phase::Draining(known) => *known = end.min(*known),
            Phase::Ended => return,
        }
        drop(inbox);
        self.arrived.notify_all();
    }

    /// Asks the step that runs to stop.
    pub(in crate::engine) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until something arrives, or for so long: of events that are read nobody tells.
    pub(super) fn wait<'a>(
        &self,
        inbox: MutexGuard<'a, Inbox>,
        time: Option<Duration>,
    ) -> MutexGuard<'a, Inbox> {
        match time {
            Some(time) => self.arrived.wait_timeout(inbox, time).unwrap_or_else(PoisonError::into_inner).0,
            None => self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// The thread ends: nobody is left to do what waits.
    pub(in crate::engine) fn end(&self) {
        let mut inbox = self.lock();
        inbox.phase = Phase::Ended;
        let waiting = std::mem::take(&mut inbox.waiting);
        drop(inbox);
        self.ended.notify_all();
        for job in waiting {
            job.fail(&RequestError::Stopped);
        }
    }

    /// Waits for that, until `deadline` if there is one. Whether it has come.
    pub(in crate::engine) fn wait_for_end(&self, deadline: Option<Instant>) -> bool {
        let mut inbox = self.lock();
        while inbox.phase != Phase::Ended {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return false;
            }
            let left = left.unwrap_or(Duration::from_hours(1));
            inbox = self.ended.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Inbox {
    /// The place of the request to let in next: of the caller that has the fewest sequences running, the one of the highest
    /// priority; of equals, one that has not begun before one that was preempted, then the first. Those whose answers nobody
    /// reads are left out.
    pub(super) fn next(&self, running_of: impl Fn(u64) -> usize) -> Option<usize> {
        let order = |&index: &usize| {
            let job = &self.waiting[index];
            let began = job.record.started.map(|_| job.slice.0);
            (running_of(job.share), Reverse(job.rank()), began, job.record.submitted)
        };
        (0..self.waiting.len()).filter(|&index| self.waiting[index].unread.is_none()).min_by_key(order)
    }
}

impl Job {
    /// Its priority, which rises while it waits: since it came, or since it was preempted.
    pub(super) fn rank(&self) -> i64 {
        let since = self.record.started.map_or(self.record.submitted, |_| self.slice.0);
        let aged = since.elapsed().as_secs() / AGING.as_secs();
        i64::from(self.priority).saturating_add_unsigned(aged)
    }
}
