//! Budgets that change while steps run, and prompts that are cancelled anywhere: always the same bits, never a deadlock, and
//! no more memory than at the start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{data, pack};
use moeflux::experts::ExpertOptions;
use moeflux::placement::{Machine, MemoryRequest, needs};
use moeflux::{CancelToken, Engine, EngineOptions, Event, GenerateRequest, Model, ModelOptions, StopReason};

/// After so many rounds every buffer has had its largest size.
const SETTLED: u64 = 20;

/// Pseudorandom numbers below `n` (Knuth's MMIX).
fn random(state: &mut u64, n: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % n
}

/// Bits of the logits of every token.
fn logits(engine: &mut Engine, tokens: &[u32]) -> Vec<u32> {
    let mut sequence = engine.sequence();
    engine.eval_all(&mut sequence, tokens).unwrap().into_iter().map(f32::to_bits).collect()
}

/// How long: 20 seconds, or `MOEFLUX_SOAK_SECONDS`. With `--nocapture` it says how it goes.
#[test]
fn soak() {
    let _alone = crate::alone();
    let seconds = std::env::var("MOEFLUX_SOAK_SECONDS").map_or(20, |seconds| seconds.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let (_folder, pack) = pack(&data("qwen3_5_moe/mlx-mixed"));
    let open = || Model::open(&pack, &ModelOptions::default()).unwrap();
    let model = open();
    let tokens: Vec<u32> = (0..40).map(|i| (i * 7919 + 13) % model.vocab_size() as u32).collect();
    let expected = logits(&mut Engine::new(open(), &EngineOptions::default()).unwrap(), &tokens);
    let least = needs(&model, 8, 0).unwrap().least_experts;
    let memory = MemoryRequest { process: None, experts: Some(least) };
    let experts = ExpertOptions { memory, ..ExpertOptions::default() };
    let options = EngineOptions { prefill_chunk: Some(16), experts, ..EngineOptions::default() };
    let mut engine = Engine::new(model, &options).unwrap();
    let store = engine.experts().unwrap().clone();
    let all = store.bytes_of_all();

    let stop = AtomicBool::new(false);
    let (mut cancelled, mut whole, mut rounds) = (0, 0, 0);
    let mut settled = 0;
    let report_every = Duration::from_secs((seconds / 60).max(1));
    let mut report = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 7;
            while !stop.load(Ordering::Relaxed) {
                store.resize(least + random(&mut state, all - least)).unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        let mut state = 1;
        while Instant::now() < end {
            let cancel = CancelToken::default();
            let request = GenerateRequest {
                prompt: tokens.clone(),
                max_tokens: 1 + random(&mut state, 6) as usize,
                ignore_eos: true,
                cancel: cancel.clone(),
                ..GenerateRequest::default()
            };
            // One in eight ends by itself, however slow the machine is.
            let after = Duration::from_micros(random(&mut state, 30_000));
            let is_cancelled = random(&mut state, 8) != 0;
            let mut sequence = engine.sequence();
            std::thread::scope(|scope| {
                if is_cancelled {
                    scope.spawn(move || {
                        std::thread::sleep(after);
                        cancel.cancel();
                    });
                }
                for event in engine.generate(&mut sequence, request).unwrap() {
                    match event.unwrap() {
                        Event::Done(outcome) if outcome.stop == StopReason::Cancelled => cancelled += 1,
                        Event::Done(_) => whole += 1,
                        _ => {}
                    }
                }
            });
            if logits(&mut engine, &tokens) != expected {
                stop.store(true, Ordering::Relaxed);
                unreachable!("round {rounds} gave other bits");
            }
            rounds += 1;
            let resident = Machine::measure().resident;
            if rounds == SETTLED {
                settled = resident;
            }
            if report.elapsed() >= report_every {
                let left = end.saturating_duration_since(Instant::now()).as_secs();
                println!(
                    "{left} s to go: {rounds} rounds, {cancelled} cancelled, {} KiB resident",
                    resident >> 10
                );
                report = Instant::now();
            }
            if rounds > SETTLED && resident > settled + (48 << 20) {
                stop.store(true, Ordering::Relaxed);
                unreachable!("{settled} bytes resident, and after {rounds} rounds {resident}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(
        rounds > SETTLED && cancelled > 0 && whole > 0,
        "{rounds} rounds, {cancelled} cancelled, {whole} not"
    );
}
