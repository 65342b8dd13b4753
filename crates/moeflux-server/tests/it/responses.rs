//! OpenAI's responses API.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use moeflux_server::{Config, router};
use serde_json::{Value, json};

use crate::common::{Answer, app, ask, get, post, send, server, with};

const RESPONSES: &str = "/v1/responses";

fn says(text: &str) -> Value {
    json!({ "model": "demo", "input": text, "temperature": 0 })
}

/// The text of a response's message.
fn text(response: &Value) -> &str {
    let output = response["output"].as_array().unwrap();
    let message = output.iter().find(|item| item["type"] == "message");
    message.and_then(|item| item["content"][0]["text"].as_str()).unwrap_or("")
}

pub(crate) fn events(answer: &Answer) -> Vec<Value> {
    let data = answer.body.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    assert!(
        events.iter().enumerate().all(|(number, event)| event["sequence_number"] == number),
        "{events:?}"
    );
    events
}

#[tokio::test]
async fn a_stream_says_what_the_whole_says() {
    let server = server();
    let number = json!({ "type": "integer" });
    let schema = json!({ "type": "object", "properties": { "a": number, "b": number } });
    let add = json!([{ "type": "function", "name": "add", "description": "Add two numbers", "parameters": schema }]);
    for (request, kinds) in [
        (says("What is 17 + 25?"), &["message"][..]),
        (
            with(says("What is 63 - 28?"), json!({ "reasoning": { "effort": "high" } })),
            &["reasoning", "message"],
        ),
        (with(says("What is 4711 + 289?"), json!({ "tools": add })), &["function_call"]),
        (with(says("Tell me a story."), json!({ "max_output_tokens": 8 })), &["message"]),
    ] {
        let whole = post(&server, RESPONSES, request.clone()).await;
        assert_eq!(whole.status, StatusCode::OK, "{}", whole.body);
        let whole = whole.json();
        let events = events(&post(&server, RESPONSES, with(request, json!({ "stream": true }))).await);
        let last = events.last().unwrap();
        let streamed = &last["response"];
        assert_eq!(last["type"], format!("response.{}", whole["status"].as_str().unwrap()));
        // Names apart, which every response has anew.
        let bare = |response: &Value| {
            let mut output = response["output"].clone();
            for item in output.as_array_mut().unwrap() {
                item.as_object_mut().unwrap().retain(|key, _| key != "id" && key != "call_id");
            }
            output
        };
        assert_eq!(bare(streamed), bare(&whole));
        let types: Vec<&str> =
            whole["output"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect();
        assert_eq!(types, kinds);
        for (index, item) in streamed["output"].as_array().unwrap().iter().enumerate() {
            let of = |kind: &str| {
                events
                    .iter()
                    .filter(|event| event["type"] == kind && event["output_index"] == index)
                    .collect::<Vec<_>>()
            };
            let [done] = of("response.output_item.done")[..] else { panic!() };
            assert_eq!(&done["item"], item);
            assert_eq!(of("response.output_item.added").len(), 1);
            let (delta, said) = match item["type"].as_str().unwrap() {
                "reasoning" => ("response.reasoning_text.delta", &item["content"][0]["text"]),
                "message" => ("response.output_text.delta", &item["content"][0]["text"]),
                _ => ("response.function_call_arguments.delta", &item["arguments"]),
            };
            let deltas: String = of(delta).iter().map(|event| event["delta"].as_str().unwrap()).collect();
            assert_eq!(deltas, said.as_str().unwrap());
        }
    }
}

#[tokio::test]
async fn a_conversation_goes_on() {
    let server = server();
    let first = post(&server, RESPONSES, says("What is the capital of Norway?")).await.json();
    assert_eq!(text(&first), "The capital of Norway is Oslo.");
    let id = first["id"].as_str().unwrap();
    let on = json!({ "previous_response_id": id });
    let second = post(&server, RESPONSES, with(says("What is 17 + 25?"), on.clone())).await.json();
    // The same conversation, all of it said at once.
    let all = json!([
        { "role": "user", "content": "What is the capital of Norway?" },
        { "role": "assistant", "content": [{ "type": "output_text", "text": text(&first) }] },
        { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "What is 17 + 25?" }] },
    ]);
    let whole =
        post(&server, RESPONSES, with(says(""), json!({ "input": all, "store": false }))).await.json();
    assert_eq!(text(&second), text(&whole));
    assert_eq!(second["usage"]["input_tokens"], whole["usage"]["input_tokens"]);
    // What is not to be kept is not.
    let path = |response: &Value| format!("{RESPONSES}/{}", response["id"].as_str().unwrap());
    assert_eq!(get(&server, &path(&whole)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&server, &path(&first)).await.json(), first);
    assert_eq!(ask(&server, Method::DELETE, &path(&first)).await.json()["deleted"], true);
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(ask(&server, method, &path(&first)).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(post(&server, RESPONSES, with(says("Hello"), on)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&server, &path(&second)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_response_is_its_keys_alone() {
    let config = Config { keys: vec!["one".to_owned(), "two".to_owned()], ..Config::default() };
    let server = router(app(config));
    let asks = async |server: &Router, key: &str, method: Method, path: &str, body: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"));
        let request = request.header(header::CONTENT_TYPE, "application/json");
        send(server, request.body(Body::from(body.to_owned())).unwrap()).await
    };
    let made = asks(&server, "one", Method::POST, RESPONSES, &says("Hello").to_string()).await.json();
    let id = made["id"].as_str().unwrap();
    let path = format!("{RESPONSES}/{id}");
    let on = with(says("Hello"), json!({ "previous_response_id": id })).to_string();
    assert_eq!(asks(&server, "two", Method::GET, &path, "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(asks(&server, "two", Method::DELETE, &path, "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(asks(&server, "two", Method::POST, RESPONSES, &on).await.status, StatusCode::NOT_FOUND);
    assert_eq!(asks(&server, "one", Method::POST, RESPONSES, &on).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_clients_mistake_names_the_field() {
    let server = server();
    for (more, param) in [
        (json!({ "background": true, "store": false }), "background"),
        (json!({ "max_output_tokens": 0 }), "max_output_tokens"),
        (json!({ "truncation": "middle" }), "truncation"),
        (json!({ "tools": [{ "type": "telepathy" }] }), "tools[0]"),
        (json!({ "tool_choice": { "type": "web_search" } }), "tool_choice"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "text": { "format": { "type": "json_schema", "name": "a" } } }), "text.format"),
        (json!({ "input": [{ "type": "item_reference", "id": "a" }] }), "input[0]"),
        (json!({ "input": [{ "role": "user", "content": [{ "type": "input_image" }] }] }), "input[0]"),
        (json!({ "input": [{ "type": "function_call_output", "call_id": "a", "output": "b" }] }), "input[0]"),
        (json!({ "conversation": "a" }), "conversation"),
    ] {
        let answer = post(&server, RESPONSES, with(says("Hello"), more.clone())).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (StatusCode::BAD_REQUEST, &json!(param)),
            "{more}"
        );
    }
}
