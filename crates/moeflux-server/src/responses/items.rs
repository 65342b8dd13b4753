//! The items of an answer as they grow, and the events that tell of it.

use moeflux::chat::Delta;
use moeflux::text::Message;
use serde_json::{Value, json};

use super::types::{Item, Part};
use crate::ids::unique;

/// The items of an answer, of which the last may be open.
#[derive(Default)]
pub(super) struct Items {
    done: Vec<Item>,
    open: Option<Item>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
    Call,
}

impl Items {
    /// Takes more of the answer and returns the events.
    pub(super) fn push(&mut self, delta: Delta) -> Vec<Value> {
        match delta {
            Delta::Reasoning(text) => self.more(Kind::Reasoning, &text),
            Delta::Text(text) => self.more(Kind::Message, &text),
            Delta::Arguments { piece, .. } => self.more(Kind::Call, &piece),
            Delta::ToolCall { name, .. } => {
                let (id, call_id) = (unique("fc_"), unique("call_"));
                let arguments = String::new();
                self.begin(Item::FunctionCall { id, call_id, name, arguments, status: IN_PROGRESS })
            }
        }
    }

    /// Ends the open item.
    pub(super) fn end(&mut self, is_complete: bool) -> Vec<Value> {
        let Some(mut item) = self.open.take() else { return Vec::new() };
        *item.status() = if is_complete { "completed" } else { "incomplete" };
        let place = self.place(&item);
        let mut events = Vec::new();
        if let Item::FunctionCall { name, arguments, .. } = &item {
            let fields = json!({ "name": name, "arguments": arguments });
            events.push(event("response.function_call_arguments.done", &place, &fields));
        } else if let Some(part) = item.part() {
            let (name, text) = match part {
                Part::ReasoningText { text } => ("response.reasoning_text.done", json!({ "text": text })),
                Part::OutputText { text, .. } => {
                    ("response.output_text.done", json!({ "text": text, "logprobs": [] }))
                }
            };
            events.push(event(name, &place, &with_content_index(text)));
            events.push(event(
                "response.content_part.done",
                &place,
                &with_content_index(json!({ "part": part })),
            ));
        }
        let fields = json!({ "output_index": self.done.len(), "item": item });
        events.push(event("response.output_item.done", &json!({}), &fields));
        self.done.push(item);
        events
    }

    /// All items, when the last has ended.
    pub(super) fn into_vec(self) -> Vec<Item> {
        self.done
    }

    fn begin(&mut self, mut item: Item) -> Vec<Value> {
        let mut events = self.end(true);
        // A part is told of by an event of its own.
        let parts = item.parts().map(std::mem::take).unwrap_or_default();
        let fields = json!({ "output_index": self.done.len(), "item": item });
        events.push(event("response.output_item.added", &json!({}), &fields));
        let place = self.place(&item);
        for part in parts {
            events.push(event(
                "response.content_part.added",
                &place,
                &with_content_index(json!({ "part": part })),
            ));
            if let Some(parts) = item.parts() {
                parts.push(part);
            }
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
                    let content = vec![Part::ReasoningText { text }];
                    self.begin(Item::Reasoning { id: unique("rs_"), summary: Vec::new(), content, status })
                }
                Kind::Message => {
                    let (annotations, logprobs) = (Vec::new(), Vec::new());
                    let content = vec![Part::OutputText { text, annotations, logprobs }];
                    self.begin(Item::Message { id: unique("msg_"), role: "assistant", content, status })
                }
                Kind::Call => Vec::new(),
            };
        }
        let Some(mut item) = self.open.take() else { return events };
        item.push_text(more);
        let place = self.place(&item);
        let delta = json!({ "delta": more });
        events.push(match kind {
            Kind::Reasoning => event("response.reasoning_text.delta", &place, &with_content_index(delta)),
            Kind::Message => {
                let delta = json!({ "delta": more, "logprobs": [] });
                event("response.output_text.delta", &place, &with_content_index(delta))
            }
            Kind::Call => event("response.function_call_arguments.delta", &place, &delta),
        });
        self.open = Some(item);
        events
    }

    fn place(&self, item: &Item) -> Value {
        json!({ "item_id": item.id(), "output_index": self.done.len() })
    }
}

const IN_PROGRESS: &str = "in_progress";

fn event(name: &str, place: &Value, fields: &Value) -> Value {
    let mut event = json!({ "type": name });
    for fields in [place, fields] {
        for (key, value) in fields.as_object().into_iter().flatten() {
            event[key] = value.clone();
        }
    }
    event
}

fn with_content_index(mut fields: Value) -> Value {
    fields["content_index"] = json!(0);
    fields
}

impl Item {
    fn kind(&self) -> Kind {
        match self {
            Self::Reasoning { .. } => Kind::Reasoning,
            Self::Message { .. } => Kind::Message,
            Self::FunctionCall { .. } => Kind::Call,
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Reasoning { id, .. } | Self::Message { id, .. } | Self::FunctionCall { id, .. } => id,
        }
    }

    fn status(&mut self) -> &mut &'static str {
        match self {
            Self::Reasoning { status, .. }
            | Self::Message { status, .. }
            | Self::FunctionCall { status, .. } => status,
        }
    }
}

impl Item {
    /// What there is in it, if it is made of parts: one part.
    fn part(&self) -> Option<&Part> {
        match self {
            Self::Reasoning { content, .. } | Self::Message { content, .. } => content.first(),
            Self::FunctionCall { .. } => None,
        }
    }

    fn parts(&mut self) -> Option<&mut Vec<Part>> {
        match self {
            Self::Reasoning { content, .. } | Self::Message { content, .. } => Some(content),
            Self::FunctionCall { .. } => None,
        }
    }

    fn push_text(&mut self, more: &str) {
        let text = match self {
            Self::Reasoning { content, .. } | Self::Message { content, .. } => match content.first_mut() {
                Some(Part::ReasoningText { text } | Part::OutputText { text, .. }) => text,
                None => return,
            },
            Self::FunctionCall { arguments, .. } => arguments,
        };
        text.push_str(more);
    }
}

/// The items as the message that they are to later responses.
pub(super) fn message(items: &[Item]) -> Message {
    let (mut thoughts, mut text, mut tool_calls) = (String::new(), String::new(), Vec::new());
    for item in items {
        match item {
            Item::FunctionCall { call_id, name, arguments, .. } => {
                let function = json!({ "name": name, "arguments": arguments });
                tool_calls.push(json!({ "id": call_id, "type": "function", "function": function }));
            }
            item => match item.part() {
                Some(Part::ReasoningText { text }) => thoughts.push_str(text),
                Some(Part::OutputText { text: more, .. }) => text.push_str(more),
                None => {}
            },
        }
    }
    let reasoning_content = (!thoughts.is_empty()).then_some(thoughts);
    Message { reasoning_content, tool_calls, ..Message::new("assistant", text) }
}
