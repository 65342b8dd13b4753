//! Whatever has been done to a sequence, its logits are the bits of a fresh prefill of its tokens.

use std::time::{Duration, Instant};

use crate::common::engines::{bits, engine, fresh, model, probe, prompt};
use moeflux::backend::{Backend, Segment, Step, cpu::CpuBackend};
use moeflux::engine::Truncated;
use moeflux::graph::{Plan, StepShape};
use moeflux::sequence::PrefixCache;
use moeflux::{Engine, Error, Event, GenerateRequest, Precision};

/// Recurrent states, latents, sliding windows beside full attention, full attention, and a model of ordinary make.
const MODELS: [&str; 5] = ["qwen3_next/hf", "deepseek_v3/hf", "gpt_oss/hf", "qwen3_moe/hf", "demo"];

#[test]
fn a_truncated_sequence_is_that_of_the_tokens_left() {
    for precision in [Precision::Exact, Precision::Fast] {
        for name in MODELS {
            let mut engine = engine(name, precision, 200);
            let n = 300.min(engine.model().context_length() - 2);
            let tokens = prompt(n, 7);
            let mut whole = engine.sequence();
            engine.eval(&mut whole, &tokens[..n / 3]).unwrap();
            whole.mark();
            engine.eval(&mut whole, &tokens[n / 3..]).unwrap();
            for len in [n, n - 1, n / 2, n / 3 + 1, n / 3, n / 3 - 1, 64, 1, 0] {
                let mut sequence = whole.fork();
                let cost = sequence.truncation_cost(len).unwrap();
                let truncated = engine.truncate(&mut sequence, len).unwrap();
                assert_eq!(truncated, Truncated { replayed: cost }, "{name}, {len} of {n}");
                assert_eq!((sequence.tokens(), sequence.next_position()), (&tokens[..len], len as u32));
                let expected = fresh(&mut engine, &tokens[..len]);
                assert!(probe(&mut engine, &sequence) == expected, "{name}, {precision:?}: {len} of {n}");
                // It goes on as any other.
                let more = prompt(70.min(n - len), 8);
                if !more.is_empty() {
                    engine.eval(&mut sequence, &more).unwrap();
                    let expected = fresh(&mut engine, sequence.tokens());
                    assert!(probe(&mut engine, &sequence) == expected, "{name}: {len} and more");
                }
            }
            assert!(probe(&mut engine, &whole) == fresh(&mut engine, &tokens), "{name}: a fork changed it");
            assert_eq!(whole.truncation_cost(n / 3), Some(0), "{name}");
            let error = engine.truncate(&mut whole, n + 1).unwrap_err();
            assert!(matches!(error, Error::Truncate { len, to } if len == n && to == n + 1), "{error}");
        }
    }
}

#[test]
fn truncation_costs_what_the_states_need() {
    let mut engine = engine("demo", Precision::Fast, 300);
    let tokens = prompt(1300, 1);
    let mut sequence = engine.sequence();
    engine.eval(&mut sequence, &tokens).unwrap();
    // The demo has recurrent states: checkpoints at multiples of 512, though chunks are of 300.
    let costs = [1300, 1299, 1024, 1023, 512, 100, 0].map(|len| sequence.truncation_cost(len).unwrap());
    assert_eq!(costs, [0, 275, 0, 511, 0, 100, 0]);
    assert!(sequence.restore_point_bytes() > 0);
    sequence.set_restore_point_budget(0);
    assert_eq!((sequence.truncation_cost(1024), sequence.restore_point_bytes()), (Some(1024), 0));
    assert_eq!(sequence.truncation_cost(1301), None);
}

#[test]
fn forks_share_memory_until_they_write() {
    for name in MODELS {
        let mut engine = engine(name, Precision::Fast, 100);
        let mut sequence = engine.sequence();
        engine.eval(&mut sequence, &prompt(100, 2)).unwrap();
        assert!(sequence.own_bytes() > 0, "{name}");
        let mut fork = sequence.fork();
        assert_eq!(fork.own_bytes(), 0, "{name}");
        engine.eval(&mut fork, &[1]).unwrap();
        // Of each cache the first of two blocks is shared still.
        assert!(fork.own_bytes() < fork.state_bytes() && fork.own_bytes() > 0, "{name}");
        drop(sequence);
        assert_eq!(fork.own_bytes(), fork.state_bytes(), "{name}");
    }
}

