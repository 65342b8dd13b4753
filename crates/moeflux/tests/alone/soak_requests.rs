//! Clients of all kinds at once on one engine: nobody waits for long, every answer is what it would be alone, and memory stays
//! what it was.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::engines::{engine, prompt};
use moeflux::engine::{SchedulerOptions, SubmitError, SubmitOptions};
use moeflux::placement::Machine;
use moeflux::{EngineHandle, Event, GenerateRequest, Precision, SamplingOptions, StopReason};

const CLIENTS: u64 = 8;
/// Of prefixes and sequences: reached soon, so that memory settles.
const STATES: u64 = 64 << 20;
/// What the process may grow by after a third of the time: the allocator's slack.
const GROWTH: u64 = 48 << 20;

/// Pseudorandom numbers below `n` (Knuth's MMIX).
fn random(state: &mut u64, n: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % n
}

fn request(prompt: Vec<u32>, seed: u64, max_tokens: usize) -> GenerateRequest {
    let sampling = SamplingOptions { temperature: 1.0, seed, ..SamplingOptions::default() };
    GenerateRequest { prompt, sampling, max_tokens, ignore_eos: true, ..GenerateRequest::default() }
}

#[derive(Default)]
struct Tally {
    done: AtomicU64,
    cancelled: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    saved: AtomicU64,
    embedded: AtomicU64,
    waits: Mutex<Vec<Duration>>,
}

/// How long: 20 seconds, or `MOEFLUX_SOAK_SECONDS`. With `--nocapture` it says how it went.
#[test]
fn soak() {
    let _alone = crate::alone();
    let seconds = std::env::var("MOEFLUX_SOAK_SECONDS").map_or(20, |seconds| seconds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let canary = request(prompt(40, 1), 5, 12);
    let expected = {
        let mut engine = engine("demo", Precision::Fast, 64);
        let mut sequence = engine.sequence();
        let events = engine.generate(&mut sequence, canary.clone()).unwrap();
        tokens(events.map(Result::unwrap)).0
    };
    let options = SchedulerOptions {
        max_running: 4,
        max_queued: 2, // with those running fewer than there are clients: some are refused
        mixed_tokens: Some(32),
        state_budget: Some(STATES),
        ..SchedulerOptions::default()
    };
    let handle = EngineHandle::start(engine("demo", Precision::Fast, 64), &options).unwrap();
    let (start, length) = (Instant::now(), Duration::from_secs(seconds));
    let tally = Tally::default();
    let mut settled = None;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (handle, tally, canary, expected, folder) =
                (&handle, &tally, &canary, &expected, folder.path());
            scope.spawn(move || {
                let mut state = client;
                while start.elapsed() < length {
                    let path = folder.join(format!("{client}.moeflux"));
                    match random(&mut state, 20) {
                        0 => embed(handle, tally, &mut state),
                        1 => save(handle, tally, path, &mut state),
                        2..6 => {
                            if let Some((tokens, _)) = answer(handle, tally, canary.clone(), &mut state, None)
                            {
                                assert_eq!(tokens, *expected, "other tokens than alone");
                            }
                        }
                        _ => any(handle, tally, &mut state),
                    }
                }
            });
        }
        while start.elapsed() < length {
            std::thread::sleep(Duration::from_millis(50));
            let resident = Machine::measure().resident;
            if start.elapsed() > length / 3 {
                let settled = *settled.get_or_insert(resident);
                assert!(resident < settled + GROWTH, "{settled} bytes resident, then {resident}");
            }
        }
    });
    handle.shutdown(Duration::from_mins(1));
    let stats = handle.stats();
    let mut waits = tally.waits.into_inner().unwrap();
    waits.sort();
    let p99 = waits[waits.len() * 99 / 100];
    let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
    println!(
        "{} answers, {} cancelled, {} dropped, {} refused, {} saved and restored, {} embedded; waited {:?} at the median, \
         {p99:?} at the 99th of 100, {:?} at most; {} MiB resident",
        count(&tally.done),
        count(&tally.cancelled),
        count(&tally.dropped),
        count(&tally.refused),
        count(&tally.saved),
        count(&tally.embedded),
        waits[waits.len() / 2],
        waits[waits.len() - 1],
        Machine::measure().resident >> 20
    );
    for n in [&tally.done, &tally.cancelled, &tally.dropped, &tally.refused, &tally.saved, &tally.embedded] {
        assert!(count(n) > 0, "a kind of request never came to its end");
    }
    assert_eq!((stats.running, stats.queued, stats.failed), (0, 0, 0), "{stats:?}");
    // A request has at most four others running and two waiting before it, each of some tens of tokens.
    assert!(p99 < Duration::from_secs(20), "{p99:?}");
}

