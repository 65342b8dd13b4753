//! A model whose experts are streamed gives the bits of one whose experts are mapped, under any budget, and an expert that
//! cannot be read fails its step and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::common::{data, pack, root};
use crate::property;
use moeflux::backend::BackendError;
use moeflux::experts::faults::{Fault, Faults};
use moeflux::experts::{ExpertOptions, HintMode, Io, PolicyKind, StoreError, StoreOptions, Through};
use moeflux::placement::{MemoryRequest, needs};
use moeflux::{Engine, EngineOptions, Error, Model, ModelOptions, Precision};
use proptest::prelude::*;
use tempfile::TempDir;

fn open(folder: &Path) -> Model {
    Model::open(folder, &ModelOptions::default()).unwrap()
}

fn exact() -> EngineOptions {
    EngineOptions { precision: Precision::Exact, ..EngineOptions::default() }
}

/// A checkpoint of each way in which experts lie in files.
struct Case {
    name: &'static str,
    folder: PathBuf,
    tokens: Vec<u32>,
    /// With mapped experts, one thread, the whole prompt in one step.
    expected: Vec<u32>,
    /// The same in fast mode.
    expected_fast: Vec<u32>,
    /// Bytes of the smallest and of the largest budget that make a difference.
    budgets: (u64, u64),
    _made: Option<TempDir>,
}

/// Tokens of the prompt; what is behind them is decoded one by one.
const PROMPT: usize = 40;
const TOKENS: usize = 46;

fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let mlx = data("qwen3_5_moe/mlx-mixed");
        let (made, packed) = pack(&mlx);
        [
            // MLX: nine ranges an expert.
            ("demo", root().join("models/demo"), None),
            ("mlx", mlx, None),
            // One block an expert.
            ("pack", packed, Some(made)),
            // Experts one by one, and fused.
            ("hf", data("qwen3_moe/hf"), None),
            ("hf groups", data("deepseek_v3/hf"), None),
            // Rows of gate and up in turns, with biases.
            ("hf interleaved", data("gpt_oss/hf"), None),
            ("gguf", data("glm4_moe/gguf-q8_0"), None),
        ]
        .map(|(name, folder, made)| {
            let model = open(&folder);
            let n = TOKENS.min(model.context_length());
            let vocab_size = model.vocab_size() as u32;
            let tokens: Vec<u32> = (0..n as u32).map(|i| (i * 7919 + 13) % vocab_size).collect();
            let least = needs(&model, 8, 0).unwrap().least_experts;
            let [expected, expected_fast] = [Precision::Exact, Precision::Fast].map(|precision| {
                let mapped = EngineOptions { threads: 1, precision, prefill_chunk: Some(1000), ..exact() };
                logits(&mut Engine::new(open(&folder), &mapped).unwrap(), &tokens)
            });
            let mut case =
                Case { name, folder, tokens, expected, expected_fast, budgets: (least, 0), _made: made };
            let engine = case.engine(1 << 40, exact());
            case.budgets.1 = engine.experts().unwrap().bytes_of_all();
            case
        })
        .into()
    })
}

impl Case {
    /// So many hundredths of the experts, but as many as a layer wants of one token.
    fn budget(&self, percent: u64) -> u64 {
        (self.budgets.1 * percent / 100).max(self.budgets.0)
    }

    fn engine(&self, budget: u64, options: EngineOptions) -> Engine {
        let memory = MemoryRequest { process: None, experts: Some(budget) };
        let experts = ExpertOptions { memory, ..options.experts };
        Engine::new(open(&self.folder), &EngineOptions { experts, ..options }).unwrap()
    }
}

/// Bits of the logits of every token, the last ones decoded one by one.
fn logits(engine: &mut Engine, tokens: &[u32]) -> Vec<u32> {
    let mut sequence = engine.sequence();
    let (prompt, rest) = tokens.split_at(PROMPT.min(tokens.len()));
    let mut logits = engine.eval_all(&mut sequence, prompt).unwrap();
    for token in rest {
        logits.extend(engine.eval(&mut sequence, &[*token]).unwrap());
    }
    logits.into_iter().map(f32::to_bits).collect()
}

