//! Ollama's API.

use serde_json::{Value, json};

use crate::common::{get, post, question, server, with};

fn lines(body: &str) -> Vec<Value> {
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_says_what_openais_api_says() {
    let server = server();
    let expected = post(&server, "/v1/chat/completions", question("What is 17 + 25?")).await.json();
    let expected = &expected["choices"][0]["message"]["content"];
    let request = json!({ "model": "demo:latest", "messages": [{ "role": "user", "content": "What is 17 + 25?" }],
        "options": { "temperature": 0 } });
    let stream = post(&server, "/api/chat", request.clone()).await;
    assert_eq!(stream.headers["content-type"], "application/x-ndjson");
    let stream = lines(&stream.body);
    let text: String = stream.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(&json!(text), expected);
    let whole = post(&server, "/api/chat", with(request, json!({ "stream": false }))).await.json();
    assert_eq!(&whole["message"]["content"], expected);
    for last in [stream.last().unwrap(), &whole] {
        assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
        assert_eq!(last["model"], "demo:latest");
        assert!(last["created_at"].as_str().unwrap().ends_with('Z'));
        for count in ["total_duration", "prompt_eval_count", "eval_count", "eval_duration"] {
            assert!(last[count].as_u64().unwrap() > 0, "{count}: {last}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thoughts_formats_and_prompts() {
    let server = server();
    let ask = json!({ "model": "demo", "stream": false, "options": { "temperature": 0 } });
    let chat = json!({ "messages": [{ "role": "user", "content": "What is 63 - 28?" }], "think": true });
    let answer = post(&server, "/api/chat", with(ask.clone(), chat)).await.json();
    assert!(!answer["message"]["thinking"].as_str().unwrap().is_empty(), "{answer}");
    let answer =
        post(&server, "/api/generate", with(ask.clone(), json!({ "prompt": "What is 17 + 25?" }))).await;
    assert!(answer.json()["response"].as_str().unwrap().contains("42"), "{}", answer.body);
    let raw =
        json!({ "prompt": "The capital of", "raw": true, "options": { "num_predict": 3, "temperature": 0 } });
    let raw = post(&server, "/api/generate", with(ask.clone(), raw)).await.json();
    let text = json!({ "model": "demo", "prompt": "The capital of", "max_tokens": 3, "temperature": 0 });
    let text = post(&server, "/v1/completions", text).await.json();
    assert_eq!(raw["response"], text["choices"][0]["text"]);
    assert_eq!((&raw["done_reason"], &raw["eval_count"]), (&json!("length"), &json!(3)));
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] });
    let format = json!({ "prompt": "Give me a number.", "format": schema });
    let answer = post(&server, "/api/generate", with(ask.clone(), format)).await.json();
    let value: Value = serde_json::from_str(answer["response"].as_str().unwrap()).unwrap();
    assert!(value["n"].is_i64(), "{answer}");
    let loaded = post(&server, "/api/generate", json!({ "model": "demo" })).await.json();
    assert_eq!(loaded["done_reason"], "load");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_embeddings() {
    let server = server();
    let shown = post(&server, "/api/show", json!({ "model": "demo" })).await.json();
    let architecture = shown["model_info"]["general.architecture"].as_str().unwrap();
    assert_eq!(shown["model_info"][format!("{architecture}.context_length")], 32768, "{shown}");
    let capabilities = shown["capabilities"].as_array().unwrap();
    for capability in ["completion", "tools", "thinking"] {
        assert!(capabilities.contains(&json!(capability)), "{shown}");
    }
    let tags = get(&server, "/api/tags").await.json();
    assert_eq!(tags["models"][0]["name"], "demo");
    assert!(tags["models"][0]["size"].as_u64().unwrap() > 0);
    assert_eq!(get(&server, "/api/ps").await.json()["models"][0]["model"], "demo");
    assert!(get(&server, "/api/version").await.json()["version"].is_string());
    let expected = post(&server, "/v1/embeddings", json!({ "input": ["a b", "c"] })).await.json();
    let found = post(&server, "/api/embed", json!({ "model": "demo", "input": ["a b", "c"] })).await.json();
    for index in 0..2 {
        assert_eq!(found["embeddings"][index], expected["data"][index]["embedding"]);
    }
    let one = post(&server, "/api/embeddings", json!({ "model": "demo", "prompt": "c" })).await.json();
    assert_eq!(one["embedding"], expected["data"][1]["embedding"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_in_its_form() {
    let server = server();
    assert_eq!(post(&server, "/api/pull", json!({ "model": "demo" })).await.json()["status"], "success");
    for (path, body, status, words) in [
        ("/api/pull", json!({ "model": "other" }), 404, "moeflux pull"),
        ("/api/chat", json!({ "model": "other", "messages": [] }), 404, "other"),
        (
            "/api/chat",
            json!({ "messages": [{ "role": "user", "content": "x", "images": ["aGk="] }] }),
            400,
            "text only",
        ),
        ("/api/generate", json!({ "prompt": "x", "suffix": "y" }), 400, "suffix"),
        ("/api/generate", json!({ "prompt": "x", "context": [1, 2] }), 400, "context"),
        ("/api/generate", json!({ "prompt": "x", "think": "colossal" }), 400, "think"),
        (
            "/api/chat",
            json!({ "messages": [{ "role": "user", "content": "x" }], "format": "xml" }),
            400,
            "format",
        ),
    ] {
        let answer = post(&server, path, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.body);
        assert!(answer.json()["error"].as_str().unwrap().contains(words), "{body}: {}", answer.body);
    }
}
