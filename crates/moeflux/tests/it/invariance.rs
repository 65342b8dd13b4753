//! A token's logits are the same bits however its prompt is cut, whatever runs beside it, on any number of threads,
//! with shared or separate buffers, and after steps that failed.

use std::sync::OnceLock;

use crate::common::{data, root};
use crate::property;
use moeflux::backend::{Data, Observer};
use moeflux::engine::{Input, Outputs};
use moeflux::graph::{Op, Plan, StepShape, TensorInfo};
use moeflux::sequence::KvType;
use moeflux::{Engine, EngineOptions, Error, Model, ModelOptions, Precision, Sequence};
use proptest::prelude::*;

/// `demo`, `family/checkpoint`, or a checkpoint of `qwen3_5_moe`.
fn model(name: &str) -> Model {
    let folder = match name {
        "demo" => root().join("models/demo"),
        _ if name.contains('/') => data(name),
        _ => data("qwen3_5_moe").join(name),
    };
    Model::open(&folder, &ModelOptions::default()).unwrap()
}

fn engine(name: &str, options: &EngineOptions) -> Engine {
    Engine::new(model(name), options).unwrap()
}

fn options() -> EngineOptions {
    EngineOptions { threads: 1, prefill_chunk: Some(1000), ..EngineOptions::default() }
}

/// Tokens that visit every expert of a layer before long.
fn prompt(n: usize, seed: u32) -> Vec<u32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % 500
        })
        .collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// The prompt whole, with one thread and planned memory: what everything else is compared with.
fn whole(name: &str, tokens: &[u32], precision: Precision) -> Vec<u32> {
    let mut engine = engine(name, &EngineOptions { precision, ..options() });
    let mut sequence = engine.sequence();
    bits(&engine.eval_all(&mut sequence, tokens).unwrap())
}

#[test]
fn chunks_threads_and_memory_plans_do_not_change_a_bit_of_exact_numbers() {
    chunks_threads_and_memory_plans_do_not_change_a_bit(Precision::Exact);
}

#[test]
fn chunks_threads_and_memory_plans_do_not_change_a_bit_of_fast_numbers() {
    chunks_threads_and_memory_plans_do_not_change_a_bit(Precision::Fast);
}

fn chunks_threads_and_memory_plans_do_not_change_a_bit(precision: Precision) {
    for name in [
        "hf",
        "mlx-q4",
        "mlx-mixed",
        "demo",
        "deepseek_v3/hf",
        "deepseek_v3/mlx-q4",
        "glm4_moe/hf",
        "gpt_oss/hf",
        "qwen3_next/mlx-q4",
    ] {
        // Beyond a block of the KV cache, and so far beyond the window of gpt_oss that a block of it is dropped.
        let tokens = prompt(130.min(model(name).context_length()), 7);
        let expected = whole(name, &tokens, precision);
        let mut runs = vec![(7, 5, true), (1000, 5, false)];
        for chunk in [1, 3, 7, 64, 1000] {
            runs.extend([(chunk, 1, true), (chunk, 2, true), (chunk, 2, false)]);
        }
        for (prefill_chunk, threads, planned_memory) in runs {
            let prefill_chunk = Some(prefill_chunk);
            let options = EngineOptions { threads, precision, prefill_chunk, planned_memory, ..options() };
            let mut engine = engine(name, &options);
            let mut sequence = engine.sequence();
            let found = bits(&engine.eval_all(&mut sequence, &tokens).unwrap());
            assert!(found == expected, "{name}: {options:?} changes the logits");
        }
    }
}

#[test]
fn plans_save_memory() {
    let graph = model("demo").graph(StepShape { n_tokens: 64, n_outputs: 1 }).unwrap();
    let (planned, unshared) = (Plan::new(&graph).bytes(), Plan::unshared(&graph).bytes());
    println!("demo, 64 tokens: {planned} B planned, {unshared} B unshared");
    assert!(planned * 10 < unshared, "{planned} B planned, {unshared} B unshared");
}

