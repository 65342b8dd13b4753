//! The thread of an [`EngineHandle`](super::EngineHandle): it takes requests from the inbox and hands out their events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::inbox::{Phase, Shared};
use crate::engine::core::EngineCore;

/// How often to look whether events have been read, where nothing else is to be done.
const LOOK: Duration = Duration::from_millis(20);

/// What the thread owns.
pub(super) struct EngineThread {
    core: EngineCore,
    clients: Clients,
    shared: Arc<Shared>,
}

impl EngineThread {
    pub(super) fn new(
        core: EngineCore,
        shared: Arc<Shared>,
        unread_events: usize,
        unread_time: Option<Duration>,
    ) -> Self {
        EngineThread { core, clients: Clients::new(unread_events, unread_time), shared }
    }

    /// Runs steps until the handle asks for an end and the requests that were there have finished.
    pub(super) fn run(mut self) {
        while self.schedule() {
            let mut events = Vec::new();
            self.core.run(&mut events);
            self.clients.deliver(events);
            let mut events = Vec::new();
            self.core.settle(&mut events);
            self.clients.deliver(events);
        }
    }

    /// Takes what has arrived and plans the next step; waits for something to do. Whether there will be any.
    fn schedule(&mut self) -> bool {
        let Self { core, clients, shared } = self;
        let mut inbox = shared.lock();
        loop {
            inbox.restored.drain(..).for_each(|sequence| core.keep_prefix(&sequence));
            for (request, own) in inbox.arrived.drain(..) {
                core.add(request);
                clients.extend(own);
            }
            if matches!(inbox.phase, Phase::Draining(end) if Instant::now() >= end) {
                core.cancel_all();
            }
            clients.check(core);
            clients.deliver(core.schedule());
            let is_running = core.is_running();
            if !is_running {
                // Requests that were cancelled go.
                let mut events = Vec::new();
                core.settle(&mut events);
                clients.deliver(events);
            }
            (inbox.queued, inbox.stats) = (core.queued(), core.stats());
            if is_running {
                return true;
            }
            // What still waits then has events that its client does not read.
            let is_paused = !core.is_idle();
            if inbox.phase != Phase::Open && !is_paused {
                return false;
            }
            inbox = shared.wait(inbox, is_paused.then_some(LOOK));
        }
    }
}
