//! Fields that are not known: what would change the answer is refused by name, the rest is ignored and named.

use serde_json::{Value, json};

use crate::common::{Answer, post, question, server, with};

fn ignored(answer: &Answer) -> &str {
    answer.headers.get("x-moeflux-ignored").map_or("", |value| value.to_str().unwrap())
}

fn requests() -> [(&'static str, Value); 5] {
    let messages = json!([{ "role": "user", "content": "Hello" }]);
    [
        ("/v1/chat/completions", json!({ "model": "demo", "messages": messages, "max_tokens": 2 })),
        ("/v1/completions", json!({ "model": "demo", "prompt": "Hello", "max_tokens": 2 })),
        ("/v1/responses", json!({ "model": "demo", "input": "Hello", "max_output_tokens": 2 })),
        ("/v1/messages", json!({ "model": "demo", "messages": messages, "max_tokens": 2 })),
        (
            "/api/chat",
            json!({ "model": "demo", "messages": messages, "stream": false, "options": { "num_predict": 2 } }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_policy_for_all_routes() {
    let server = server();
    for (path, request) in requests() {
        let hint =
            post(&server, path, with(request.clone(), json!({ "new_hint": { "a": 1 }, "other": null })))
                .await;
        assert_eq!((hint.status.as_u16(), ignored(&hint)), (200, "new_hint"), "{path}: {}", hint.body);
        let nothing = json!({ "stop_token_ids": [], "logits_processors": null, "lora": "", "mirostat": 0 });
        let nothing = post(&server, path, with(request.clone(), nothing)).await;
        assert_eq!((nothing.status.as_u16(), ignored(&nothing)), (200, ""), "{path}: {}", nothing.body);
        let other = post(&server, path, with(request, json!({ "stop_token_ids": [5] }))).await;
        assert_eq!(other.status, 400, "{path}: {}", other.body);
        assert!(other.body.contains("stop_token_ids"), "{path}: {}", other.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_the_apis_have_are_accepted() {
    let server = server();
    let [chat, completion, response, messages, _] = requests();
    let cases = [
        (
            &chat,
            json!({ "prompt_cache_retention": "24h", "prediction": { "type": "content", "content": "x" } }),
        ),
        (&chat, json!({ "web_search_options": {}, "audio": null, "functions": null, "moderation": null })),
        (&chat, json!({ "store": true, "thinking": { "type": "disabled" }, "cache_prompt": true })),
        (
            &chat,
            json!({ "reasoning_effort": "max", "reasoning": { "effort": "low" }, "skip_special_tokens": true }),
        ),
        (&chat, json!({ "max_tokens": 2, "top_k": -1, "repeat_penalty": 1.1, "user": { "name": "Ann" } })),
        (&completion, json!({ "service_tier": "auto", "metadata": { "a": "b" } })),
        (&response, json!({ "top_logprobs": 0, "max_tool_calls": 3, "conversation": null, "prompt": null })),
        (&response, json!({ "truncation": "auto", "context_management": [{ "type": "compaction" }] })),
        (
            &response,
            json!({ "client_metadata": { "a": "b" }, "include": ["web_search_call.action.sources"] }),
        ),
        (&messages, json!({ "container": "c", "inference_geo": "eu", "speed": "fast", "diagnostics": {} })),
        (
            &messages,
            json!({ "mcp_servers": [], "user_profile_id": "u", "workspace_id": "w", "betas": ["x"] }),
        ),
        (
            &messages,
            json!({ "thread": { "type": "create" }, "output_config": { "task_budget": { "total": 5 } } }),
        ),
        (&messages, json!({ "thinking": { "type": "adaptive", "display": "summarized" } })),
    ];
    for ((path, request), more) in cases {
        let answer = post(&server, path, with(request.clone(), more.clone())).await;
        assert_eq!(answer.status, 200, "{path} {more}: {}", answer.body);
    }
    let embeddings = json!({ "model": "demo", "input": "Hello", "input_type": "query" });
    let answer = post(&server, "/v1/embeddings", embeddings).await;
    assert_eq!((answer.status.as_u16(), ignored(&answer)), (200, "input_type"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_would_change_the_answer_are_refused_by_name() {
    let server = server();
    let [chat, _, response, messages, ollama] = requests();
    for ((path, request), more, name) in [
        (&chat, json!({ "functions": [{ "name": "f" }] }), "functions"),
        (&chat, json!({ "chat_template": "{{ x }}" }), "chat_template"),
        (&chat, json!({ "structured_outputs": { "grammar": "root ::= x" } }), "structured_outputs.grammar"),
        (&chat, json!({ "top_k": -2 }), "top_k"),
        (&chat, json!({ "max_tokens": -2 }), "max_tokens"),
        (&response, json!({ "prompt": { "id": "p" } }), "prompt"),
        (&response, json!({ "conversation": "c" }), "conversation"),
        (&response, json!({ "truncation": "middle" }), "truncation"),
        (&messages, json!({ "top_a": 0.5 }), "top_a"),
        (&ollama, json!({ "options": { "mirostat": 2 } }), "options.mirostat"),
    ] {
        let answer = post(&server, path, with(request.clone(), more.clone())).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.body);
        assert!(answer.body.contains(&format!("{name}: ")), "{name} in {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_come_in_many_forms() {
    let server = server();
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"],
        "additionalProperties": false });
    for more in [
        json!({ "response_format": { "type": "json_object", "schema": schema } }),
        json!({ "guided_json": schema }),
        json!({ "json_schema": schema }),
        json!({ "structured_outputs": { "json": schema } }),
    ] {
        let request = with(question("Give me a number."), with(json!({ "max_tokens": 200 }), more.clone()));
        let answer = post(&server, "/v1/chat/completions", request).await;
        assert_eq!(answer.status, 200, "{more}: {}", answer.body);
        let answer = answer.json();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(value["n"].is_i64() && value.as_object().unwrap().len() == 1, "{more}: {text}");
    }
    for more in [json!({ "guided_choice": ["yes", "no"] }), json!({ "guided_regex": "(yes|no)" })] {
        let answer =
            post(&server, "/v1/chat/completions", with(question("Is it?"), more.clone())).await.json();
        let text = &answer["choices"][0]["message"]["content"];
        assert!(text == "yes" || text == "no", "{more}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_of_services_are_left_out_and_custom_tools_take_text() {
    let server = server();
    let custom = json!({ "name": "note", "description": "Writes a note.",
        "format": { "type": "grammar", "grammar": { "syntax": "regex", "definition": "[a-z]{3}" } } });
    let request = with(
        question("Write a note."),
        json!({ "tools": [{ "type": "custom", "custom": custom }, { "type": "web_search" }],
            "tool_choice": { "type": "custom", "custom": { "name": "note" } }, "max_tokens": 100 }),
    );
    let answer = post(&server, "/v1/chat/completions", request.clone()).await;
    assert_eq!((answer.status.as_u16(), ignored(&answer)), (200, "tools[].web_search"), "{}", answer.body);
    let call = answer.json()["choices"][0]["message"]["tool_calls"][0].clone();
    assert_eq!((&call["type"], &call["custom"]["name"]), (&json!("custom"), &json!("note")), "{call}");
    let input = call["custom"]["input"].as_str().unwrap().to_owned();
    let events =
        post(&server, "/v1/chat/completions", with(request, json!({ "stream": true }))).await.events();
    let pieces = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"][0]["custom"]["input"].as_str());
    assert_eq!(pieces.collect::<String>(), input);
    // The same through responses, and back.
    let format = json!({ "type": "grammar", "syntax": "regex", "definition": "[a-z]{3}" });
    let tool = json!({ "type": "custom", "name": "note", "description": "Writes a note.", "format": format });
    let request = json!({ "model": "demo", "temperature": 0, "input": "Write a note.", "max_output_tokens": 100,
        "tools": [tool], "tool_choice": "required" });
    let answer = post(&server, "/v1/responses", request.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let item = answer.json()["output"][0].clone();
    assert_eq!(
        (&item["type"], &item["input"]),
        (&json!("custom_tool_call"), &json!(call["custom"]["input"])),
        "{item}"
    );
    let streamed = post(&server, "/v1/responses", with(request.clone(), json!({ "stream": true }))).await;
    assert!(streamed.body.contains("response.custom_tool_call_input.done"), "{}", streamed.body);
    let output = json!({ "type": "custom_tool_call_output", "call_id": item["call_id"], "output": "Done." });
    let input = json!([{ "role": "user", "content": "Write a note." }, item, output]);
    let more = json!({ "input": input, "tool_choice": "auto" });
    let answer = post(&server, "/v1/responses", with(request, more)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // Allowed tools leave only those.
    let function = |name: &str| json!({ "type": "function", "function": { "name": name, "parameters": {} } });
    let allowed = json!({ "type": "allowed_tools", "allowed_tools": { "mode": "required",
        "tools": [{ "type": "function", "function": { "name": "second" } }] } });
    let more = json!({ "tools": [function("first"), function("second")], "tool_choice": allowed, "max_tokens": 100 });
    let answer = post(&server, "/v1/chat/completions", with(question("Go."), more)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let call = &answer.json()["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "second", "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tools_with_long_names() {
    let server = server();
    let tool = |name: String| json!({ "name": name, "input_schema": { "type": "object" } });
    let tools: Vec<Value> =
        (0..130).map(|index| tool(format!("t{index}"))).chain([tool("n".repeat(128))]).collect();
    let request = json!({ "model": "demo", "max_tokens": 2, "tools": tools,
        "messages": [{ "role": "user", "content": "Hello" }] });
    let answer = post(&server, "/v1/messages", request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}
