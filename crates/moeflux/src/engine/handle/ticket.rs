//! What one waits with for a request.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use async_channel::Receiver;
use futures_core::Stream;

use super::RequestError;
use crate::backend::CancelToken;
use crate::engine::event::Event;

/// The events of one request, as they come: for threads an [`Iterator`] that waits, for tasks of any runtime a [`Stream`]
/// or [`recv`](Self::recv). The last is [`Event::Done`] or an error. Dropping it cancels the request.
pub struct Ticket {
    // Boxed, since a channel's end may not be moved while it is waited on.
    events: Pin<Box<Receiver<Result<Event, RequestError>>>>,
    cancel: CancelToken,
    has_ended: bool,
}

impl Ticket {
    pub(super) fn new(events: Receiver<Result<Event, RequestError>>, cancel: CancelToken) -> Self {
        Ticket { events: Box::pin(events), cancel, has_ended: false }
    }

    /// Asks for an early end: the last event will be [`Event::Done`] with
    /// [`StopReason::Cancelled`](crate::StopReason::Cancelled), unless another end comes first.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// The next event; `None` after the last.
    pub async fn recv(&mut self) -> Option<Result<Event, RequestError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Passes on what the channel gave.
    fn pass(&mut self, event: Option<Result<Event, RequestError>>) -> Option<Result<Event, RequestError>> {
        if self.has_ended {
            return None;
        }
        // A channel that closes early is a thread that is gone.
        let event = event.unwrap_or(Err(RequestError::Stopped));
        self.has_ended = matches!(event, Ok(Event::Done(_)) | Err(_));
        Some(event)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

impl Iterator for Ticket {
    type Item = Result<Event, RequestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let event = self.events.recv_blocking().ok();
        self.pass(event)
    }
}

impl Stream for Ticket {
    type Item = Result<Event, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match self.events.as_mut().poll_next(context) {
            Poll::Ready(event) => Poll::Ready(self.pass(event)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// One answer that is to come: [`wait`](Self::wait) for it, or `.await` it. Dropping it cancels the request.
#[derive(Debug)]
pub struct Pending<T>(Receiver<Result<T, RequestError>>);

impl<T> Pending<T> {
    pub(super) fn new(reply: Receiver<Result<T, RequestError>>) -> Self {
        Pending(reply)
    }

    /// Waits for it.
    pub fn wait(self) -> Result<T, RequestError> {
        self.0.recv_blocking().unwrap_or(Err(RequestError::Stopped))
    }
}

impl<T: Send + 'static> IntoFuture for Pending<T> {
    type Output = Result<T, RequestError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.0.recv().await.unwrap_or(Err(RequestError::Stopped)) })
    }
}
