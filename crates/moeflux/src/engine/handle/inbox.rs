//! Where handles put requests and the engine's thread finds them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clients::Client;
use super::{EngineStats, SubmitError};
use crate::backend::CancelToken;
use crate::engine::requests::{Request, RequestId};
use crate::sequence::Sequence;

/// Shared by the handles and the thread that runs the engine.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    /// Notified when there is something new for the thread.
    arrived: Condvar,
    /// Notified when the thread has ended.
    ended: Condvar,
    /// Stops the step that runs.
    stop: CancelToken,
    max_queued: usize,
}

#[derive(Debug)]
pub(super) struct Inbox {
    /// Requests that the thread has not taken, in the order of arrival, and who waits for them.
    pub(super) arrived: Vec<Submission>,
    /// Requests that the thread has taken and that have never run.
    pub(super) queued: usize,
    /// Sequences to put into the prefix cache.
    pub(super) restored: Vec<Sequence>,
    pub(super) phase: Phase,
    /// As of the last step.
    pub(super) stats: EngineStats,
}

/// A request, and who waits for its samples.
pub(super) type Submission = (Request, Vec<(RequestId, Client)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are taken.
    Open,
    /// Those that are there may go on until then.
    Draining(Instant),
    /// The thread has ended.
    Ended,
}

impl Shared {
    /// An empty inbox; `stop` stops the step that runs.
    pub(super) fn new(max_queued: usize, stop: CancelToken) -> Self {
        let inbox = Inbox {
            arrived: Vec::new(),
            queued: 0,
            restored: Vec::new(),
            phase: Phase::Open,
            stats: EngineStats::default(),
        };
        Shared { inbox: Mutex::new(inbox), arrived: Condvar::new(), ended: Condvar::new(), stop, max_queued }
    }

    /// The inbox. What a thread that panicked left there is whole: each change is one step.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request, unless there are too many.
    pub(super) fn submit(&self, submission: Submission) -> Result<(), SubmitError> {
        let mut inbox = self.lock();
        match inbox.phase {
            Phase::Open => {}
            Phase::Draining(_) => return Err(SubmitError::ShuttingDown),
            Phase::Ended => return Err(SubmitError::Stopped),
        }
        if inbox.queued + inbox.arrived.len() >= self.max_queued {
            return Err(SubmitError::QueueFull { limit: self.max_queued });
        }
        inbox.arrived.push(submission);
        inbox.stats.queued += 1;
        drop(inbox);
        self.arrived.notify_all();
        Ok(())
    }

    /// Adds a sequence to the prefix cache.
    pub(super) fn restore(&self, sequence: Sequence) {
        self.lock().restored.push(sequence);
        self.arrived.notify_all();
    }

    /// Takes no more requests, and lets those that are there go on for so long.
    pub(super) fn drain(&self, time: Duration) {
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
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until something arrives, or for so long: no notification comes when events are read.
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

    /// The thread ends. Requests that it has not taken are dropped, which closes the channels of their clients.
    pub(super) fn end(&self) {
        let mut inbox = self.lock();
        inbox.phase = Phase::Ended;
        let arrived = std::mem::take(&mut inbox.arrived);
        drop(inbox);
        self.ended.notify_all();
        drop(arrived);
    }

    /// Waits until the thread has ended, or until `deadline`. Whether it has ended.
    pub(super) fn wait_for_end(&self, deadline: Option<Instant>) -> bool {
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
