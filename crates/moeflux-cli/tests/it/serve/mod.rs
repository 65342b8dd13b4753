//! `moeflux serve`: the program, from its first line to the signal that ends it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::command;
use crate::signal::{self, Signal};

/// A server on a port of its own, and what it says.
struct Server {
    child: Child,
    address: String,
    log: thread::JoinHandle<String>,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child =
            command().args(["serve", "--threads", "1", "--state-memory", "256M"]).args(args).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut log) = (String::new(), String::new());
        while !line.starts_with("serving ") {
            log.push_str(&line);
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "the server ended: {log}");
        }
        let address = line.trim_end().trim_end_matches('/').split("://").nth(1).unwrap().to_owned();
        let log = thread::spawn(move || {
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        Server { child, address, log }
    }

    /// Sends SIGTERM.
    fn terminate(&self) {
        signal::send(Signal::TERM, &self.child);
    }

    /// Exit code and log.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        (code, self.log.join().unwrap())
    }
}

fn chat(address: &str, more: &str) -> String {
    let body =
        format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"Tell me a story.\"}}],\"seed\":1{more}}}");
    request(address, "POST /v1/chat/completions", "", &body)
}

/// The whole answer; empty if there is nobody.
fn request(address: &str, line: &str, headers: &str, body: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // A server that ends closes what it did not answer.
    drop(stream.read_to_string(&mut answer));
    answer
}

#[test]
fn sigterm_under_load_lets_answers_finish() {
    let server = Server::start(&["--listen", "127.0.0.1:0"]);
    let running: Vec<_> = (0..8)
        .map(|_| {
            let address = server.address.clone();
            thread::spawn(move || chat(&address, ",\"stream\":true,\"max_tokens\":120,\"ignore_eos\":true"))
        })
        .collect();
    let start = Instant::now();
    while !request(&server.address, "GET /metrics", "", "").contains("moeflux_requests_running 8") {
        assert!(start.elapsed() < Duration::from_mins(1), "they never ran all at once");
        thread::sleep(Duration::from_millis(10));
    }
    server.terminate();
    thread::sleep(Duration::from_millis(50));
    let late = chat(&server.address, "");
    assert!(late.starts_with("HTTP/1.1 503 "), "{late}");
    for one in running {
        let answer = one.join().unwrap();
        assert!(
            answer.contains("\"finish_reason\":\"length\"") && answer.contains("data: [DONE]"),
            "{answer}"
        );
    }
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("shutting down"), "{log}");
    assert!(!log.contains("Tell me a story"), "no text of prompts: {log}");
}