#[test]
fn any_first_rows_of_a_step_can_be_kept() {
    for name in MODELS {
        for precision in [Precision::Exact, Precision::Fast] {
            let model = model(name);
            let mut backend = CpuBackend::new(1, precision).unwrap();
            let mut engine = engine(name, precision, 100);
            let tokens = prompt(80, 3);
            let graph = model.graph(StepShape { n_tokens: 5, n_outputs: 1 }).unwrap();
            let plan = Plan::new(&graph);
            // Of sixteen steps of five rows one to five each are kept, and on the way the step shapes change.
            let mut sequence = model.sequence(backend.kv_type());
            for kept in [3, 1, 5, 2, 4, 5, 1, 1, 3, 5, 5, 5, 5, 5, 5, 5] {
                let len = sequence.len();
                let rows = &tokens[len..len + 5];
                let positions: Vec<_> = (len as u32..).take(5).map(|position| [position; 3]).collect();
                sequence.reserve_each(5);
                let mut segments = [Segment { sequence: &mut sequence, rows: 0..5 }];
                let (segments, outputs) = (&mut segments[..], &[4][..]);
                let mut step = Step {
                    tokens: rows,
                    positions: &positions,
                    outputs,
                    segments,
                    hidden_input: &[],
                    kept: None,
                    cancel: None,
                };
                backend.run(&model, &graph, &plan, &mut step, None).unwrap();
                sequence.commit(&rows[..kept], &positions[..kept]);
                assert_eq!(sequence.tokens(), &tokens[..len + kept]);
            }
            let positions: Vec<_> = (60..61).map(|position| [position; 3]).collect();
            assert_eq!(sequence.len(), 60);
            let graph = model.graph(StepShape { n_tokens: 1, n_outputs: 1 }).unwrap();
            sequence.reserve(1);
            let mut segments = [Segment { sequence: &mut sequence, rows: 0..1 }];
            let (segments, outputs) = (&mut segments[..], &[0][..]);
            let mut step = Step {
                tokens: &[3],
                positions: &positions,
                outputs,
                segments,
                hidden_input: &[],
                kept: None,
                cancel: None,
            };
            let plan = Plan::new(&graph);
            let found = bits(backend.run(&model, &graph, &plan, &mut step, None).unwrap());
            assert!(found == fresh(&mut engine, &tokens[..60]), "{name}, {precision:?}");
        }
    }
}

#[test]
fn prefixes_are_found_and_shared() {
    for name in MODELS {
        let mut engine = engine(name, Precision::Fast, 100);
        let tokens = prompt(200.min(engine.model().context_length() - 60), 4);
        let n = tokens.len();
        let mut cache = PrefixCache::new(1 << 30);
        assert!(cache.get(&tokens).is_none());
        let mut sequence = engine.sequence();
        engine.eval(&mut sequence, &tokens[..n / 2]).unwrap();
        sequence.mark();
        engine.eval(&mut sequence, &tokens[n / 2..]).unwrap();
        cache.put(&sequence);
        let bytes = cache.bytes();
        assert!(bytes > 0 && sequence.own_bytes() < sequence.state_bytes());
        cache.put(&sequence);
        assert_eq!(cache.bytes(), bytes, "{name}: the same again");

        // One token is left to read, and where a recurrent state is needed there was a checkpoint.
        let known =
            |cache: &mut PrefixCache, tokens: &[u32]| cache.get(tokens).map_or(0, |known| known.len());
        let cuttable = sequence.truncation_cost(n - 1) == Some(0) && name != "gpt_oss/hf";
        assert_eq!(known(&mut cache, &tokens), if cuttable { n - 1 } else { n / 2 }, "{name}");
        assert_eq!(known(&mut cache, &[&tokens[..], &[1]].concat()), n, "{name}");
        let edited = [&tokens[..n / 2 + 3], &[499, 498, 497, 496]].concat();
        assert_eq!(known(&mut cache, &edited), if cuttable { n / 2 + 3 } else { n / 2 }, "{name}");
        assert_eq!((cache.common(&edited), cache.common(&tokens)), (n / 2 + 3, n), "{name}");
        assert!(
            cache.get(&tokens[..1]).is_none() && cache.get(&[]).is_none() && cache.get(&[499; 9]).is_none()
        );

        // What it gives is a sequence like any other, and writing to it changes nothing in the cache.
        for _ in 0..2 {
            let mut found = cache.get(&edited).unwrap();
            let len = found.len();
            engine.eval(&mut found, &edited[len..]).unwrap();
            assert!(probe(&mut engine, &found) == fresh(&mut engine, &edited), "{name}");
            engine.truncate(&mut found, n / 2).unwrap();
            assert!(probe(&mut engine, &found) == fresh(&mut engine, &tokens[..n / 2]), "{name}");
            engine.eval(&mut found, &prompt(40, 9)).unwrap();
            cache.put(&found);
        }
        // Nothing of it is lost to the sequences that have it.
        let found = cache.get(&[&tokens[..], &[1]].concat()).unwrap();
        cache.resize(0);
        assert_eq!((cache.bytes(), cache.common(&tokens)), (0, 0), "{name}");
        assert!(probe(&mut engine, &found) == fresh(&mut engine, &tokens), "{name}");
    }
}

