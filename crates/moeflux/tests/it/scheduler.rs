//! Many requests on one engine: each gets what it would get alone, and nobody is left waiting.

use std::time::{Duration, Instant};

use crate::common::engines::{engine, prompt};
use crate::property;
use moeflux::engine::{
    EngineCore, Outcome, PromptLogprob, RequestError, SchedulerOptions, StepEvent, SubmitError,
    SubmitOptions, Ticket,
};
use moeflux::sampling::{Constraint, SamplingOptions};
use moeflux::{Engine, EngineHandle, Error, Event, GenerateRequest, Precision, StopReason};
use proptest::prelude::*;

const FAMILIES: [&str; 4] = ["demo", "qwen3_next/mlx-q4", "deepseek_v3/hf", "gpt_oss/hf"];

fn start(engine: Engine, options: &SchedulerOptions) -> EngineHandle {
    EngineHandle::start(engine, options).unwrap()
}

fn request(prompt: Vec<u32>, seed: u64, max_tokens: usize) -> GenerateRequest {
    let sampling = SamplingOptions { temperature: 1.0, seed, ..SamplingOptions::default() };
    GenerateRequest {
        prompt,
        sampling,
        max_tokens,
        ignore_eos: true,
        logprobs: Some(2),
        ..GenerateRequest::default()
    }
}

/// All that was told: tokens with the bits of their log-probabilities, text, log-probabilities of the prompt.
#[derive(Debug, Default, PartialEq)]
struct Told {
    tokens: Vec<(u32, u32)>,
    text: String,
    prompt: Vec<PromptLogprob>,
    outcome: Option<Outcome>,
}

impl Told {
    fn take(&mut self, event: Event) {
        match event {
            Event::Prefill { logprobs, .. } => self.prompt.extend(logprobs),
            Event::Token { id, text, logprob, .. } => {
                self.tokens.push((id, logprob.to_bits()));
                self.text += &text;
            }
            Event::Done(outcome) => {
                self.text += &outcome.text;
                self.outcome = Some(outcome);
            }
            _ => {}
        }
    }

    fn stop(&self) -> &StopReason {
        &self.outcome.as_ref().unwrap().stop
    }

    fn assert_same(&self, alone: &Told) {
        assert_eq!(self.tokens, alone.tokens);
        assert_eq!((&self.text, &self.prompt), (&alone.text, &alone.prompt));
        assert_eq!(self.stop(), alone.stop());
    }
}

fn alone(engine: &mut Engine, request: GenerateRequest) -> Told {
    let mut sequence = engine.sequence();
    let mut told = Told::default();
    for event in engine.generate(&mut sequence, request).unwrap() {
        told.take(event.unwrap());
    }
    told
}

fn all(ticket: Ticket) -> Result<Told, RequestError> {
    let mut told = Told::default();
    for event in ticket {
        told.take(event?);
    }
    Ok(told)
}

#[test]
fn each_gets_what_it_would_get_alone() {
    for family in FAMILIES {
        let requests: Vec<GenerateRequest> = (0..9)
            .map(|i| request(prompt(1 + 37 * i as usize % 110, i), u64::from(i), 3 + i as usize % 7))
            .chain([
                GenerateRequest { prompt_logprobs: Some(1), ..request(prompt(70, 5), 3, 4) },
                GenerateRequest { max_tokens: 0, prompt_logprobs: Some(0), ..request(prompt(40, 6), 3, 0) },
                // Begins as an earlier one, so that it goes on from a prefix.
                request([prompt(90, 3), prompt(20, 9)].concat(), 8, 6),
            ])
            .collect();
        let mut single = engine(family, Precision::Fast, 64);
        let expected: Vec<Told> =
            requests.iter().map(|request| alone(&mut single, request.clone())).collect();
        // Few and many at once, prompts in small and large parts, with and without prefixes.
        for (max_running, mixed, prefix_cache) in
            [(1, 64, true), (3, 7, false), (16, 1, true), (16, 33, true)]
        {
            let options = SchedulerOptions {
                max_running,
                mixed_tokens: Some(mixed),
                prefix_cache,
                ..SchedulerOptions::default()
            };
            let handle = start(engine(family, Precision::Fast, 64), &options);
            let submit =
                |request: &GenerateRequest| handle.submit(request.clone(), SubmitOptions::default()).unwrap();
            let tickets: Vec<Ticket> = requests.iter().map(submit).collect();
            for (ticket, expected) in tickets.into_iter().zip(&expected) {
                all(ticket).unwrap().assert_same(expected);
            }
            handle.shutdown(Duration::MAX);
            let stats = handle.stats();
            assert_eq!((stats.finished, stats.failed, stats.cancelled), (12, 0, 0), "{family}");
        }
    }
}

