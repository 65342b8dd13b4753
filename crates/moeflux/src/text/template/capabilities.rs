//! What form of messages a template can take, found by trying.

use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use minijinja::{Environment, Value};
use serde_json::{Value as Json, json};

use super::{ChatRequest, context, json, render};
use crate::text::TextError;

/// A word that no template contains.
const NEEDLE: &str = "q7probe7q";

/// The forms that a template wants messages in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) content: ContentForm,
    pub(super) arguments: ArgumentsForm,
}

/// How the content of a message is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentForm {
    /// Strings only: parts are joined.
    Text,
    /// Lists of parts only: a string becomes one part.
    Parts,
    /// As it comes.
    Either,
}

/// How the arguments of a tool call are handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArgumentsForm {
    /// As an object, which the template iterates or writes as JSON.
    Object,
    /// As JSON text, which the template concatenates.
    Text,
}

impl Capabilities {
    /// Finds out what a template takes; one that goes beyond a limit at the first try is not tried again.
    pub(super) fn probe(environment: &Environment) -> Result<Self, TextError> {
        let first = rendered(environment, &json!([{"role": "user", "content": NEEDLE}]));
        if let Err(error @ TextError::TemplateLimit { .. }) = first {
            return Err(error);
        }
        Ok(Self { content: content_form(environment), arguments: arguments_form(environment) })
    }
}

fn content_form(environment: &Environment) -> ContentForm {
    let shows = |content: Json| {
        let prompt = try_render(environment, &json!([{"role": "user", "content": content}]));
        // A template that prints the list as a whole shows the word in quotes.
        prompt.is_some_and(|prompt| prompt.contains(NEEDLE) && !is_quoted(&prompt))
    };
    match (shows(json!(NEEDLE)), shows(json!([{"type": "text", "text": NEEDLE}]))) {
        (true, true) => ContentForm::Either,
        (false, true) => ContentForm::Parts,
        _ => ContentForm::Text,
    }
}

fn arguments_form(environment: &Environment) -> ArgumentsForm {
    let shows = |arguments: Json, wanted: &dyn Fn(&str) -> bool| {
        [Json::Null, json!("")].into_iter().any(|content| {
            let function = json!({"name": "probe", "arguments": arguments});
            let prompt = try_render(
                environment,
                &json!([
                    {"role": "user", "content": "probe"},
                    {"role": "assistant", "content": content,
                     "tool_calls": [{"id": "probe0000", "type": "function", "function": function}]},
                ]),
            );
            prompt.is_some_and(|prompt| wanted(&prompt))
        })
    };
    // Python's own notation of a dictionary, single quotes, is what no model was trained on.
    let python = format!("'{NEEDLE}':");
    let text = json!({NEEDLE: 1}).to_string();
    if shows(json!({NEEDLE: 1}), &|prompt| prompt.contains(NEEDLE) && !prompt.contains(&python)) {
        ArgumentsForm::Object
    } else if shows(json!(text), &|prompt| prompt.contains(&text)) {
        ArgumentsForm::Text
    } else {
        ArgumentsForm::Object
    }
}

fn is_quoted(prompt: &str) -> bool {
    prompt.split(NEEDLE).next().is_some_and(|before| before.ends_with(['\'', '"']))
}

fn try_render(environment: &Environment, messages: &Json) -> Option<String> {
    rendered(environment, messages).ok()
}

fn rendered(environment: &Environment, messages: &Json) -> Result<String, TextError> {
    let request = ChatRequest { add_generation_prompt: true, ..ChatRequest::default() };
    let messages: Value = json::to_value(messages);
    let special_tokens: BTreeMap<_, _> = ["bos_token", "eos_token", "pad_token", "unk_token"]
        .into_iter()
        .map(|name| (name.to_owned(), String::new()))
        .collect();
    let variables = context::variables(&request, messages, &special_tokens, NaiveDateTime::default());
    render(environment, variables)
}
