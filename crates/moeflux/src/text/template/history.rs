//! A conversation arranged as a template can take it: system messages where it has a place for them, and calls one by one
//! where it shows one call of a message only. Nothing is left out.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde_json::{Value as Json, json};

use super::capabilities::{Capabilities, Systems};
use crate::text::{Content, Message};

/// What becomes of several calls in one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    /// They stay, and the template may render the first alone, or refuse them.
    AsTheyAre,
    /// Where it does, they become messages of one call each.
    All,
}

/// The messages as the template can take them; the very messages where it takes those.
pub(super) fn arranged(messages: &[Message], capabilities: Capabilities, calls: Calls) -> Cow<'_, [Message]> {
    let mut messages = Cow::Borrowed(messages);
    if needs_systems_folded(&messages, capabilities.systems) {
        messages = Cow::Owned(systems_folded(&messages, capabilities.systems));
    }
    let one_by_one = calls == Calls::All && !capabilities.parallel_calls;
    if one_by_one && messages.iter().any(|message| message.tool_calls.len() > 1) {
        messages = Cow::Owned(calls_in_turn(&messages));
    }
    if !capabilities.reasons_beside_content && messages.iter().any(has_all_three) {
        messages = Cow::Owned(messages.iter().map(reasoning_joined).collect());
    }
    if !capabilities.calls_beside_content && messages.iter().any(calls_and_says) {
        messages = Cow::Owned(messages.iter().flat_map(calls_apart).collect());
    }
    messages
}

/// How many system messages there are in front.
fn leading(messages: &[Message]) -> usize {
    messages.iter().take_while(|message| message.role == "system").count()
}

fn needs_systems_folded(messages: &[Message], systems: Systems) -> bool {
    let front = leading(messages);
    let has_later = messages[front..].iter().any(|message| message.role == "system");
    systems.dropped && (front > 0 || has_later)
        || systems.one && (front > 1 && !systems.several || has_later && !systems.between)
}

/// Joins the system messages in front, and moves later ones into the turn of the user beside them: what comes before keeps
/// its tokens, so that a prefix cache finds them. Where the template has a place for none, those in front are moved too.
fn systems_folded(messages: &[Message], systems: Systems) -> Vec<Message> {
    let (front, later) = messages.split_at(if systems.one { leading(messages) } else { 0 });
    let mut arranged: Vec<Message> = Vec::with_capacity(messages.len());
    for message in front {
        match arranged.last_mut().filter(|_| !systems.several) {
            Some(last) => last.content = joined(last.content.take(), message.content.clone()),
            None => arranged.push(message.clone()),
        }
    }
    // What a system message says, for the turn of the user that follows it.
    let mut pending: Option<Content> = None;
    for message in later {
        if message.role == "system" && !systems.between {
            pending = joined(pending, message.content.clone());
        } else if message.role == "user" {
            let content = joined(pending.take(), message.content.clone());
            arranged.push(Message { content, ..message.clone() });
        } else {
            flush(&mut arranged, pending.take());
            arranged.push(message.clone());
        }
    }
    flush(&mut arranged, pending);
    arranged
}

/// Adds what no turn of the user follows to the one before, or as one of its own.
fn flush(arranged: &mut Vec<Message>, pending: Option<Content>) {
    let Some(content) = pending else { return };
    match arranged.last_mut() {
        Some(last) if last.role == "user" => last.content = joined(last.content.take(), Some(content)),
        _ => arranged.push(Message { content: Some(content), ..Message::new("user", "") }),
    }
}

/// Two contents as one, with an empty line between texts.
fn joined(first: Option<Content>, second: Option<Content>) -> Option<Content> {
    let parts = |content| match content {
        Content::Text(text) => vec![json!({"type": "text", "text": text})],
        Content::Parts(parts) => parts,
    };
    match (first, second) {
        (Some(Content::Text(first)), Some(Content::Text(second))) => {
            Some(Content::Text(format!("{first}\n\n{second}")))
        }
        (Some(first), Some(second)) => Some(Content::Parts([parts(first), parts(second)].concat())),
        (first, second) => first.or(second),
    }
}

