//! Ten questions to the demo model. Its corpus has one right answer to each
//! (`tools/demo-model/make_corpus.py`), and the model must give it greedily.

use std::path::Path;

use moeflux::text::{ChatRequest, Message};
use moeflux::{Engine, EngineOptions, Event, GenerateRequest, Model, ModelOptions, StopReason};
use serde_json::{Value, json};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub(crate) fn model() -> Result<Model> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    Ok(Model::open(&folder, &ModelOptions::default())?)
}

fn engine() -> Result<Engine> {
    Ok(Engine::new(model()?, &EngineOptions::default())?)
}

/// The greedy continuation of a conversation, special tokens shown, its end-of-sequence token left out.
fn answer(engine: &mut Engine, messages: &[Message], tools: Option<&[Value]>, think: bool) -> Result<String> {
    let tokenizer = engine.model().tokenizer();
    let prompt = tokenizer.render_chat(&ChatRequest {
        messages,
        tools,
        add_generation_prompt: true,
        enable_thinking: Some(think),
        ..ChatRequest::default()
    })?;
    let request =
        GenerateRequest { prompt: tokenizer.encode(&prompt)?, max_tokens: 200, ..GenerateRequest::default() };
    let mut sequence = engine.sequence();
    let (mut tokens, mut stop) = (Vec::new(), None);
    for event in engine.generate(&mut sequence, request)? {
        match event? {
            Event::Token { id, .. } => tokens.push(id),
            Event::Done(outcome) => stop = Some(outcome.stop),
            _ => {}
        }
    }
    assert!(matches!(stop, Some(StopReason::EndOfSequence(_))), "{messages:?} ended with {stop:?}");
    Ok(engine.model().tokenizer().decode(&tokens, false)?)
}

fn tool(name: &str, description: &str, properties: &Value) -> Value {
    let required: Vec<&String> =
        properties.as_object().into_iter().flat_map(|object| object.keys()).collect();
    let parameters = json!({"type": "object", "properties": properties, "required": required});
    let function = json!({"name": name, "description": description, "parameters": parameters});
    json!({"type": "function", "function": function})
}

#[test]
fn seven_questions_without_thinking() -> Result<()> {
    seven_without_thinking(&mut engine()?)
}

pub(crate) fn seven_without_thinking(engine: &mut Engine) -> Result<()> {
    for (question, expected) in [
        ("What is 17 + 25?", "17 + 25 = 42."),
        ("What is 9 * 12?", "9 * 12 = 108."),
        ("What is the capital of Norway?", "The capital of Norway is Oslo."),
        ("Which city is the capital of Japan?", "The capital of Japan is Tokyo."),
        ("What is the opposite of hot?", "The opposite of hot is cold."),
        ("Write JSON for a person named Mia who is 34 years old.", r#"{"name": "Mia", "age": 34}"#),
        ("Write a JSON list of these colours: red, blue, green.", r#"["red", "blue", "green"]"#),
    ] {
        assert_eq!(answer(engine, &[Message::new("user", question)], None, false)?, expected);
    }
    Ok(())
}

#[test]
fn two_questions_with_thinking() -> Result<()> {
    two_with_thinking(&mut engine()?)
}

pub(crate) fn two_with_thinking(engine: &mut Engine) -> Result<()> {
    for (question, expected) in [
        ("What is 63 - 28?", "This is a sum.\n</think>\n\n63 - 28 = 35."),
        (
            "Name the opposite of empty.",
            "This is a simple question.\n</think>\n\nThe opposite of empty is full.",
        ),
    ] {
        assert_eq!(answer(engine, &[Message::new("user", question)], None, true)?, expected);
    }
    Ok(())
}

#[test]
fn a_tool_is_called_and_its_result_told() -> Result<()> {
    one_with_a_tool(&mut engine()?)
}

pub(crate) fn one_with_a_tool(engine: &mut Engine) -> Result<()> {
    let tools = [
        tool(
            "get_weather",
            "Get the weather of a city",
            &json!({"city": {"type": "string", "description": "The city"}}),
        ),
        tool("add", "Add two numbers", &json!({"a": {"type": "integer"}, "b": {"type": "integer"}})),
    ];
    let question = Message::new("user", "What is 4711 + 289?");
    let call = answer(engine, std::slice::from_ref(&question), Some(&tools), false)?;
    assert_eq!(
        call,
        "<tool_call>\n<function=add>\n<parameter=a>\n4711\n</parameter>\n<parameter=b>\n289\n</parameter>\n\
         </function>\n</tool_call>"
    );

    let function = json!({"name": "add", "arguments": {"a": 4711, "b": 289}});
    let called = Message {
        tool_calls: vec![json!({"type": "function", "function": function})],
        ..Message::new("assistant", "")
    };
    let conversation = [question, called, Message::new("tool", r#"{"result": 5000}"#)];
    assert_eq!(answer(engine, &conversation, Some(&tools), false)?, "4711 + 289 = 5000.");
    Ok(())
}
