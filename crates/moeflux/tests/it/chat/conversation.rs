//! A conversation of the library: what it remembers, what it reads, and what it refuses.

use moeflux::chat::{ChatError, ToolCall, ToolChoice};
use moeflux::sampling::{Constraint, SamplingOptions};
use moeflux::text::{ChatRequest, Content, Message, Tokenizer};
use moeflux::{Chat, Delta, Error, Event, GenerateRequest, Precision, StopReason};
use serde_json::{Value, json};

use crate::common::engines::engine;
use crate::common::root;

fn chat() -> Chat {
    Chat::new(engine("demo", Precision::Fast, 64))
        .with_sampling(SamplingOptions::default())
        .with_thinking(false)
}

fn add() -> Value {
    let properties = json!({ "a": { "type": "integer" }, "b": { "type": "integer" } });
    let parameters = json!({ "type": "object", "properties": properties, "required": ["a", "b"] });
    let function = json!({ "name": "add", "description": "Add two numbers", "parameters": parameters });
    json!({ "type": "function", "function": function })
}

/// The answer of a fresh engine to the same messages.
fn fresh(chat: &Chat, messages: &[Message]) -> String {
    let mut other = self::chat();
    other.messages = messages.to_vec();
    other.options = chat.options.clone();
    other.reply().unwrap().complete().unwrap().text()
}

#[test]
fn an_answer_streams_and_is_remembered() {
    let mut chat = chat();
    let mut text = String::new();
    let mut deltas = 0;
    for delta in chat.ask("What is 17 + 25?").unwrap() {
        if let Delta::Text(piece) = delta.unwrap() {
            text.push_str(&piece);
            deltas += 1;
        }
    }
    assert_eq!(text, "17 + 25 = 42.");
    assert!(deltas > 3);
    assert_eq!(
        chat.messages,
        [Message::new("user", "What is 17 + 25?"), Message::new("assistant", "17 + 25 = 42.")]
    );
    let outcome = chat.outcome().unwrap();
    assert!(matches!(outcome.stop, StopReason::EndOfSequence(_)));
    assert_eq!(outcome.cached_tokens, 0);
}

#[test]
fn thoughts_are_deltas_of_their_own() {
    let mut chat = chat().with_thinking(true).with_system("Answer briefly.");
    let answer = chat.ask("What is 8 * 7?").unwrap().complete().unwrap();
    assert_eq!((answer.text().as_str(), answer.reasoning().as_str()), ("8 * 7 = 56.", "This is a sum."));
    let last = chat.messages.last().unwrap();
    assert_eq!(last.reasoning_content.as_deref(), Some("This is a sum."));
}

#[test]
fn kept_states_change_no_answer() {
    let mut chat = chat();
    for question in ["Tell me a story about a fox.", "What is the capital of Norway?", "What is 9 * 12?"] {
        let before = chat.messages.clone();
        let answer = chat.ask(question).unwrap().complete().unwrap().text();
        let asked = [before.as_slice(), &[Message::new("user", question)]].concat();
        assert_eq!(answer, fresh(&chat, &asked));
        let outcome = chat.outcome().unwrap();
        assert_eq!(outcome.cached_tokens > 0, !before.is_empty(), "{outcome:?}");
    }
    // An edited conversation is cut back to where it differs.
    chat.messages.truncate(3);
    chat.messages[2] = Message::new("user", "What is 17 + 25?");
    let edited = chat.messages.clone();
    assert_eq!(chat.reply().unwrap().complete().unwrap().text(), fresh(&chat, &edited));
    assert!(chat.outcome().unwrap().cached_tokens > 20);
    chat.clear();
    assert!(chat.messages.is_empty() && chat.sequence().is_empty());
}

#[test]
fn a_tool_is_called_and_its_result_is_answered() {
    let mut chat = chat().with_tools(vec![add()]);
    let answer = chat.ask("What is 4321 + 1234?").unwrap().complete().unwrap();
    let call = ToolCall { name: "add".to_owned(), arguments: "{\"a\": 4321, \"b\": 1234}".to_owned() };
    assert_eq!((answer.text().as_str(), answer.tool_calls()), ("", vec![call.clone()]));
    assert_eq!(chat.pending_calls(), [call]);
    let last = chat.messages.last().unwrap();
    assert_eq!((&last.content, last.tool_calls.len()), (&None, 1));

    chat.push_result("{\"result\": 5555}").unwrap();
    let result = chat.messages.last().unwrap();
    assert_eq!(result.tool_call_id.as_deref(), chat.messages[1].tool_calls[0]["id"].as_str());
    assert!(chat.pending_calls().is_empty());
    assert!(matches!(chat.push_result("again"), Err(ChatError::NoPendingCall)));
    assert_eq!(chat.reply().unwrap().complete().unwrap().text(), "4321 + 1234 = 5555.");
    assert!(chat.pending_calls().is_empty());
}

#[cfg(feature = "grammar")]
#[test]
fn a_required_call_is_made() {
    let mut chat = chat().with_tools(vec![add()]);
    chat.options.tool_choice = ToolChoice::Required;
    let answer = chat.ask("Tell me a story about a fox.").unwrap().complete().unwrap();
    let calls = answer.tool_calls();
    assert_eq!(calls[0].name, "add");
    let arguments: Value = serde_json::from_str(&calls[0].arguments).unwrap();
    assert!(arguments["a"].is_i64() && arguments["b"].is_i64(), "{arguments}");
    chat.clear();
    chat.options.tool_choice = ToolChoice::None;
    assert_eq!(chat.ask("What is 17 + 25?").unwrap().complete().unwrap().text(), "17 + 25 = 42.");
}

