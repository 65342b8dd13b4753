//! The pieces of an answer, and an answer put together from them.

use serde_json::{Value, json};

use crate::text::{Content, Message};

/// A piece of an answer, as a [`Parser`](super::Parser) finds it in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// More of the answer.
    Text(String),
    /// More of the thoughts.
    Reasoning(String),
    /// A tool call begins. It has no id: each API makes ids of its own kind.
    ToolCall {
        /// Its place among the answer's calls, from 0.
        index: usize,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments: all pieces of an index together are a JSON object, or its beginning if the answer was cut
    /// off.
    Arguments {
        /// The call.
        index: usize,
        /// A piece of JSON text.
        piece: String,
    },
}

/// A complete tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// A JSON object as text, or the beginning of one if the answer was cut off.
    pub arguments: String,
}

/// An answer, put together from its deltas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// All deltas in order, with neighbours of one kind joined.
    pub deltas: Vec<Delta>,
}

impl Answer {
    /// Appends a delta.
    pub fn push(&mut self, delta: Delta) {
        match (self.deltas.last_mut(), delta) {
            (Some(Delta::Text(last)), Delta::Text(more))
            | (Some(Delta::Reasoning(last)), Delta::Reasoning(more)) => last.push_str(&more),
            (Some(Delta::Arguments { index, piece }), Delta::Arguments { index: next, piece: more })
                if *index == next =>
            {
                piece.push_str(&more);
            }
            (_, delta) => self.deltas.push(delta),
        }
    }

    /// The text, without thoughts and calls.
    pub fn text(&self) -> String {
        self.join(|delta| if let Delta::Text(text) = delta { Some(text) } else { None })
    }

    /// The thoughts.
    pub fn reasoning(&self) -> String {
        self.join(|delta| if let Delta::Reasoning(text) = delta { Some(text) } else { None })
    }

    /// The tool calls, in order.
    pub fn tool_calls(&self) -> Vec<ToolCall> {
        let mut calls: Vec<ToolCall> = Vec::new();
        for delta in &self.deltas {
            match delta {
                Delta::ToolCall { name, .. } => {
                    calls.push(ToolCall { name: name.clone(), arguments: String::new() });
                }
                Delta::Arguments { index, piece } => {
                    if let Some(call) = calls.get_mut(*index) {
                        call.arguments.push_str(piece);
                    }
                }
                Delta::Text(_) | Delta::Reasoning(_) => {}
            }
        }
        calls
    }

    /// The message that the answer is in the conversation after it. Calls get ids, which count on from `first_call`.
    pub(super) fn message(&self, first_call: usize) -> Message {
        let (text, reasoning, calls) = (self.text(), self.reasoning(), self.tool_calls());
        let content = (!text.is_empty() || calls.is_empty()).then_some(Content::Text(text));
        let tool_calls = (first_call..).zip(&calls).map(|(index, call)| call.to_json(index)).collect();
        let reasoning_content = Some(reasoning).filter(|reasoning| !reasoning.is_empty());
        Message { role: "assistant".to_owned(), content, reasoning_content, tool_calls, ..Message::default() }
    }

    fn join<'a>(&'a self, pick: impl Fn(&'a Delta) -> Option<&'a String>) -> String {
        self.deltas.iter().filter_map(pick).map(String::as_str).collect()
    }
}

impl ToolCall {
    /// Whether the arguments are a JSON object: those of an answer that was cut off may not be.
    pub fn is_whole(&self) -> bool {
        serde_json::from_str::<serde_json::Map<String, Value>>(&self.arguments).is_ok()
    }

    /// The form that OpenAI's chat API has for a call. Some templates refuse ids that have not nine letters and digits.
    fn to_json(&self, index: usize) -> Value {
        let function = json!({ "name": self.name, "arguments": self.arguments });
        json!({ "id": format!("call{index:05}"), "type": "function", "function": function })
    }

    /// A call in that form.
    pub(super) fn of_json(call: &Value) -> Option<Self> {
        let function = call.get("function")?;
        let arguments = match function.get("arguments") {
            Some(Value::String(text)) => text.clone(),
            Some(object) => object.to_string(),
            None => String::from("{}"),
        };
        Some(Self { name: function.get("name")?.as_str()?.to_owned(), arguments })
    }
}
