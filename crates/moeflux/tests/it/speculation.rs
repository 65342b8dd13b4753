//! Guesses change when logits are computed and nothing that is told or remembered; and the layer for multi-token
//! prediction computes what transformers computes.

use std::time::Duration;

use crate::common::engines::{bits, fresh, probe};
use crate::common::{Reference, data, max_abs, max_diff, root};
use crate::property;
use moeflux::backend::cpu::CpuBackend;
use moeflux::backend::{Backend, Segment, Step};
use moeflux::engine::{SchedulerOptions, Speculate, Speculated, SubmitOptions, Ticket};
use moeflux::graph::{Plan, StepShape};
use moeflux::model::Pass;
use moeflux::sampling::{Constraint, SamplingOptions};
use moeflux::{
    Engine, EngineHandle, EngineOptions, Event, GenerateRequest, Model, ModelOptions, Precision, Sequence,
    StopReason,
};
use proptest::prelude::*;

const WAYS: [Speculate; 4] =
    [Speculate::Auto, Speculate::Lookup, Speculate::Mtp { depth: 1 }, Speculate::Mtp { depth: 3 }];

fn engine(name: &str) -> Engine {
    let folder = if name == "demo" { root().join("models/demo") } else { data(name) };
    let model = Model::open(&folder, &ModelOptions { mtp: true, ..ModelOptions::default() }).unwrap();
    Engine::new(model, &EngineOptions { threads: 1, ..EngineOptions::default() }).unwrap()
}

/// The events of a generation but for the times and for what guesses came to, and that; at most `most` events.
fn told(
    engine: &mut Engine,
    sequence: &mut Sequence,
    request: &GenerateRequest,
    most: usize,
) -> (Vec<Event>, Speculated) {
    let mut guesses = Speculated::default();
    let events = engine.generate(sequence, request.clone()).unwrap().take(most);
    let events = events.map(|event| match event.unwrap() {
        Event::Done(mut outcome) => {
            guesses = std::mem::take(&mut outcome.speculated);
            (outcome.prefill, outcome.decode) = (Duration::ZERO, Duration::ZERO);
            Event::Done(outcome)
        }
        event => event,
    });
    (events.collect(), guesses)
}

/// A text that says the same again and again, so that lookup finds something.
fn prompt(engine: &Engine) -> Vec<u32> {
    let text = "One and two and three, one and two and three, one and two and three, one and";
    engine.model().tokenizer().encode(text).unwrap()
}

fn requests(prompt: &[u32]) -> Vec<GenerateRequest> {
    let request = GenerateRequest { prompt: prompt.to_vec(), max_tokens: 60, ..GenerateRequest::default() };
    let sampling = |temperature| SamplingOptions { temperature, seed: 5, ..SamplingOptions::default() };
    vec![
        GenerateRequest { ignore_eos: true, logprobs: Some(3), ..request.clone() },
        GenerateRequest { sampling: sampling(0.7), ignore_eos: true, ..request.clone() },
        GenerateRequest {
            sampling: SamplingOptions {
                repetition_penalty: 1.1,
                frequency_penalty: 0.2,
                dry_multiplier: 0.5,
                ..sampling(1.0)
            },
            min_tokens: 20,
            stop: vec!["two".to_owned()],
            ..request.clone()
        },
        // Of two tokens each is a good guess.
        GenerateRequest {
            sampling: SamplingOptions { logit_bias: [(40, 100.0), (41, 100.0)].into(), ..sampling(1.0) },
            ignore_eos: true,
            ..request.clone()
        },
        // There is nothing to choose.
        GenerateRequest {
            sampling: sampling(1.0),
            constraint: Some(Constraint::Regex("(one and two and three, ){10}".to_owned())),
            ..request
        },
    ]
}

