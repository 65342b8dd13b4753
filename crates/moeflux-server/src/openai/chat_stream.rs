//! A chat's answer in pieces.

use std::collections::BTreeSet;
use std::time::Duration;

use async_stream::stream;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::StreamExt;
use moeflux::chat::Delta;
use serde_json::{Value, json};

use super::chat::finish_reason;
use super::error_body;
use super::logprobs::chat_logprobs;
use super::tools::custom_input;
use super::types::{CustomCall, FINGERPRINT, FunctionCall, ToolCall, Usage};
use crate::clock::unix_time;
use crate::error::Failure;
use crate::generation::{Generation, Output};
use crate::ids::unique;
use crate::sse;

/// Streams a generation as chunks, with one of the usage at the end if it is asked for.
pub(super) fn respond(
    mut generation: Generation,
    id: String,
    include_usage: bool,
    keep_alive: Duration,
    customs: BTreeSet<String>,
) -> Response {
    let model = generation.model().clone();
    let created = unix_time();
    let name = model.name().to_owned();
    let chunk = move |choices: Value, usage: Option<&Usage>| {
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": name, "choices": choices,
            "system_fingerprint": FINGERPRINT,
        });
        if include_usage {
            chunk["usage"] = json!(usage);
        }
        sse::json(&chunk)
    };
    let events = stream! {
        let mut usage = Usage::default();
        let mut calls = vec![Calls::default(); generation.samples()];
        for sample in 0..generation.samples() {
            yield chunk(choice(sample, json!({ "role": "assistant", "content": "" }), None, None), None);
        }
        while let Some(output) = generation.next().await {
            match output {
                Ok(Output::Prefill { .. }) => {}
                Ok(Output::Piece { sample, deltas, token }) => {
                    // A token's log-probability goes with the first of what it says.
                    let mut logprobs = token.map(|token| json!(chat_logprobs(&[token], &model)));
                    let calls = &mut calls[sample];
                    let mut deltas: Vec<Value> =
                        deltas.into_iter().flat_map(|delta| calls.push(delta, &customs)).collect();
                    if logprobs.is_some() && deltas.is_empty() {
                        deltas.push(json!({}));
                    }
                    for delta in deltas {
                        yield chunk(choice(sample, delta, logprobs.take(), None), None);
                    }
                }
                Ok(Output::Done { sample, finish, usage: of_sample }) => {
                    usage.add(&of_sample, sample == 0);
                    if let Some(delta) = calls[sample].end() {
                        yield chunk(choice(sample, delta, None, None), None);
                    }
                    match finish_reason(Some(&finish)) {
                        Ok(reason) => yield chunk(choice(sample, json!({}), None, Some(reason)), None),
                        Err(failure) => {
                            yield failed(&failure);
                            return;
                        }
                    }
                }
                Err(failure) => {
                    yield failed(&failure);
                    return;
                }
            }
        }
        if include_usage {
            yield chunk(json!([]), Some(&usage));
        }
        yield done();
    };
    sse::respond(events, keep_alive)
}

/// What a stream says of a failure; it ends with it.
pub(super) fn failed(failure: &Failure) -> Event {
    sse::json(&error_body(failure))
}

/// The end of a stream.
pub(super) fn done() -> Event {
    Event::default().data("[DONE]")
}

fn choice(index: usize, delta: Value, logprobs: Option<Value>, finish_reason: Option<&str>) -> Value {
    json!([{ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason }])
}

/// The calls of an answer, of which the last may be that of a custom tool.
#[derive(Clone, Default)]
struct Calls {
    /// The call of a custom tool and its arguments so far: its input is known when they are complete.
    custom: Option<(usize, String)>,
}

impl Calls {
    /// What a delta is in this API.
    fn push(&mut self, delta: Delta, customs: &BTreeSet<String>) -> Vec<Value> {
        if let (Some((open, arguments)), Delta::Arguments { index, piece }) = (&mut self.custom, &delta)
            && open == index
        {
            arguments.push_str(piece);
            return Vec::new();
        }
        let mut deltas: Vec<Value> = self.end().into_iter().collect();
        deltas.push(match delta {
            Delta::Text(text) => json!({ "content": text }),
            Delta::Reasoning(text) => json!({ "reasoning_content": text }),
            Delta::ToolCall { index, name } if customs.contains(&name) => {
                self.custom = Some((index, String::new()));
                let custom = Some(CustomCall { name: Some(name), input: String::new() });
                let (id, kind) = (Some(unique("call_")), Some("custom"));
                call(ToolCall { index: Some(index), id, kind, function: None, custom })
            }
            Delta::ToolCall { index, name } => {
                let function = Some(FunctionCall { name: Some(name), arguments: String::new() });
                let (id, kind) = (Some(unique("call_")), Some("function"));
                call(ToolCall { index: Some(index), id, kind, function, custom: None })
            }
            Delta::Arguments { index, piece } => {
                let function = Some(FunctionCall { name: None, arguments: piece });
                call(ToolCall { index: Some(index), id: None, kind: None, function, custom: None })
            }
        });
        deltas
    }

    /// The input of the custom tool whose call has ended.
    fn end(&mut self) -> Option<Value> {
        let (index, arguments) = self.custom.take()?;
        let custom = Some(CustomCall { name: None, input: custom_input(&arguments) });
        Some(call(ToolCall { index: Some(index), id: None, kind: None, function: None, custom }))
    }
}

fn call(call: ToolCall) -> Value {
    json!({ "tool_calls": [call] })
}