proptest! {
    #![proptest_config(property::config(40))]

    #[test]
    fn no_way_of_streaming_changes_a_bit(
        case in 0..7_usize,
        percent in prop::sample::select(vec![2_u64, 10, 50, 100]),
        io in prop::sample::select(vec![Io::Auto, Io::Buffered]),
        policy in prop::sample::select(vec![PolicyKind::Lru, PolicyKind::Lfru]),
        hints in prop::sample::select(vec![HintMode::Off, HintMode::Last, HintMode::Lookahead, HintMode::Auto]),
        chunk in prop::sample::select(vec![Some(1), Some(7), Some(64), None]),
        threads in 1_usize..4,
        fast in any::<bool>(),
    ) {
        let case = &cases()[case];
        let store = StoreOptions { io, policy, ..StoreOptions::new(0) };
        let experts = ExpertOptions { hints, store, ..ExpertOptions::default() };
        let precision = if fast { Precision::Fast } else { Precision::Exact };
        let expected = if fast { &case.expected_fast } else { &case.expected };
        let options = EngineOptions { threads, precision, prefill_chunk: chunk, experts, ..exact() };
        let mut engine = case.engine(case.budget(percent), options);
        // Twice: first cold, then with what the first time left.
        for time in ["cold", "warm"] {
            prop_assert!(&logits(&mut engine, &case.tokens) == expected, "{}, {time}", case.name);
        }
        let counters = engine.experts().unwrap().counters();
        prop_assert!(counters.hits + counters.misses > 0 && counters.bytes_read > 0, "{counters:?}");
        prop_assert!(counters.bytes_used <= counters.budget, "{counters:?}");
    }
}

#[test]
fn direct_reads_give_the_same_bits() {
    for case in cases() {
        let store = StoreOptions { io: Io::Direct, ..StoreOptions::new(0) };
        let memory = MemoryRequest { process: None, experts: Some(case.budget(10)) };
        let experts = ExpertOptions { memory, store, ..ExpertOptions::default() };
        let options = EngineOptions { threads: 2, experts, ..exact() };
        match Engine::new(open(&case.folder), &options) {
            Ok(mut engine) => assert!(logits(&mut engine, &case.tokens) == case.expected, "{}", case.name),
            // A file system may refuse them, and says so.
            Err(Error::Experts(error)) => {
                let StoreError::File { path, .. } = &*error else { panic!("{}: {error}", case.name) };
                assert!(path.starts_with(&case.folder));
            }
            Err(error) => panic!("{}: {error}", case.name),
        }
    }
}

#[test]
fn everything_is_read_once_where_everything_fits() {
    for case in cases() {
        // A hinted read may end, and be counted, after the step.
        let experts = ExpertOptions { hints: HintMode::Off, ..ExpertOptions::default() };
        let mut engine = case.engine(case.budget(100), EngineOptions { experts, ..exact() });
        assert!(logits(&mut engine, &case.tokens) == case.expected, "{}", case.name);
        let store = engine.experts().unwrap().clone();
        let first = store.counters();
        assert!(logits(&mut engine, &case.tokens) == case.expected, "{}", case.name);
        let second = store.counters();
        assert_eq!((first.misses, first.bytes_read), (second.misses, second.bytes_read), "{}", case.name);
        assert!(second.evictions == 0 && second.hits > first.hits, "{}: {second:?}", case.name);
    }
}

#[test]
fn a_budget_changed_between_steps_changes_no_bit() {
    let case = &cases()[0];
    let mut engine = case.engine(case.budget(50), exact());
    let store = engine.experts().unwrap().clone();
    let mut sequence = engine.sequence();
    let mut found = engine.eval_all(&mut sequence, &case.tokens[..PROMPT]).unwrap();
    for (token, percent) in case.tokens[PROMPT..].iter().zip([2, 100, 10, 3, 50, 2]) {
        store.resize(case.budget(percent)).unwrap();
        found.extend(engine.eval(&mut sequence, &[*token]).unwrap());
        let counters = store.counters();
        assert!(counters.bytes_used <= case.budget(percent), "{counters:?}");
    }
    assert!(found.into_iter().map(f32::to_bits).collect::<Vec<_>>() == case.expected);
}

#[test]
fn a_truncated_file_fails_the_step_and_nothing_else() {
    let (_folder, pack) = pack(&data("qwen3_5_moe/mlx-q4"));
    let model = open(&pack);
    let n = 20;
    let tokens: Vec<u32> = (0..n).map(|i| (i * 7919 + 13) % model.vocab_size() as u32).collect();
    let experts = &model.weights().experts()[1];
    let (layer, file) = (experts.name.clone(), experts.experts[0].gate.codes.file);
    let path = model.checkpoint().files()[file as usize].path().to_owned();
    let budget = needs(&model, 8, 0).unwrap().least_experts;
    let expected = logits(&mut Engine::new(open(&pack), &exact()).unwrap(), &tokens);

    let options = EngineOptions {
        experts: ExpertOptions {
            memory: MemoryRequest { process: None, experts: Some(budget) },
            ..ExpertOptions::default()
        },
        ..exact()
    };
    let mut engine = Engine::new(model, &options).unwrap();
    let mut sequence = engine.sequence();
    let whole = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    for _ in 0..2 {
        let error = engine.eval(&mut sequence, &tokens).unwrap_err();
        let message = error.to_string();
        let Error::Backend(BackendError::Experts(error)) = error else { panic!("{error:?}") };
        let StoreError::Read { layer: found, path: at, len, source, .. } = *error else {
            panic!("{message}")
        };
        assert_eq!((&found, &at), (&layer, &path));
        assert!(len > 0 && source.kind() == std::io::ErrorKind::UnexpectedEof, "{message}");
        for part in [layer.as_str(), "expert ", path.to_str().unwrap()] {
            assert!(message.contains(part), "{message}");
        }
        assert!(sequence.is_empty());
    }
    fs::write(&path, whole).unwrap();
    assert!(logits(&mut engine, &tokens) == expected);
}

