//! Responses that later ones may go on from.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use moeflux::text::Message;
use serde_json::Value;

use crate::auth::Caller;

/// Responses that later ones may go on from, in memory. When there are too many, those that were not used for longest are
/// forgotten.
#[derive(Default)]
pub struct Store(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// The one used last is at the end.
    responses: VecDeque<Stored>,
    bytes: usize,
}

struct Stored {
    id: String,
    /// Who alone may use it; `None` is everyone.
    key: Option<usize>,
    /// The response, as JSON text.
    response: String,
    /// The conversation up to its end, as JSON text.
    messages: String,
}

/// Most responses.
const RESPONSES: usize = 1024;
/// Most bytes of all of them.
const BYTES: usize = 64 << 20;

impl Store {
    /// Keeps a response and the conversation up to its end.
    pub(super) fn put(
        &self,
        id: &str,
        caller: Caller,
        response: &impl serde::Serialize,
        messages: &[Message],
    ) {
        let texts =
            serde_json::to_string(response).and_then(|text| Ok((text, serde_json::to_string(messages)?)));
        let (response, messages) = match texts {
            Ok(texts) => texts,
            Err(error) => {
                tracing::error!(%error, "a response cannot be kept");
                return;
            }
        };
        let mut table = self.table();
        table.bytes += response.len() + messages.len();
        table.responses.push_back(Stored { id: id.to_owned(), key: key(caller), response, messages });
        while table.responses.len() > RESPONSES || table.bytes > BYTES {
            let Some(oldest) = table.responses.pop_front() else { break };
            table.bytes -= oldest.bytes();
        }
    }

    /// A response.
    pub(super) fn response(&self, id: &str, caller: Caller) -> Option<Value> {
        self.used(id, caller, |stored| serde_json::from_str(&stored.response).ok())
    }

    /// The conversation up to a response's end.
    pub(super) fn messages(&self, id: &str, caller: Caller) -> Option<Vec<Message>> {
        self.used(id, caller, |stored| serde_json::from_str(&stored.messages).ok())
    }

    /// Forgets a response; false if there is none.
    pub(super) fn remove(&self, id: &str, caller: Caller) -> bool {
        let mut table = self.table();
        let removed = table.find(id, caller).and_then(|place| table.responses.remove(place));
        if let Some(stored) = &removed {
            table.bytes -= stored.bytes();
        }
        removed.is_some()
    }

    fn used<T>(&self, id: &str, caller: Caller, read: impl FnOnce(&Stored) -> Option<T>) -> Option<T> {
        let mut table = self.table();
        let place = table.find(id, caller)?;
        let stored = table.responses.remove(place)?;
        let value = read(&stored);
        table.responses.push_back(stored);
        value
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Where a response of this caller's is.
    fn find(&self, id: &str, caller: Caller) -> Option<usize> {
        let is_allowed = |stored: &Stored| stored.key.is_none() || stored.key == key(caller);
        self.responses.iter().position(|stored| stored.id == id && is_allowed(stored))
    }
}

impl Stored {
    fn bytes(&self) -> usize {
        self.response.len() + self.messages.len()
    }
}

/// The key of a caller; addresses are shared, and change.
fn key(caller: Caller) -> Option<usize> {
    match caller {
        Caller::Key(key) => Some(key),
        Caller::Address(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test

    use super::*;

    #[test]
    fn a_response_is_its_keys() {
        let store = Store::default();
        store.put("a", Caller::Key(0), &"A", &[Message::new("user", "hello")]);
        assert_eq!(store.response("a", Caller::Key(1)), None);
        assert!(!store.remove("a", Caller::Key(1)));
        assert_eq!(store.response("a", Caller::Key(0)).unwrap(), "A");
        assert_eq!(store.messages("a", Caller::Key(0)).unwrap(), [Message::new("user", "hello")]);
        assert!(store.remove("a", Caller::Key(0)));
        assert_eq!(store.response("a", Caller::Key(0)), None);
        assert_eq!(store.table().bytes, 0);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let store = Store::default();
        let caller = Caller::Address(None);
        for id in 0..=RESPONSES {
            store.put(&id.to_string(), caller, &"", &[]);
            // What is used stays.
            assert!(store.response("0", caller).is_some());
        }
        assert!(store.response("1", caller).is_none());
        let large = "x".repeat(BYTES / 2);
        store.put("large", caller, &large, &[]);
        store.put("larger", caller, &large, &[]);
        assert!(store.response("large", caller).is_none());
        assert!(store.table().bytes <= BYTES);
    }
}
