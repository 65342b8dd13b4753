//! What form of messages a template can take, found by trying.

use std::cmp::Reverse;
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
#[expect(clippy::struct_excessive_bools, reason = "each is found apart from the others")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) contents: Contents,
    pub(super) arguments: ArgumentsForm,
    /// The content of an assistant's message that has none.
    pub(super) no_content: EmptyForm,
    /// The same beside tool calls.
    pub(super) only_calls: EmptyForm,
    /// Whether a text of no characters beside tool calls is handed over as it is; otherwise it counts as no content.
    pub(super) takes_blank: bool,
    /// Whether one message may have several calls; otherwise each call gets a message, followed by its result.
    pub(super) parallel_calls: bool,
    /// Whether the content of a message with calls is shown beside reasoning; otherwise it is part of the reasoning.
    pub(super) reasons_beside_content: bool,
    /// Whether calls are shown in a message that has content; otherwise the content is a message before them.
    pub(super) calls_beside_content: bool,
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
    /// As a part of no characters.
    Blank,
    /// By leaving the field out.
    Absent,
}

/// Where system messages may be.
#[expect(clippy::struct_excessive_bools, reason = "each is found apart from the others")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Systems {
    /// Whether the template has a place for a system message at all.
    pub(super) one: bool,
    /// Whether it leaves system messages out without a word.
    pub(super) dropped: bool,
    /// Whether there may be several in front.
    pub(super) several: bool,
    /// Whether they may stand between other messages.
    pub(super) between: bool,
}

/// How the contents of messages are handed over, by their roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) system: ContentForm,
    pub(super) user: ContentForm,
    pub(super) assistant: ContentForm,
    pub(super) tool: ContentForm,
}

impl Contents {
    /// The form of a role; that of users for roles that are not known.
    pub(super) fn of(self, role: &str) -> ContentForm {
        match role {
            "system" => self.system,
            "assistant" => self.assistant,
            "tool" => self.tool,
            _ => self.user,
        }
    }
}

/// How the content of a message is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentForm {
    /// Strings only: parts are joined.
    Text,
    /// Lists of parts only: a string becomes one part.
    Parts,
    /// Lists of one part only: a string becomes it, and parts are joined.
    OnePart,
    /// As it comes.
    Either,
}

impl ContentForm {
    /// Whether strings have no place.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Parts | Self::OnePart)
    }
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
        let user = content_form(
            environment,
            ContentForm::Text,
            |content| json!([{"role": "user", "content": content}]),
        );
        let asks = json!({"role": "user", "content": in_form(user, "probe")});
        let system =
            content_form(environment, user, |content| json!([{"role": "system", "content": content}, asks]));
        let assistant = content_form(
            environment,
            user,
            |content| json!([asks, {"role": "assistant", "content": content}, asks]),
        );
        let contents = Contents { system, user, assistant, tool: ContentForm::Text };
        let calls = CallProbe { environment, contents, arguments: arguments_form(environment) };
        let only_calls = calls.empty_form();
        let tool = content_form(environment, user, |content| calls.with_result(only_calls, &content));
        let contents = Contents { tool, ..contents };
        let calls = CallProbe { contents, ..calls };
        let blank = if assistant.is_list() { json!([{"type": "text", "text": ""}]) } else { json!("") };
        Ok(Self {
            contents,
            arguments: calls.arguments,
            no_content: empty_form(assistant, |empty| {
                let said = with_field(json!({"role": "assistant"}), empty.value());
                try_render(environment, &json!([asks, said, asks])).into_iter().collect()
            })
            .unwrap_or(EmptyForm::Text),
            only_calls,
            takes_blank: calls.shown(Some(blank)).len() >= calls.shown(only_calls.value()).len(),
            parallel_calls: calls.parallel(only_calls),
            reasons_beside_content: calls.reasons_beside_content(only_calls),
            calls_beside_content: calls.calls_beside_content(only_calls),
            systems: systems(environment, contents),
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
            Self::Blank => Some(json!([{"type": "text", "text": ""}])),
            Self::Absent => None,
        }
    }
}

/// Conversations with tool calls.
#[derive(Clone, Copy)]
struct CallProbe<'e> {
    environment: &'e Environment<'static>,
    contents: Contents,
    arguments: ArgumentsForm,
}