/// An engine whose reads meet faults, and what it gives without.
struct Faulty {
    name: &'static str,
    engine: Engine,
    faults: Arc<Faults>,
    tokens: Vec<u32>,
    expected: Vec<u32>,
    layers: Vec<String>,
}

impl Faulty {
    fn new(case: &Case) -> Self {
        let model = open(&case.folder);
        let tokens = case.tokens[..20].to_vec();
        let layers = model.weights().experts().iter().map(|layer| layer.name.clone()).collect();
        let expected = logits(&mut Engine::new(open(&case.folder), &exact()).unwrap(), &tokens);
        let faults = Faults::new(|_| None);
        let through: Through = {
            let faults = faults.clone();
            Arc::new(move |file| faults.clone().before(file))
        };
        let store = StoreOptions { through: Some(through), verify: true, ..StoreOptions::new(0) };
        let budget = needs(&model, 8, 0).unwrap().least_experts;
        let memory = MemoryRequest { process: None, experts: Some(budget) };
        let experts = ExpertOptions { memory, store, ..ExpertOptions::default() };
        let options = EngineOptions { prefill_chunk: Some(8), experts, ..exact() };
        let engine = Engine::new(model, &options).unwrap();
        Faulty { name: case.name, engine, faults, tokens, expected, layers }
    }

    /// What a run that meets a fault says, after which the engine goes on as if nothing had been.
    fn fails(&mut self, what: &str) -> StoreError {
        let mut sequence = self.engine.sequence();
        let error = self.engine.eval(&mut sequence, &self.tokens).unwrap_err();
        // Chunks that were finished stay.
        assert!(sequence.len() < self.tokens.len() && sequence.len().is_multiple_of(8), "{what}");
        self.faults.set(|_| None);
        assert!(logits(&mut self.engine, &self.tokens) == self.expected, "{what}");
        // A sequence that a failed step was to continue is continued.
        let left = self.tokens[sequence.len()..].to_vec();
        let last: Vec<u32> =
            self.engine.eval(&mut sequence, &left).unwrap().into_iter().map(f32::to_bits).collect();
        assert!(self.expected.ends_with(&last), "{what}");
        let Error::Backend(BackendError::Experts(error)) = error else { panic!("{what}: {error:?}") };
        *error
    }
}

#[test]
fn whichever_read_fails_the_error_names_it_and_the_engine_goes_on() {
    for case in cases() {
        let mut faulty = Faulty::new(case);
        faulty.engine.eval(&mut faulty.engine.sequence(), &faulty.tokens.clone()).unwrap();
        let reads = faulty.faults.reads();
        assert!(reads > 20, "{}: {reads}", case.name);
        for (nth, fault) in [
            (0, Fault::Error(5)),
            (reads / 2, Fault::Error(5)),
            (reads / 3, Fault::Short(100)),
            (1, Fault::Short(0)),
            (reads / 4, Fault::BitFlip(1000)),
        ] {
            // Only packs have checksums.
            if matches!(fault, Fault::BitFlip(_)) && case.name != "pack" {
                continue;
            }
            faulty.meets(nth, fault);
        }
    }
}

impl Faulty {
    /// Has the `nth` read from now on meet a fault, and checks what is said.
    fn meets(&mut self, nth: u64, fault: Fault) {
        let what = format!("{}: {fault:?} in read {nth}", self.name);
        let first = self.faults.reads();
        // A read that was cut short may go on, so it stays short from then on.
        self.faults.set(move |read| (read - first >= nth).then_some(fault));
        match (self.fails(&what), fault) {
            (StoreError::Read { layer, path, len, source, .. }, Fault::Error(_) | Fault::Short(_)) => {
                assert!(self.layers.contains(&layer) && path.exists() && len > 0, "{what}");
                match fault {
                    Fault::Error(code) => assert_eq!(source.raw_os_error(), Some(code), "{what}"),
                    _ => assert_eq!(source.kind(), std::io::ErrorKind::UnexpectedEof, "{what}"),
                }
            }
            (StoreError::Checksum { layer, expected, found, .. }, Fault::BitFlip(_)) => {
                assert!(self.layers.contains(&layer) && expected != found, "{what}");
            }
            (error, _) => panic!("{what}: {error:?}"),
        }
    }
}

#[test]
fn late_reads_change_no_bit() {
    for case in cases() {
        let mut faulty = Faulty::new(case);
        for seed in 1..4_u64 {
            let mut state = seed;
            faulty.faults.set(move |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                Some(Fault::Delay(Duration::from_micros((state >> 33) % 800)))
            });
            assert!(logits(&mut faulty.engine, &faulty.tokens) == faulty.expected, "{}, {seed}", case.name);
        }
    }
}
