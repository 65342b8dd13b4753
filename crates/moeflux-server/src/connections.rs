//! Who is connected, and who has to go when there is no room: first those that the server waits for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// Connections beside the limit that are only told of the server's health.
const RESERVE: usize = 64;
/// How many of these one address may have.
const RESERVE_OF_ADDRESS: usize = 8;
/// How long the server waits for a request before a new connection may take its place.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of bodies that are on their way, beside the first [`FREE`] of each.
const BODIES: usize = 64 << 20;
/// Bytes of a body that don't count.
const FREE: usize = 64 << 10;

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    limit: usize,
    of_address: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Entry>,
    of_address: HashMap<IpAddr, [usize; 2]>,
    /// How many are in the reserve.
    reserved: usize,
    /// Bytes of bodies on their way.
    bodies: usize,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    is_reserved: bool,
    /// Since when the server has waited for its request; `None` while it answers one.
    waits: Option<Instant>,
    /// Bytes of its body that count.
    body: usize,
    leave: Arc<Notify>,
}

/// A connection's place; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    id: u64,
    leave: Arc<Notify>,
    is_reserved: bool,
}

impl Connections {
    pub(crate) fn new(limit: usize, of_address: usize) -> Arc<Self> {
        Arc::new(Connections { limit: limit.max(1), of_address: of_address.max(1), table: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; `None` if there is none, not even in the reserve.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Arc<Place>> {
        let mut table = self.lock();
        let [open, reserved] = table.of_address.get(&address).copied().unwrap_or_default();
        let has_room = table.open.len() - table.reserved < self.limit;
        let is_reserved = open >= self.of_address || !(has_room || table.send_away(PATIENCE, |_| true));
        if is_reserved && (table.reserved >= RESERVE || reserved >= RESERVE_OF_ADDRESS) {
            return None;
        }
        let id = table.next;
        table.next += 1;
        let leave = Arc::new(Notify::new());
        let waits = Some(Instant::now());
        let entry = Entry { address, is_reserved, waits, body: 0, leave: Arc::clone(&leave) };
        table.open.insert(id, entry);
        table.reserved += usize::from(is_reserved);
        table.of_address.entry(address).or_default()[usize::from(is_reserved)] += 1;
        Some(Arc::new(Place { connections: Arc::clone(self), id, leave, is_reserved }))
    }
}

impl Table {
    /// Has the connection go that has let the server wait longest, if that is long enough. Whether there was one.
    fn send_away(&mut self, patience: Duration, which: impl Fn(&Entry) -> bool) -> bool {
        let waiting = self.open.iter().filter(|(_, entry)| !entry.is_reserved && which(entry));
        let longest = waiting.filter_map(|(&id, entry)| Some((entry.waits?, id))).min();
        match longest {
            Some((since, id)) if since.elapsed() >= patience => {
                self.remove(id);
                true
            }
            _ => false,
        }
    }

    /// Takes a connection out and tells it to go.
    fn remove(&mut self, id: u64) {
        let Some(entry) = self.open.remove(&id) else { return };
        entry.leave.notify_one();
        self.reserved -= usize::from(entry.is_reserved);
        self.bodies -= entry.body;
        if let Some(counts) = self.of_address.get_mut(&entry.address) {
            counts[usize::from(entry.is_reserved)] -= 1;
            if *counts == [0, 0] {
                self.of_address.remove(&entry.address);
            }
        }
    }
}

impl Place {
    /// Whether it is in the reserve.
    pub(crate) fn is_reserved(&self) -> bool {
        self.is_reserved
    }

    /// Returns when the connection has to go.
    pub(crate) async fn sent_away(&self) {
        self.leave.notified().await;
    }

    /// The server waits for a request.
    pub(crate) fn waits(&self) {
        self.set(Some(Instant::now()));
    }

    /// The request has come; its body still counts.
    pub(crate) fn has_come(&self) {
        if let Some(entry) = self.connections.lock().open.get_mut(&self.id) {
            entry.waits = None;
        }
    }

    /// The server answers.
    pub(crate) fn answers(&self) {
        self.set(None);
    }

    fn set(&self, waits: Option<Instant>) {
        let mut table = self.connections.lock();
        if let Some(entry) = table.open.get_mut(&self.id) {
            entry.waits = waits;
            let body = std::mem::take(&mut entry.body);
            table.bodies -= body;
        }
    }

    /// More of a body has come, which now has so many bytes. Whether there is room for it, which others may have to make
    /// that have let the server wait.
    pub(crate) fn received(&self, bytes: usize) -> bool {
        let mut table = self.connections.lock();
        let body = bytes.saturating_sub(FREE);
        let Some(entry) = table.open.get(&self.id) else { return false };
        let more = body.saturating_sub(entry.body);
        while table.bodies + more > BODIES {
            let id = self.id;
            let others = |entry: &Entry| entry.body > 0 && !Arc::ptr_eq(&entry.leave, &self.leave);
            if !table.send_away(PATIENCE, others) || !table.open.contains_key(&id) {
                return false;
            }
        }
        table.bodies += more;
        if let Some(entry) = table.open.get_mut(&self.id) {
            entry.body += more;
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(self.id);
    }
}

/// The body of an answer; when it ends, the server waits for the next request.
pub(crate) struct Answer {
    body: Body,
    place: Arc<Place>,
}

impl Answer {
    pub(crate) fn new(body: Body, place: Arc<Place>) -> Self {
        Self { body, place }
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.place.waits();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test

    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    #[test]
    fn an_address_has_its_part_and_a_little_of_the_reserve() {
        let connections = Connections::new(100, 3);
        let places: Vec<_> = (0..20).filter_map(|_| connections.admit(address(1))).collect();
        assert_eq!(places.iter().filter(|place| !place.is_reserved()).count(), 3);
        assert_eq!(places.len(), 3 + RESERVE_OF_ADDRESS);
        assert!(!connections.admit(address(2)).unwrap().is_reserved());
        drop(places);
        assert!(!connections.admit(address(1)).unwrap().is_reserved());
        assert!(connections.lock().of_address.is_empty() && connections.lock().open.is_empty());
    }

    #[test]
    fn who_lets_the_server_wait_makes_room_and_who_is_answered_does_not() {
        let connections = Connections::new(2, 2);
        let (waiting, answered) =
            (connections.admit(address(1)).unwrap(), connections.admit(address(2)).unwrap());
        answered.answers();
        assert!(connections.admit(address(3)).unwrap().is_reserved(), "nobody has waited for long");
        std::thread::sleep(PATIENCE + Duration::from_millis(10));
        let newcomer = connections.admit(address(4)).unwrap();
        assert!(!newcomer.is_reserved());
        assert!(connections.lock().open.contains_key(&answered.id));
        assert!(!connections.lock().open.contains_key(&waiting.id));
    }

    #[test]
    fn bodies_on_their_way_share_a_budget() {
        let connections = Connections::new(100, 100);
        let places: Vec<_> = (0..5).map(|_| connections.admit(address(1)).unwrap()).collect();
        assert!(places[..4].iter().all(|place| place.received(FREE + BODIES / 4)));
        assert!(!places[4].received(FREE + 1), "nobody has waited for long");
        places[0].answers();
        assert!(places[4].received(FREE + 1));
        assert_eq!(connections.lock().bodies, BODIES / 4 * 3 + 1);
    }
}
