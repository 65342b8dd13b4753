//! A response as events.

use std::time::Duration;

use async_stream::stream;
use axum::response::Response as HttpResponse;
use axum::response::sse::Event;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::create::Running;
use super::items::{Items, replayed};
use super::types::{Item, ResponseError};
use crate::error::Failure;
use crate::generation::{Finish, Generation, Output};
use crate::sse;

/// Streams a generation.
pub(super) fn respond(mut generation: Generation, mut running: Running) -> HttpResponse {
    let keep_alive = running.app.config().keep_alive;
    let events = stream! {
        let mut numbers = Numbers::default();
        for name in ["response.created", "response.in_progress"] {
            yield numbers.event(running.event(name));
        }
        let mut items = Items::new(running.style.clone());
        while let Some(output) = generation.next().await {
            match output {
                Ok(Output::Prefill { .. }) => {}
                Ok(Output::Piece { deltas, .. }) => {
                    for delta in deltas {
                        for event in items.push(delta) {
                            yield numbers.event(event);
                        }
                    }
                }
                Ok(Output::Done { finish, usage, .. }) => {
                    for event in items.end(finish != Finish::Length) {
                        yield numbers.event(event);
                    }
                    let ended = running.end(std::mem::take(&mut items), Some(&finish), &usage);
                    let name = match ended {
                        Ok(()) if finish == Finish::Length => "response.incomplete",
                        Ok(()) => "response.completed",
                        Err(failure) => running.fail(&failure),
                    };
                    yield numbers.event(running.event(name));
                }
                Err(failure) => {
                    let name = running.fail(&failure);
                    yield numbers.event(running.event(name));
                    return;
                }
            }
        }
    };
    sse::respond(events, keep_alive)
}

impl Running {
    fn event(&self, name: &str) -> Value {
        json!({ "type": name, "response": self.response })
    }

    /// Notes why the response failed, and returns the name of the event that says so.
    pub(super) fn fail(&mut self, failure: &Failure) -> &'static str {
        let is_ours = failure.kind.status().is_server_error();
        let code = if is_ours { "server_error" } else { "invalid_prompt" };
        self.response.status = "failed";
        self.response.error = Some(ResponseError { code, message: failure.message.clone() });
        "response.failed"
    }
}

/// Streams a response that is kept, as if it were made now, from the event of a number on.
pub(super) fn replay(response: Value, items: &[Item], from: u64, keep_alive: Duration) -> HttpResponse {
    let mut begun = response.clone();
    (begun["status"], begun["output"], begun["usage"]) = (json!("in_progress"), json!([]), Value::Null);
    (begun["completed_at"], begun["incomplete_details"]) = (Value::Null, Value::Null);
    let mut events: Vec<Value> = ["response.created", "response.in_progress"]
        .into_iter()
        .map(|name| json!({ "type": name, "response": begun }))
        .collect();
    events.extend(items.iter().enumerate().flat_map(|(index, item)| replayed(item, index)));
    let status = response["status"].as_str().unwrap_or_default().to_owned();
    if !matches!(status.as_str(), "queued" | "in_progress") {
        events.push(json!({ "type": format!("response.{status}"), "response": response }));
    }
    let mut numbers = Numbers::default();
    let events: Vec<Event> = events.into_iter().map(|event| numbers.event(event)).collect();
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    sse::respond(futures_util::stream::iter(events.into_iter().skip(from)), keep_alive)
}

/// Numbers events.
#[derive(Default)]
struct Numbers(u64);

impl Numbers {
    fn event(&mut self, mut value: Value) -> Event {
        value["sequence_number"] = json!(self.0);
        self.0 += 1;
        sse::named(value["type"].as_str().unwrap_or_default(), &value)
    }
}