/// The tokens, and how it ended.
fn tokens(events: impl Iterator<Item = Event>) -> (Vec<u32>, Option<moeflux::engine::Outcome>) {
    let (mut tokens, mut end) = (Vec::new(), None);
    for event in events {
        match event {
            Event::Token { id, .. } => tokens.push(id),
            Event::Done(outcome) => end = Some(outcome),
            _ => {}
        }
    }
    (tokens, end)
}

/// Submits and listens to the end; after `cancel_at` events it cancels. `None` if it was refused.
fn answer(
    handle: &EngineHandle,
    tally: &Tally,
    request: GenerateRequest,
    state: &mut u64,
    cancel_at: Option<u64>,
) -> Option<(Vec<u32>, StopReason)> {
    let options = SubmitOptions { priority: random(state, 3) as i32, ..SubmitOptions::default() };
    let mut ticket = match handle.submit(request, options) {
        Ok(ticket) => ticket,
        Err(SubmitError::QueueFull { .. }) => {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let (mut events, mut heard) = (0, Vec::new());
    while let Some(event) = ticket.next() {
        heard.push(event.unwrap());
        if Some(events) == cancel_at {
            ticket.cancel();
        }
        events += 1;
    }
    let (tokens, outcome) = tokens(heard.into_iter());
    let outcome = outcome.unwrap();
    tally.waits.lock().unwrap().push(outcome.queued);
    let counter = if outcome.stop == StopReason::Cancelled { &tally.cancelled } else { &tally.done };
    counter.fetch_add(1, Ordering::Relaxed);
    Some((tokens, outcome.stop))
}

/// One of many beginnings and an end of its own.
fn some_prompt(state: &mut u64) -> Vec<u32> {
    let (beginning, end) = (random(state, 6) as u32, random(state, 1000) as u32);
    [prompt(random(state, 150) as usize, beginning), prompt(1 + random(state, 30) as usize, 7 + end)].concat()
}

fn any(handle: &EngineHandle, tally: &Tally, state: &mut u64) {
    let asked = request(some_prompt(state), random(state, 9), random(state, 40) as usize);
    match random(state, 10) {
        0 => {
            let Ok(mut ticket) = handle.submit(asked, SubmitOptions::default()) else { return };
            let events = random(state, 5) as usize;
            ticket.by_ref().take(events).for_each(drop);
            drop(ticket);
            tally.dropped.fetch_add(1, Ordering::Relaxed);
        }
        1 | 2 => drop(answer(handle, tally, asked, &mut state.clone(), Some(random(state, 12)))),
        _ => drop(answer(handle, tally, asked, state, None)),
    }
}

fn embed(handle: &EngineHandle, tally: &Tally, state: &mut u64) {
    let Ok(pending) = handle.embed(some_prompt(state), SubmitOptions::default()) else { return };
    assert!(pending.wait().unwrap().values.iter().all(|value| value.is_finite()));
    tally.embedded.fetch_add(1, Ordering::Relaxed);
}

fn save(handle: &EngineHandle, tally: &Tally, path: std::path::PathBuf, state: &mut u64) {
    let tokens = some_prompt(state);
    let Ok(pending) = handle.save(tokens.clone(), path.clone()) else { return };
    pending.wait().unwrap();
    assert_eq!(handle.restore(path).unwrap().wait().unwrap().tokens, tokens);
    tally.saved.fetch_add(1, Ordering::Relaxed);
}