#[test]
fn nothing_told_or_remembered_depends_on_guesses() {
    let (mut drafted, mut accepted) = (0, 0);
    for name in ["demo", "qwen3_next/hf", "deepseek_v3/hf", "gpt_oss/hf"] {
        let mut engine = engine(name);
        for (index, request) in requests(&prompt(&engine)).into_iter().enumerate() {
            if name != "demo" && request.constraint.is_some() {
                continue;
            }
            let mut expected_sequence = engine.sequence();
            let (expected, _) = told(&mut engine, &mut expected_sequence, &request, usize::MAX);
            for speculate in WAYS {
                if matches!(speculate, Speculate::Mtp { .. }) && !engine.model().has_mtp() {
                    continue;
                }
                let what = format!("{name} {index} {speculate}");
                let request = GenerateRequest { speculate, ..request.clone() };
                let mut sequence = engine.sequence();
                let (found, guesses) = told(&mut engine, &mut sequence, &request, usize::MAX);
                assert_eq!(found, expected, "{what}");
                assert_eq!(sequence.tokens(), expected_sequence.tokens(), "{what}");
                let tokens = sequence.tokens().to_vec();
                assert_eq!(probe(&mut engine, &sequence), fresh(&mut engine, &tokens), "{what}");
                drafted += guesses.drafted;
                accepted += guesses.accepted;
            }
        }
    }
    println!("{accepted} of {drafted} guesses were right");
    assert!(accepted >= 40 && drafted - accepted >= 40, "{accepted} of {drafted}");
}

#[test]
fn a_generation_dropped_anywhere_leaves_what_was_told() {
    let mut engine = engine("demo");
    let prompt = prompt(&engine);
    let request = GenerateRequest { ignore_eos: true, ..requests(&prompt).swap_remove(0) };
    for most in [1, 2, 3, 4, 5, 7, 12, 25] {
        let sequences = [Speculate::Off, Speculate::Lookup].map(|speculate| {
            let request = GenerateRequest { speculate, ..request.clone() };
            let mut sequence = engine.sequence();
            told(&mut engine, &mut sequence, &request, most);
            sequence
        });
        let [expected, found] =
            sequences.map(|sequence| (sequence.tokens().to_vec(), probe(&mut engine, &sequence)));
        assert_eq!(found, expected, "after {most} events");
    }
}

