//! Fields that a request has and this server does not know: one policy for all routes.
//!
//! A field that is null, false, empty, or has its neutral value asks for nothing. One that would change the answer, and is
//! listed here, is refused by name. Every other is ignored: the response names it in the header `x-moeflux-ignored`, and the
//! log names it once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Failure;
use crate::work;

/// Names what a request asked for and did not get.
pub(crate) const IGNORED: HeaderName = HeaderName::from_static("x-moeflux-ignored");

/// Most names of one request.
const NAMES: usize = 32;
/// Most bytes of a name.
const NAME: usize = 64;
/// Most kinds that the log names.
const KINDS: usize = 1024;

/// The fields of an object that the type around it does not have.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Unknown(pub(crate) Map<String, Value>);

/// A field that would change the answer.
pub(crate) struct Refused {
    name: &'static str,
    /// Numbers that ask for nothing.
    neutral: &'static [f64],
    /// What to do instead, or why it is refused.
    why: &'static str,
}

const fn refused(name: &'static str, neutral: &'static [f64], why: &'static str) -> Refused {
    Refused { name, neutral, why }
}

const SAMPLER: &str = "this sampler is not supported";

/// Fields of samplers and decoders that servers have beside the APIs.
pub(crate) const SAMPLING: &[Refused] = &[
    refused("stop_token_ids", &[], "stopping at token ids is not supported; use stop"),
    refused("bad_words", &[], "forbidden words are not supported; use logit_bias"),
    refused("allowed_token_ids", &[], "a list of allowed tokens is not supported; use response_format"),
    refused("include_stop_str_in_output", &[], "stop strings are never part of the answer"),
    refused("grammar", &[], "a grammar of this notation is not supported; use response_format"),
    refused("guided_grammar", &[], "a grammar of this notation is not supported; use response_format"),
    refused("logits_processors", &[], "logits processors are not supported"),
    refused("use_beam_search", &[], "beam search is not supported"),
    refused("length_penalty", &[1.0, 0.0], "beam search is not supported"),
    refused("mirostat", &[0.0], SAMPLER),
    refused("tfs_z", &[1.0], SAMPLER),
    refused("top_a", &[0.0], SAMPLER),
    refused("dynatemp_range", &[0.0], SAMPLER),
    refused("top_n_sigma", &[0.0, -1.0], SAMPLER),
    refused("lora", &[], "adapters are not supported"),
    refused("lora_adapter", &[], "adapters are not supported"),
];

/// Of chats.
pub(crate) const CHAT: &[Refused] = &[
    refused("functions", &[], "the older form of tools is not supported; use tools"),
    refused("function_call", &[], "the older form of tool_choice is not supported; use tool_choice"),
    refused("documents", &[], "documents are not supported; put them in messages"),
    refused("chat_template", &[], "the model's own template is used"),
    refused("echo", &[], "the answer never repeats the messages"),
];

/// Of responses.
pub(crate) const RESPONSES: &[Refused] = &[
    refused("prompt", &[], "stored prompts are not supported; use instructions and input"),
    refused("conversation", &[], "conversations are not supported; use previous_response_id"),
];

/// Of Ollama's prompts.
pub(crate) const GENERATE: &[Refused] = &[
    refused("template", &[], "the model's own template is used"),
    refused("context", &[], "conversations are continued by /api/chat"),
];

/// Of objects that have none.
pub(crate) const NONE: &[Refused] = &[];

impl Unknown {
    /// Refuses what would change the answer, and notes the rest as ignored; `place` is the path of the object, with a dot at its
    /// end, or empty.
    pub(crate) fn settle(&self, place: &str, lists: &[&[Refused]]) -> Result<(), Failure> {
        for (name, value) in self.0.iter().filter(|(_, value)| asks(value, &[])) {
            let known = lists.iter().copied().flatten().find(|known| known.name == name);
            match known {
                Some(known) if !asks(value, known.neutral) => {}
                Some(known) => {
                    let param = format!("{place}{name}");
                    return Err(Failure::field(param.as_str(), format!("{param}: {}", known.why)));
                }
                None => ignore(&format!("{place}{name}")),
            }
        }
        Ok(())
    }
}

/// Whether a value asks for something.
pub(crate) fn asks(value: &Value, neutral: &[f64]) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64().is_none_or(|number| !neutral.contains(&number)),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Notes that the request that is being answered has something that is ignored. Indices are left out, so that a kind has one
/// name.
pub(crate) fn ignore(name: &str) {
    let mut kind = String::new();
    let mut in_index = false;
    for character in name.chars() {
        in_index = (in_index || character == '[') && character != ']';
        if !in_index || character == '[' {
            kind.push(if character.is_ascii_graphic() && character != ',' { character } else { '_' });
        }
    }
    kind.truncate(NAME);
    work::note_ignored(kind, NAMES);
}

/// The kinds that the log has named.
#[derive(Default)]
pub(crate) struct Named(Mutex<BTreeMap<String, BTreeSet<String>>>);

impl Named {
    /// Logs the kinds that a route has not had before, and names all in the header.
    pub(crate) fn tell(&self, route: &str, kinds: &[String], headers: &mut HeaderMap) {
        if kinds.is_empty() {
            return;
        }
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = named.values().map(BTreeSet::len).sum();
        let of_route = named.entry(route.to_owned()).or_default();
        let new: Vec<&String> = kinds.iter().filter(|kind| !of_route.contains(*kind)).collect();
        if !new.is_empty() && total + new.len() <= KINDS {
            let fields = new.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
            tracing::warn!(route, fields, "requests have fields that are ignored; this is said once");
            of_route.extend(new.into_iter().cloned());
        }
        drop(named);
        if let Ok(value) = HeaderValue::from_str(&kinds.join(", ")) {
            headers.insert(IGNORED, value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test

    use serde_json::json;

    use super::*;

    fn settled(fields: Value) -> Result<(), Failure> {
        serde_json::from_value::<Unknown>(fields).unwrap().settle("", &[SAMPLING, CHAT])
    }

    #[test]
    fn what_asks_for_nothing_passes_and_what_changes_the_answer_does_not() {
        settled(json!({ "mirostat": 0, "length_penalty": 1.0, "stop_token_ids": [], "functions": null }))
            .unwrap();
        settled(json!({ "whatever": { "a": 1 } })).unwrap();
        for (fields, name) in [
            (json!({ "mirostat": 2 }), "mirostat"),
            (json!({ "stop_token_ids": [1] }), "stop_token_ids"),
            (json!({ "functions": [{ "name": "a" }] }), "functions"),
        ] {
            let failure = settled(fields).unwrap_err();
            assert_eq!(failure.param.as_deref(), Some(name));
            assert!(failure.message.starts_with(name), "{}", failure.message);
        }
    }
}