#[test]
fn an_answer_that_is_dropped_stays_as_far_as_it_came() {
    let mut chat = chat();
    let mut reply = chat.ask("Tell me a story about a fox.").unwrap();
    let mut begun = String::new();
    while begun.len() < 10 {
        if let Delta::Text(text) = reply.next().unwrap().unwrap() {
            begun.push_str(&text);
        }
    }
    drop(reply);
    assert!(chat.outcome().is_none());
    let Some(Content::Text(text)) = &chat.messages[1].content else { panic!("{:?}", chat.messages) };
    assert!(text.starts_with(&begun), "{text}");
    let asked = [chat.messages.as_slice(), &[Message::new("user", "What is 17 + 25?")]].concat();
    let answer = chat.ask("What is 17 + 25?").unwrap().complete().unwrap().text();
    assert_eq!(answer, fresh(&chat, &asked));
}

#[test]
fn events_come_with_their_deltas() {
    let mut chat = chat();
    chat.request.logprobs = Some(1);
    let mut reply = chat.ask("What is 17 + 25?").unwrap();
    let (mut read, mut tokens, mut text) = (0, 0, String::new());
    while let Some(event) = reply.next_event() {
        let (event, deltas) = event.unwrap();
        match event {
            Event::Prefill { done, .. } => read = done,
            Event::Token { top_logprobs, .. } => tokens += top_logprobs.len(),
            Event::Done(outcome) => assert_eq!(outcome.prompt_tokens, read),
            _ => {}
        }
        for delta in deltas {
            let Delta::Text(piece) = delta else { panic!("{delta:?}") };
            text.push_str(&piece);
        }
    }
    assert!(tokens > 5 && reply.next().is_none());
    assert_eq!(text, "17 + 25 = 42.");
}

#[test]
fn what_cannot_be_leaves_the_conversation_as_it_was() {
    let mut chat = chat();
    assert!(matches!(chat.reply().unwrap_err(), ChatError::NoMessages));
    chat.options.tools = vec![add(), json!({ "type": "function" })];
    let error = chat.ask("Hello").unwrap_err();
    assert!(matches!(error, ChatError::Tool { index: 1, .. }), "{error}");
    chat.options.tools.pop();
    chat.options.tool_choice = ToolChoice::Named("multiply".to_owned());
    let error = chat.ask("Hello").unwrap_err().to_string();
    assert!(
        error.contains("tool_choice") && error.contains("(add)") && error.contains("multiply"),
        "{error}"
    );
    (chat.options.tools, chat.options.tool_choice) = (Vec::new(), ToolChoice::Required);
    assert!(matches!(chat.ask("Hello").unwrap_err(), ChatError::NoTools));
    (chat.options.tools, chat.options.tool_choice) = (vec![add()], ToolChoice::Auto);
    chat.request.constraint = Some(Constraint::Lark("start: \"a\"".to_owned()));
    assert!(matches!(chat.ask("Hello").unwrap_err(), ChatError::ConstraintWithTools));
    chat.request = GenerateRequest { logprobs: Some(21), max_tokens: 5, ..GenerateRequest::default() };
    let error = chat.ask("Hello").unwrap_err();
    let ChatError::Engine(error) = error else { panic!("{error}") };
    assert!(matches!(*error, Error::Option { option: "logprobs", .. }), "{error}");
    let Err(ChatError::Engine(error)) = Chat::open("no/such/model") else { panic!("it opens") };
    assert!(matches!(*error, Error::Checkpoint(_)), "{error}");
    assert!(chat.messages.is_empty());
}

#[test]
fn a_checkpoint_recommends_how_to_sample() {
    let tokenizer = Tokenizer::open(root().join("models/demo")).unwrap();
    let mut defaults = tokenizer.generation_defaults().clone();
    let recommended = SamplingOptions::recommended(&defaults);
    let expected = SamplingOptions { temperature: 0.7, top_p: 0.9, top_k: 20, ..SamplingOptions::default() };
    assert_eq!(recommended, expected);
    assert_eq!(Chat::open(root().join("models/demo")).unwrap().request.sampling, expected);
    // A checkpoint that does not say that it samples is decoded greedily, whatever else it says.
    defaults.do_sample = None;
    assert_eq!(SamplingOptions::recommended(&defaults).temperature, 0.0);
    (defaults.do_sample, defaults.temperature) = (Some(true), None);
    assert_eq!(SamplingOptions::recommended(&defaults).temperature, 1.0);
}

#[test]
fn the_prompt_is_the_templates() {
    let chat = chat().with_tools(vec![add()]);
    let tokenizer = chat.engine().model().tokenizer();
    let messages = [Message::new("user", "Hello")];
    let request = ChatRequest {
        messages: &messages,
        tools: Some(&chat.options.tools),
        add_generation_prompt: true,
        enable_thinking: Some(false),
        ..ChatRequest::default()
    };
    let prompt = chat.options.prompt(tokenizer, &messages).unwrap();
    assert_eq!(prompt, tokenizer.render_chat(&request).unwrap());
    assert!(prompt.contains("Add two numbers"));
}
