//! Many at once, some of them rude: everybody else gets what they would get alone.
//!
//! `MOEFLUX_LOAD_SECONDS=300` makes it the load of five minutes, with what was measured printed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use moeflux_server::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::common::{question, with};
use crate::connections::{Running, exchange, request};

const STREAMS: usize = 64;

/// What was seen, in seconds.
#[derive(Default)]
struct Seen {
    first: Vec<f64>,
    next: Vec<f64>,
    texts: BTreeMap<u64, Vec<String>>,
    dropped: usize,
    malformed: usize,
}

fn asked(seed: u64) -> Value {
    let kinds = [
        "Tell me a story.",
        "What is 17 + 25?",
        "What is the capital of Norway?",
        "Tell me a story about a fox.",
    ];
    let kind = kinds[seed as usize % kinds.len()];
    with(
        question(kind),
        json!({ "stream": true, "temperature": 0.8, "seed": seed, "max_tokens": 40,
        "enable_thinking": seed.is_multiple_of(3) }),
    )
}

/// The text of a stream, as it came; with `leave`, only so many tokens of it.
async fn told(
    server: &Running,
    seed: u64,
    leave: Option<usize>,
    seen: Option<&Mutex<Seen>>,
) -> Option<String> {
    let start = Instant::now();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut stream = BufReader::new(stream);
    stream.write_all(request("/v1/chat/completions", &asked(seed).to_string()).as_bytes()).await.unwrap();
    let (mut text, mut line, mut tokens, mut last, mut done) =
        (String::new(), String::new(), 0, start, false);
    let mut status = String::new();
    stream.read_line(&mut status).await.unwrap();
    assert!(status.contains("200 OK"), "{status}");
    while stream.read_line(&mut line).await.unwrap() > 0 {
        if let Some(data) = line.trim_end().strip_prefix("data: ") {
            if data == "[DONE]" {
                done = true;
            } else {
                let event: Value = serde_json::from_str(data).unwrap();
                assert!(event.get("error").is_none(), "{event}");
                let delta = &event["choices"][0]["delta"];
                let more = [&delta["content"], &delta["reasoning_content"]];
                let more: String = more.into_iter().filter_map(Value::as_str).collect();
                if !more.is_empty() {
                    if let Some(seen) = seen {
                        let mut seen = seen.lock().await;
                        let times = if tokens == 0 { &mut seen.first } else { &mut seen.next };
                        times.push(last.elapsed().as_secs_f64());
                    }
                    last = Instant::now();
                    tokens += 1;
                    text.push_str(&more);
                }
                if leave.is_some_and(|leave| tokens >= leave) {
                    return None;
                }
            }
        }
        line.clear();
    }
    assert!(done, "a stream ended early: {text}");
    Some(text)
}

/// Of times in order.
fn percentile(times: &[f64], part: f64) -> f64 {
    times.get(((times.len() as f64 - 1.0) * part) as usize).copied().unwrap_or(f64::NAN)
}

/// Bytes of this process in memory; 0 where the system does not tell.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_gets_what_each_would_get_alone() {
    let seconds = std::env::var("MOEFLUX_LOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let server = Arc::new(Running::start(Config::default()).await);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let mut memory = vec![resident()];
    let streams: Vec<_> = (0..STREAMS as u64)
        .map(|stream| {
            let (server, seen) = (Arc::clone(&server), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut turn = stream;
                while Instant::now() < end {
                    // A fixed mixture: a fifth is nonsense, a tenth goes away.
                    let seed = turn.wrapping_mul(2_654_435_761) % 24;
                    match turn.wrapping_mul(40_503) / 7 % 10 {
                        0 | 1 => {
                            let body =
                                ["{", "{\"messages\": []}", "{\"messages\": 5}", "[1, 2"][turn as usize % 4];
                            let (status, text) =
                                exchange(server.address, request("/v1/chat/completions", body).as_bytes())
                                    .await;
                            assert_eq!(status, Some(StatusCode::BAD_REQUEST), "{text}");
                            seen.lock().await.malformed += 1;
                        }
                        2 => {
                            told(&server, seed, Some(turn as usize % 5), None).await;
                            seen.lock().await.dropped += 1;
                        }
                        _ => {
                            if let Some(text) = told(&server, seed, None, Some(&seen)).await {
                                seen.lock().await.texts.entry(seed).or_default().push(text);
                            }
                        }
                    }
                    turn += STREAMS as u64;
                }
            })
        })
        .collect();
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(500)).await;
        memory.push(resident());
    }
    for stream in streams {
        stream.await.unwrap();
    }
    let elapsed = start.elapsed().as_secs_f64();
    server.idle().await;
    let mut seen = std::mem::take(&mut *seen.lock().await);
    let (mut whole, mut distinct) = (0, 0);
    for (&seed, texts) in &seen.texts {
        let alone = told(&server, seed, None, None).await.unwrap();
        for text in texts {
            assert_eq!(*text, alone, "seed {seed}");
            whole += 1;
        }
        distinct += 1;
    }
    assert!(whole >= STREAMS / 2 && distinct > 10, "{whole} answers of {distinct} requests");
    assert!(seen.malformed > 0 && seen.dropped > 0);
    seen.first.sort_by(f64::total_cmp);
    seen.next.sort_by(f64::total_cmp);
    let third = memory.len() / 3;
    let (early, late) = (memory[third], memory[memory.len() - 1]);
    let tokens = seen.first.len() + seen.next.len();
    println!(
        "{STREAMS} streams, {elapsed:.0} s: {whole} answers, {} dropped, {} malformed, {:.0} tokens/s; first token p50 \
         {:.2} s p99 {:.2} s; per token p50 {:.1} ms p99 {:.1} ms; memory {} MiB after a third, {} MiB at the end",
        seen.dropped,
        seen.malformed,
        tokens as f64 / elapsed,
        percentile(&seen.first, 0.5),
        percentile(&seen.first, 0.99),
        percentile(&seen.next, 0.5) * 1e3,
        percentile(&seen.next, 0.99) * 1e3,
        early >> 20,
        late >> 20,
    );
    // States have a budget of their own; beyond it nothing is to grow.
    assert!(late < early + (256 << 20) + (64 << 20), "{early} → {late}");
    let Ok(server) = Arc::try_unwrap(server) else { panic!("the streams have ended") };
    server.stop().await;
}