#[test]
fn the_least_recently_used_prefix_goes_first() {
    for name in ["demo", "qwen3_moe/hf"] {
        let mut engine = engine(name, Precision::Fast, 200);
        let prompts: Vec<Vec<u32>> = (0..4).map(|seed| prompt(150, 20 + seed)).collect();
        let mut cache = PrefixCache::new(u64::MAX);
        for tokens in &prompts {
            let mut sequence = engine.sequence();
            engine.eval(&mut sequence, tokens).unwrap();
            cache.put(&sequence);
        }
        cache.get(&[&prompts[0][..], &[1]].concat()).unwrap();
        let all = cache.bytes();
        cache.resize(all * 3 / 4);
        let known: Vec<usize> = prompts.iter().map(|tokens| cache.common(tokens)).collect();
        assert!(known[0] == 150 && known[1] < 150 && known[2..] == [150; 2], "{name}: {known:?}");
        assert!(cache.bytes() <= all * 3 / 4);
    }
}

/// Reads a prompt with the help of a cache, as an engine that serves many does; the time until its logits are there.
fn time_to_first_token(
    engine: &mut Engine,
    cache: &mut PrefixCache,
    prompt: &[u32],
    marks: &[usize],
) -> (Duration, Vec<u32>) {
    let start = Instant::now();
    let mut sequence = cache.get(prompt).unwrap_or_else(|| engine.sequence());
    let first = sequence.len();
    let request = GenerateRequest {
        prompt: prompt[first..].to_vec(),
        marks: marks.iter().filter_map(|mark| mark.checked_sub(first)).collect(),
        max_tokens: 1,
        ..GenerateRequest::default()
    };
    for event in engine.generate(&mut sequence, request).unwrap() {
        if let Event::Token { .. } = event.unwrap() {
            break;
        }
    }
    let time = start.elapsed();
    cache.put(&sequence);
    (time, sequence.tokens().to_vec())
}

/// Prints what a known prefix saves.
#[test]
fn a_known_prefix_is_not_read_again() {
    for name in ["demo", "qwen3_moe/hf", "deepseek_v3/hf", "gpt_oss/hf"] {
        let mut engine = engine(name, Precision::Fast, 512);
        let shared = 2000.min(engine.model().context_length() - 40);
        let prefix = prompt(shared, 1);
        let ask = |seed| [&prefix[..], &prompt(20, seed)].concat();
        let (mut first, mut second, mut edited) = (Duration::MAX, Duration::MAX, Duration::MAX);
        for round in 0..3 {
            let mut cache = PrefixCache::new(1 << 30);
            let mut time = |prompt: &[u32]| {
                let (time, read) = time_to_first_token(&mut engine, &mut cache, prompt, &[shared]);
                assert_eq!(read, prompt);
                time
            };
            first = first.min(time(&ask(10 + round)));
            second = second.min(time(&ask(20 + round)));
            // The last message of the second, edited.
            let mut tokens = ask(20 + round);
            tokens[shared + 1] = 499;
            edited = edited.min(time(&tokens));
        }
        let share = |time: Duration| 100.0 * time.as_secs_f64() / first.as_secs_f64();
        println!(
            "{name}, {shared} shared tokens and 20: first {first:.2?}, second {second:.2?} ({:.1} %), last message edited \
             {edited:.2?} ({:.1} %)",
            share(second),
            share(edited)
        );
        // A tenth, since other tests run beside this one.
        assert!(shared < 1000 || (share(second) < 10.0 && share(edited) < 10.0), "{name}");
    }
}
