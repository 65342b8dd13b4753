//! The threads that kernels share.
//!
//! A step hands out hundreds of small jobs, one after the other, so what a job costs besides its work counts. The
//! workers belong to the pool and wait for it alone: after a job they look for the next one for some microseconds
//! before they sleep, so that within a step they are rarely woken by the system.

use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A fixed number of threads, the caller's among them.
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<Shared>,
    /// The threads besides the caller's.
    workers: Vec<JoinHandle<()>>,
    /// Held by the call whose job runs.
    turn: Mutex<()>,
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
        source: std::io::Error,
    },
}

/// Tasks smaller than this many elementary operations are not worth handing to another thread.
const MIN_TASK_WORK: usize = 1 << 15;
/// Enough tasks that a slow thread leaves little for the others to wait for.
const TASKS_PER_THREAD: usize = 16;
/// How long a thread looks out for what comes next before it sleeps: longer than the pauses within a step.
const SPIN: Duration = Duration::from_micros(50);

impl ThreadPool {
    /// A pool of `threads` threads, counting the one that calls [`for_each`](Self::for_each).
    ///
    /// Its threads look out for work before they sleep if the process may use as many cores (by affinity and, on Linux,
    /// by its control group), and sleep at once otherwise.
    pub fn new(threads: usize) -> Result<Self, PoolError> {
        if threads == 0 {
            return Err(PoolError::NoThreads);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared::new(threads <= cores));
        let mut pool = ThreadPool { shared, workers: Vec::with_capacity(threads - 1), turn: Mutex::new(()) };
        for i in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new()
                .name(format!("moeflux-{i}"))
                .spawn(move || shared.work())
                .map_err(|source| PoolError::Start { threads, source })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(0..tasks)`, in any order, on the pool's threads; returns when all are done.
    ///
    /// If a task panics, tasks that nobody has taken are left out and the panic goes on in the caller once the others are
    /// done.
    /// While the pool is busy with another call, the caller does everything alone.
    pub fn for_each(&self, tasks: usize, f: impl Fn(usize) + Sync + Send) {
        let helpers = self.workers.len().min(tasks.saturating_sub(1));
        let turn = match self.turn.try_lock() {
            Ok(turn) if helpers > 0 => turn,
            Err(TryLockError::Poisoned(turn)) if helpers > 0 => turn.into_inner(),
            _ => return (0..tasks).for_each(f),
        };
        let job =
            Job { run: &f, tasks, threads: helpers + 1, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        self.shared.run(&job, helpers);
        drop(turn);
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }

    /// How many of `units` equal pieces of work, of `unit_work` operations each, one task should take.
    pub(crate) fn units_per_task(&self, units: usize, unit_work: usize) -> usize {
        let for_threads = units.div_ceil(self.threads() * TASKS_PER_THREAD);
        let for_size = MIN_TASK_WORK.div_ceil(unit_work.max(1));
        for_threads.max(for_size).min(units).max(1)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.close();
        for worker in self.workers.drain(..) {
            // A worker lets no panic through, so there is nothing to learn.
            let _ = worker.join();
        }
    }
}

/// One call of [`ThreadPool::for_each`], on its caller's stack.
struct Job<'f> {
    run: &'f (dyn Fn(usize) + Sync),
    tasks: usize,
    /// How many take tasks.
    threads: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    /// Takes tasks until none is left: of those left a share at a time, half of what would be fair, so that neighbours,
    /// which mostly read on where the one before ended, have one thread, and the last ones go one by one.
    fn take_part(&self) {
        let share = |first: usize| (self.tasks.saturating_sub(first) / (2 * self.threads)).max(1);
        let after = |first: usize| (first < self.tasks).then(|| first + share(first));
        let tasks = AssertUnwindSafe(|| {
            // The counter alone decides who has a task; what tasks write is published when the job ends.
            while let Ok(first) = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after) {
                (first..first + share(first)).for_each(self.run);
            }
        });
        if let Err(panic) = catch_unwind(tasks) {
            self.next.store(self.tasks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

/// What the caller and the workers share.
///
/// `state` says which job it is ([`EPOCH`] and up), how many workers are inside ([`WORKER`] each) and whether it is
/// open ([`OPEN`]). A worker enters by raising the count of an open job, an exchange of the whole `state`: so it enters
/// before the caller closes the job, or not at all. The caller closes it by clearing the bit, then waits until nobody is
/// inside. Hence a worker inside keeps the caller, and with it the job on its stack, where it is; and one that comes too
/// late never touches the job. The count of jobs lets a worker enter each one once; it may wrap, since a worker that
/// slept through four thousand million jobs would only miss one.
///
/// Nobody sleeps through what it waits for: who goes to sleep says so (`sleepers`, `caller_sleeps`) and then looks at
/// `state` once more, who changes `state` looks afterwards whether anyone sleeps, and all four are sequentially
/// consistent: one of the two sees the other. What sleeps holds the lock from the second look until it waits, and who
/// wakes takes the lock, so a wake-up does not come in between.
#[derive(Debug)]
struct Shared {
    state: AtomicU64,
    /// The open job; another lifetime than the true one, which ends when the caller has closed the job.
    job: AtomicPtr<Job<'static>>,
    is_closing: AtomicBool,
    /// Whether there are cores for threads that look out for work.
    may_spin: bool,
    sleepers: AtomicUsize,
    caller_sleeps: AtomicBool,
    lock: Mutex<()>,
    has_job: Condvar,
    is_done: Condvar,
}

const OPEN: u64 = 1;
const WORKER: u64 = 2;
const EPOCH: u64 = 1 << 32;

impl Shared {
    fn new(may_spin: bool) -> Self {
        Shared {
            state: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            is_closing: AtomicBool::new(false),
            may_spin,
            sleepers: AtomicUsize::new(0),
            caller_sleeps: AtomicBool::new(false),
            lock: Mutex::new(()),
            has_job: Condvar::new(),
            is_done: Condvar::new(),
        }
    }

    /// Opens the job to `helpers` workers or more, takes part, and returns once nobody has to do with it any more.
    fn run(&self, job: &Job<'_>, helpers: usize) {
        self.job.store(std::ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        // Nobody is inside and nobody else opens jobs, so this is the one writer.
        let epoch = (self.state.load(Ordering::Relaxed) & !(EPOCH - 1)).wrapping_add(EPOCH);
        self.state.store(epoch | OPEN, Ordering::SeqCst);
        let sleepers = self.sleepers.load(Ordering::SeqCst);
        if sleepers > 0 {
            let _guard = lock(&self.lock);
            (0..helpers.min(sleepers)).for_each(|_| self.has_job.notify_one());
        }
        job.take_part();
        self.state.fetch_and(!OPEN, Ordering::SeqCst);
        let is_empty = || self.state.load(Ordering::SeqCst) & (EPOCH - 1) == 0;
        if !self.spin_until(is_empty) {
            let mut guard = lock(&self.lock);
            self.caller_sleeps.store(true, Ordering::SeqCst);
            while !is_empty() {
                guard = self.is_done.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            self.caller_sleeps.store(false, Ordering::SeqCst);
        }
    }

    /// A worker's life.
    fn work(&self) {
        let mut last = 0;
        loop {
            let is_new = |state: u64| state & OPEN != 0 && state / EPOCH != last;
            let called =
                || is_new(self.state.load(Ordering::SeqCst)) || self.is_closing.load(Ordering::SeqCst);
            if !self.spin_until(called) {
                let mut guard = lock(&self.lock);
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while !called() {
                    guard = self.has_job.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            if self.is_closing.load(Ordering::SeqCst) {
                return;
            }
            let state = self.state.load(Ordering::Relaxed);
            let entered = state + WORKER;
            if !is_new(state)
                || self.state.compare_exchange(state, entered, Ordering::SeqCst, Ordering::Relaxed).is_err()
            {
                continue;
            }
            last = state / EPOCH;
            // SAFETY: the job was open when this worker entered, so its caller waits until the worker has left; and the
            // pointer was stored before the job was opened, which the exchange has seen.
            unsafe { &*self.job.load(Ordering::Relaxed) }.take_part();
            let before = self.state.fetch_sub(WORKER, Ordering::SeqCst);
            if before & (EPOCH - 1) == WORKER && self.caller_sleeps.load(Ordering::SeqCst) {
                let _guard = lock(&self.lock);
                self.is_done.notify_one();
            }
        }
    }

    /// Whether `condition` holds soon; looks once only where threads are not to spin.
    fn spin_until(&self, condition: impl Fn() -> bool) -> bool {
        if condition() {
            return true;
        }
        if !self.may_spin {
            return false;
        }
        let start = Instant::now();
        loop {
            // Reading the clock costs as much as some looks.
            for _ in 0..64 {
                if condition() {
                    return true;
                }
                spin_loop();
            }
            if start.elapsed() > SPIN {
                return false;
            }
        }
    }

    fn close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        let _guard = lock(&self.lock);
        self.has_job.notify_all();
    }
}

/// Tasks run outside the pool's locks, so a lock that a panic left behind guards nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    // A failed expectation is a failed test.
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    /// Each task runs once, for many jobs of many sizes, some after pauses in which workers fall asleep.
    fn stress(threads: usize, jobs: usize) {
        let pool = ThreadPool::new(threads).unwrap();
        for job in 0..jobs {
            let tasks = job % 23;
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.for_each(tasks, |task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "job {job}");
            if job % 500 == 0 {
                std::thread::sleep(SPIN * 3);
            }
        }
    }

    #[test]
    fn each_task_runs_once() {
        for threads in 1..=4 {
            stress(threads, 20_000);
        }
        stress(64, 300);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = ThreadPool::new(3).unwrap();
        for round in 0..200 {
            let bad = round % 7;
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.for_each(7, |task| assert!(task != bad, "task {task} of round {round}"));
            }));
            let message = *result.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(message, format!("task {bad} of round {round}"));
            let done = AtomicUsize::new(0);
            pool.for_each(10, |_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.load(Ordering::Relaxed), 10);
        }
    }

    #[test]
    fn a_busy_pool_leaves_the_work_to_the_caller() {
        let pool = ThreadPool::new(2).unwrap();
        let done = AtomicUsize::new(0);
        pool.for_each(4, |_| {
            pool.for_each(5, |_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(done.load(Ordering::Relaxed), 20);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        pool.for_each(5, |_| {
                            done.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::Relaxed), 20 + 3 * 500 * 5);
    }

    #[test]
    fn no_threads_is_an_error() {
        assert!(matches!(ThreadPool::new(0), Err(PoolError::NoThreads)));
    }
}
