//! Who waits for the requests of an engine's thread.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_channel::Sender;

use super::{Embedding, RequestError, Saved};
use crate::engine::core::EngineCore;
use crate::engine::event::Event;
use crate::engine::requests::{RequestId, StepEvent};
use crate::error::Error;
use crate::model::Model;
use crate::sequence::Sequence;
use crate::sequence::snapshot::SnapshotOptions;

/// Where what comes of a request goes. A channel that closes early tells the other end that the thread has ended.
#[derive(Debug)]
pub(super) enum Client {
    /// The events of a completion.
    Events {
        events: Sender<Result<Event, RequestError>>,
        /// Since when too many of them are unread.
        unread: Option<Instant>,
    },
    /// An embedding.
    Embedding(Sender<Result<Embedding, RequestError>>),
    /// Word of a sequence that was written to a file.
    Saved { model: Arc<Model>, path: PathBuf, reply: Sender<Result<Saved, RequestError>> },
}

/// All clients of a thread.
#[derive(Debug)]
pub(super) struct Clients {
    clients: HashMap<RequestId, Client>,
    /// Events of a completion that may be unread; with more it is paused until half of them are read.
    unread_events: usize,
    /// Time after which it is then cancelled; `None` is never.
    unread_time: Option<Duration>,
}

impl Client {
    pub(super) fn events(events: Sender<Result<Event, RequestError>>) -> Self {
        Client::Events { events, unread: None }
    }

    /// Whether the other end is gone.
    fn is_closed(&self) -> bool {
        match self {
            Client::Events { events, .. } => events.is_closed(),
            Client::Embedding(reply) => reply.is_closed(),
            Client::Saved { reply, .. } => reply.is_closed(),
        }
    }

    fn fail(&self, error: RequestError) {
        match self {
            Client::Events { events, .. } => drop(events.try_send(Err(error))),
            Client::Embedding(reply) => drop(reply.try_send(Err(error))),
            Client::Saved { reply, .. } => drop(reply.try_send(Err(error))),
        }
    }
}

impl Clients {
    pub(super) fn new(unread_events: usize, unread_time: Option<Duration>) -> Self {
        Clients { clients: HashMap::new(), unread_events, unread_time }
    }

    pub(super) fn extend(&mut self, clients: impl IntoIterator<Item = (RequestId, Client)>) {
        self.clients.extend(clients);
    }

    /// Cancels the requests of clients that are gone, pauses those whose events are not read, and cancels those after a while.
    pub(super) fn check(&mut self, core: &mut EngineCore) {
        for (&id, client) in &mut self.clients {
            if client.is_closed() {
                core.cancel(id);
            }
            let Client::Events { events, unread } = client else { continue };
            let n = events.len();
            match *unread {
                None if n > self.unread_events => {
                    *unread = Some(Instant::now());
                    core.set_paused(id, true);
                }
                Some(_) if n <= self.unread_events / 2 => {
                    *unread = None;
                    core.set_paused(id, false);
                }
                Some(since) if self.unread_time.is_some_and(|time| since.elapsed() > time) => core.cancel(id),
                _ => {}
            }
        }
    }

    /// Hands out what a step made of requests.
    pub(super) fn deliver(&mut self, events: Vec<StepEvent>) {
        for event in events {
            match event {
                StepEvent::Event { id, event } => {
                    let is_last = matches!(event, Event::Done(_));
                    // A client that is gone misses it.
                    if let Some(Client::Events { events, .. }) = self.clients.get(&id) {
                        drop(events.try_send(Ok(event)));
                    }
                    if is_last {
                        self.clients.remove(&id);
                    }
                }
                StepEvent::Embedded { id, embedding } => {
                    if let Some(Client::Embedding(reply)) = self.clients.remove(&id) {
                        drop(reply.try_send(Ok(embedding)));
                    }
                }
                StepEvent::Read { id, sequence } => {
                    if let Some(Client::Saved { model, path, reply }) = self.clients.remove(&id) {
                        save(model, sequence, path, reply);
                    }
                }
                StepEvent::Failed { ids, error } => {
                    let error = RequestError::from(error);
                    for client in ids.iter().filter_map(|id| self.clients.remove(id)) {
                        client.fail(error.clone());
                    }
                }
                StepEvent::Cancelled { id } => drop(self.clients.remove(&id)),
            }
        }
    }
}

/// Writes a snapshot, while the engine goes on.
fn save(model: Arc<Model>, sequence: Sequence, path: PathBuf, reply: Sender<Result<Saved, RequestError>>) {
    let write = move || {
        let options = SnapshotOptions::default();
        let result = sequence.save(&path, model.fingerprint(), &options);
        let tokens = sequence.len();
        let result = result.map(|()| Saved { tokens }).map_err(|source| Error::Snapshot { path, source });
        drop(reply.try_send(result.map_err(RequestError::from)));
    };
    // If there is no thread, the closed channel tells.
    drop(std::thread::Builder::new().name("moeflux-save".to_owned()).spawn(write));
}