#[test]
fn the_context_ends_where_it_ends_without_guesses() {
    let changes = serde_json::json!({"max_position_embeddings": 64});
    let folder = crate::common::copy_with(&data("qwen3_moe/hf"), &changes);
    let model = Model::open(folder.path(), &ModelOptions::default()).unwrap();
    let mut engine = Engine::new(model, &EngineOptions { threads: 1, ..EngineOptions::default() }).unwrap();
    let request = GenerateRequest {
        prompt: [1, 2, 3, 4, 5].repeat(8),
        max_tokens: 100,
        ignore_eos: true,
        ..GenerateRequest::default()
    };
    let ends = [Speculate::Off, Speculate::Lookup].map(|speculate| {
        let mut sequence = engine.sequence();
        let request = GenerateRequest { speculate, ..request.clone() };
        let events = told(&mut engine, &mut sequence, &request, usize::MAX).0;
        let Some(Event::Done(outcome)) = events.last() else { panic!("no end") };
        assert_eq!(outcome.stop, StopReason::ContextFull, "{speculate}");
        (events, sequence.tokens().to_vec())
    });
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn a_layer_that_is_not_there_is_an_error() {
    let mut engine = engine("demo");
    assert!(!engine.model().has_mtp());
    let mut sequence = engine.sequence();
    for (depth, part) in [(1, "no layer for multi-token prediction"), (9, "from 1 to 8"), (0, "from 1 to 8")]
    {
        let speculate = Speculate::Mtp { depth };
        let request =
            GenerateRequest { prompt: vec![1], max_tokens: 1, speculate, ..GenerateRequest::default() };
        let message = engine.generate(&mut sequence, request).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    for (text, expected) in
        [("mtp", Some("mtp:1")), ("mtp:4", Some("mtp:4")), ("mtp:9", None), ("fast", None)]
    {
        assert_eq!(
            text.parse::<Speculate>().ok().map(|speculate| speculate.to_string()).as_deref(),
            expected
        );
    }
}

#[test]
fn the_layer_for_further_tokens_agrees_with_transformers() {
    let reference = Reference::open(&data("qwen3_next/ref_hf.safetensors"));
    let options = ModelOptions { mtp: true, ..ModelOptions::default() };
    let model = Model::open(data("qwen3_next/hf"), &options).unwrap();
    let mut backend = CpuBackend::new(1, Precision::Exact).unwrap();
    let mut run = |pass, sequence: &mut Sequence, tokens: &[u32], first: usize, given: &[f32]| {
        let positions: Vec<_> = (first as u32..).take(tokens.len()).map(|position| [position; 3]).collect();
        let graph =
            model.graph_of(pass, StepShape { n_tokens: tokens.len(), n_outputs: tokens.len() }).unwrap();
        let mut kept = Vec::new();
        sequence.reserve(tokens.len());
        let mut step = Step {
            tokens,
            positions: &positions,
            outputs: &(0..tokens.len()).collect::<Vec<_>>(),
            hidden_input: given,
            kept: Some(&mut kept),
            segments: &mut [Segment { sequence, rows: 0..tokens.len() }],
            cancel: None,
        };
        let logits = backend.run(&model, &graph, &Plan::new(&graph), &mut step, None).unwrap().to_vec();
        sequence.commit(tokens, &positions);
        (logits, kept)
    };

    let ids = reference.ints("p2.ids");
    let n = ids.len() - 1;
    let kv_type = moeflux::sequence::KvType::F32;
    let (logits, hidden) = run(Pass::WithHidden, &mut model.sequence(kv_type), ids, 0, &[]);
    assert_eq!(bits(&logits), bits(&run(Pass::Tokens, &mut model.sequence(kv_type), ids, 0, &[]).0));
    let width = hidden.len() / ids.len();
    let given = &hidden[..n * width];
    let whole = run(Pass::Mtp, &mut model.mtp_sequence(kv_type).unwrap(), &ids[1..], 1, given);
    let difference = max_diff(&whole.0, reference.floats("p2.mtp_logits"));
    let expected = reference.floats("p2.mtp_hidden");
    let hidden_difference = max_diff(&whole.1, expected) / max_abs(expected);
    println!("logits {difference:.1e}, hidden {hidden_difference:.1e}");
    assert!(difference <= 2e-4 && hidden_difference <= 2e-4, "{difference} {hidden_difference}");

    // In parts the same bits.
    let mut sequence = model.mtp_sequence(kv_type).unwrap();
    let (mut logits, mut kept) = (Vec::new(), Vec::new());
    for rows in [0..5, 5..6, 6..n] {
        let given = &given[rows.start * width..rows.end * width];
        let part = run(Pass::Mtp, &mut sequence, &ids[1..][rows.clone()], 1 + rows.start, given);
        logits.extend(part.0);
        kept.extend(part.1);
    }
    assert_eq!((bits(&logits), bits(&kept)), (bits(&whole.0), bits(&whole.1)));
}

/// All that was told but times and what drafts came to; and that.
type Told = (Vec<(u32, u32)>, String, StopReason);

fn all(events: impl Iterator<Item = Event>) -> (Told, Speculated) {
    let (mut tokens, mut text) = (Vec::new(), String::new());
    for event in events {
        match event {
            Event::Token { id, text: piece, logprob, .. } => {
                tokens.push((id, logprob.to_bits()));
                text += &piece;
            }
            Event::Done(outcome) => {
                return ((tokens, text + &outcome.text, outcome.stop), outcome.speculated);
            }
            _ => {}
        }
    }
    panic!("no end");
}

/// One of a few requests whose drafts are right often, now and then or never.
fn some_request(kind: usize, seed: u32, max_tokens: usize) -> GenerateRequest {
    let sampling = |temperature, logit_bias: &[(u32, f32)]| SamplingOptions {
        temperature,
        seed: u64::from(seed),
        logit_bias: logit_bias.iter().copied().collect(),
        ..SamplingOptions::default()
    };
    let repeated: Vec<u32> = [seed + 1, seed + 2, seed + 3, seed + 4].repeat(4 + seed as usize);
    let request = GenerateRequest { max_tokens, ignore_eos: true, ..GenerateRequest::default() };
    match kind {
        0 => GenerateRequest { prompt: repeated, ..request },
        1 => GenerateRequest {
            prompt: repeated,
            sampling: sampling(1.0, &[(40, 100.0), (41, 100.0)]),
            ..request
        },
        2 => GenerateRequest {
            prompt: repeated,
            sampling: sampling(1.0, &[]),
            min_tokens: max_tokens / 2,
            ignore_eos: false,
            ..request
        },
        _ => GenerateRequest {
            prompt: crate::common::engines::prompt(30 + 20 * seed as usize, seed),
            sampling: sampling(0.0, &[(9, 100.0)]),
            ..request
        },
    }
}

proptest! {
    #![proptest_config(property::config(10))]

    /// Random requests in batches, each with drafts of its own kind, under random limits, some preempted for memory.
    #[test]
    fn batches_with_mixed_speculation_change_nothing(
        requests in prop::collection::vec((0_usize..4, 0_u32..4, 1_usize..40, 0..WAYS.len() + 1), 1..9),
        max_running in 1_usize..9,
        mixed in 1_usize..80,
        budget in prop::option::weighted(0.3, 1_u64 << 18..1 << 21),
        family in prop::sample::select(vec!["demo", "qwen3_next/hf", "deepseek_v3/hf", "gpt_oss/hf"]),
    ) {
        let mut single = engine(family);
        let options = SchedulerOptions {
            max_running,
            mixed_tokens: Some(mixed),
            state_budget: budget,
            ..SchedulerOptions::default()
        };
        let handle = EngineHandle::start(engine(family), &options).unwrap();
        let has_mtp = single.model().has_mtp();
        let mut submitted = Vec::new();
        for (kind, seed, max_tokens, way) in requests {
            let asked = some_request(kind, seed, max_tokens);
            let speculate = WAYS.get(way).copied().unwrap_or_default();
            let is_missing = matches!(speculate, Speculate::Mtp { .. }) && !has_mtp;
            let speculate = if is_missing { Speculate::Lookup } else { speculate };
            let request = GenerateRequest { speculate, ..asked.clone() };
            submitted.push((handle.submit(request, SubmitOptions::default()).unwrap(), asked));
        }
        for (ticket, asked) in submitted {
            let (found, _) = all(ticket.map(Result::unwrap));
            let mut sequence = single.sequence();
            let (expected, _) = all(single.generate(&mut sequence, asked).unwrap().map(Result::unwrap));
            if found.2 == StopReason::MemoryFull {
                prop_assert!(budget.is_some() && expected.0.starts_with(&found.0));
            } else {
                prop_assert_eq!(found, expected);
            }
        }
    }
}

/// Requests of one batch each have drafts, and fewer steps are made for the same text. The layer for multi-token prediction of
/// the small checkpoint has random weights: its drafts are there, and are not right.
#[test]
fn drafts_save_steps_in_a_batch() {
    for (family, speculate) in [("demo", Speculate::Lookup), ("qwen3_next/hf", Speculate::Mtp { depth: 2 })] {
        for n in [1, 4, 8] {
            let run = |speculate| {
                let handle = EngineHandle::start(engine(family), &SchedulerOptions::default()).unwrap();
                let request = |seed| GenerateRequest { speculate, ..some_request(1, seed, 60) };
                let submit = |seed| handle.submit(request(seed), SubmitOptions::default()).unwrap();
                let tickets: Vec<Ticket> = (0..n).map(submit).collect();
                let told: Vec<_> =
                    tickets.into_iter().map(|ticket| all(ticket.map(Result::unwrap))).collect();
                handle.shutdown(Duration::MAX);
                (told, handle.stats().steps)
            };
            let (off, off_steps) = run(Speculate::Off);
            let (found, steps) = run(speculate);
            for ((found, guesses), (expected, _)) in found.iter().zip(&off) {
                assert_eq!(found, expected, "{family} {speculate} {n}");
                assert!(guesses.drafted > 0, "{family} {speculate} {n}: {guesses:?}");
            }
            println!("{family}, {n} at once, {speculate}: {steps} steps, off {off_steps}");
            assert!(
                family != "demo" || steps < off_steps,
                "{n}: {steps} steps, and {off_steps} without drafts"
            );
        }
    }
}
