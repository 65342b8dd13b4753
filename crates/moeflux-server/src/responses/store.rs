//! Responses that later ones may go on from.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use moeflux::text::Message;
use serde_json::Value;
use tokio::task::AbortHandle;

use super::types::Item;
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
    /// The items of the request's input, as JSON text.
    input: String,
    /// The items of the answer.
    items: Vec<Item>,
    /// Ends the task that makes it, while one does.
    task: Option<AbortHandle>,
}

/// Most responses.
const RESPONSES: usize = 1024;
/// Most bytes of all of them.
const BYTES: usize = 64 << 20;

impl Store {
    /// Keeps a response, the conversation up to its end and its input. It replaces one of the same id.
    pub(super) fn put(
        &self,
        id: &str,
        caller: Caller,
        response: &impl serde::Serialize,
        items: &[Item],
        messages: &[Message],
        input: &[Value],
    ) {
        let text = |value: &dyn Fn() -> serde_json::Result<String>| match value() {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::error!(%error, "a response cannot be kept");
                None
            }
        };
        let response = text(&|| serde_json::to_string(response));
        let messages = text(&|| serde_json::to_string(messages));
        let input = text(&|| serde_json::to_string(input));
        let (Some(response), Some(messages), Some(input)) = (response, messages, input) else { return };
        let (id, key, items) = (id.to_owned(), key(caller), items.to_vec());
        let mut table = self.table();
        table.remove(&id);
        let stored = Stored { id, key, response, messages, input, items, task: None };
        table.bytes += stored.bytes();
        table.responses.push_back(stored);
        while table.responses.len() > RESPONSES || table.bytes > BYTES {
            let Some(oldest) = table.responses.pop_front() else { break };
            table.bytes -= oldest.bytes();
            if let Some(task) = oldest.task {
                task.abort();
            }
        }
    }

    /// Notes the task that makes a response, unless the response is complete already.
    pub(super) fn made_by(&self, id: &str, task: AbortHandle) {
        let mut table = self.table();
        if let Some(stored) = table.responses.iter_mut().find(|stored| stored.id == id) {
            stored.task = Some(task).filter(|task| !task.is_finished());
        }
    }

    /// Ends the task that makes a response and marks it as cancelled; one that is complete stays as it is. Returns the response.
    pub(super) fn cancel(&self, id: &str, caller: Caller) -> Option<Value> {
        let mut table = self.table();
        let place = table.find(id, caller)?;
        let stored = &mut table.responses[place];
        let mut response: Value = serde_json::from_str(&stored.response).ok()?;
        if let Some(task) = stored.task.take() {
            task.abort();
            let before = stored.response.len();
            response["status"] = Value::from("cancelled");
            stored.response = response.to_string();
            let after = stored.response.len();
            table.bytes = table.bytes + 2 * after - 2 * before;
        }
        Some(response)
    }

    /// An item of an answer that is kept.
    pub(super) fn item(&self, id: &str, caller: Caller) -> Option<Value> {
        let table = self.table();
        let of_caller = table.responses.iter().filter(|stored| stored.is_of(caller));
        let item = of_caller.clone().flat_map(|stored| &stored.items).find(|item| item.id() == id);
        if let Some(item) = item {
            return serde_json::to_value(item).ok();
        }
        let mut with_input = of_caller.filter(|stored| stored.input.contains(id));
        with_input.find_map(|stored| {
            let items: Vec<Value> = serde_json::from_str(&stored.input).ok()?;
            items.into_iter().find(|item| item["id"] == id)
        })
    }

    /// The items of a response's input.
    pub(super) fn input(&self, id: &str, caller: Caller) -> Option<Vec<Value>> {
        self.used(id, caller, |stored| serde_json::from_str(&stored.input).ok())
    }

    /// The items of a response's answer.
    pub(super) fn items(&self, id: &str, caller: Caller) -> Option<Vec<Item>> {
        self.used(id, caller, |stored| Some(stored.items.clone()))
    }

    /// A response.
    pub(super) fn response(&self, id: &str, caller: Caller) -> Option<Value> {
        self.used(id, caller, |stored| serde_json::from_str(&stored.response).ok())
    }

    /// The conversation up to a response's end.
    pub(super) fn messages(&self, id: &str, caller: Caller) -> Option<Vec<Message>> {
        self.used(id, caller, |stored| serde_json::from_str(&stored.messages).ok())
    }

    /// Forgets a response, and ends the task that makes it; false if there is none.
    pub(super) fn remove(&self, id: &str, caller: Caller) -> bool {
        let mut table = self.table();
        let is_there = table.find(id, caller).is_some();
        if is_there && let Some(task) = table.remove(id).and_then(|stored| stored.task) {
            task.abort();
        }
        is_there
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
        self.responses.iter().position(|stored| stored.id == id && stored.is_of(caller))
    }

    /// Takes a response out.
    fn remove(&mut self, id: &str) -> Option<Stored> {
        let place = self.responses.iter().position(|stored| stored.id == id)?;
        let stored = self.responses.remove(place)?;
        self.bytes -= stored.bytes();
        Some(stored)
    }
}

impl Stored {
    fn is_of(&self, caller: Caller) -> bool {
        self.key.is_none() || self.key == key(caller)
    }

    /// The items of the answer are in the response, too.
    fn bytes(&self) -> usize {
        2 * self.response.len() + self.messages.len() + self.input.len()
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
        store.put("a", Caller::Key(0), &"A", &[], &[Message::new("user", "hello")], &[]);
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
            store.put(&id.to_string(), caller, &"", &[], &[], &[]);
            // What is used stays.
            assert!(store.response("0", caller).is_some());
        }
        assert!(store.response("1", caller).is_none());
        let large = "x".repeat(BYTES / 4);
        store.put("large", caller, &large, &[], &[], &[]);
        store.put("larger", caller, &large, &[], &[], &[]);
        assert!(store.response("large", caller).is_none());
        assert!(store.table().bytes <= BYTES);
    }
}
