//! Texts gone on with, and embeddings.

use serde_json::{Value, json};

use crate::common::{get, post, server, with};

const COMPLETIONS: &str = "/v1/completions";

fn once() -> Value {
    json!({ "model": "demo", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 8 })
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_tokens_alone_and_in_batches_are_the_same() {
    let server = server();
    let alone = post(&server, COMPLETIONS, once()).await.json();
    let text = &alone["choices"][0]["text"];
    assert!(!text.as_str().unwrap().is_empty());
    assert_eq!(alone["choices"][0]["finish_reason"], "length");
    let tokens =
        post(&server, "/tokenize", json!({ "text": "Once upon a time" })).await.json()["tokens"].clone();
    for prompt in [json!(tokens), json!([tokens]), json!(["Once upon a time"])] {
        let same = post(&server, COMPLETIONS, with(once(), json!({ "prompt": prompt }))).await.json();
        assert_eq!(same["choices"][0]["text"], *text);
    }
    let other = post(&server, COMPLETIONS, with(once(), json!({ "prompt": "The fox" }))).await.json();
    let batch = json!({ "prompt": ["Once upon a time", "The fox"], "n": 2 });
    let batch = post(&server, COMPLETIONS, with(once(), batch)).await.json();
    let texts: Vec<&Value> = (0..4).map(|index| &batch["choices"][index]["text"]).collect();
    assert_eq!(texts, [text, text, &other["choices"][0]["text"], &other["choices"][0]["text"]]);
    let both =
        |field: &str| [&alone, &other].map(|one| one["usage"][field].as_u64().unwrap()).iter().sum::<u64>();
    assert_eq!(batch["usage"]["completion_tokens"], 2 * both("completion_tokens"));
    assert_eq!(batch["usage"]["prompt_tokens"], both("prompt_tokens"));
    let stream = post(&server, COMPLETIONS, with(once(), json!({ "stream": true }))).await.events();
    let joined: String = stream.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(joined, *text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_tells_what_the_model_made_of_the_prompt() {
    let server = server();
    let echo = json!({ "echo": true, "logprobs": 2, "max_tokens": 1 });
    let answer = post(&server, COMPLETIONS, with(once(), echo.clone())).await.json();
    let choice = &answer["choices"][0];
    assert!(choice["text"].as_str().unwrap().starts_with("Once upon a time"));
    let logprobs = &choice["logprobs"];
    let tokens: Vec<String> = serde_json::from_value(logprobs["tokens"].clone()).unwrap();
    assert_eq!(tokens.concat(), choice["text"]);
    let values = logprobs["token_logprobs"].as_array().unwrap();
    assert_eq!(values.len(), tokens.len());
    assert!(values[0].is_null() && logprobs["top_logprobs"][0].is_null());
    let mut offset = 0;
    for (index, token) in tokens.iter().enumerate() {
        assert_eq!(logprobs["text_offset"][index], offset);
        offset += token.chars().count();
        if index > 0 {
            let top = logprobs["top_logprobs"][index].as_object().unwrap();
            assert_eq!(top[token], values[index]);
            let most = top.values().map(|value| value.as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max);
            assert!(most >= values[index].as_f64().unwrap());
        }
    }
    // The same numbers as where the model was asked to write them.
    let prompt = json!({ "prompt": tokens[..tokens.len() - 1].concat(), "logprobs": 2, "max_tokens": 1 });
    let written = post(&server, COMPLETIONS, with(once(), prompt)).await.json();
    assert_eq!(written["choices"][0]["logprobs"]["token_logprobs"][0], values[tokens.len() - 1]);
    let stream =
        post(&server, COMPLETIONS, with(once(), with(echo, json!({ "stream": true })))).await.events();
    let joined: String = stream.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(joined, choice["text"]);
}

/// Clients that measure texts take the last token away, whichever it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_text_is_a_token_with_a_logprob() {
    let server = server();
    let prompt = "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n4<|im_end|>";
    let tokens =
        post(&server, "/tokenize", json!({ "text": prompt })).await.json()["count"].as_u64().unwrap();
    for max_tokens in [1, 8] {
        let request = json!({ "prompt": prompt.strip_suffix("<|im_end|>"), "echo": true, "logprobs": 1,
            "max_tokens": max_tokens });
        let answer = post(&server, COMPLETIONS, with(once(), request)).await.json();
        let choice = &answer["choices"][0];
        let told = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        assert_eq!(
            told.len() as u64,
            tokens - 1 + answer["usage"]["completion_tokens"].as_u64().unwrap(),
            "{choice}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_of_length_one_and_of_their_text() {
    let server = server();
    let request = json!({ "input": ["A fox.", "A dog.", "A fox."] });
    let answer = post(&server, "/v1/embeddings", request).await.json();
    let vector = |index: usize| -> Vec<f64> {
        serde_json::from_value(answer["data"][index]["embedding"].clone()).unwrap()
    };
    assert_eq!(vector(0), vector(2));
    assert_ne!(vector(0), vector(1));
    assert!((vector(0).iter().map(|value| value * value).sum::<f64>() - 1.0).abs() < 1e-5);
    let request = json!({ "input": "A fox.", "encoding_format": "base64", "dimensions": vector(0).len() });
    let encoded = post(&server, "/v1/embeddings", request).await.json();
    let base64 = encoded["data"][0]["embedding"].as_str().unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64).unwrap();
    let decoded: Vec<f64> =
        bytes.chunks_exact(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))).collect();
    for (decoded, told) in decoded.iter().zip(vector(0)) {
        assert!((decoded - told).abs() < 1e-7);
    }
    assert_eq!(post(&server, "/v1/embeddings", json!({ "input": "x", "dimensions": 3 })).await.status, 400);
    assert_eq!(post(&server, "/v1/embeddings", json!({ "input": [] })).await.status, 400);
    assert_eq!(post(&server, "/v1/embeddings", json!({ "input": "" })).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed() {
    let server = server();
    let list = get(&server, "/v1/models").await.json();
    assert_eq!(list["data"][0]["id"], "demo");
    assert_eq!(get(&server, "/v1/models/demo").await.json(), list["data"][0]);
    let missing = get(&server, "/v1/models/gpt-9").await;
    assert_eq!((missing.status.as_u16(), &missing.json()["error"]["code"]), (404, &json!("model_not_found")));
}