#[test]
fn a_file_says_what_flags_say() {
    let folder = tempfile::tempdir().unwrap();
    let (config, keys) = (folder.path().join("moeflux.toml"), folder.path().join("keys.txt"));
    fs::write(&keys, "one\n\ntwo\n").unwrap();
    let text = format!(
        "models = [\"small=models/demo\"]\nlisten = \"127.0.0.1:0\"\napi-keys-file = {keys:?}\ndrain = 1\n\
         no-prefix-cache = true\nmax-tokens = 3\nlog-format = \"json\"\n"
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let server = Server::start(&["--config", config]);
    assert!(request(&server.address, "GET /v1/models", "", "").starts_with("HTTP/1.1 401 "));
    let list = request(&server.address, "GET /v1/models", "Authorization: Bearer two\r\n", "");
    assert!(list.contains("\"id\":\"small\""), "{list}");
    let body = "{\"prompt\":\"Once\",\"max_tokens\":50,\"temperature\":0}";
    let cut = request(&server.address, "POST /v1/completions", "x-api-key: one\r\n", body);
    assert!(cut.contains("\"completion_tokens\":3"), "{cut}");
    server.terminate();
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    let line = log.lines().find(|line| line.contains("\"status\":200")).unwrap();
    assert!(line.starts_with('{') && line.contains("\"id\":\"req_"), "{line}");

    // The command line goes first.
    let server = Server::start(&["--config", config, "other=models/demo", "--max-tokens", "4"]);
    let list = request(&server.address, "GET /v1/models", "x-api-key: one\r\n", "");
    assert!(list.contains("\"id\":\"other\"") && !list.contains("small"), "{list}");
    let cut = request(&server.address, "POST /v1/completions", "x-api-key: one\r\n", body);
    assert!(cut.contains("\"completion_tokens\":4"), "{cut}");
    server.terminate();
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn what_cannot_be_served_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let unknown = file("unknown.toml", "listne = \"x\"\n");
    let broken = file("broken.toml", "listen = \n");
    let nested = file("nested.toml", "[server]\nlisten = \"x\"\n");
    let empty = file("empty.txt", "\n");
    let pem = file("bad.pem", "no certificate\n");
    for (args, words) in [
        (&["no/such/model"][..], "no/such/model"),
        (&["models/demo", "models/demo"], "two models have it"),
        (&["--config", &unknown], "listne"),
        (&["--config", &broken], "broken.toml"),
        (&["--config", &nested], "server"),
        (&["--config", "no/such.toml"], "no/such.toml"),
        (&["--api-keys-file", &empty], "one key in each line"),
        (&["--tls-cert", &pem, "--tls-key", &pem], "bad.pem"),
        (&["--listen", "192.0.2.1:80"], "192.0.2.1"),
        (&["--max-running", "0"], "--max-running"),
    ] {
        let output = command().args(["serve", "--listen", "127.0.0.1:0"]).args(args).output();
        let output = if args[0] == "--listen" { command().arg("serve").args(args).output() } else { output };
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|code| code > 0), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

/// What an abort that nothing can catch leaves: a server that is started again, as a supervisor does, goes on with what was
/// on disk.
#[test]
fn a_killed_server_comes_back_with_its_sequences() {
    let folder = tempfile::tempdir().unwrap();
    let sequences = folder.path().join("sequences");
    let args = ["--listen", "127.0.0.1:0", "--sequences", sequences.to_str().unwrap()];
    let server = Server::start(&args);
    let body = "{\"prompt\":\"Once upon a time there was a fox who lived by the sea\"}";
    let saved = request(&server.address, "PUT /v1/sequences/fox", "", body);
    assert!(saved.starts_with("HTTP/1.1 200 "), "{saved}");
    let address = server.address.clone();
    let cut = thread::spawn(move || chat(&address, ",\"max_tokens\":2000,\"ignore_eos\":true"));
    thread::sleep(Duration::from_millis(300));
    signal::send(Signal::KILL, &server.child);
    assert_eq!(server.end().0, None, "a signal ended it");
    assert!(!cut.join().unwrap().contains("finish_reason"));

    let server = Server::start(&args);
    let restored = request(&server.address, "POST /v1/sequences/fox/restore", "", "{}");
    assert!(restored.starts_with("HTTP/1.1 200 "), "{restored}");
    let body = body.replace('}', ",\"max_tokens\":3}");
    let answer = request(&server.address, "POST /v1/completions", "", &body);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(request(&server.address, "GET /metrics", "", "").contains("moeflux_tokens_cached_total"));
    server.terminate();
    assert_eq!(server.end().0, Some(0));
}

/// A collector of spans: what it was sent until the server had ended.
#[cfg(feature = "otel")]
#[test]
fn otel_spans_of_requests_reach_their_collector() {
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let server = Server::start(&["--listen", "127.0.0.1:0", "--otel-endpoint", &endpoint]);
    assert!(request(&server.address, "GET /v1/models", "", "").contains("200 OK"));
    let sent = thread::spawn(move || {
        let (mut stream, _) = collector.accept().unwrap();
        let mut sent = Vec::new();
        let mut part = [0; 4096];
        // The names of a span's attributes are the last thing in it.
        while !String::from_utf8_lossy(&sent).contains("status") {
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&sent));
            sent.extend_from_slice(&part[..read]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        String::from_utf8_lossy(&sent).into_owned()
    });
    server.terminate();
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    let sent = sent.join().unwrap();
    for piece in ["POST /v1/traces", "moeflux", "request", "/v1/models"] {
        assert!(sent.contains(piece), "{piece}: {sent}");
    }
}

#[cfg(not(feature = "otel"))]
#[test]
fn without_otel_the_error_says_how_to_have_it() {
    let output = command().args(["serve", "--otel-endpoint", "http://localhost:4318"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("--features otel"), "{said}");
}
