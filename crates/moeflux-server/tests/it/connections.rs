//! Clients at the other end of a wire: slow, rude, gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use moeflux_server::{App, Config, Limits, Server};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::common::{app, get, question, with};

/// A server on a port of its own.
pub(crate) struct Running {
    pub(crate) app: Arc<App>,
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        Self::of(app(Config { listen: "127.0.0.1:0".parse().unwrap(), ..config })).await
    }

    pub(crate) async fn of(app: Arc<App>) -> Self {
        app.model(None).await.unwrap();
        let server = Server::bind(Arc::clone(&app)).unwrap();
        let address = server.address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(server.run(async move { drop(stopped.await) }));
        Running { app, address, stop, done }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(Duration::from_secs(30), self.done).await.unwrap().unwrap();
    }

    /// A gauge or counter without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let metrics = get(&moeflux_server::router(Arc::clone(&self.app)), "/metrics").await.body;
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until nothing runs or waits.
    pub(crate) async fn idle(&self) {
        let start = Instant::now();
        while self.metric("moeflux_requests_running").await + self.metric("moeflux_requests_queued").await
            > 0.0
        {
            assert!(start.elapsed() < Duration::from_secs(10), "a slot is stuck");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A request as bytes, after which the server closes the connection.
pub(crate) fn request(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Sends bytes and reads until the server closes: status and all text.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> (Option<StatusCode>, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may have answered and closed before all was sent.
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    let read = timeout(Duration::from_mins(1), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server holds the connection");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
    (status, text)
}

/// A story that goes on until somebody stops it.
pub(crate) fn endless() -> Value {
    with(
        question("Tell me a long story."),
        json!({ "stream": true, "ignore_eos": true, "max_tokens": 20_000 }),
    )
}

fn quick() -> Config {
    let limits = Limits {
        header_bytes: 16 << 10,
        header_time: Duration::from_millis(300),
        body_time: Duration::from_millis(300),
        ..Limits::default()
    };
    Config { limits, ..Config::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_endless_headers_are_cut_off() {
    let server = Running::start(quick()).await;
    let start = Instant::now();
    let (_, text) = exchange(server.address, b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc").await;
    assert!(!text.contains("200 OK"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(5));
    let bomb = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Big: {}\r\n\r\n", "a".repeat(1 << 20));
    let (status, text) = exchange(server.address, bomb.as_bytes()).await;
    assert!(status.is_none_or(|status| status.is_client_error()), "{text}");
    let many: String =
        (0..10_000).flat_map(|index| ["X-".to_owned(), index.to_string(), ": 1\r\n".to_owned()]).collect();
    let bomb = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    let (status, text) = exchange(server.address, bomb.as_bytes()).await;
    assert!(status.is_none_or(|status| status.is_client_error()), "{text}");
    for nonsense in
        ["\r\n\r\n\r\n", "GET\r\n\r\n", "\0\0\0\0", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\x00\x01"]
    {
        let (status, text) = exchange(server.address, nonsense.as_bytes()).await;
        assert!(status.is_none_or(|status| status.is_client_error()), "{text}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_broken_bodies_are_the_clients_failure() {
    let server = Running::start(quick()).await;
    let whole = request("/v1/chat/completions", &question("Hi").to_string());
    let (status, text) = exchange(server.address, &whole.as_bytes()[..whole.len() - 5]).await;
    assert_eq!(status, Some(StatusCode::REQUEST_TIMEOUT), "{text}");
    assert!(text.contains("\"message\""), "{text}");
    let chunks = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n\
                  Transfer-Encoding: chunked\r\n\r\nZZ\r\n";
    let (status, text) = exchange(server.address, chunks.as_bytes()).await;
    assert!(status.is_none_or(|status| status.is_client_error()), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_frees_its_place() {
    let server = Running::start(Config::default()).await;
    let long_prompt = question(&"The fox and the goose. ".repeat(1500)).to_string();
    let bodies =
        [endless().to_string(), with(endless(), json!({ "stream": false })).to_string(), long_prompt];
    for body in bodies {
        for (wait, cut) in [(0, 40), (0, usize::MAX), (5, usize::MAX), (60, usize::MAX), (300, usize::MAX)] {
            let bytes = request("/v1/chat/completions", &body);
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(&bytes.as_bytes()[..bytes.len().min(cut)]).await.unwrap();
            sleep(Duration::from_millis(wait)).await;
            drop(stream);
            server.idle().await;
        }
    }
    // And what is left works.
    let fine = request("/v1/chat/completions", &question("What is 17 + 25?").to_string());
    let (status, text) = exchange(server.address, fine.as_bytes()).await;
    assert_eq!(status, Some(StatusCode::OK));
    assert!(text.contains("42"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_its_time() {
    let limits = Limits { request_time: Duration::from_millis(400), ..Limits::default() };
    let server = Running::start(Config { limits, ..Config::default() }).await;
    let (status, text) =
        exchange(server.address, request("/v1/chat/completions", &endless().to_string()).as_bytes()).await;
    assert_eq!(status, Some(StatusCode::OK));
    assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "{text}");
    let whole = with(endless(), json!({ "stream": false })).to_string();
    let (status, _) = exchange(server.address, request("/v1/chat/completions", &whole).as_bytes()).await;
    assert_eq!(status, Some(StatusCode::GATEWAY_TIMEOUT));
    server.idle().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_prompt_keeps_the_stream_alive() {
    let server = Running::start(Config { keep_alive: Duration::from_millis(20), ..Config::default() }).await;
    let prompt = question(&"The fox and the goose. ".repeat(400));
    let body = with(prompt, json!({ "stream": true, "max_tokens": 1 })).to_string();
    let (status, text) = exchange(server.address, request("/v1/chat/completions", &body).as_bytes()).await;
    assert_eq!(status, Some(StatusCode::OK));
    assert!(text.contains(": keep-alive"), "{text}");
    assert!(text.contains("[DONE]"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_answers_finish_and_new_ones_are_refused() {
    let server = Running::start(Config::default()).await;
    let address = server.address;
    let story =
        with(question("Tell me a story."), json!({ "stream": true, "ignore_eos": true, "max_tokens": 150 }));
    let running: Vec<_> = (0..4)
        .map(|_| {
            let bytes = request("/v1/chat/completions", &story.to_string());
            tokio::spawn(async move { exchange(address, bytes.as_bytes()).await })
        })
        .collect();
    while server.metric("moeflux_requests_running").await < 4.0 {
        sleep(Duration::from_millis(5)).await;
    }
    let stopping = tokio::spawn(server.stop());
    sleep(Duration::from_millis(30)).await;
    let late = request("/v1/chat/completions", &question("Hi").to_string());
    let (status, text) = exchange(address, late.as_bytes()).await;
    assert_eq!(status, Some(StatusCode::SERVICE_UNAVAILABLE), "{text}");
    assert!(text.to_lowercase().contains("retry-after: "), "{text}");
    for one in running {
        let (status, text) = one.await.unwrap();
        assert_eq!(status, Some(StatusCode::OK));
        assert!(text.contains("\"finish_reason\":\"length\"") && text.contains("[DONE]"), "{text}");
    }
    stopping.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_in_time_is_stopped() {
    let server = Running::start(Config { drain: Duration::from_millis(300), ..Config::default() }).await;
    let address = server.address;
    let bytes = request("/v1/chat/completions", &endless().to_string());
    let running = tokio::spawn(async move { exchange(address, bytes.as_bytes()).await });
    while server.metric("moeflux_requests_running").await < 1.0 {
        sleep(Duration::from_millis(5)).await;
    }
    let start = Instant::now();
    server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let (_, text) = running.await.unwrap();
    assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "{text}");
}
