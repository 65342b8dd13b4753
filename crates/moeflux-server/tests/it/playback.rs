//! Conversations as clients play them back, answers that continue, and stop texts.

use axum::Router;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{ask, get, post, question, server, with};

const CHAT: &str = "/v1/chat/completions";

async fn prompt(server: &Router, messages: Value) -> String {
    let answer = post(server, "/apply-template", json!({ "messages": messages })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["prompt"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_content_in_all_its_forms_is_one_prompt() {
    let server = server();
    let call =
        json!({ "id": "c1", "type": "function", "function": { "name": "add", "arguments": "{\"a\": 1}" } });
    let said = |more: Value| {
        let said = with(json!({ "role": "assistant", "tool_calls": [call] }), more);
        json!([{ "role": "user", "content": "W?" }, said, { "role": "tool", "tool_call_id": "c1", "content": "ok" }])
    };
    let expected = prompt(&server, said(json!({ "content": "" }))).await;
    assert!(expected.contains("<function=add>"), "{expected}");
    for more in [
        json!({}),
        json!({ "content": null }),
        json!({ "content": [] }),
        json!({ "content": null, "refusal": null, "function_call": null, "audio": null, "annotations": [] }),
    ] {
        let found = prompt(&server, said(more.clone())).await;
        assert_eq!(found, expected, "{more}");
        assert!(!found.contains("None") && !found.contains("null"), "{found}");
    }
    // A refusal is text, wherever it is.
    let refused = |said: Value| json!([{ "role": "user", "content": "W?" }, said, { "role": "user", "content": "Why?" }]);
    let expected = prompt(&server, refused(json!({ "role": "assistant", "content": "No." }))).await;
    for said in [
        json!({ "role": "assistant", "content": [{ "type": "refusal", "refusal": "No." }] }),
        json!({ "role": "assistant", "content": null, "refusal": "No." }),
    ] {
        assert_eq!(prompt(&server, refused(said)).await, expected);
    }
    // A tool's result may be nothing.
    for content in [json!(null), json!("")] {
        let mut messages = said(json!({}));
        messages[2]["content"] = content;
        let found = prompt(&server, messages).await;
        assert!(!found.contains("None"), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begun_answer_is_continued() {
    let server = server();
    let whole = post(&server, CHAT, question("What is the capital of Norway?")).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "The capital of Norway is Oslo.");
    let user = json!({ "role": "user", "content": "What is the capital of Norway?" });
    let begun = json!([user, { "role": "assistant", "content": "The capital of Norway" }]);
    let prefix = json!([user, { "role": "assistant", "content": "The capital of Norway", "prefix": true }]);
    for (messages, more) in [
        (&begun, json!({})),
        (&begun, json!({ "continue_final_message": true, "add_generation_prompt": false })),
        (&prefix, json!({})),
    ] {
        let request = with(json!({ "messages": messages, "temperature": 0 }), more.clone());
        let answer = post(&server, CHAT, request).await.json();
        assert_eq!(answer["choices"][0]["message"]["content"], " is Oslo.", "{more}");
    }
    let messages = json!({ "model": "demo", "max_tokens": 20, "temperature": 0, "messages": begun });
    let answer = post(&server, "/v1/messages", messages).await.json();
    assert_eq!(answer["content"][0]["text"], " is Oslo.");
    let anew = json!({ "messages": begun, "add_generation_prompt": true });
    let rendered = post(&server, "/apply-template", anew).await.json();
    assert!(
        rendered["prompt"].as_str().unwrap().contains("Norway<|im_end|>\n<|im_start|>assistant\n"),
        "{rendered}"
    );
    let closed = json!({ "messages": [user], "add_generation_prompt": false });
    let rendered = post(&server, "/apply-template", closed).await.json();
    assert!(rendered["prompt"].as_str().unwrap().ends_with("Norway?<|im_end|>\n"), "{rendered}");
    let wrong = with(question("x"), json!({ "continue_final_message": true }));
    assert_eq!(post(&server, CHAT, wrong).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_texts_are_looked_for_in_the_answer_alone() {
    let server = server();
    let request = with(question("What is 63 - 28?"), json!({ "enable_thinking": true }));
    let whole = post(&server, CHAT, request.clone()).await.json();
    let message = &whole["choices"][0]["message"];
    let (thoughts, text) =
        (message["reasoning_content"].as_str().unwrap(), message["content"].as_str().unwrap());
    // A text that the thoughts and the answer have.
    assert!(thoughts.contains('.') && text.ends_with("35."), "{whole}");
    let stopped = with(request, json!({ "stop": ["."] }));
    let answer = post(&server, CHAT, stopped.clone()).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["reasoning_content"].as_str().unwrap(), thoughts);
    assert_eq!(message["content"].as_str().unwrap(), text.split_once('.').unwrap().0);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let tokens = |answer: &Value| answer["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(tokens(&answer) < tokens(&whole));
    let events = post(&server, CHAT, with(stopped, json!({ "stream": true }))).await.events();
    let pieces = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert_eq!(pieces.collect::<String>(), text.split_once('.').unwrap().0);
    // The markup of a call is no answer either.
    let number = json!({ "type": "integer" });
    let schema = json!({ "type": "object", "properties": { "a": number, "b": number } });
    let add = json!({ "type": "function", "function": { "name": "add", "description": "Add two numbers", "parameters": schema } });
    let request =
        with(question("What is 4711 + 289?"), json!({ "tools": [add], "stop": ["\n", "function"] }));
    let answer = post(&server, CHAT, request).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "{answer}");
    let thinks = json!({ "model": "demo", "max_tokens": 100, "temperature": 0, "stop_sequences": ["."],
        "thinking": { "type": "enabled", "budget_tokens": 90 }, "messages": [{ "role": "user", "content": "What is 63 - 28?" }] });
    let answer = post(&server, "/v1/messages", thinks).await.json();
    assert_eq!(
        (&answer["stop_reason"], &answer["stop_sequence"]),
        (&json!("stop_sequence"), &json!(".")),
        "{answer}"
    );
    assert!(answer["content"][0]["thinking"].as_str().unwrap().contains('.'), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn system_messages_anywhere_and_texts_in_blocks() {
    let server = server();
    let blocks = json!([
        { "type": "document", "source": { "type": "text", "media_type": "text/plain", "data": "Oslo is in Norway." },
          "title": "Cities" },
        { "type": "search_result", "source": "https://a.example", "title": "Rome", "content": [{ "type": "text", "text": "Rome is in Italy." }] },
        { "type": "text", "text": "Hello" },
    ]);
    let request = json!({ "model": "demo", "max_tokens": 4, "system": "Be brief.", "messages": [
        { "role": "user", "content": blocks }, { "role": "assistant", "content": "Hi." },
        { "role": "system", "content": "The file changed." }, { "role": "user", "content": "Go on." },
    ] });
    let answer = post(&server, "/v1/messages", request.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let counted = post(&server, "/v1/messages/count_tokens", without(&request, "max_tokens")).await.json();
    let mut shorter = without(&request, "max_tokens");
    shorter["messages"].as_array_mut().unwrap().remove(2);
    let shorter = post(&server, "/v1/messages/count_tokens", shorter).await.json();
    assert!(
        counted["input_tokens"].as_u64() > shorter["input_tokens"].as_u64(),
        "the system message is there"
    );
    let picture = json!([{ "type": "document", "source": { "type": "base64", "media_type": "application/pdf", "data": "" } }]);
    let refused =
        json!({ "model": "demo", "max_tokens": 4, "messages": [{ "role": "user", "content": picture }] });
    let refused = post(&server, "/v1/messages", refused).await;
    assert!(refused.status == 400 && refused.body.contains("reads text only"), "{}", refused.body);
    let long = json!({ "model": "demo", "max_tokens": 4, "messages": [{ "role": "user", "content": "fox ".repeat(40_000) }] });
    let long = post(&server, "/v1/messages", long).await.json();
    assert!(long["error"]["message"].as_str().unwrap().contains("prompt is too long: "), "{long}");
}

fn without(request: &Value, field: &str) -> Value {
    let mut request = request.clone();
    request.as_object_mut().unwrap().remove(field);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_responses_can_be_read_in_every_way() {
    let server = server();
    let request = json!({ "model": "demo", "input": "What is 63 - 28?", "temperature": 0,
        "reasoning": { "effort": "high", "summary": "auto" }, "include": ["reasoning.encrypted_content"] });
    let made = post(&server, "/v1/responses", request.clone()).await.json();
    let reasoning = &made["output"][0];
    assert_eq!(reasoning["summary"][0]["type"], "summary_text", "{made}");
    assert!(reasoning["encrypted_content"].is_string());
    for field in [
        "completed_at",
        "presence_penalty",
        "frequency_penalty",
        "top_logprobs",
        "service_tier",
        "temperature",
        "top_p",
    ] {
        assert!(!made[field].is_null(), "{field}: {made}");
    }
    for field in ["max_tool_calls", "safety_identifier", "prompt_cache_key"] {
        assert!(made.get(field).is_some(), "{field}: {made}");
    }
    let id = made["id"].as_str().unwrap();
    let data = |body: &str| -> Vec<Value> {
        let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.map(|data| serde_json::from_str(data).unwrap()).collect()
    };
    let replayed = data(&get(&server, &format!("/v1/responses/{id}?stream=true")).await.body);
    assert_eq!(replayed.last().unwrap()["response"], made);
    let kinds = |events: &[Value]| -> Vec<String> {
        let mut kinds: Vec<String> =
            events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
        kinds.dedup();
        kinds
    };
    let streamed = data(&post(&server, "/v1/responses", with(request, json!({ "stream": true }))).await.body);
    assert_eq!(kinds(&replayed), kinds(&streamed));
    assert!(kinds(&streamed).contains(&"response.reasoning_summary_text.delta".to_owned()));
    let rest = data(&get(&server, &format!("/v1/responses/{id}?stream=true&starting_after=3")).await.body);
    assert_eq!(rest[..], replayed[4..]);
    let items = get(&server, &format!("/v1/responses/{id}/input_items")).await.json();
    assert_eq!(items["data"][0]["content"], "What is 63 - 28?");
    // Reasoning that only this server can read goes back to the model.
    let count = |input: Value| {
        let server = server.clone();
        async move {
            let answer =
                post(&server, "/v1/responses/input_tokens", json!({ "model": "demo", "input": input })).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            answer.json()["input_tokens"].as_u64().unwrap()
        }
    };
    let user = |text: &str| json!({ "role": "user", "content": text });
    let encoded =
        json!({ "type": "reasoning", "summary": [], "encrypted_content": reasoning["encrypted_content"] });
    let plain = json!({ "type": "reasoning", "summary": reasoning["summary"] });
    let (first, message) = (user("What is 63 - 28?"), &made["output"][1]);
    let by_code = count(json!([first, encoded, message])).await;
    assert_eq!(by_code, count(json!([first, plain, message])).await);
    let missing = json!({ "model": "demo", "input": [{ "type": "item_reference", "id": "msg_0" }] });
    let missing = post(&server, "/v1/responses", missing).await;
    assert!(missing.status == 400 && missing.body.contains("msg_0"), "{}", missing.body);
    let compact = json!({ "model": "demo", "input": [first, message], "max_output_tokens": 20 });
    let compact = post(&server, "/v1/responses/compact", compact).await;
    assert_eq!(compact.status, 200, "{}", compact.body);
    let next = json!([compact.json()["output"][0], user("Go on.")]);
    assert!(count(next).await > count(json!([user("Go on.")])).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_made_in_the_background() {
    let server = server();
    let request =
        json!({ "model": "demo", "input": "What is 17 + 25?", "temperature": 0, "background": true });
    let begun = post(&server, "/v1/responses", request.clone()).await.json();
    assert_eq!(begun["status"], "queued", "{begun}");
    let path = format!("/v1/responses/{}", begun["id"].as_str().unwrap());
    let mut now = get(&server, &path).await.json();
    while now["status"] == "queued" {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        now = get(&server, &path).await.json();
    }
    assert_eq!(now["status"], "completed", "{now}");
    assert!(now["output"][0]["content"][0]["text"].as_str().unwrap().contains("42"));
    let long = with(request.clone(), json!({ "input": "Tell me a long story.", "temperature": 1 }));
    let begun = post(&server, "/v1/responses", long).await.json();
    let path = format!("/v1/responses/{}", begun["id"].as_str().unwrap());
    let ended = ask(&server, Method::POST, &format!("{path}/cancel")).await.json();
    assert_eq!(ended["status"], "cancelled", "{ended}");
    assert_eq!(get(&server, &path).await.json()["status"], "cancelled");
    let unstored = post(&server, "/v1/responses", with(request, json!({ "store": false }))).await;
    assert_eq!(unstored.status, 400);
}
