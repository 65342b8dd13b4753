//! Which format a model was taught: its chat template says it, by what it makes of a call.

use crate::text::{ChatRequest, Message, Tokenizer};
use serde_json::{Value, json};

use super::harmony::{CHANNEL, FUNCTIONS, MESSAGE};
use super::read::SEPARATOR;
use super::{Format, Syntax};

/// Words that no template contains.
const QUESTION: &str = "q7question7q";
const TOOL: &str = "q7tool7q";
const KEY: &str = "q7key7q";

/// The format of a model.
pub(super) fn format(tokenizer: &Tokenizer) -> Format {
    if tokenizer.chat_template().is_none() {
        return Format::Plain;
    }
    let rendered =
        conversations().into_iter().filter_map(|(messages, tools)| call(tokenizer, &messages, &tools));
    let told = rendered.map(|call| of_call(&call)).find(Option::is_some).flatten();
    told.unwrap_or_else(|| of_tokens(tokenizer))
}

/// A call as the template writes it, and what follows.
fn call(tokenizer: &Tokenizer, messages: &[Message], tools: &[Value]) -> Option<String> {
    let tools = (!tools.is_empty()).then_some(tools);
    let text = tokenizer.render_chat(&ChatRequest { messages, tools, ..ChatRequest::default() }).ok()?;
    // What comes before may describe tools in another way.
    let (_, answer) = text.rsplit_once(QUESTION)?;
    Some(answer.to_owned())
}

/// Conversations with a call. Templates differ in what they refuse.
fn conversations() -> Vec<(Vec<Message>, Vec<Value>)> {
    let function = json!({ "name": TOOL, "arguments": { KEY: "value" } });
    // Some templates want ids of nine letters.
    let call = json!({ "id": "callcall1", "type": "function", "function": function });
    let question = Message::new("user", QUESTION);
    let asks = Message { tool_calls: vec![call], ..Message::new("assistant", "") };
    let answer = Message { tool_call_id: Some("callcall1".to_owned()), ..Message::new("tool", "answer") };
    let short = vec![question, asks];
    let long = [short.as_slice(), &[answer]].concat();
    let schema = json!({ "type": "object", "properties": { KEY: { "type": "string" } } });
    let function = json!({ "name": TOOL, "description": "A tool", "parameters": schema });
    let tools = vec![json!({ "type": "function", "function": function })];
    vec![(short.clone(), Vec::new()), (long.clone(), Vec::new()), (short, tools.clone()), (long, tools)]
}

fn of_call(text: &str) -> Option<Format> {
    let (before, after) = text.split_once(TOOL)?;
    let is_harmony = before.ends_with(&format!("to={FUNCTIONS}"));
    let syntax = if before.ends_with("<function=") {
        Syntax::Xml
    } else if is_harmony {
        return Some(Format::Harmony);
    } else if before.ends_with(SEPARATOR) {
        Syntax::DeepSeekFenced
    } else if after.starts_with(SEPARATOR) {
        Syntax::DeepSeek
    } else if after.trim_start().starts_with("<arg_key>") {
        if after.starts_with('\n') { Syntax::GlmLines } else { Syntax::Glm }
    } else {
        let (_, opened) = before.rsplit_once("<tool_call>")?;
        opened.trim_start().starts_with('{').then_some(Syntax::Hermes)?
    };
    Some(Format::Tagged(syntax))
}

/// For templates that refuse all of the conversations, or know no calls.
fn of_tokens(tokenizer: &Tokenizer) -> Format {
    if tokenizer.id(CHANNEL).is_some() && tokenizer.id(MESSAGE).is_some() {
        return Format::Harmony;
    }
    Format::Thoughts
}
