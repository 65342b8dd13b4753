//! A chat's answer in pieces.

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
use super::types::{FunctionCall, ToolCall, Usage};
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
) -> Response {
    let model = generation.model().clone();
    let created = unix_time();
    let name = model.name().to_owned();
    let chunk = move |choices: Value, usage: Option<&Usage>| {
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": name, "choices": choices,
        });
        if include_usage {
            chunk["usage"] = json!(usage);
        }
        sse::json(&chunk)
    };
    let events = stream! {
        let mut usage = Usage::default();
        for sample in 0..generation.samples() {
            yield chunk(choice(sample, json!({ "role": "assistant", "content": "" }), None, None), None);
        }
        while let Some(output) = generation.next().await {
            match output {
                Ok(Output::Prefill { .. }) => {}
                Ok(Output::Piece { sample, deltas, token }) => {
                    // A token's log-probability goes with the first of what it says.
                    let mut logprobs = token.map(|token| json!(chat_logprobs(&[token], &model)));
                    let deltas = deltas.into_iter().map(delta_value);
                    let deltas: Vec<Value> = if logprobs.is_some() && deltas.len() == 0 {
                        vec![json!({})]
                    } else {
                        deltas.collect()
                    };
                    for delta in deltas {
                        yield chunk(choice(sample, delta, logprobs.take(), None), None);
                    }
                }
                Ok(Output::Done { sample, finish, usage: of_sample }) => {
                    usage.add(&of_sample, sample == 0);
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

fn delta_value(delta: Delta) -> Value {
    let call = |index, id, kind, name, arguments| {
        let function = FunctionCall { name, arguments };
        json!({ "tool_calls": [ToolCall { index: Some(index), id, kind, function }] })
    };
    match delta {
        Delta::Text(text) => json!({ "content": text }),
        Delta::Reasoning(text) => json!({ "reasoning_content": text }),
        Delta::ToolCall { index, name } => {
            call(index, Some(unique("call_")), Some("function"), Some(name), String::new())
        }
        Delta::Arguments { index, piece } => call(index, None, None, None, piece),
    }
}
