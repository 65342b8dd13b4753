//! What an answer says in each API, and how clients play it back with the results of its calls.

use serde_json::{Value, json};

use crate::common::Answer;
use crate::{messages, responses};

/// A tool of a request.
pub(super) struct Tool {
    pub(super) name: String,
    /// The schema of its arguments.
    pub(super) parameters: Value,
}

/// A call of an answer.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// Empty where the API has none.
    pub(super) id: String,
    pub(super) name: String,
    /// JSON text, its pieces joined.
    pub(super) arguments: String,
}

/// What a streamed answer says.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) thoughts: String,
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    /// Why it ended.
    pub(super) finish: String,
    /// How many tokens it has.
    pub(super) tokens: usize,
    /// The items or blocks of it as they go back, in the APIs that have such.
    parts: Vec<Value>,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap_or(0) as usize
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The functions and custom tools of a request.
pub(super) fn tools(body: &Value) -> Vec<Tool> {
    let own = |tool: &&Value| matches!(text(&tool["type"]), "" | "function" | "custom");
    let tools = list(&body["tools"]).iter().filter(own).map(|tool| {
        let function = tool.get("function").unwrap_or(tool);
        let schema = function.get("parameters").or(function.get("input_schema"));
        let input = || json!({ "type": "object", "properties": { "input": { "type": "string" } } });
        Tool { name: text(&function["name"]).to_owned(), parameters: schema.cloned().unwrap_or_else(input) }
    });
    tools.collect()
}

/// Reads the answer to a request of that path.
pub(super) fn read(path: &str, answer: &Answer) -> Said {
    match path.split('?').next().unwrap() {
        "/v1/chat/completions" => read_chat(answer),
        "/v1/responses" => read_response(answer),
        "/v1/messages" => read_message(answer),
        "/api/chat" => read_ollama(answer),
        _ => panic!("{path}"),
    }
}

/// Adds an answer and its results to a request of that path, as its client does.
pub(super) fn play_back(path: &str, body: &mut Value, said: &Said, results: &[String]) {
    let results = said.calls.iter().zip(results);
    match path.split('?').next().unwrap() {
        "/v1/chat/completions" => {
            let function = |call: &Call| json!({ "name": call.name, "arguments": call.arguments });
            let calls = said.calls.iter();
            let calls: Vec<Value> = calls
                .map(|call| json!({ "id": call.id, "type": "function", "function": function(call) }))
                .collect();
            let content = (!said.text.is_empty()).then_some(&said.text);
            let mut message = json!({ "role": "assistant", "content": content, "tool_calls": calls });
            if body.to_string().contains("\"reasoning_content\"") {
                message["reasoning_content"] = json!(said.thoughts);
            }
            let messages = body["messages"].as_array_mut().unwrap();
            messages.push(message);
            messages.extend(
                results.map(
                    |(call, result)| json!({ "role": "tool", "tool_call_id": call.id, "content": result }),
                ),
            );
        }
        "/v1/responses" => {
            let input = body["input"].as_array_mut().unwrap();
            input.extend(said.parts.iter().cloned());
            for (call, result) in results {
                let item = said.parts.iter().find(|item| item["call_id"] == call.id.as_str()).unwrap();
                let kind = format!("{}_output", text(&item["type"]));
                input.push(json!({ "type": kind, "call_id": call.id, "output": result }));
            }
        }
        "/v1/messages" => {
            let results = results.map(|(call, result)| {
                let content = [json!({ "type": "text", "text": result })];
                json!({ "type": "tool_result", "tool_use_id": call.id, "content": content, "is_error": false })
            });
            let results: Vec<Value> = results.collect();
            let messages = body["messages"].as_array_mut().unwrap();
            messages.push(json!({ "role": "assistant", "content": said.parts }));
            messages.push(json!({ "role": "user", "content": results }));
        }
        _ => {
            let calls = said.calls.iter().map(|call| {
                let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
                json!({ "function": { "name": call.name, "arguments": arguments } })
            });
            let calls: Vec<Value> = calls.collect();
            let messages = body["messages"].as_array_mut().unwrap();
            messages.push(json!({ "role": "assistant", "content": said.text, "tool_calls": calls }));
            messages.extend(
                results.map(
                    |(call, result)| json!({ "role": "tool", "tool_name": call.name, "content": result }),
                ),
            );
        }
    }
}