impl CallProbe<'_> {
    /// The prompts of conversations in which a message calls [`NEEDLE`] and has this content: templates write the last message in
    /// another way than one before.
    fn prompts(&self, content: Option<Json>) -> Vec<String> {
        let said = json!({"role": "assistant", "tool_calls": [self.call(NEEDLE, "probe0000")]});
        let said = with_field(said, content);
        let (asks, result) = (self.asks(), self.result(NEEDLE, "probe0000"));
        let conversations =
            [json!([asks, said]), json!([asks, said, result]), json!([asks, said, result, asks])];
        conversations.iter().filter_map(|messages| try_render(self.environment, messages)).collect()
    }

    /// Those with the call.
    fn shown(&self, content: Option<Json>) -> Vec<String> {
        self.prompts(content).into_iter().filter(|prompt| prompt.contains(NEEDLE)).collect()
    }

    /// The form of no content beside a call: of those that show the call in most conversations, the first that adds no word
    /// for nothing. Where none shows it, the template has no calls, and the form is one that it renders.
    fn empty_form(&self) -> EmptyForm {
        let shown = empty_form(self.contents.assistant, |empty| self.shown(empty.value()));
        let form = shown.or_else(|| empty_form(self.contents.assistant, |empty| self.prompts(empty.value())));
        form.unwrap_or(EmptyForm::Text)
    }

    /// A conversation in which a call's result has this content.
    fn with_result(&self, empty: EmptyForm, content: &Json) -> Json {
        let calls = json!({"role": "assistant", "tool_calls": [self.call("probe", "probe0000")]});
        let result =
            json!({"role": "tool", "content": content, "tool_call_id": "probe0000", "name": "probe"});
        json!([self.asks(), with_field(calls, empty.value()), result])
    }

    /// Whether a message's second call is shown, or calls in turn are not shown either.
    fn parallel(&self, empty: EmptyForm) -> bool {
        let user = self.asks();
        let (first, second) = (self.call(NEEDLE, "probe0000"), self.call(OTHER, "probe0001"));
        let says = |calls: Json| with_field(json!({"role": "assistant", "tool_calls": calls}), empty.value());
        let shows_both = |messages: Json| self.shows_both(&messages);
        // Results without names, which could be mistaken for those of the calls.
        let content = in_form(self.contents.tool, "probe");
        let result = |id: &str| json!({"role": "tool", "content": content, "tool_call_id": id});
        let (one, two) = (result("probe0000"), result("probe0001"));
        let both = says(json!([first, second]));
        shows_both(json!([user, both]))
            || shows_both(json!([user, both, one, two]))
            || !shows_both(json!([user, says(json!([first])), one, says(json!([second])), two]))
    }

    /// Whether content beside calls is shown where there is reasoning too, or is not shown as a part of it either.
    fn reasons_beside_content(&self, empty: EmptyForm) -> bool {
        let shows = |content: Option<Json>, reasoning: &str| {
            let said = json!({
                "role": "assistant", "reasoning_content": reasoning, "thinking": reasoning,
                "tool_calls": [self.call(NEEDLE, "probe0000")],
            });
            let said = with_field(said, content);
            self.shows_both(&json!([self.asks(), said, self.result(NEEDLE, "probe0000")]))
        };
        shows(Some(in_form(self.contents.assistant, OTHER)), "probe") || !shows(empty.value(), OTHER)
    }

    /// Whether a call is shown beside content, or is not shown in a message after it either.
    fn calls_beside_content(&self, empty: EmptyForm) -> bool {
        let content = in_form(self.contents.assistant, OTHER);
        let calls = json!({"role": "assistant", "tool_calls": [self.call(NEEDLE, "probe0000")]});
        let (asks, result) = (self.asks(), self.result(NEEDLE, "probe0000"));
        let apart = json!([
            asks, {"role": "assistant", "content": content}, with_field(calls, empty.value()), result,
        ]);
        !self.shown(Some(content.clone())).is_empty() || !self.shows_both(&apart)
    }

    /// Whether a conversation is rendered with both words.
    fn shows_both(&self, messages: &Json) -> bool {
        let prompt = try_render(self.environment, messages);
        prompt.is_some_and(|prompt| prompt.contains(NEEDLE) && prompt.contains(OTHER))
    }

    fn asks(&self) -> Json {
        json!({"role": "user", "content": in_form(self.contents.user, "probe")})
    }

    fn result(&self, name: &str, id: &str) -> Json {
        let content = in_form(self.contents.tool, "probe");
        json!({"role": "tool", "content": content, "tool_call_id": id, "name": name})
    }

    fn call(&self, name: &str, id: &str) -> Json {
        let arguments = match self.arguments {
            ArgumentsForm::Object => json!({"probe": 1}),
            ArgumentsForm::Text => json!("{\"probe\": 1}"),
        };
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    }
}

