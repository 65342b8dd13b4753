//! What form of messages a template can take, found by trying.

use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use minijinja::{Environment, Value};
use serde_json::{Value as Json, json};

use super::{ChatRequest, context, json, render};
use crate::text::TextError;

/// A word that no template contains.
const NEEDLE: &str = "q7probe7q";
/// Another.
const OTHER: &str = "q7other7q";

/// The forms that a template wants messages in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) content: ContentForm,
    pub(super) arguments: ArgumentsForm,
    /// The content of an assistant's message that has none.
    pub(super) no_content: EmptyForm,
    /// The same beside tool calls.
    pub(super) only_calls: EmptyForm,
    /// Whether a text of no characters beside tool calls is handed over as it is; otherwise it counts as no content.
    pub(super) takes_blank: bool,
    /// Whether one message may have several calls; otherwise each call gets a message, followed by its result.
    pub(super) parallel_calls: bool,
    /// Whether a message with calls may have both reasoning and content; otherwise the content is part of the reasoning.
    pub(super) reasons_beside_content: bool,
    pub(super) systems: Systems,
}

/// How no content is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EmptyForm {
    /// As null.
    Null,
    /// As a text of no characters.
    Text,
    /// As a list of no parts.
    Parts,
    /// By leaving the field out.
    Absent,
}

/// Where system messages may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Systems {
    /// Whether the template has a place for a system message at all.
    pub(super) one: bool,
    /// Whether there may be several in front.
    pub(super) several: bool,
    /// Whether they may stand between other messages.
    pub(super) between: bool,
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
    pub(super) fn probe(environment: &Environment<'static>) -> Result<Self, TextError> {
        let first = rendered(environment, &json!([{"role": "user", "content": NEEDLE}]));
        if let Err(error @ TextError::TemplateLimit { .. }) = first {
            return Err(error);
        }
        let (content, arguments) = (content_form(environment), arguments_form(environment));
        let calls = CallProbe { environment, form: content, arguments };
        let only_calls = calls.empty_form();
        let blank =
            if content == ContentForm::Parts { json!([{"type": "text", "text": ""}]) } else { json!("") };
        Ok(Self {
            content,
            arguments,
            no_content: empty_form(content, |empty| {
                let said = with_field(json!({"role": "assistant"}), empty.value());
                let user = json!({"role": "user", "content": in_form(content, "probe")});
                try_render(environment, &json!([user, said, user]))
            }),
            only_calls,
            takes_blank: calls.shown(Some(blank)).is_some() || calls.shown(only_calls.value()).is_none(),
            parallel_calls: calls.parallel(only_calls),
            reasons_beside_content: calls.reasons_beside_content(),
            systems: systems(environment, content),
        })
    }
}

impl EmptyForm {
    /// The value of the field; `None` leaves it out.
    pub(super) fn value(self) -> Option<Json> {
        match self {
            Self::Null => Some(Json::Null),
            Self::Text => Some(json!("")),
            Self::Parts => Some(json!([])),
            Self::Absent => None,
        }
    }
}

/// Conversations with tool calls.
struct CallProbe<'e> {
    environment: &'e Environment<'static>,
    form: ContentForm,
    arguments: ArgumentsForm,
}