#[test]
fn samples_part_where_the_prompt_ends() {
    for family in FAMILIES {
        let asked = request(prompt(90, 1), 40, 8);
        let mut single = engine(family, Precision::Fast, 64);
        let handle = start(engine(family, Precision::Fast, 64), &SchedulerOptions::default());
        let tickets = handle.submit_samples(asked.clone(), 4, SubmitOptions::default()).unwrap();
        for (index, ticket) in (0..).zip(tickets) {
            let mut request = asked.clone();
            request.sampling.seed += index;
            all(ticket).unwrap().assert_same(&alone(&mut single, request));
        }
        handle.shutdown(Duration::MAX);
        assert_eq!(handle.stats().prompt_tokens, 90, "the prompt is read once");
    }
}

#[test]
fn what_was_read_is_not_read_again() {
    for family in FAMILIES {
        let handle = start(engine(family, Precision::Fast, 64), &SchedulerOptions::default());
        let submit = |prompt: Vec<u32>| {
            let ticket = handle.submit(request(prompt, 2, 5), SubmitOptions::default()).unwrap();
            all(ticket).unwrap()
        };
        let first = prompt(100, 1);
        let told = submit(first.clone());
        assert_eq!(told.outcome.as_ref().unwrap().cached_tokens, 0);
        // The next turn of a conversation.
        let answer = told.tokens.iter().map(|&(token, _)| token);
        let next: Vec<u32> = first.iter().copied().chain(answer).chain(prompt(10, 7)).collect();
        let outcome = submit(next.clone()).outcome.unwrap();
        assert_eq!((outcome.prompt_tokens, outcome.cached_tokens), (115, 104), "{family}");
        let again = submit(next).outcome.unwrap();
        assert!(again.cached_tokens >= 104, "{family}: {again:?}");
    }
}

#[test]
fn little_memory_makes_them_take_turns() {
    for family in FAMILIES {
        let requests: Vec<GenerateRequest> =
            (0..5).map(|i| request(prompt(20 + i as usize, i), u64::from(i), 90)).collect();
        let mut single = engine(family, Precision::Fast, 64);
        let bytes = {
            let mut sequence = single.sequence();
            single.eval(&mut sequence, &prompt(115, 1)).unwrap();
            sequence.state_bytes() as u64
        };
        // For two at the end, and for more at the beginning.
        let options = SchedulerOptions { state_budget: Some(2 * bytes), ..SchedulerOptions::default() };
        let handle = start(engine(family, Precision::Fast, 64), &options);
        let tickets: Vec<Ticket> =
            requests.iter().map(|r| handle.submit(r.clone(), SubmitOptions::default()).unwrap()).collect();
        for (ticket, request) in tickets.into_iter().zip(requests) {
            all(ticket).unwrap().assert_same(&alone(&mut single, request));
        }
    }
}

#[test]
fn one_alone_may_not_take_more_than_there_is() {
    let options = SchedulerOptions { state_budget: Some(1000), ..SchedulerOptions::default() };
    let handle = start(engine("qwen3_moe/hf", Precision::Fast, 64), &options);
    let told =
        all(handle.submit(request(prompt(200, 1), 1, 100), SubmitOptions::default()).unwrap()).unwrap();
    assert_eq!(told.stop(), &StopReason::MemoryFull);
}

