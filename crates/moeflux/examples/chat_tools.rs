//! Holds a conversation in which the model calls a tool: the calls are carried out here, and the model answers from their
//! results.
//!
//! `cargo run --release -p moeflux --example chat_tools [MODEL]`

#![allow(clippy::print_stdout)] // what an example is for

use std::collections::HashMap;

use moeflux::{Chat, Delta};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "models/demo".to_owned());
    let numbers = json!({ "a": { "type": "integer" }, "b": { "type": "integer" } });
    let add = json!({ "name": "add", "description": "Add two numbers", "parameters": { "type": "object", "properties": numbers } });
    let mut chat = Chat::open(model)?.with_tools(vec![json!({ "type": "function", "function": add })]);
    let mut reply = chat.ask("What is 4321 + 1234?")?;
    loop {
        for delta in reply {
            match delta? {
                Delta::Text(text) | Delta::Reasoning(text) => print!("{text}"),
                Delta::ToolCall { name, .. } => print!("{name}"),
                Delta::Arguments { piece, .. } => println!("{piece}"),
            }
        }
        if chat.pending_calls().is_empty() {
            println!();
            return Ok(());
        }
        for call in chat.pending_calls() {
            let numbers: HashMap<String, i64> = serde_json::from_str(&call.arguments)?;
            chat.push_result(json!({ "result": numbers.values().sum::<i64>() }).to_string())?;
        }
        reply = chat.reply()?;
    }
}