/// Messages of one call each, every one followed by its result.
fn calls_in_turn(messages: &[Message]) -> Vec<Message> {
    let mut arranged = Vec::with_capacity(messages.len());
    let mut rest = messages;
    while let Some((message, after)) = rest.split_first() {
        rest = after;
        if message.tool_calls.len() < 2 {
            arranged.push(message.clone());
            continue;
        }
        let results = after.iter().take_while(|message| message.role == "tool").count();
        let mut results: VecDeque<&Message> = after[..results].iter().collect();
        rest = &after[results.len()..];
        for (index, call) in message.tool_calls.iter().enumerate() {
            let says = Message { tool_calls: vec![call.clone()], ..message.clone() };
            // What was said before the calls is said once.
            let silent = Message {
                content: None,
                reasoning_content: None,
                extra: unreasoned(message),
                ..says.clone()
            };
            arranged.push(if index == 0 { says } else { silent });
            let id = call.get("id").and_then(Json::as_str);
            let own = results.iter().position(|result| id.is_some() && result.tool_call_id.as_deref() == id);
            let nameless = results.iter().position(|result| result.tool_call_id.is_none());
            if let Some(result) = own.or(nameless).and_then(|place| results.remove(place)) {
                arranged.push(result.clone());
            }
        }
        arranged.extend(results.into_iter().cloned());
    }
    arranged
}

/// The further fields of a message, without reasoning.
fn unreasoned(message: &Message) -> serde_json::Map<String, Json> {
    let fields = message.extra.iter().filter(|(name, _)| !matches!(name.as_str(), "thinking" | "reasoning"));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The reasoning of a message, under whichever name it came.
fn reasoning(message: &Message) -> Option<&str> {
    let named = |name: &str| message.extra.get(name).and_then(Json::as_str);
    message.reasoning_content.as_deref().or_else(|| named("thinking")).or_else(|| named("reasoning"))
}

/// The content as text, if it is not empty.
fn text(message: &Message) -> Option<String> {
    let text = match message.content.as_ref()? {
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
            texts.join("\n")
        }
    };
    Some(text).filter(|text| !text.is_empty())
}

fn has_all_three(message: &Message) -> bool {
    !message.tool_calls.is_empty()
        && reasoning(message).is_some_and(|reasoning| !reasoning.is_empty())
        && text(message).is_some()
}

/// A message with calls whose content has become the end of its reasoning.
fn reasoning_joined(message: &Message) -> Message {
    let (Some(thoughts), Some(text)) = (reasoning(message), text(message).filter(|_| has_all_three(message)))
    else {
        return message.clone();
    };
    let reasoning_content = Some(format!("{thoughts}\n\n{text}"));
    Message { content: None, reasoning_content, extra: unreasoned(message), ..message.clone() }
}

fn calls_and_says(message: &Message) -> bool {
    !message.tool_calls.is_empty() && text(message).is_some()
}

/// A message whose content has become a message before its calls.
fn calls_apart(message: &Message) -> Vec<Message> {
    if !calls_and_says(message) {
        return vec![message.clone()];
    }
    let says = Message { tool_calls: Vec::new(), ..message.clone() };
    let calls =
        Message { content: None, reasoning_content: None, extra: unreasoned(message), ..message.clone() };
    vec![says, calls]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test

    use super::super::{ChatRequest, ChatTemplate};
    use super::*;

    fn call(id: &str, name: &str) -> Json {
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}})
    }

    fn rendered(source: &str, conversation: Json) -> String {
        let messages: Vec<Message> = serde_json::from_value(conversation).unwrap();
        let request = ChatRequest { messages: &messages, ..ChatRequest::default() };
        ChatTemplate::new(source).unwrap().render_all_calls(&request).unwrap()
    }

    #[test]
    fn calls_come_one_by_one_where_the_template_shows_one() {
        let first = "{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{% if m.tool_calls %}\
                     <{{ m.tool_calls[0].function.name }}>{% endif %}{% endfor %}";
        let raises = "{% for m in messages %}{% if m.tool_calls and m.tool_calls | length > 1 %}{{ raise_exception('one') }}\
                      {% endif %}[{{ m.role }}]{{ m.content or '' }}{% if m.tool_calls %}<{{ m.tool_calls[0].function.name }}>\
                      {% endif %}{% endfor %}";
        let conversation = json!([
            {"role": "user", "content": "W?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [call("a", "f"), call("b", "g")]},
            {"role": "tool", "tool_call_id": "b", "content": "of g"},
            {"role": "tool", "tool_call_id": "a", "content": "of f"},
            {"role": "user", "content": "x"},
        ]);
        for source in [first, raises] {
            let expected = "[user]W?[assistant]I look.<f>[tool]of f[assistant]<g>[tool]of g[user]x";
            assert_eq!(rendered(source, conversation.clone()), expected, "{source}");
        }
        let all = "{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{% for c in m.tool_calls or [] %}\
                   <{{ c.function.name }}>{% endfor %}{% endfor %}";
        let expected = "[user]W?[assistant]I look.<f><g>[tool]of g[tool]of f[user]x";
        assert_eq!(rendered(all, conversation), expected);
    }
}