impl CallProbe<'_> {
    /// The prompt of a conversation in which a message calls [`NEEDLE`] and has this content, if the call is in it.
    fn shown(&self, content: Option<Json>) -> Option<String> {
        let said = json!({"role": "assistant", "tool_calls": [self.call(NEEDLE, "probe0000")]});
        let said = with_field(said, content);
        let user = json!({"role": "user", "content": in_form(self.form, "probe")});
        let short = json!([user, said]);
        let long = json!([user, said, result(NEEDLE, "probe0000")]);
        let prompts =
            [short, long].into_iter().filter_map(|messages| try_render(self.environment, &messages));
        prompts.into_iter().find(|prompt| prompt.contains(NEEDLE))
    }

    /// The form of no content beside a call: the first that shows the call and adds no word for nothing.
    fn empty_form(&self) -> EmptyForm {
        empty_form(self.form, |empty| self.shown(empty.value()))
    }

    /// Whether a message's second call is shown, or calls in turn are not shown either.
    fn parallel(&self, empty: EmptyForm) -> bool {
        let user = json!({"role": "user", "content": in_form(self.form, "probe")});
        let (first, second) = (self.call(NEEDLE, "probe0000"), self.call(OTHER, "probe0001"));
        let says = |calls: Json| with_field(json!({"role": "assistant", "tool_calls": calls}), empty.value());
        let shows_both = |messages: Json| {
            let prompt = try_render(self.environment, &messages);
            prompt.is_some_and(|prompt| prompt.contains(NEEDLE) && prompt.contains(OTHER))
        };
        // Results without names, which could be mistaken for those of the calls.
        let result = |id: &str| json!({"role": "tool", "content": "probe", "tool_call_id": id});
        let (one, two) = (result("probe0000"), result("probe0001"));
        let both = says(json!([first, second]));
        shows_both(json!([user, both]))
            || shows_both(json!([user, both, one, two]))
            || !shows_both(json!([user, says(json!([first])), one, says(json!([second])), two]))
    }

    /// Whether a message with calls that has content and reasoning is rendered where one without reasoning is.
    fn reasons_beside_content(&self) -> bool {
        let (content, calls) = (in_form(self.form, "probe"), [self.call(NEEDLE, "probe0000")]);
        let said = json!({"role": "assistant", "content": content, "tool_calls": calls});
        let user = json!({"role": "user", "content": content});
        let renders = |said: &Json| {
            try_render(self.environment, &json!([user, said, result(NEEDLE, "probe0000")])).is_some()
        };
        let mut reasoned = said.clone();
        reasoned["reasoning_content"] = json!("probe");
        reasoned["thinking"] = json!("probe");
        renders(&reasoned) || !renders(&said)
    }

    fn call(&self, name: &str, id: &str) -> Json {
        let arguments = match self.arguments {
            ArgumentsForm::Object => json!({"probe": 1}),
            ArgumentsForm::Text => json!("{\"probe\": 1}"),
        };
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    }
}

fn result(name: &str, id: &str) -> Json {
    json!({"role": "tool", "content": "probe", "tool_call_id": id, "name": name})
}

/// The first form whose prompt has no more words for nothing (`None`, `null`) than that of any other form.
fn empty_form(content: ContentForm, prompt: impl Fn(EmptyForm) -> Option<String>) -> EmptyForm {
    let forms: &[EmptyForm] = match content {
        ContentForm::Parts => &[EmptyForm::Parts, EmptyForm::Text, EmptyForm::Null, EmptyForm::Absent],
        _ => &[EmptyForm::Null, EmptyForm::Text, EmptyForm::Absent],
    };
    let words =
        |prompt: &str| ["None", "null"].iter().map(|word| prompt.matches(word).count()).sum::<usize>();
    let counted: Vec<(usize, EmptyForm)> =
        forms.iter().filter_map(|&form| Some((words(&prompt(form)?), form))).collect();
    // The minimum that comes first.
    counted.iter().min_by_key(|(count, _)| *count).map_or(EmptyForm::Text, |&(_, form)| form)
}

/// Which system messages the template shows.
fn systems(environment: &Environment, form: ContentForm) -> Systems {
    let message = |role: &str, text: &str| json!({"role": role, "content": in_form(form, text)});
    let shows = |messages: Json, needles: &[&str]| {
        let prompt = try_render(environment, &messages);
        prompt.is_some_and(|prompt| needles.iter().all(|needle| prompt.contains(needle)))
    };
    let (first, second) = (message("system", NEEDLE), message("system", OTHER));
    let (user, said) = (message("user", "probe"), message("assistant", "probe"));
    Systems {
        one: shows(json!([first, user]), &[NEEDLE]),
        several: shows(json!([first, second, user]), &[NEEDLE, OTHER]),
        between: shows(json!([first, user, said, second, user]), &[NEEDLE, OTHER]),
    }
}

/// A text as the content of a message.
fn in_form(form: ContentForm, text: &str) -> Json {
    if form == ContentForm::Parts { json!([{"type": "text", "text": text}]) } else { json!(text) }
}

fn with_field(mut message: Json, content: Option<Json>) -> Json {
    if let Some(content) = content {
        message["content"] = content;
    }
    message
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
