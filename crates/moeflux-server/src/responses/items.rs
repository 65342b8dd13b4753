//! The items of an answer as they grow, and the events that tell of it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use moeflux::chat::Delta;
use moeflux::text::Message;
use serde_json::{Value, json};

use super::types::{Item, Part};
use crate::ids::unique;
use crate::openai::{self, custom_arguments, custom_input};

/// How items are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Style {
    /// Names of the custom tools.
    pub(super) customs: BTreeSet<String>,
    /// Whether reasoning is its own summary.
    pub(super) summarizes: bool,
    /// Whether reasoning is also there in a form that later requests can return.
    pub(super) encodes: bool,
}

/// The items of an answer, of which the last may be open.
#[derive(Default)]
pub(super) struct Items {
    style: Style,
    done: Vec<Item>,
    open: Option<Item>,
    /// Arguments so far of the open call of a custom tool.
    arguments: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
    Call,
}

const IN_PROGRESS: &str = "in_progress";

impl Items {
    pub(super) fn new(style: Style) -> Self {
        Self { style, ..Self::default() }
    }

    /// Takes more of the answer and returns the events.
    pub(super) fn push(&mut self, delta: Delta) -> Vec<Value> {
        match delta {
            Delta::Reasoning(text) => self.more(Kind::Reasoning, &text),
            Delta::Text(text) => self.more(Kind::Message, &text),
            Delta::Arguments { piece, .. } => self.more(Kind::Call, &piece),
            Delta::ToolCall { name, .. } => {
                let call_id = unique("call_");
                let item = if self.style.customs.contains(&name) {
                    let (id, input) = (unique("ctc_"), String::new());
                    Item::CustomToolCall { id, call_id, name, input, status: IN_PROGRESS }
                } else {
                    let (id, arguments) = (unique("fc_"), String::new());
                    Item::FunctionCall { id, call_id, name, arguments, status: IN_PROGRESS }
                };
                self.begin(item, None)
            }
        }
    }

    /// Ends the open item.
    pub(super) fn end(&mut self, is_complete: bool) -> Vec<Value> {
        let Some(mut item) = self.open.take() else { return Vec::new() };
        *item.status() = if is_complete { "completed" } else { "incomplete" };
        let arguments = std::mem::take(&mut self.arguments);
        if let Item::CustomToolCall { input, .. } = &mut item {
            *input = custom_input(&arguments);
        }
        if self.style.encodes
            && let Item::Reasoning { summary, content, encrypted_content, .. } = &mut item
        {
            let text: String = content.iter().chain(summary.iter()).map(Part::text).collect();
            *encrypted_content = Some(encoded(&text));
        }
        let index = self.done.len();
        let mut events = match &item {
            Item::CustomToolCall { input, .. } => {
                let place = place(&item, index);
                vec![event("response.custom_tool_call_input.delta", &place, &json!({ "delta": input }))]
            }
            _ => Vec::new(),
        };
        events.extend(endings(&item, index));
        self.done.push(item);
        events
    }

    /// All items, when the last has ended.
    pub(super) fn into_vec(self) -> Vec<Item> {
        self.done
    }

    fn begin(&mut self, mut item: Item, part: Option<Part>) -> Vec<Value> {
        let mut events = self.end(true);
        let index = self.done.len();
        let fields = json!({ "output_index": index, "item": item });
        events.push(event("response.output_item.added", &json!({}), &fields));
        // A part is told of by an event of its own.
        if let Some(part) = part {
            events.push(event(
                part.names().added,
                &place(&item, index),
                &part.placed(json!({ "part": part })),
            ));
            item.push_part(part);
        }
        self.open = Some(item);
        events
    }

    /// More of the open item, or of a new one if another kind is open.
    fn more(&mut self, kind: Kind, more: &str) -> Vec<Value> {
        let mut events = Vec::new();
        if self.open.as_ref().map(Item::kind) != Some(kind) {
            let (text, status) = (String::new(), IN_PROGRESS);
            events = match kind {
                Kind::Reasoning => {
                    let summarizes = self.style.summarizes;
                    let part =
                        if summarizes { Part::SummaryText { text } } else { Part::ReasoningText { text } };
                    let (summary, content, encrypted_content) = (Vec::new(), Vec::new(), None);
                    let id = unique("rs_");
                    self.begin(
                        Item::Reasoning { id, summary, content, encrypted_content, status },
                        Some(part),
                    )
                }
                Kind::Message => {
                    let (annotations, logprobs) = (Vec::new(), Vec::new());
                    let part = Part::OutputText { text, annotations, logprobs };
                    let (id, content) = (unique("msg_"), Vec::new());
                    self.begin(Item::Message { id, role: "assistant", content, status }, Some(part))
                }
                Kind::Call => Vec::new(),
            };
        }
        let Some(item) = &mut self.open else { return events };
        let place = place(item, self.done.len());
        match item {
            Item::CustomToolCall { .. } => self.arguments.push_str(more),
            Item::FunctionCall { arguments, .. } => {
                arguments.push_str(more);
                let delta = json!({ "delta": more });
                events.push(event("response.function_call_arguments.delta", &place, &delta));
            }
            Item::Reasoning { .. } | Item::Message { .. } => {
                if let Some(part) = item.part_mut() {
                    part.push(more);
                    events.push(event(
                        part.names().delta,
                        &place,
                        &part.placed(part.with_logprobs("delta", more)),
                    ));
                }
            }
        }
        events
    }
}

