use proptest::prelude::*;

use super::share::property;
use super::*;

const LIMITS: Limits =
    Limits { running: 2, prefill_chunk: 512, shared_tokens: 256, mixed_tokens: 64, state_bytes: Some(1000) };

fn view(stage: Stage) -> RequestView {
    RequestView {
        stage,
        sequences: 1,
        prompt_left: if stage == Stage::Decode { 0 } else { 100 },
        share: 0,
        priority: 0,
        age: Duration::from_secs(1),
        preempted: None,
        slice: (Duration::ZERO, 1),
        is_paused: false,
        can_preempt: true,
        has_states: stage != Stage::Waiting,
        state_bytes: 0,
        needed_bytes: 100,
    }
}

#[test]
fn decodes_read_one_token_and_prompts_share_the_rest() {
    let prompt = |left| RequestView { prompt_left: left, ..view(Stage::Prefill) };
    let plan = schedule(&[prompt(10), view(Stage::Decode), prompt(1000), view(Stage::Held)], &LIMITS);
    assert_eq!(plan.rows, [10, 1, 54, 0]);
    // So does a prompt that ends in the step.
    assert_eq!(schedule(&[prompt(10), prompt(1000)], &LIMITS).rows, [10, 54]);
    // With neither, a whole chunk.
    assert_eq!(schedule(&[prompt(100), prompt(1000)], &LIMITS).rows, [100, 412]);
    // Callers leave room for each other, those that wait too.
    let other = RequestView { share: 1, ..view(Stage::Waiting) };
    let one = Limits { running: 1, ..LIMITS };
    assert_eq!(schedule(&[prompt(1000), other], &one).rows, [256, 0]);
    assert_eq!(schedule(&[prompt(1000), RequestView { is_paused: true, ..other }], &one).rows, [512, 0]);
    assert_eq!(schedule(&[], &LIMITS), Plan::default());
}

#[test]
fn requests_are_admitted_in_order_while_there_are_places() {
    let waiting =
        |secs, priority| RequestView { age: Duration::from_secs(secs), priority, ..view(Stage::Waiting) };
    // The highest priority first, then the oldest.
    let plan = schedule(&[waiting(1, 0), waiting(3, 0), waiting(2, 1)], &LIMITS);
    assert_eq!(plan.admit, [2, 1]);
    // A request that has waited for long counts as one of a higher priority.
    assert_eq!(schedule(&[waiting(31, 0), waiting(2, 1)], &Limits { running: 1, ..LIMITS }).admit, [0]);
    // Two samples need two places, and one request always runs.
    let two = RequestView { sequences: 2, ..waiting(9, 9) };
    assert_eq!(schedule(&[view(Stage::Decode), two, waiting(1, 0)], &LIMITS).admit, [0; 0]);
    assert_eq!(schedule(&[RequestView { sequences: 5, ..two }], &LIMITS).admit, [0]);
}

#[test]
fn callers_get_equal_shares() {
    let of = |share, secs| RequestView { share, age: Duration::from_secs(secs), ..view(Stage::Waiting) };
    let plan = schedule(&[of(1, 9), of(1, 8), of(2, 1)], &LIMITS);
    assert_eq!(plan.admit, [0, 2]);
}

#[test]
fn a_time_slice_makes_place() {
    let after =
        |millis, steps| RequestView { slice: (Duration::from_millis(millis), steps), ..view(Stage::Decode) };
    let waiting = RequestView { preempted: Some(Duration::from_secs(1)), ..view(Stage::Waiting) };
    // Neither before the slice is over nor before a step was made.
    for running in [after(399, 9), after(900, 0)] {
        let plan = schedule(&[running, running, waiting], &LIMITS);
        assert_eq!((plan.preempt, plan.admit), (vec![], vec![]));
    }
    let plan = schedule(&[after(500, 9), after(600, 9), waiting], &LIMITS);
    assert_eq!((plan.preempt, plan.admit, plan.sliced), (vec![1], vec![2], 1));
    assert_eq!(plan.rows, [1, 0, 64]);
    // One that has not begun waits less, but not for one whose prompt is still read.
    let new = view(Stage::Waiting);
    assert_eq!(schedule(&[after(99, 9), after(99, 9), new], &LIMITS).preempt, [0; 0]);
    assert_eq!(schedule(&[after(100, 9), after(101, 9), new], &LIMITS).preempt, [1]);
    let reading = RequestView { stage: Stage::Prefill, prompt_left: 100, ..after(399, 9) };
    assert_eq!(schedule(&[reading, reading, new], &LIMITS).preempt, [0; 0]);
    // A higher priority keeps its place, but not against a caller that has nothing.
    let high = RequestView { priority: 9, ..after(500, 9) };
    assert_eq!(schedule(&[high, high, waiting], &LIMITS).preempt, [0; 0]);
    let other = RequestView { share: 7, ..waiting };
    assert_eq!(schedule(&[high, high, other], &LIMITS).preempt.len(), 1);
    // Log-probabilities that were told are not told again.
    let fixed = RequestView { can_preempt: false, ..after(500, 9) };
    assert_eq!(schedule(&[fixed, fixed, waiting], &LIMITS).preempt, [0; 0]);
}

#[test]
fn unread_events_preempt_and_keep_out() {
    let running = RequestView { is_paused: true, ..view(Stage::Decode) };
    let plan = schedule(&[running, RequestView { is_paused: true, ..view(Stage::Waiting) }], &LIMITS);
    assert_eq!((plan.preempt, plan.admit, plan.sliced), (vec![0], vec![], 0));
    assert_eq!(plan.rows, [0, 0]);
}