#[test]
fn who_is_cancelled_leaves_the_others_alone() {
    let mut single = engine("demo", Precision::Fast, 64);
    let handle = start(engine("demo", Precision::Fast, 64), &SchedulerOptions::default());
    let submit = |request| handle.submit(request, SubmitOptions::default()).unwrap();
    let stays = request(prompt(50, 1), 1, 60);
    let mut long = submit(request(prompt(20, 2), 2, 1500));
    let dropped = submit(request(prompt(20, 3), 3, 1500));
    let of_request = request(prompt(20, 4), 4, 1500);
    let by_request = of_request.cancel.clone();
    let of_request = submit(of_request);
    let ticket = submit(stays.clone());
    assert!(matches!(long.next(), Some(Ok(Event::Prefill { .. }))));
    long.cancel();
    drop(dropped);
    by_request.cancel();
    all(ticket).unwrap().assert_same(&alone(&mut single, stays));
    for ticket in [long, of_request] {
        let told = all(ticket).unwrap();
        assert_eq!(told.stop(), &StopReason::Cancelled);
        assert!(told.tokens.len() < 1500);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while handle.stats().running > 0 || handle.stats().cancelled < 3 {
        assert!(Instant::now() < deadline, "{:?}", handle.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_queue_and_bad_requests_are_refused_at_once() {
    let options = SchedulerOptions { max_running: 1, max_queued: 2, ..SchedulerOptions::default() };
    let handle = start(engine("demo", Precision::Fast, 64), &options);
    let submit = |request| handle.submit(request, SubmitOptions::default());
    let mut running = submit(request(prompt(20, 1), 1, 1900)).unwrap();
    assert!(running.next().unwrap().is_ok());
    let waiting =
        [submit(request(prompt(5, 2), 1, 3)).unwrap(), submit(request(prompt(5, 3), 1, 3)).unwrap()];
    assert!(matches!(submit(request(prompt(5, 4), 1, 3)), Err(SubmitError::QueueFull { limit: 2 })));
    let invalid = |request| match submit(request) {
        Err(SubmitError::Invalid(error)) => *error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(invalid(request(Vec::new(), 1, 3)), Error::NoTokens));
    let absurd = request(vec![u32::MAX], 1, 3);
    assert!(matches!(invalid(absurd), Error::TokenOutOfRange { .. }));
    let long = request(prompt(1 << 20, 1), 1, 3);
    assert!(matches!(invalid(long), Error::ContextFull { .. }));
    let constraint = Some(Constraint::Regex("(".to_owned()));
    let unreadable = GenerateRequest { constraint, ignore_eos: false, ..request(prompt(5, 1), 1, 3) };
    assert!(matches!(invalid(unreadable), Error::Constraint(_)));
    let many = handle.submit_samples(request(prompt(5, 1), 1, 3), 2, SubmitOptions::default());
    let Err(SubmitError::Invalid(many)) = many else { panic!("{many:?}") };
    assert!(matches!(*many, Error::Option { option: "samples", .. }));
    drop(running);
    for ticket in waiting {
        assert_eq!(all(ticket).unwrap().tokens.len(), 3);
    }
}

#[test]
fn the_higher_priority_goes_first() {
    let options = SchedulerOptions { max_running: 1, ..SchedulerOptions::default() };
    let handle = start(engine("demo", Precision::Fast, 64), &options);
    let mut first = handle.submit(request(prompt(20, 1), 1, 200), SubmitOptions::default()).unwrap();
    assert!(first.next().unwrap().is_ok());
    let submit = |priority| {
        handle
            .submit(request(prompt(20, 2), 1, 40), SubmitOptions { priority, ..SubmitOptions::default() })
            .unwrap()
    };
    let (low, high) = (submit(0), submit(5));
    let [low, high] = [low, high].map(|ticket| all(ticket).unwrap().outcome.unwrap().queued);
    assert!(high < low, "{high:?} {low:?}");
}

#[test]
fn a_long_prompt_stalls_nobody() {
    let options = SchedulerOptions { mixed_tokens: Some(16), ..SchedulerOptions::default() };
    let handle = start(engine("demo", Precision::Fast, 256), &options);
    let submit = |request| handle.submit(request, SubmitOptions::default()).unwrap();
    let answering = submit(request(prompt(10, 1), 1, 400));
    let long = submit(request(prompt(1900, 2), 1, 4));
    let short = submit(request(prompt(12, 3), 1, 4));
    let [_, long, short] = [answering, long, short].map(|ticket| all(ticket).unwrap().outcome.unwrap());
    assert!(short.prefill + short.queued < long.prefill / 4, "{short:?} {long:?}");
}

#[test]
fn embeddings_are_means_and_do_not_depend_on_others() {
    let tokens = prompt(100, 1);
    let embed = |chunk: usize, beside: bool| {
        let handle = start(engine("demo", Precision::Fast, chunk), &SchedulerOptions::default());
        let others: Vec<_> = (0..3)
            .filter(|_| beside)
            .map(|i| handle.submit(request(prompt(30, i), 1, 30), SubmitOptions::default()).unwrap())
            .collect();
        let more = handle.embed(prompt(33, 9), SubmitOptions::default()).unwrap();
        let embedding = handle.embed(tokens.clone(), SubmitOptions::default()).unwrap().wait().unwrap();
        assert_eq!(more.wait().unwrap().tokens, 33);
        drop(others);
        embedding
    };
    let expected = embed(256, false);
    assert_eq!((expected.tokens, expected.values.len()), (100, 384));
    assert_eq!(embed(7, true), expected);
}

#[test]
fn sequences_are_saved_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("story.moeflux");
    let tokens = prompt(150, 1);
    let handle = start(engine("demo", Precision::Fast, 64), &SchedulerOptions::default());
    assert_eq!(handle.save(tokens.clone(), path.clone()).unwrap().wait().unwrap().tokens, 150);
    let other = start(engine("demo", Precision::Fast, 64), &SchedulerOptions::default());
    let missing = other.restore(folder.path().join("none")).unwrap().wait();
    let Err(RequestError::Failed(error)) = missing else { panic!("{missing:?}") };
    assert!(matches!(&*error, Error::Snapshot { .. }), "{error}");
    assert_eq!(other.restore(path).unwrap().wait().unwrap().tokens, tokens);
    let asked = request([tokens, prompt(5, 2)].concat(), 3, 6);
    let told = all(other.submit(asked.clone(), SubmitOptions::default()).unwrap()).unwrap();
    assert_eq!(told.outcome.as_ref().unwrap().cached_tokens, 150);
    told.assert_same(&alone(&mut engine("demo", Precision::Fast, 64), asked));
}

#[test]
fn shutting_down_lets_answers_finish_or_stops_them() {
    let handle = start(engine("demo", Precision::Fast, 64), &SchedulerOptions::default());
    let short = handle.submit(request(prompt(20, 1), 1, 20), SubmitOptions::default()).unwrap();
    let waits = handle.clone();
    let thread = std::thread::spawn(move || waits.shutdown(Duration::from_mins(1)));
    assert_eq!(all(short).unwrap().tokens.len(), 20);
    thread.join().unwrap();
    let late = handle.submit(request(prompt(20, 1), 1, 20), SubmitOptions::default());
    assert!(matches!(late, Err(SubmitError::Stopped)), "{late:?}");

    let handle = start(engine("demo", Precision::Fast, 64), &SchedulerOptions::default());
    let long = handle.submit(request(prompt(20, 1), 1, 1900), SubmitOptions::default()).unwrap();
    let start = Instant::now();
    handle.shutdown(Duration::ZERO);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(all(long).unwrap().stop(), &StopReason::Cancelled);
}

/// The loop itself, without a thread.
#[test]
fn requests_are_submitted_stepped_and_cancelled() {
    let asked: Vec<GenerateRequest> = (0..3).map(|i| request(prompt(20, i), u64::from(i), 12)).collect();
    let mut core =
        EngineCore::new(engine("demo", Precision::Fast, 64), &SchedulerOptions::default()).unwrap();
    assert!(core.is_idle() && core.step().is_empty());
    let submit = |request: &GenerateRequest, core: &mut EngineCore| {
        core.submit(request.clone(), SubmitOptions::default()).unwrap()
    };
    let ids: Vec<_> = asked.iter().map(|request| submit(request, &mut core)).collect();
    let mut told: Vec<Told> = ids.iter().map(|_| Told::default()).collect();
    let mut steps = 0;
    while !core.is_idle() {
        for event in core.step() {
            let StepEvent::Event { id, event } = event else { panic!("{event:?}") };
            told[ids.iter().position(|&own| own == id).unwrap()].take(event);
        }
        steps += 1;
        if steps == 4 {
            core.cancel(ids[1]);
        }
    }
    let mut single = engine("demo", Precision::Fast, 64);
    for index in [0, 2] {
        told[index].assert_same(&alone(&mut single, asked[index].clone()));
    }
    assert_eq!((told[1].stop(), told[1].tokens.len()), (&StopReason::Cancelled, 4));
    // The prompts are read in one step, which chooses the first tokens.
    assert_eq!((steps, core.stats().steps), (12, 12));
}

proptest! {
    #![proptest_config(property::config(24))]

    /// Random requests, some cancelled at a random event, under random limits.
    #[test]
    fn whatever_runs_beside_it(
        requests in proptest::collection::vec((1_usize..120, 0_u32..3, 0_usize..20, proptest::option::of(0_usize..12)), 1..12),
        max_running in 1_usize..8,
        mixed in 1_usize..80,
        family in 0..FAMILIES.len(),
        budget in proptest::option::of(1_u64 << 18..1 << 23),
    ) {
        let mut single = engine(FAMILIES[family], Precision::Fast, 64);
        let options = SchedulerOptions {
            max_running,
            mixed_tokens: Some(mixed),
            state_budget: budget,
            ..SchedulerOptions::default()
        };
        let handle = start(engine(FAMILIES[family], Precision::Fast, 64), &options);
        let tickets: Vec<_> = requests
            .iter()
            .map(|&(n, seed, max_tokens, cancel_at)| {
                let asked = request(prompt(n, seed), u64::from(seed), max_tokens);
                (handle.submit(asked.clone(), SubmitOptions::default()).unwrap(), asked, cancel_at)
            })
            .collect();
        for (mut ticket, asked, cancel_at) in tickets {
            let mut told = Told::default();
            let mut events = 0;
            while let Some(event) = ticket.next() {
                told.take(event.unwrap());
                if Some(events) == cancel_at {
                    ticket.cancel();
                }
                events += 1;
            }
            let expected = alone(&mut single, asked);
            match told.stop() {
                StopReason::Cancelled => {
                    prop_assert!(cancel_at.is_some());
                    prop_assert!(expected.tokens.starts_with(&told.tokens));
                }
                StopReason::MemoryFull => prop_assert!(expected.tokens.starts_with(&told.tokens)),
                _ => told.assert_same(&expected),
            }
        }
    }
}

/// A caller with many long answers does not keep another from getting its own, and what is preempted goes on with the same
/// bits.
#[test]
fn callers_get_equal_parts_and_the_same_bits() {
    let options = SchedulerOptions { max_running: 2, ..SchedulerOptions::default() };
    let long = |seed: u32| request(prompt(20, seed), u64::from(seed), 300);
    let mut one = engine("demo", Precision::Fast, 64);
    let expected: Vec<Told> = (0..4).map(|seed| alone(&mut one, long(seed))).collect();
    let handle = start(engine("demo", Precision::Fast, 64), &options);
    let submit =
        |request, share| handle.submit(request, SubmitOptions { share, ..SubmitOptions::default() }).unwrap();
    let tickets: Vec<_> = (0..4).map(|seed| submit(long(seed), 1)).collect();
    // Another caller, and one more request of the same.
    for share in [2, 1] {
        let short = all(submit(request(prompt(20, 9), 9, 3), share)).unwrap();
        assert_eq!(short.tokens.len(), 3);
        let stats = handle.stats();
        assert!(stats.running + stats.queued > 2, "the others are at it: {stats:?}");
    }
    for (ticket, expected) in tickets.into_iter().zip(&expected) {
        all(ticket).unwrap().assert_same(expected);
    }
    let stats = handle.stats();
    assert!(stats.preempted > 0, "{stats:?}");
    assert_eq!(stats.failed, 0);
}

/// A ticket that nobody reads holds no place, and is told of where it was when somebody does.
#[test]
fn what_nobody_reads_waits_and_then_ends() {
    let options = SchedulerOptions { max_running: 1, unread_events: 8, ..SchedulerOptions::default() };
    let handle = start(engine("demo", Precision::Fast, 64), &options);
    let unread = handle.submit(request(prompt(20, 1), 1, 60), SubmitOptions::default()).unwrap();
    let other = handle.submit(request(prompt(20, 2), 2, 60), SubmitOptions::default()).unwrap();
    assert_eq!(all(other).unwrap().tokens.len(), 60);
    // The other's last event comes before the step ends that it comes from.
    let ended = Instant::now();
    while handle.stats().running > 0 {
        assert!(ended.elapsed() < Duration::from_secs(10), "{:?}", handle.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    let expected = alone(&mut engine("demo", Precision::Fast, 64), request(prompt(20, 1), 1, 60));
    all(unread).unwrap().assert_same(&expected);

    let time = Some(Duration::from_millis(200));
    let options = SchedulerOptions { unread_events: 8, unread_time: time, ..SchedulerOptions::default() };
    let handle = start(engine("demo", Precision::Fast, 64), &options);
    let unread = handle.submit(request(prompt(20, 1), 1, 60), SubmitOptions::default()).unwrap();
    let start = Instant::now();
    while handle.stats().cancelled == 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", handle.stats());
        std::thread::sleep(Duration::from_millis(10));
    }
    let told = all(unread).unwrap();
    assert_eq!(told.stop(), &StopReason::Cancelled);
    assert!(told.tokens.len() < 20, "{}", told.tokens.len());
}