/// All events of an item that is complete, as if it came in one piece.
pub(super) fn replayed(item: &Item, index: usize) -> Vec<Value> {
    let mut empty = item.clone();
    *empty.status() = IN_PROGRESS;
    match &mut empty {
        Item::Reasoning { summary, content, encrypted_content, .. } => {
            (*summary, *content, *encrypted_content) = (Vec::new(), Vec::new(), None);
        }
        Item::Message { content, .. } => content.clear(),
        Item::FunctionCall { arguments, .. } => arguments.clear(),
        Item::CustomToolCall { input, .. } => input.clear(),
    }
    let fields = json!({ "output_index": index, "item": empty });
    let mut events = vec![event("response.output_item.added", &json!({}), &fields)];
    let place = place(item, index);
    match item {
        Item::FunctionCall { arguments, .. } => {
            events.push(event(
                "response.function_call_arguments.delta",
                &place,
                &json!({ "delta": arguments }),
            ));
        }
        Item::CustomToolCall { input, .. } => {
            events.push(event("response.custom_tool_call_input.delta", &place, &json!({ "delta": input })));
        }
        Item::Reasoning { .. } | Item::Message { .. } => {
            if let Some(part) = item.part() {
                let empty = part.emptied();
                events.push(event(part.names().added, &place, &part.placed(json!({ "part": empty }))));
                let delta = part.with_logprobs("delta", part.text());
                events.push(event(part.names().delta, &place, &part.placed(delta)));
            }
        }
    }
    events.extend(endings(item, index));
    events
}

/// The events that end an item.
fn endings(item: &Item, index: usize) -> Vec<Value> {
    let place = place(item, index);
    let mut events = Vec::new();
    match item {
        Item::FunctionCall { name, arguments, .. } => {
            let fields = json!({ "name": name, "arguments": arguments });
            events.push(event("response.function_call_arguments.done", &place, &fields));
        }
        Item::CustomToolCall { input, .. } => {
            events.push(event("response.custom_tool_call_input.done", &place, &json!({ "input": input })));
        }
        Item::Reasoning { .. } | Item::Message { .. } => {
            if let Some(part) = item.part() {
                let text = part.with_logprobs("text", part.text());
                events.push(event(part.names().done, &place, &part.placed(text)));
                events.push(event(part.names().part_done, &place, &part.placed(json!({ "part": part }))));
            }
        }
    }
    let fields = json!({ "output_index": index, "item": item });
    events.push(event("response.output_item.done", &json!({}), &fields));
    events
}

fn place(item: &Item, index: usize) -> Value {
    json!({ "item_id": item.id(), "output_index": index })
}

fn event(name: &str, place: &Value, fields: &Value) -> Value {
    let mut event = json!({ "type": name });
    for fields in [place, fields] {
        for (key, value) in fields.as_object().into_iter().flatten() {
            event[key] = value.clone();
        }
    }
    event
}

/// What marks reasoning that this server has encoded.
const ENCODED: &str = "moeflux:";

/// Text in a form that later requests can return.
pub(super) fn encoded(text: &str) -> String {
    format!("{ENCODED}{}", STANDARD.encode(text))
}

/// The text of reasoning that this server has encoded.
pub(super) fn decoded(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text.strip_prefix(ENCODED)?).ok()?).ok()
}

