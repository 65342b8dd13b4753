//! Several models by name.

use moeflux_server::{App, Config, ModelSource, router};
use serde_json::json;

use crate::common::{demo, get, post, question, scheduler, with};

#[tokio::test(flavor = "multi_thread")]
async fn the_model_used_least_recently_makes_room() {
    let app = App::new(
        Config { max_loaded: 2, ..Config::default() },
        vec![demo("a"), demo("b"), demo("c")],
        scheduler(),
    );
    let server = router(app);
    let ask = async |model: &str| {
        let request = with(question("What is 1 + 1?"), json!({ "model": model, "max_tokens": 3 }));
        let answer = post(&server, "/v1/chat/completions", request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["model"], model);
        let metrics = get(&server, "/metrics").await.body;
        let loaded = |name: &str| metrics.contains(&format!("moeflux_model_loaded{{model=\"{name}\"}} 1\n"));
        ["a", "b", "c"].map(loaded)
    };
    assert_eq!(ask("a").await, [true, false, false]);
    assert_eq!(ask("b").await, [true, true, false]);
    assert_eq!(ask("a").await, [true, true, false]);
    assert_eq!(ask("c").await, [true, false, true]);
    // What a model has counted stays when it goes.
    let metrics = get(&server, "/metrics").await.body;
    assert!(metrics.contains("moeflux_tokens_generated_total{model=\"b\"} 3\n"), "{metrics}");
    let list = get(&server, "/v1/models").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_take_turns_under_load() {
    let app = App::new(Config::default(), vec![demo("a"), demo("b")], scheduler());
    let server = router(app);
    let asked: Vec<_> = (0..8)
        .map(|index| {
            let server = server.clone();
            let model = ["a", "b"][index % 2];
            tokio::spawn(async move {
                let request = with(question("What is 17 + 25?"), json!({ "model": model }));
                post(&server, "/v1/chat/completions", request).await
            })
        })
        .collect();
    for one in asked {
        let answer = one.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.json()["choices"][0]["message"]["content"].as_str().unwrap().contains("42"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_loaded_is_not_the_clients_fault() {
    let broken = ModelSource {
        name: "broken".to_owned(),
        load: Box::new(|_| Err("a file of /secret/place is missing".into())),
        unload: Box::new(|_| ()),
    };
    let server = router(App::new(Config::default(), vec![demo("demo"), broken], scheduler()));
    let answer =
        post(&server, "/v1/chat/completions", with(question("x"), json!({ "model": "broken" }))).await;
    assert_eq!(answer.status, 503);
    assert!(!answer.body.contains("secret"), "{}", answer.body);
    assert_eq!(
        post(&server, "/v1/chat/completions", with(question("x"), json!({ "max_tokens": 2 }))).await.status,
        200
    );
}