#[test]
fn memory_is_kept_to() {
    let bytes = |stage, secs, state_bytes| RequestView {
        age: Duration::from_secs(secs),
        state_bytes,
        has_states: true,
        ..view(stage)
    };
    // States of a waiting request go first.
    let parked = RequestView { preempted: Some(Duration::from_secs(1)), ..bytes(Stage::Waiting, 9, 300) };
    let full = Limits { running: 1, ..LIMITS };
    let plan = schedule(&[bytes(Stage::Decode, 3, 800), parked], &full);
    assert_eq!((plan.evict, plan.preempt), (vec![1], vec![]));
    // Then the newest request that runs.
    let plan = schedule(&[bytes(Stage::Decode, 3, 800), bytes(Stage::Decode, 2, 300)], &LIMITS);
    assert_eq!((plan.evict, plan.preempt, plan.admit), (vec![1], vec![1], vec![]));
    assert_eq!(plan.rows, [1, 0]);
    // One alone that takes more than there is.
    let plan = schedule(&[bytes(Stage::Decode, 3, 1001)], &LIMITS);
    assert_eq!((plan.out_of_memory, plan.preempt, plan.rows), (Some(0), vec![], vec![0]));
    // Others run in its place at once.
    let plan = schedule(&[bytes(Stage::Decode, 3, 1001), view(Stage::Waiting)], &LIMITS);
    assert_eq!((plan.out_of_memory, plan.admit, plan.rows), (Some(0), vec![1], vec![0, 100]));
    // A request is admitted only if it will fit.
    let plan = schedule(&[bytes(Stage::Decode, 3, 950), view(Stage::Waiting)], &LIMITS);
    assert_eq!(plan.admit, [0; 0]);
    let unlimited = Limits { state_bytes: None, ..LIMITS };
    let plan = schedule(&[bytes(Stage::Decode, 3, 950), view(Stage::Waiting)], &unlimited);
    assert_eq!(plan.admit, [1]);
}

fn any_view() -> impl Strategy<Value = RequestView> {
    let stage = prop::sample::select(vec![
        Stage::Waiting,
        Stage::Prefill,
        Stage::Decode,
        Stage::Held,
        Stage::Finished,
    ]);
    let times = (0_u64..40, prop::option::of(0_u64..40), 0_u64..1000, 0_usize..3);
    let flags = (any::<bool>(), prop::bool::weighted(0.8), any::<bool>());
    (stage, (1_usize..4, 1_usize..300, 0_u64..3, -2..3), times, flags, (0_u64..600, 1_u64..600)).prop_map(
        |(stage, (sequences, prompt_left, share, priority), times, flags, (state_bytes, needed_bytes))| {
            let has_states = if stage == Stage::Waiting { flags.2 } else { stage != Stage::Finished };
            let (age, preempted, slice, steps) = times;
            RequestView {
                stage,
                sequences,
                prompt_left: if matches!(stage, Stage::Decode | Stage::Held) { 0 } else { prompt_left },
                share,
                priority,
                age: Duration::from_secs(age),
                preempted: preempted.filter(|_| stage == Stage::Waiting).map(Duration::from_secs),
                slice: (Duration::from_millis(slice), steps),
                is_paused: flags.0,
                can_preempt: flags.1,
                has_states,
                state_bytes: if has_states { state_bytes } else { 0 },
                needed_bytes,
            }
        },
    )
}

proptest! {
    #![proptest_config(property::config(2000))]

    #[test]
    fn plans_keep_to_the_limits(
        requests in prop::collection::vec(any_view(), 0..12),
        running in 1_usize..6,
        mixed_tokens in 1_usize..100,
        more in 0_usize..100,
        budget in prop::option::of(1_u64..3000),
    ) {
        let shared_tokens = mixed_tokens + more;
        let limits = Limits { running, prefill_chunk: 128, shared_tokens, mixed_tokens, state_bytes: budget };
        let plan = schedule(&requests, &limits);
        let was_running = |index: usize| requests[index].is_running();
        let mut runs: Vec<bool> = (0..requests.len()).map(was_running).collect();
        for &index in &plan.preempt {
            prop_assert!(runs[index]);
            runs[index] = false;
        }
        for &index in &plan.evict {
            prop_assert!(!runs[index] && requests[index].has_states && requests[index].can_preempt);
        }
        for &index in &plan.admit {
            prop_assert!(!runs[index] && !requests[index].is_paused);
            runs[index] = true;
        }
        if let Some(index) = plan.out_of_memory {
            prop_assert!(runs[index]);
            runs[index] = false;
        }
        // What waits is let in as long as there is anything that may run.
        let may_run = (0..requests.len()).any(|index| {
            let request = &requests[index];
            request.stage != Stage::Finished && !request.is_paused && plan.out_of_memory != Some(index)
        });
        prop_assert_eq!(runs.contains(&true), may_run);
        let before: usize = requests.iter().filter(|request| request.is_running()).map(|request| request.sequences).sum();
        let after: usize = (0..runs.len()).filter(|&index| runs[index]).map(|index| requests[index].sequences).sum();
        let one_alone = runs.iter().filter(|&&runs| runs).count() == 1;
        prop_assert!(after <= running.max(before) || one_alone);
        let (mut prompt_rows, mut decodes) = (0, false);
        for (index, &rows) in plan.rows.iter().enumerate() {
            prop_assert!(rows == 0 || runs[index]);
            if requests[index].prompt_left > 0 {
                prop_assert!(rows <= requests[index].prompt_left);
                prompt_rows += rows;
            } else if requests[index].stage == Stage::Decode && runs[index] {
                prop_assert_eq!(rows, 1);
                decodes = true;
            }
        }
        prop_assert!(prompt_rows <= 128 && (!decodes || prompt_rows <= mixed_tokens));
    }
}