#[test]
fn plans_never_share_a_living_buffer() {
    for n_tokens in [1, 64] {
        let graph = model("hf").graph(StepShape { n_tokens, n_outputs: 1 }).unwrap();
        let plan = Plan::new(&graph);
        for (index, op) in graph.ops().iter().enumerate() {
            // Whatever is written now must not lie in the buffer of anything that is read later and was written before.
            for written in op.writes() {
                let earlier = graph.ops()[..index].iter().flat_map(Op::writes);
                for kept in earlier.filter(|&id| plan.slot(id) == plan.slot(written)) {
                    let read_later = graph.ops()[index..].iter().any(|op| op.reads().contains(&kept));
                    let label = |id| &graph.tensor(id).label;
                    assert!(!read_later, "{} overwrites {}", label(written), label(kept));
                }
            }
        }
    }
}

fn shared_model_logits(precision: Precision) -> &'static Vec<Vec<u32>> {
    static LOGITS: [OnceLock<Vec<Vec<u32>>>; 2] = [OnceLock::new(), OnceLock::new()];
    LOGITS[usize::from(precision == Precision::Fast)].get_or_init(|| {
        (0..3).map(|s| whole("mlx-mixed", &prompt(40 + 17 * s, s as u32), precision)).collect()
    })
}

proptest! {
    #![proptest_config(property::config(24))]

    /// Three sequences, each fed in random pieces, the pieces of a step in random order beside each other.
    #[test]
    fn a_batch_does_not_change_a_bit(
        schedule in prop::collection::vec(prop::collection::vec((0_usize..3, 1_usize..20), 1..4), 12),
        threads in 1_usize..4,
        precision in prop::sample::select(vec![Precision::Exact, Precision::Fast]),
    ) {
        let expected = shared_model_logits(precision);
        let prompts: Vec<Vec<u32>> = (0..3).map(|s| prompt(40 + 17 * s, s as u32)).collect();
        let mut engine = engine("mlx-mixed", &EngineOptions { threads, precision, ..options() });
        let vocab_size = engine.model().vocab_size();
        let mut sequences: Vec<Sequence> = (0..3).map(|_| engine.sequence()).collect();
        for step in schedule {
            let mut inputs = Vec::new();
            let mut order = Vec::new();
            for (which, sequence) in sequences.iter_mut().enumerate() {
                let Some(&(_, n)) = step.iter().find(|(s, _)| *s == which) else { continue };
                let done = sequence.len();
                let tokens = &prompts[which][done..prompts[which].len().min(done + n)];
                if !tokens.is_empty() {
                    order.push((which, done, tokens.len()));
                    inputs.push(Input { outputs: Outputs::All, ..Input::new(sequence, tokens) });
                }
            }
            if inputs.is_empty() {
                continue;
            }
            if step.len() > 1 && step[0].0 > step[1].0 {
                inputs.reverse();
                order.reverse();
            }
            let logits = engine.step(&mut inputs, None).unwrap().to_vec();
            let mut row = 0;
            for (which, done, n) in order {
                let found = bits(&logits[row * vocab_size..(row + n) * vocab_size]);
                let expected = &expected[which][done * vocab_size..(done + n) * vocab_size];
                prop_assert!(found == expected, "sequence {which}, tokens {done} to {}", done + n);
                row += n;
            }
        }
    }
}

#[test]
fn a_sequence_may_be_copied_and_cleared() {
    let tokens = prompt(30, 3);
    let mut engine = engine("mlx-q4", &options());
    let mut sequence = engine.sequence();
    engine.eval(&mut sequence, &tokens[..20]).unwrap();
    let mut copy = sequence.clone();
    let expected = engine.eval(&mut sequence, &tokens[20..]).unwrap();
    engine.eval(&mut copy, &[1, 2, 3]).unwrap();
    let mut fresh = engine.sequence();
    engine.eval(&mut fresh, &tokens[..20]).unwrap();
    assert_eq!(bits(&engine.eval(&mut fresh, &tokens[20..]).unwrap()), bits(&expected));
    copy.clear();
    assert_eq!((copy.len(), copy.next_position()), (0, 0));
    assert_eq!(bits(&engine.eval(&mut copy, &tokens).unwrap()), bits(&expected));
}

/// Cancels after so many operations.
struct CancelAfter {
    ops: usize,
    token: moeflux::CancelToken,
}

