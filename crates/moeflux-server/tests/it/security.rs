//! Who may do what.

use axum::body::Body;
use axum::http::{Method, Request, header};
use moeflux_server::{Config, Limits, router};
use serde_json::json;

use crate::common::{app, ask, get, post, question, send, with};

#[tokio::test(flavor = "multi_thread")]
async fn no_route_without_a_key() {
    let config = Config { keys: vec!["secret".to_owned(), "other".to_owned()], ..Config::default() };
    let server = router(app(config));
    let description = {
        let request = Request::get("/openapi.json").header(header::AUTHORIZATION, "Bearer secret");
        send(&server, request.body(Body::empty()).unwrap()).await.json()
    };
    let mut routes = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            if path.starts_with("/health") {
                continue;
            }
            routes += 1;
            let path = path.replace(['{', '}'], "");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            for key in [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic secret"), Some("secret")] {
                let mut request = Request::builder().method(&method).uri(&path);
                if let Some(key) = key {
                    request = request.header(header::AUTHORIZATION, key);
                }
                let answer = send(&server, request.body(Body::empty()).unwrap()).await;
                assert_eq!(answer.status, 401, "{method} {path} with {key:?}");
                assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
                let error = &answer.json()["error"];
                assert!(
                    error["message"].is_string() || path.starts_with("/api/") && error.is_string(),
                    "{error}"
                );
            }
        }
    }
    assert!(routes > 10, "{routes}");
    // The same routes where the version belongs to the base URL, or is there twice.
    for path in
        ["/models", "/chat/completions", "/responses", "/messages", "/v1/v1/models", "/v1/v1/messages"]
    {
        let method = if path.ends_with("models") { Method::GET } else { Method::POST };
        assert_eq!(ask(&server, method, path).await.status, 401, "{path}");
    }
    for (name, value) in
        [("authorization", "Bearer secret"), ("authorization", "bearer other"), ("x-api-key", "other")]
    {
        let request = Request::get("/v1/models").header(name, value).body(Body::empty()).unwrap();
        assert_eq!(send(&server, request).await.status, 200, "{name}: {value}");
    }
    // The page asks for the key, and a balancer for the health.
    for path in ["/", "/status", "/assets/chat.js", "/health", "/health/live"] {
        assert_eq!(get(&server, path).await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_sequences_lead_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(folder.path().join("outside.sequence"), b"secret").unwrap();
    let server = router(app(Config { sequences: Some(inside), ..Config::default() }));
    for id in [
        "..%2Foutside",
        "%2e%2e%2foutside",
        "..",
        "%2e%2e",
        ".hidden",
        "a%2Fb",
        "a%5Cb",
        "%00",
        "a%00b",
        "..%5coutside",
        "%2Fetc%2Fpasswd",
        "C%3A",
        "~",
        "a%20b",
        "%F0%9F%A6%8A",
        &"a".repeat(129),
    ] {
        for method in [Method::GET, Method::DELETE] {
            let answer = ask(&server, method.clone(), &format!("/v1/sequences/{id}")).await;
            assert!([400, 404].contains(&answer.status.as_u16()), "{method} {id}: {}", answer.status);
            assert!(!answer.body.contains("bytes"), "{id}: {}", answer.body);
        }
        let request =
            Request::put(format!("/v1/sequences/{id}")).header(header::CONTENT_TYPE, "application/json");
        let answer = send(&server, request.body(Body::from("{\"prompt\": \"x\"}")).unwrap()).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "PUT {id}: {}", answer.status);
        let answer = post(&server, &format!("/v1/sequences/{id}/restore"), json!({})).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "restore {id}: {}", answer.status);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing came, nothing went");
    for path in ["/assets/../../Cargo.toml", "/assets/%2e%2e/%2e%2e/Cargo.toml", "//etc/passwd"] {
        assert_eq!(get(&server, path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_elsewhere_are_kept_out() {
    let preflight = |origin: &str| {
        Request::options("/v1/chat/completions")
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "content-type")
            .body(Body::empty())
            .unwrap()
    };
    let closed = router(app(Config::default()));
    let answer = send(&closed, preflight("https://chat.example")).await;
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let config = Config { cors_origins: vec!["https://chat.example".to_owned()], ..Config::default() };
    let open = router(app(config));
    let answer = send(&open, preflight("https://chat.example")).await;
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://chat.example");
    let answer = send(&open, preflight("https://evil.example")).await;
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    // A name that someone else's page lends to this machine.
    let rebound =
        Request::get("/v1/models").header(header::HOST, "evil.example:8080").body(Body::empty()).unwrap();
    assert_eq!(send(&closed, rebound).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_waits() {
    let limits = Limits { requests_per_minute: Some(2), ..Limits::default() };
    let server =
        router(app(Config { limits, keys: vec!["a".to_owned(), "b".to_owned()], ..Config::default() }));
    let ask = async |key: &str| {
        let request = Request::get("/v1/models").header("x-api-key", key).body(Body::empty()).unwrap();
        send(&server, request).await
    };
    assert_eq!(ask("a").await.status, 200);
    assert_eq!(ask("a").await.status, 200);
    let answer = ask("a").await;
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(ask("b").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids_are_kept_or_made() {
    let server = router(app(Config::default()));
    let asked = async |id: &str| {
        let request = Request::get("/health").header("x-request-id", id).body(Body::empty()).unwrap();
        send(&server, request).await.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(asked("abc-123").await, "abc-123");
    assert!(asked("a b").await.starts_with("req_"));
    assert!(asked(&"a".repeat(200)).await.starts_with("req_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_again() {
    let scheduler =
        moeflux::engine::SchedulerOptions { max_running: 1, max_queued: 1, ..crate::common::scheduler() };
    let app = moeflux_server::App::new(Config::default(), vec![crate::common::demo("demo")], scheduler);
    let server = router(app);
    let long = with(question("Tell me a long story."), json!({ "max_tokens": 60, "ignore_eos": true }));
    let many: Vec<_> = (0..8)
        .map(|_| {
            let (server, long) = (server.clone(), long.clone());
            tokio::spawn(async move { post(&server, "/v1/chat/completions", long).await })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in many {
        let answer = one.await.unwrap();
        if answer.status == 429 {
            assert_eq!(answer.headers[header::RETRY_AFTER], "1");
            assert_eq!(answer.json()["error"]["code"], "queue_full");
        }
        statuses.push(answer.status.as_u16());
    }
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
}
