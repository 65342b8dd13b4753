//! An answer as events.

use std::time::Duration;

use async_stream::stream;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::StreamExt;
use moeflux::chat::Delta;
use serde_json::{Value, json};

use super::error_body;
use super::messages::{stop, usage};
use super::types::{AnswerMessage, Caller};
use crate::error::Failure;
use crate::generation::{Finish, Generation, Output, Usage};
use crate::ids::unique;
use crate::sse;

/// Streams a generation; `message` is what its answer begins with.
pub(super) fn respond(mut generation: Generation, message: AnswerMessage, keep_alive: Duration) -> Response {
    let events = stream! {
        yield event(&json!({ "type": "message_start", "message": message }));
        let mut blocks = Blocks::default();
        while let Some(output) = generation.next().await {
            match output {
                Ok(Output::Prefill { .. }) => yield event(&json!({ "type": "ping" })),
                Ok(Output::Piece { deltas, .. }) => {
                    for delta in deltas {
                        for value in blocks.push(delta) {
                            yield event(&value);
                        }
                    }
                }
                Ok(Output::Done { finish, usage, .. }) => {
                    for value in blocks.end() {
                        yield event(&value);
                    }
                    match ended(&finish, &usage) {
                        Ok(value) => yield event(&value),
                        Err(failure) => {
                            yield event(&error_body(&failure, None));
                            return;
                        }
                    }
                    yield event(&json!({ "type": "message_stop" }));
                }
                Err(failure) => {
                    yield event(&error_body(&failure, None));
                    return;
                }
            }
        }
    };
    sse::respond(events, keep_alive)
}

/// An event, named as its data says.
fn event(value: &Value) -> Event {
    sse::named(value["type"].as_str().unwrap_or_default(), value)
}

fn ended(finish: &Finish, used: &Usage) -> Result<Value, Failure> {
    let (reason, sequence) = stop(Some(finish))?;
    Ok(json!({
        "type": "message_delta",
        "delta": { "stop_reason": reason, "stop_sequence": sequence, "stop_details": null, "container": null },
        "usage": usage(used),
    }))
}

/// The blocks of an answer, of which the last may be open.
#[derive(Default)]
struct Blocks {
    open: Option<Open>,
    /// How many there were.
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Thinking,
    Text,
    /// A call, by its place among the calls.
    Call(usize),
}

impl Blocks {
    fn push(&mut self, delta: Delta) -> Vec<Value> {
        match delta {
            Delta::Reasoning(thinking) => {
                let begin = || json!({ "type": "thinking", "thinking": "", "signature": "" });
                self.more(Open::Thinking, begin, &json!({ "type": "thinking_delta", "thinking": thinking }))
            }
            Delta::Text(text) => {
                let begin = || json!({ "type": "text", "text": "", "citations": null });
                self.more(Open::Text, begin, &json!({ "type": "text_delta", "text": text }))
            }
            Delta::ToolCall { index, name } => {
                let begin = || {
                    let (id, caller) = (unique("toolu_"), Caller::Direct);
                    json!({ "type": "tool_use", "id": id, "name": name, "input": {}, "caller": caller })
                };
                self.more(
                    Open::Call(index),
                    begin,
                    &json!({ "type": "input_json_delta", "partial_json": "" }),
                )
            }
            Delta::Arguments { index, piece } => {
                let delta = json!({ "type": "input_json_delta", "partial_json": piece });
                self.more(Open::Call(index), || Value::Null, &delta)
            }
        }
    }

    /// More of the open block, or of a new one if another kind is open.
    fn more(&mut self, kind: Open, begin: impl FnOnce() -> Value, delta: &Value) -> Vec<Value> {
        let mut events = Vec::new();
        if self.open != Some(kind) {
            events.extend(self.end());
            self.open = Some(kind);
            self.count += 1;
            let block = begin();
            events.push(
                json!({ "type": "content_block_start", "index": self.count - 1, "content_block": block }),
            );
        }
        events.push(json!({ "type": "content_block_delta", "index": self.count - 1, "delta": delta }));
        events
    }

    /// The end of the open block. Thoughts end with a signature, without which some clients do not send them back; it is empty.
    fn end(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        let Some(open) = self.open.take() else { return events };
        let index = self.count - 1;
        if open == Open::Thinking {
            let delta = json!({ "type": "signature_delta", "signature": "" });
            events.push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        }
        events.push(json!({ "type": "content_block_stop", "index": index }));
        events
    }
}
