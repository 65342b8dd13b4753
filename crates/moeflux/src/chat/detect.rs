//! Which format a model was taught: its chat template says it by what it makes of a call, or by what it tells the model about
//! calls; else the tokenizer's markers do.

use crate::text::{ChatRequest, Content, Message, Tokenizer};
use serde_json::{Map, Value, json};

use super::formats::{FORMATS, Row};
use super::harmony::{CHANNEL, FUNCTIONS, MESSAGE};
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
    let (mut told, mut written) = (String::new(), String::new());
    for (messages, tools) in conversations() {
        let Some(text) = render(tokenizer, &messages, &tools) else { continue };
        // What comes before the question may describe tools in another way.
        let Some((before, answer)) = text.rsplit_once(QUESTION) else { continue };
        if let Some(format) = of_call(answer) {
            return format;
        }
        if answer.contains(TOOL) {
            answer.clone_into(&mut written);
        }
        if before.len() > told.len() {
            before.clone_into(&mut told);
        }
    }
    of_marks(tokenizer, &told, &written)
}

fn render(tokenizer: &Tokenizer, messages: &[Message], tools: &[Value]) -> Option<String> {
    // SmolLM3's template has another name for tools.
    let extra: Map<String, Value> = if tools.is_empty() {
        Map::new()
    } else {
        [("xml_tools".to_owned(), Value::from(tools.to_vec()))].into_iter().collect()
    };
    let tools = (!tools.is_empty()).then_some(tools);
    tokenizer.render_chat(&ChatRequest { messages, tools, extra, ..ChatRequest::default() }).ok()
}

/// Conversations with a call. Templates differ in what they refuse, and in which messages with calls they write the calls.
fn conversations() -> Vec<(Vec<Message>, Vec<Value>)> {
    let function = json!({ "name": TOOL, "arguments": { KEY: "value" } });
    // Some templates want ids of nine letters.
    let call = json!({ "id": "callcall1", "type": "function", "function": function });
    let question = Message::new("user", QUESTION);
    let answer = Message { tool_call_id: Some("callcall1".to_owned()), ..Message::new("tool", "answer") };
    let schema = json!({ "type": "object", "properties": { KEY: { "type": "string" } } });
    let function = json!({ "name": TOOL, "description": "A tool", "parameters": schema });
    let tools = vec![json!({ "type": "function", "function": function })];
    let mut all = Vec::new();
    for content in [Some(Content::Text(String::new())), None] {
        let asks =
            Message { tool_calls: vec![call.clone()], content, ..Message::new("assistant", String::new()) };
        let short = vec![question.clone(), asks];
        let long = [short.as_slice(), std::slice::from_ref(&answer)].concat();
        for tools in [Vec::new(), tools.clone()] {
            all.extend([(short.clone(), tools.clone()), (long.clone(), tools)]);
        }
    }
    all
}

/// The format of a call that a template wrote.
fn of_call(text: &str) -> Option<Format> {
    let (before, after) = text.split_once(TOOL)?;
    if before.ends_with(&format!("to={FUNCTIONS}")) {
        return Some(Format::Harmony);
    }
    let compact = |text: &str| text.split_whitespace().collect::<String>();
    let (compact_before, compact_after) = (compact(before), compact(after));
    let fits = |[lead, next]: &[&str; 2]| {
        let follows =
            if next.starts_with('\n') { after.starts_with(next) } else { compact_after.starts_with(next) };
        compact_before.ends_with(lead) && follows
    };
    if let Some(row) = FORMATS.iter().find(|row| row.probes.iter().any(fits)) {
        return Some(Format::Tagged(row.syntax));
    }
    // An object between Hermes' markers, with other members before the name.
    let (_, opened) = before.rsplit_once("<tool_call>")?;
    opened.trim_start().starts_with('{').then_some(Format::Tagged(Syntax::Hermes))
}

/// For templates that write no call, or one without marks: by what they tell the model about tools, or by the tokens that there
/// are for calls. A format whose mark is in a written call that does not fit it is not the model's.
fn of_marks(tokenizer: &Tokenizer, told: &str, written: &str) -> Format {
    if tokenizer.id(CHANNEL).is_some() && tokenizer.id(MESSAGE).is_some() {
        return Format::Harmony;
    }
    let first = |has: &dyn Fn(&str) -> bool| {
        let differs = |row: &Row| row.opens.iter().any(|open| !open.is_kept && written.contains(open.text));
        let fits =
            |row: &&Row| !row.marks.is_empty() && row.marks.iter().all(|mark| has(mark)) && !differs(row);
        FORMATS.iter().find(fits).map(|row| Format::Tagged(row.syntax))
    };
    let of_text = first(&|mark| told.contains(mark));
    of_text.or_else(|| first(&|mark| tokenizer.id(mark).is_some())).unwrap_or(Format::Thoughts)
}