impl Item {
    fn kind(&self) -> Kind {
        match self {
            Self::Reasoning { .. } => Kind::Reasoning,
            Self::Message { .. } => Kind::Message,
            Self::FunctionCall { .. } | Self::CustomToolCall { .. } => Kind::Call,
        }
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Self::Reasoning { id, .. }
            | Self::Message { id, .. }
            | Self::FunctionCall { id, .. }
            | Self::CustomToolCall { id, .. } => id,
        }
    }

    fn status(&mut self) -> &mut &'static str {
        match self {
            Self::Reasoning { status, .. }
            | Self::Message { status, .. }
            | Self::FunctionCall { status, .. }
            | Self::CustomToolCall { status, .. } => status,
        }
    }

    /// What there is in it, if it is made of parts: one part.
    fn part(&self) -> Option<&Part> {
        match self {
            Self::Reasoning { content, summary, .. } => content.first().or(summary.first()),
            Self::Message { content, .. } => content.first(),
            Self::FunctionCall { .. } | Self::CustomToolCall { .. } => None,
        }
    }

    fn part_mut(&mut self) -> Option<&mut Part> {
        match self {
            Self::Reasoning { content, summary, .. } => content.first_mut().or(summary.first_mut()),
            Self::Message { content, .. } => content.first_mut(),
            Self::FunctionCall { .. } | Self::CustomToolCall { .. } => None,
        }
    }

    fn push_part(&mut self, part: Part) {
        match (self, &part) {
            (Self::Reasoning { summary, .. }, Part::SummaryText { .. }) => summary.push(part),
            (Self::Reasoning { content, .. } | Self::Message { content, .. }, _) => content.push(part),
            (Self::FunctionCall { .. } | Self::CustomToolCall { .. }, _) => {}
        }
    }
}

/// Names of the events of a part.
struct Names {
    added: &'static str,
    delta: &'static str,
    done: &'static str,
    part_done: &'static str,
}

impl Part {
    fn text(&self) -> &str {
        match self {
            Self::ReasoningText { text } | Self::SummaryText { text } | Self::OutputText { text, .. } => text,
        }
    }

    fn push(&mut self, more: &str) {
        match self {
            Self::ReasoningText { text } | Self::SummaryText { text } | Self::OutputText { text, .. } => {
                text.push_str(more);
            }
        }
    }

    fn emptied(&self) -> Self {
        let mut part = self.clone();
        match &mut part {
            Self::ReasoningText { text } | Self::SummaryText { text } | Self::OutputText { text, .. } => {
                text.clear();
            }
        }
        part
    }

    fn names(&self) -> Names {
        let (added, part_done) = ("response.content_part.added", "response.content_part.done");
        match self {
            Self::ReasoningText { .. } => Names {
                added,
                delta: "response.reasoning_text.delta",
                done: "response.reasoning_text.done",
                part_done,
            },
            Self::OutputText { .. } => Names {
                added,
                delta: "response.output_text.delta",
                done: "response.output_text.done",
                part_done,
            },
            Self::SummaryText { .. } => Names {
                added: "response.reasoning_summary_part.added",
                delta: "response.reasoning_summary_text.delta",
                done: "response.reasoning_summary_text.done",
                part_done: "response.reasoning_summary_part.done",
            },
        }
    }

    /// Fields with the part's place in its item.
    fn placed(&self, mut fields: Value) -> Value {
        let index = if matches!(self, Self::SummaryText { .. }) { "summary_index" } else { "content_index" };
        fields[index] = json!(0);
        fields
    }

    /// A field with text, and for the text of a message its log-probabilities, of which there are none.
    fn with_logprobs(&self, name: &str, text: &str) -> Value {
        match self {
            Self::OutputText { .. } => json!({ name: text, "logprobs": [] }),
            _ => json!({ name: text }),
        }
    }
}

/// The items as the message that they are to later responses.
pub(super) fn message(items: &[Item]) -> Message {
    let (mut thoughts, mut text, mut tool_calls) = (String::new(), String::new(), Vec::new());
    let mut call = |call_id: &str, name: &str, arguments: &str| {
        tool_calls.push(openai::call(call_id, name, arguments));
    };
    for item in items {
        match item {
            Item::FunctionCall { call_id, name, arguments, .. } => call(call_id, name, arguments),
            Item::CustomToolCall { call_id, name, input, .. } => {
                call(call_id, name, &custom_arguments(input));
            }
            item => match item.part() {
                Some(Part::ReasoningText { text } | Part::SummaryText { text }) => thoughts.push_str(text),
                Some(Part::OutputText { text: more, .. }) => text.push_str(more),
                None => {}
            },
        }
    }
    let reasoning_content = (!thoughts.is_empty()).then_some(thoughts);
    // Beside calls, a text of no characters is no content.
    let mut message = Message { reasoning_content, tool_calls, ..Message::new("assistant", text.as_str()) };
    if text.is_empty() && !message.tool_calls.is_empty() {
        message.content = None;
    }
    message
}
