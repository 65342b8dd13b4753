//! The threads that kernels share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A fixed number of threads, the caller's among them.
#[derive(Debug)]
pub struct ThreadPool {
    threads: usize,
    /// The threads besides the caller's; none if there is only that.
    workers: Option<rayon::ThreadPool>,
}

/// The pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A pool of no threads was asked for.
    #[error("a thread pool needs at least 1 thread, 0 asked for")]
    NoThreads,
    /// The system did not give the threads.
    #[error("{threads} threads could not be started; ask for fewer")]
    Start {
        /// Threads asked for.
        threads: usize,
        /// The reason.
        source: rayon::ThreadPoolBuildError,
    },
}

/// Tasks smaller than this many elementary operations are not worth handing to another thread.
const MIN_TASK_WORK: usize = 1 << 15;
/// Enough tasks that a slow thread leaves little for the others to wait for.
const TASKS_PER_THREAD: usize = 4;

impl ThreadPool {
    /// A pool of `threads` threads, counting the one that calls [`for_each`](Self::for_each).
    pub fn new(threads: usize) -> Result<Self, PoolError> {
        let workers = match threads {
            0 => return Err(PoolError::NoThreads),
            1 => None,
            _ => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads - 1)
                    .thread_name(|i| format!("moeflux-{}", i + 1))
                    .build()
                    .map_err(|source| PoolError::Start { threads, source })?,
            ),
        };
        Ok(ThreadPool { threads, workers })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `f(0..tasks)`, in any order, on the pool's threads; returns when all are done.
    pub fn for_each(&self, tasks: usize, f: impl Fn(usize) + Sync + Send) {
        let helpers = tasks.min(self.threads).saturating_sub(1);
        let Some(workers) = self.workers.as_ref().filter(|_| helpers > 0) else {
            return (0..tasks).for_each(f);
        };
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                f(task);
            }
        };
        workers.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| work());
            }
            work();
        });
    }

    /// How many of `units` equal pieces of work, of `unit_work` operations each, one task should take.
    pub(crate) fn units_per_task(&self, units: usize, unit_work: usize) -> usize {
        let for_threads = units.div_ceil(self.threads * TASKS_PER_THREAD);
        let for_size = MIN_TASK_WORK.div_ceil(unit_work.max(1));
        for_threads.max(for_size).min(units).max(1)
    }
}