fn read_chat(answer: &Answer) -> Said {
    let mut said = Said::default();
    for event in answer.events() {
        said.tokens += number(&event["usage"]["completion_tokens"]);
        // The last has the usage alone.
        let Some(choice) = event["choices"].get(0) else { continue };
        let delta = &choice["delta"];
        said.text += text(&delta["content"]);
        said.thoughts += text(&delta["reasoning_content"]);
        for call in list(&delta["tool_calls"]) {
            if call["id"].is_string() {
                assert!(call["index"] == said.calls.len() && call["type"] == "function", "{call}");
                let [id, name] = [&call["id"], &call["function"]["name"]].map(|value| text(value).to_owned());
                said.calls.push(Call { id, name, arguments: String::new() });
            }
            said.calls[number(&call["index"])].arguments += text(&call["function"]["arguments"]);
        }
        said.finish += text(&choice["finish_reason"]);
    }
    said
}

fn read_response(answer: &Answer) -> Said {
    let events = responses::events(answer);
    let mut said = Said::default();
    let mut deltas = String::new();
    for event in &events {
        let item = &event["item"];
        deltas += text(&event["delta"]);
        if event["type"] != "response.output_item.done" {
            continue;
        }
        let (whole, part) = match text(&item["type"]) {
            "reasoning" => (&item["summary"][0]["text"], &mut said.thoughts),
            "message" => (&item["content"][0]["text"], &mut said.text),
            kind => {
                let is_custom = kind == "custom_tool_call";
                let input = &item[if is_custom { "input" } else { "arguments" }];
                let arguments = text(input).to_owned();
                let arguments = if is_custom { json!({ "input": arguments }).to_string() } else { arguments };
                let [id, name] = [&item["call_id"], &item["name"]].map(|value| text(value).to_owned());
                said.calls.push(Call { id, name, arguments });
                (input, &mut String::new())
            }
        };
        assert_eq!(deltas, text(whole), "{item}");
        *part += &std::mem::take(&mut deltas);
        let mut item = item.clone();
        // What is not stored is played back without its id.
        item.as_object_mut().unwrap().retain(|name, _| name != "id" && name != "status");
        said.parts.push(item);
    }
    let last = events.last().unwrap();
    let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
    assert!(done.map(|event| &event["item"]).eq(list(&last["response"]["output"])), "{last}");
    said.finish += text(&last["type"]);
    said.tokens = number(&last["response"]["usage"]["output_tokens"]);
    said
}

fn read_message(answer: &Answer) -> Said {
    let events = messages::events(answer);
    let mut said = Said::default();
    for block in messages::content(&events) {
        said.thoughts += text(&block["thinking"]);
        said.text += text(&block["text"]);
        if block["type"] == "tool_use" {
            let [id, name] = [&block["id"], &block["name"]].map(|value| text(value).to_owned());
            said.calls.push(Call { id, name, arguments: block["input"].to_string() });
        }
        said.parts.push(block);
    }
    said.finish = events.iter().map(|event| text(&event["delta"]["stop_reason"])).collect();
    said.tokens = events.iter().map(|event| number(&event["usage"]["output_tokens"])).sum();
    said
}

fn read_ollama(answer: &Answer) -> Said {
    let mut said = Said::default();
    for line in answer.body.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let message = &line["message"];
        said.text += text(&message["content"]);
        said.thoughts += text(&message["thinking"]);
        said.calls.extend(list(&message["tool_calls"]).iter().map(|call| Call {
            id: String::new(),
            name: text(&call["function"]["name"]).to_owned(),
            arguments: call["function"]["arguments"].to_string(),
        }));
        said.finish += text(&line["done_reason"]);
        said.tokens += number(&line["eval_count"]);
    }
    said
}