/// The form with the most prompts, and of those the first with the fewest words for nothing (`None`, `null`); `None` if there
/// are no prompts.
fn empty_form(content: ContentForm, prompts: impl Fn(EmptyForm) -> Vec<String>) -> Option<EmptyForm> {
    let forms: &[EmptyForm] = if content.is_list() {
        &[EmptyForm::Parts, EmptyForm::Blank, EmptyForm::Text, EmptyForm::Null, EmptyForm::Absent]
    } else {
        &[EmptyForm::Null, EmptyForm::Text, EmptyForm::Absent]
    };
    let words =
        |prompt: &String| ["None", "null"].iter().map(|word| prompt.matches(word).count()).sum::<usize>();
    let tried = forms.iter().map(|&form| (prompts(form), form)).filter(|(prompts, _)| !prompts.is_empty());
    let counted: Vec<_> = tried
        .map(|(prompts, form)| (Reverse(prompts.len()), prompts.iter().map(words).sum::<usize>(), form))
        .collect();
    // The minimum that comes first.
    let best = counted.iter().min_by_key(|&&(prompts, words, _)| (prompts, words));
    best.map(|&(_, _, form)| form)
}

/// Which system messages the template shows.
fn systems(environment: &Environment, contents: Contents) -> Systems {
    let message = |role: &str, text: &str| json!({"role": role, "content": in_form(contents.of(role), text)});
    let shows = |messages: Json, needles: &[&str]| {
        let prompt = try_render(environment, &messages);
        prompt.is_some_and(|prompt| needles.iter().all(|needle| prompt.contains(needle)))
    };
    let (first, second) = (message("system", NEEDLE), message("system", OTHER));
    let (user, said) = (message("user", "probe"), message("assistant", "probe"));
    let one = shows(json!([first, user]), &[NEEDLE]);
    Systems {
        one,
        dropped: !one && shows(json!([first, message("user", OTHER)]), &[OTHER]),
        several: shows(json!([first, second, user]), &[NEEDLE, OTHER]),
        between: shows(json!([first, user, said, second, user]), &[NEEDLE, OTHER]),
    }
}

/// A text as the content of a message.
pub(super) fn in_form(form: ContentForm, text: &str) -> Json {
    if form.is_list() { json!([{"type": "text", "text": text}]) } else { json!(text) }
}

fn with_field(mut message: Json, content: Option<Json>) -> Json {
    if let Some(content) = content {
        message["content"] = content;
    }
    message
}

/// The form of the content that a conversation is made of; `otherwise` if it is shown in none.
fn content_form(
    environment: &Environment,
    otherwise: ContentForm,
    conversation: impl Fn(Json) -> Json,
) -> ContentForm {
    let prompt = |content: Json| try_render(environment, &conversation(content));
    let takes_text = prompt(json!(NEEDLE)).is_some_and(|prompt| prompt.contains(NEEDLE));
    // Some templates take the first part alone, or print the list as a whole.
    let part = |text: &str| json!({"type": "text", "text": text});
    let takes = |parts: Json, words: &[&str]| {
        let prompt = prompt(parts).filter(|prompt| !prints_parts(prompt));
        prompt.is_some_and(|prompt| words.iter().all(|word| prompt.contains(word)))
    };
    match (takes_text, takes(json!([part(NEEDLE), part(OTHER)]), &[NEEDLE, OTHER])) {
        (true, true) => ContentForm::Either,
        (false, true) => ContentForm::Parts,
        (true, false) => ContentForm::Text,
        (false, false) if takes(json!([part(NEEDLE)]), &[NEEDLE]) => ContentForm::OnePart,
        (false, false) => otherwise,
    }
}

/// Whether parts are printed as objects, in the notation of Python or JSON.
fn prints_parts(prompt: &str) -> bool {
    let before = prompt.split(NEEDLE).next().unwrap_or_default();
    ["'text': '", "\"text\": \"", "\"text\":\""].iter().any(|notation| before.ends_with(notation))
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
