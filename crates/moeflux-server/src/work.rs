//! Work that is no step of a model: templates, tokens, constraints, bodies, files. What is large or slow runs a few at a
//! time, on threads that yield to those that compute, and stops when its client has gone.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use moeflux::{CancelToken, background};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::error::{Failure, FailureKind};

/// Bytes of a body from which on it counts as large.
pub(crate) const LARGE: usize = 64 << 10;
/// Small pieces of work at once.
const SMALL_AT_ONCE: usize = 16;
/// Large or slow pieces of work at once.
const LARGE_AT_ONCE: usize = 2;
/// Large or slow pieces of work that wait; more are told to come again.
const WAITING: usize = 64;
/// Stack of a large piece of work.
const STACK: usize = 16 << 20;

// Of the process, as its memory and its processors are.
static SMALL: Semaphore = Semaphore::const_new(SMALL_AT_ONCE);
static SLOW: Semaphore = Semaphore::const_new(LARGE_AT_ONCE);
static WAIT: AtomicUsize = AtomicUsize::new(0);

tokio::task_local! {
    /// What is known of the request that this task answers.
    static REQUEST: RefCell<Request>;
}

#[derive(Default)]
struct Request {
    /// Whose share of the engine it takes.
    share: u64,
    has_large_body: bool,
    /// Kinds of things that it has and that are ignored.
    ignored: Vec<String>,
    /// What its body was read under, for the work that follows: what is read is not to pile up in between.
    held: Option<SemaphorePermit<'static>>,
}

/// Runs a request, which may turn out to be large. Also returns what of it was ignored.
pub(crate) async fn request<T>(answer: impl Future<Output = T>) -> (T, Vec<String>) {
    let answer = async {
        let answer = answer.await;
        let ignored = REQUEST.try_with(|request| std::mem::take(&mut request.borrow_mut().ignored));
        (answer, ignored.unwrap_or_default())
    };
    REQUEST.scope(RefCell::default(), answer).await
}

/// Notes a kind of thing that the request has and that is ignored.
pub(crate) fn note_ignored(kind: String, most: usize) {
    // Outside a request nobody is told.
    let _ = REQUEST.try_with(|request| {
        let ignored = &mut request.borrow_mut().ignored;
        if ignored.len() < most && !ignored.contains(&kind) {
            ignored.push(kind);
        }
    });
}

/// Notes whose share of the engine the request takes.
pub(crate) fn note_share(share: u64) {
    // Outside a request there is nothing to note.
    let _ = REQUEST.try_with(|request| request.borrow_mut().share = share);
}

/// Whose share of the engine the request takes.
pub(crate) fn share() -> u64 {
    REQUEST.try_with(|request| request.borrow().share).unwrap_or(0)
}

/// Notes that the request's body is large, and waits until it may be read.
pub(crate) async fn large_body() -> Result<(), Failure> {
    let permit = slow().await?;
    let _ = REQUEST.try_with(|request| {
        let mut request = request.borrow_mut();
        (request.has_large_body, request.held) = (true, Some(permit));
    });
    Ok(())
}

/// Reads a large body on a thread for such work.
pub(crate) async fn read<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (reply, answer) = oneshot::channel();
    let work = move || {
        let done = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(Failure::internal()));
        drop(reply.send(done));
    };
    spawn(work)?;
    answer.await.unwrap_or_else(|_| Err(Failure::internal()))
}

/// How much a piece of work takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// As much as its request: small, unless the body is large.
    OfBody,
    /// Much, whatever the request looks like.
    Slow,
}

/// Runs work on another thread. The token is cancelled when the client goes away.
pub(crate) async fn run<T: Send + 'static>(
    size: Size,
    work: impl FnOnce(&CancelToken) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (is_large, held) = REQUEST
        .try_with(|request| {
            let mut request = request.borrow_mut();
            (request.has_large_body, request.held.take())
        })
        .unwrap_or_default();
    let is_slow = size == Size::Slow || is_large;
    let permit = match held {
        Some(held) => held,
        None if is_slow => slow().await?,
        None => SMALL.acquire().await.map_err(|_| Failure::internal())?,
    };
    let cancel = CancelToken::default();
    let mut gone = CancelOnDrop(Some(cancel.clone()));
    let span = tracing::Span::current();
    let (reply, answer) = oneshot::channel();
    let work = move || {
        let _permit: SemaphorePermit<'static> = permit;
        let done = catch_unwind(AssertUnwindSafe(|| span.in_scope(|| work(&cancel))));
        let done = done.unwrap_or_else(|_| {
            tracing::error!(parent: &span, "a request's preparation panicked");
            Err(Failure::internal())
        });
        // A client that has gone gets nothing.
        drop(reply.send(done));
    };
    if is_slow {
        spawn(work)?;
    } else {
        drop(tokio::task::spawn_blocking(work));
    }
    let answer = answer.await.unwrap_or_else(|_| Err(Failure::internal()));
    // What was started goes on under the same token.
    gone.0 = None;
    answer
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    // What is started sets timers of the runtime.
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        let _runtime = runtime.enter();
        work();
    };
    let spawned = background::spawn("moeflux-work", STACK, work);
    spawned.map(drop).map_err(|error| {
        tracing::error!(%error, "there is no thread for a request's preparation");
        busy()
    })
}

async fn slow() -> Result<SemaphorePermit<'static>, Failure> {
    /// Counts those that wait.
    struct Waiting;
    impl Drop for Waiting {
        fn drop(&mut self) {
            WAIT.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let waiting = WAIT.fetch_add(1, Ordering::Relaxed);
    let _waiting = Waiting;
    if waiting >= WAITING {
        return Err(busy());
    }
    SLOW.acquire().await.map_err(|_| Failure::internal())
}

fn busy() -> Failure {
    let message = "too many large requests are waiting; try again";
    Failure::new(FailureKind::QueueFull, message).retry_after(Duration::from_secs(2))
}

/// Cancels when the client goes away before the work has ended.
struct CancelOnDrop(Option<CancelToken>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(token) = &self.0 {
            token.cancel();
        }
    }
}