impl Observer for CancelAfter {
    fn wrote(&mut self, _: &TensorInfo, _: Data<'_>) {
        if self.ops == 0 {
            self.token.cancel();
        }
        self.ops = self.ops.saturating_sub(1);
    }
}

#[test]
fn a_cancelled_step_leaves_its_sequence_as_it_was() {
    use moeflux::backend::{Backend, Segment, Step, cpu::CpuBackend};
    let model = model("hf");
    let tokens = prompt(24, 5);
    let mut engine = engine("hf", &options());
    let mut sequence = engine.sequence();
    let expected = bits(&engine.eval(&mut sequence, &tokens).unwrap());

    let mut backend = CpuBackend::new(1, options().precision).unwrap();
    let mut sequence = model.sequence(backend.kv_type());
    let mut run = |sequence: &mut Sequence, tokens: &[u32], cancel_after: Option<usize>| {
        let first = sequence.len() as u32;
        let positions: Vec<_> = (first..).take(tokens.len()).map(|p| [p; 3]).collect();
        let graph = model.graph(StepShape { n_tokens: tokens.len(), n_outputs: 1 }).unwrap();
        let plan = Plan::new(&graph);
        sequence.reserve(tokens.len());
        let token = moeflux::CancelToken::default();
        let mut observer = CancelAfter { ops: cancel_after.unwrap_or(usize::MAX), token: token.clone() };
        let mut segments = [Segment { sequence, rows: 0..tokens.len() }];
        let mut step = Step {
            tokens,
            positions: &positions,
            outputs: &[tokens.len() - 1],
            segments: &mut segments,
            hidden_input: &[],
            kept: None,
            cancel: Some(&token),
        };
        let logits = backend.run(&model, &graph, &plan, &mut step, Some(&mut observer)).map(bits);
        if logits.is_ok() {
            segments[0].sequence.commit(tokens, &positions);
        }
        logits
    };
    run(&mut sequence, &tokens[..10], None).unwrap();
    for ops in [0, 5, 40, 70] {
        assert!(run(&mut sequence, &prompt(9, 77), Some(ops)).is_err(), "not cancelled after {ops}");
        assert_eq!(sequence.len(), 10);
    }
    assert_eq!(run(&mut sequence, &tokens[10..], None).unwrap(), expected);
}

#[test]
fn what_cannot_be_evaluated_is_an_error_and_changes_nothing() {
    let mut engine = engine("mlx-q4", &options());
    let (vocab_size, context) = (engine.model().vocab_size(), engine.model().context_length());
    let mut sequence = engine.sequence();
    let error = engine.eval(&mut sequence, &[]).unwrap_err();
    assert!(matches!(error, Error::NoTokens), "{error}");
    let error = engine.eval(&mut sequence, &[1, vocab_size as u32]).unwrap_err();
    assert!(matches!(error, Error::TokenOutOfRange { index: 1, token: 512, vocab_size: 512 }), "{error}");
    let error = engine.eval(&mut sequence, &vec![1; context + 1]).unwrap_err();
    assert!(matches!(error, Error::ContextFull { len: 0, new: 4097, context: 4096 }), "{error}");
    let input = Input { positions: Some(&[[0; 3]]), ..Input::new(&mut sequence, &[1, 2]) };
    let error = engine.step(&mut [input], None).unwrap_err();
    assert!(matches!(error, Error::Positions { tokens: 2, positions: 1 }), "{error}");
    let mut foreign = model("hf").sequence(KvType::F32);
    let error = engine.eval(&mut foreign, &[1]).unwrap_err();
    assert!(matches!(error, Error::ForeignSequence), "{error}");
    // Caches of the other numbers: half as large, or twice.
    let other = if sequence.kv_type() == KvType::F32 { KvType::F16 } else { KvType::F32 };
    let mut of_other_numbers = engine.model().sequence(other);
    let error = engine.eval(&mut of_other_numbers, &[1]).unwrap_err();
    assert!(matches!(error, Error::KvType { found, .. } if found == other), "{error}");
    assert!(sequence.is_empty() && of_other_numbers.is_empty());
    for bad in
        [EngineOptions { threads: 0, ..options() }, EngineOptions { prefill_chunk: Some(0), ..options() }]
    {
        let error = Engine::new(model("hf"), &bad).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
    }
}
