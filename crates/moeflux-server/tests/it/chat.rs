//! Chats.

use serde_json::{Value, json};

use crate::common::{get, post, question, server, with};

const CHAT: &str = "/v1/chat/completions";

/// What the deltas of a stream say together: answer, thoughts, and calls as (id, name, arguments).
fn joined(events: &[Value], index: u64) -> (String, String, Vec<(String, String, String)>) {
    let (mut text, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
    for choice in events.iter().flat_map(|event| event["choices"].as_array().unwrap()) {
        if choice["index"] != index {
            continue;
        }
        let delta = &choice["delta"];
        text.push_str(delta["content"].as_str().unwrap_or(""));
        thoughts.push_str(delta["reasoning_content"].as_str().unwrap_or(""));
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let at = call["index"].as_u64().unwrap() as usize;
            if calls.len() == at {
                let name = call["function"]["name"].as_str().unwrap().to_owned();
                assert_eq!(call["type"], "function");
                calls.push((call["id"].as_str().unwrap().to_owned(), name, String::new()));
            }
            calls[at].2.push_str(call["function"]["arguments"].as_str().unwrap());
        }
    }
    (text, thoughts, calls)
}

fn tools() -> Value {
    let tool = |name: &str, fields: Value| {
        json!({ "type": "function", "function": { "name": name, "description": name,
            "parameters": { "type": "object", "properties": fields } } })
    };
    json!([
        tool("get_weather", json!({ "city": { "type": "string" } })),
        tool("add", json!({ "a": { "type": "integer" }, "b": { "type": "integer" } })),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_once_and_in_pieces_is_the_same() {
    let server = server();
    for (ask, more) in [
        ("What is 17 + 25?", json!({})),
        ("What is the capital of Norway?", json!({ "enable_thinking": true })),
        ("Tell me a story.", json!({ "max_tokens": 40, "temperature": 0.8, "seed": 7 })),
    ] {
        let request = with(question(ask), more);
        let whole = post(&server, CHAT, request.clone()).await;
        assert_eq!(whole.status, 200, "{}", whole.body);
        let whole = whole.json();
        let stream = with(request, json!({ "stream": true, "stream_options": { "include_usage": true } }));
        let pieces = post(&server, CHAT, stream).await;
        assert_eq!(pieces.headers["content-type"], "text/event-stream");
        let events = pieces.events();
        let message = &whole["choices"][0]["message"];
        let (text, thoughts, calls) = joined(&events, 0);
        assert_eq!(message["content"], text);
        assert_eq!(message["reasoning_content"].as_str().unwrap_or(""), thoughts);
        assert!(calls.is_empty());
        let (usage, last) = (events.last().unwrap(), &events[events.len() - 2]);
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(usage["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
        assert_eq!(usage["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
        assert_eq!(last["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"]);
        assert!(events.len() > 5, "it came in pieces");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_knows_sums_and_thinks_when_asked() {
    let server = server();
    let answer = post(&server, CHAT, question("What is 17 + 25?")).await.json();
    assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains("42"), "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["object"], "chat.completion");
    let request = with(question("What is 17 + 25?"), json!({ "reasoning_effort": "low" }));
    let answer = post(&server, CHAT, request).await.json();
    let message = &answer["choices"][0]["message"];
    assert!(!message["reasoning_content"].as_str().unwrap().is_empty(), "{answer}");
    assert!(!message["content"].as_str().unwrap().contains("think>"), "{answer}");
    assert!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_read_once() {
    let server = server();
    let first = post(&server, CHAT, question("What is 2 + 2?")).await.json();
    let text = first["choices"][0]["message"]["content"].as_str().unwrap();
    let request = json!({ "temperature": 0, "messages": [
        { "role": "user", "content": "What is 2 + 2?" },
        { "role": "assistant", "content": text },
        { "role": "user", "content": [{ "type": "text", "text": "What is 3 + 3?" }] },
    ] });
    let second = post(&server, CHAT, request).await.json();
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached > 0, "{second}");
    let metrics = get(&server, "/metrics").await.body;
    let counted = format!("moeflux_tokens_cached_total{{model=\"demo\"}} {cached}");
    assert!(metrics.contains(&counted), "{counted} in {metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_have_seeds_that_count_on() {
    let server = server();
    let request =
        with(question("Tell me a story."), json!({ "max_tokens": 20, "temperature": 1, "seed": 3 }));
    let together = post(&server, CHAT, with(request.clone(), json!({ "n": 3 }))).await.json();
    for index in 0..3 {
        let alone = post(&server, CHAT, with(request.clone(), json!({ "seed": 3 + index }))).await.json();
        let choice = &together["choices"][index];
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], alone["choices"][0]["message"]["content"]);
    }
    let stream = post(&server, CHAT, with(request, json!({ "n": 3, "stream": true }))).await.events();
    for index in 0..3 {
        assert_eq!(together["choices"][index as usize]["message"]["content"], joined(&stream, index).0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_texts_limits_and_logprobs() {
    let server = server();
    let story = question("Tell me a story about a fox.");
    let whole = post(&server, CHAT, story.clone()).await.json();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let (before, _) = text.split_once(". ").unwrap();
    let stopped = post(&server, CHAT, with(story.clone(), json!({ "stop": ". " }))).await.json();
    assert_eq!(stopped["choices"][0]["message"]["content"], before);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let cut = with(story, json!({ "max_completion_tokens": 5, "logprobs": true, "top_logprobs": 2 }));
    let cut = post(&server, CHAT, cut).await.json();
    let choice = &cut["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(cut["usage"]["completion_tokens"], 5);
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(tokens.len(), 5);
    let mut said = String::new();
    for token in tokens {
        said.push_str(token["token"].as_str().unwrap());
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 2);
        // Greedily the likeliest is chosen.
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&token["token"], &token["logprob"]));
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
        let bytes: Vec<u8> = serde_json::from_value(token["bytes"].clone()).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), token["token"]);
    }
    assert_eq!(choice["message"]["content"], said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bias_forbids_and_a_seed_repeats() {
    let server = server();
    let free = with(question("What is the capital of Norway?"), json!({ "logprobs": true }));
    let free = post(&server, CHAT, free).await.json();
    let token = free["choices"][0]["logprobs"]["content"][0]["token"].as_str().unwrap().to_owned();
    let id = post(&server, "/tokenize", json!({ "text": token })).await.json()["tokens"][0].as_u64().unwrap();
    let mut bias = serde_json::Map::new();
    bias.insert(id.to_string(), json!(-100));
    let biased =
        with(question("What is the capital of Norway?"), json!({ "logit_bias": bias, "logprobs": true }));
    let biased = post(&server, CHAT, biased).await.json();
    assert_ne!(biased["choices"][0]["logprobs"]["content"][0]["token"], token);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_and_their_answers_taken() {
    let server = server();
    let ask = json!({ "role": "user", "content": "What is the weather in Paris?" });
    let request = json!({ "messages": [ask], "tools": tools(), "temperature": 0 });
    let first = post(&server, CHAT, request.clone()).await.json();
    let choice = &first["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{first}");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "get_weather");
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({ "city": "Paris" }));
    let stream = post(&server, CHAT, with(request.clone(), json!({ "stream": true }))).await.events();
    let (_, _, calls) = joined(&stream, 0);
    assert_eq!(calls.len(), 1);
    assert_eq!((&*calls[0].1, &json!(calls[0].2)), ("get_weather", &call["function"]["arguments"]));
    let told = json!({ "role": "tool", "tool_call_id": call["id"], "content": "{\"sky\": \"clear\", \"celsius\": 21}" });
    let request = with(request, json!({ "messages": [ask, choice["message"], told] }));
    let second = post(&server, CHAT, request).await.json();
    assert_eq!(second["choices"][0]["finish_reason"], "stop", "{second}");
    assert!(second["choices"][0]["message"]["content"].as_str().unwrap().contains("21"), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_of_tools_is_kept() {
    let server = server();
    let request = with(question("Hello."), json!({ "tools": tools() }));
    let named = json!({ "type": "function", "function": { "name": "add" } });
    let called = post(&server, CHAT, with(request.clone(), json!({ "tool_choice": named }))).await.json();
    let call = &called["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "add", "{called}");
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments.is_object());
    let required =
        post(&server, CHAT, with(request.clone(), json!({ "tool_choice": "required" }))).await.json();
    assert_eq!(required["choices"][0]["finish_reason"], "tool_calls", "{required}");
    let ask = with(
        request,
        json!({ "tool_choice": "none",
        "messages": [{ "role": "user", "content": "What is the weather in Paris?" }] }),
    );
    let none = post(&server, CHAT, ask).await.json();
    assert!(none["choices"][0]["message"].get("tool_calls").is_none(), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_format_that_was_asked_for() {
    let server = server();
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string", "maxLength": 12 },
        "age": { "type": "integer", "minimum": 0, "maximum": 120 } }, "required": ["name", "age"],
        "additionalProperties": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "person", "strict": true, "schema": schema } });
    for thinks in [false, true] {
        let request = with(
            question("Write a JSON object about a person."),
            json!({ "response_format": format, "enable_thinking": thinks, "max_tokens": 400 }),
        );
        let answer = post(&server, CHAT, request).await.json();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let person: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert!(person["name"].is_string() && person["age"].as_u64().unwrap() <= 120);
    }
    let request =
        with(question("Write a JSON object."), json!({ "response_format": { "type": "json_object" } }));
    let answer = post(&server, CHAT, request).await.json();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(text).unwrap().is_object());
}
