//! `moeflux bench same-bits`: whether streaming changes a bit of a model's logits here, on this disk.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use moeflux::experts::faults::{Fault, Faults};
use moeflux::experts::{Counters, ExpertOptions, HintMode, Io, PolicyKind, StoreOptions, Through};
use moeflux::placement::{MemoryRequest, needs};
use moeflux::{Engine, EngineOptions, Model, Precision};
use serde::Serialize;

use super::noise::Noise;
use crate::model_args::ModelArgs;
use crate::progress::Progress;
use crate::stats::Bytes;
use crate::terminal;

/// Arguments of `bench same-bits`.
#[derive(Args)]
pub(crate) struct SameBitsArgs {
    /// Model folder, GGUF file, or name of a pulled model
    #[arg(value_name = "MODEL")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Number of prompts. Each is decoded and compared under a random way of streaming
    #[arg(long, value_name = "N", default_value_t = 200, help_heading = "Comparison")]
    runs: u64,
    /// Maximum number of tokens of a prompt
    #[arg(short, long, value_name = "N", default_value_t = 24, help_heading = "Comparison")]
    prompt: usize,
    /// Number of tokens decoded after a prompt, one by one
    #[arg(short, long, value_name = "N", default_value_t = 4, help_heading = "Comparison")]
    tokens: usize,
    /// Seed of the prompts and the ways of streaming
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Comparison")]
    seed: u64,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What was compared.
#[derive(Default, Serialize)]
struct Report {
    runs: u64,
    /// Logits, every one the same.
    logits: u64,
    /// How many runs had each setting.
    settings: BTreeMap<&'static str, BTreeMap<String, u64>>,
    hits: u64,
    misses: u64,
    evictions: u64,
    hints_issued: u64,
    bytes_read: u64,
}

/// A way of streaming.
#[derive(Debug)]
struct Way {
    /// Of all experts, in percent; at least those that a token wants of a layer.
    budget: u64,
    io: Io,
    policy: PolicyKind,
    hints: HintMode,
    chunk: Option<usize>,
    threads: usize,
    precision: Precision,
    /// Whether reads come late, each by another time; the system's own, of mapped files, never.
    delays: bool,
    verify: bool,
}

/// The longest delay of a read.
const LONGEST_DELAY: Duration = Duration::from_micros(800);

/// Runs the command.
pub(crate) fn run(args: &SameBitsArgs) -> Result<()> {
    let open = || args.model.open(args.folder.as_deref());
    let model = open()?;
    ensure!(!model.weights().experts().is_empty(), "the model has no experts to stream");
    ensure!(args.prompt > 0, "--prompt: expected at least 1 token, found 0");
    let (vocab_size, room) = (model.vocab_size() as u64, model.context_length());
    ensure!(
        args.prompt + args.tokens <= room,
        "{} tokens in all, but the model's context ends at {room}",
        args.prompt + args.tokens
    );
    let mut fast = mapped(model, Precision::Fast)?;
    let mut exact = mapped(open()?, Precision::Exact)?;

    let mut report = Report::default();
    Progress::counts("comparing").follow(|tell| {
        for run in 0..args.runs {
            let mut noise = Noise::new(args.seed, &format!("run {run}"));
            let len = args.prompt.div_ceil(2) + (noise.next() % (args.prompt as u64 / 2 + 1)) as usize;
            let tokens: Vec<u32> =
                (0..len + args.tokens).map(|_| (noise.next() % vocab_size) as u32).collect();
            let way = Way::draw(&mut noise);
            let reference = if way.precision == Precision::Fast { &mut fast } else { &mut exact };
            let expected = logits(reference, &tokens, len)?;
            let mut engine = way.engine(open()?, noise.next())?;
            let found = logits(&mut engine, &tokens, len)?;
            if let Some(difference) = first_difference(&expected, &found, vocab_size as usize) {
                bail!("run {run} of seed {}, {way:?}: other bits at {difference}", args.seed);
            }
            report.add(&way, found.len(), engine.experts().map(|store| store.counters()).unwrap_or_default());
            tell(run + 1, args.runs);
        }
        Ok(())
    })?;
    terminal::show(&if args.json { terminal::json(&report)? } else { report.text()? })?;
    Ok(())
}

/// An engine that reads experts in place, with one thread.
fn mapped(model: Model, precision: Precision) -> Result<Engine> {
    let store = StoreOptions { io: Io::Mapped, ..StoreOptions::new(0) };
    let experts = ExpertOptions { store, ..ExpertOptions::default() };
    Ok(Engine::new(model, &EngineOptions { threads: 1, precision, experts, ..EngineOptions::default() })?)
}

/// Logits of every token, those after the first `prompt` decoded one by one.
fn logits(engine: &mut Engine, tokens: &[u32], prompt: usize) -> Result<Vec<f32>> {
    let mut sequence = engine.sequence();
    let mut logits = engine.eval_all(&mut sequence, &tokens[..prompt])?;
    for token in &tokens[prompt..] {
        logits.extend(engine.eval(&mut sequence, &[*token])?);
    }
    Ok(logits)
}

/// The first two logits whose bits differ; a number that is missing differs.
fn first_difference(expected: &[f32], found: &[f32], vocab_size: usize) -> Option<String> {
    if expected.len() != found.len() {
        return Some(format!("the end: {} logits expected, {} found", expected.len(), found.len()));
    }
    let at = expected.iter().zip(found).position(|(a, b)| a.to_bits() != b.to_bits())?;
    let (token, logit) = (at / vocab_size, at % vocab_size);
    Some(format!("token {token}, logit {logit}: {} expected, {} found", expected[at], found[at]))
}

impl Way {
    fn draw(noise: &mut Noise) -> Self {
        fn of<T: Copy>(noise: &mut Noise, choices: &[T]) -> T {
            choices[(noise.next() >> 32) as usize % choices.len()]
        }
        let io = of(noise, &[Io::Auto, Io::Auto, Io::Buffered, Io::Mapped]);
        Way {
            budget: of(noise, &[2, 10, 50, 100]),
            io,
            policy: of(noise, &[PolicyKind::Lru, PolicyKind::Lfru]),
            hints: of(noise, &[HintMode::Off, HintMode::Last, HintMode::Lookahead, HintMode::Auto]),
            chunk: of(noise, &[Some(1), Some(5), Some(64), None]),
            threads: of(noise, &[1, 2, 3]),
            precision: of(noise, &[Precision::Fast, Precision::Exact]),
            delays: of(noise, &[false, true]) && io != Io::Mapped,
            verify: of(noise, &[false, true]),
        }
    }

    fn engine(&self, model: Model, seed: u64) -> Result<Engine> {
        let needs = needs(&model, self.chunk.unwrap_or(1), 0)?;
        let budget = (needs.experts * self.budget / 100).max(needs.least_experts);
        let mapped = self.io == Io::Mapped;
        let store = StoreOptions {
            io: self.io,
            policy: self.policy,
            verify: self.verify,
            through: self.delays.then(|| late_reads(seed)),
            ..StoreOptions::new(0)
        };
        let experts = ExpertOptions {
            memory: MemoryRequest { process: None, experts: (!mapped).then_some(budget) },
            hints: self.hints,
            store,
            ..ExpertOptions::default()
        };
        let Way { threads, precision, chunk, .. } = *self;
        let options =
            EngineOptions { threads, precision, prefill_chunk: chunk, experts, ..EngineOptions::default() };
        Ok(Engine::new(model, &options)?)
    }

    /// Its settings, by name.
    fn settings(&self) -> [(&'static str, String); 9] {
        let debug = |value: &dyn fmt::Debug| format!("{value:?}").to_lowercase();
        [
            ("budget", format!("{} %", self.budget)),
            ("io", debug(&self.io)),
            ("policy", debug(&self.policy)),
            ("hints", debug(&self.hints)),
            ("chunk", self.chunk.map_or("auto".to_owned(), |chunk| chunk.to_string())),
            ("threads", self.threads.to_string()),
            ("precision", debug(&self.precision)),
            ("delays", self.delays.to_string()),
            ("verify", self.verify.to_string()),
        ]
    }
}

/// Makes every read late, by a time of its own.
fn late_reads(seed: u64) -> Through {
    let mut noise = Noise::new(seed, "delays");
    let faults = Faults::new(move |_| Some(Fault::Delay(LONGEST_DELAY.mul_f32(noise.unit()))));
    Arc::new(move |file| faults.clone().before(file))
}

impl Report {
    fn add(&mut self, way: &Way, logits: usize, counters: Counters) {
        self.runs += 1;
        self.logits += logits as u64;
        for (setting, value) in way.settings() {
            *self.settings.entry(setting).or_default().entry(value).or_default() += 1;
        }
        self.hits += counters.hits;
        self.misses += counters.misses;
        self.evictions += counters.evictions;
        self.hints_issued += counters.hints_issued;
        self.bytes_read += counters.bytes_read;
    }

    fn text(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "same bits: {} logits of {} runs", self.logits, self.runs)?;
        for (setting, values) in &self.settings {
            let values: Vec<String> =
                values.iter().map(|(value, runs)| format!("{value} ({runs})")).collect();
            writeln!(text, "{setting:<8} {}", values.join(", "))?;
        }
        let Report { hits, misses, evictions, hints_issued, bytes_read, .. } = self;
        writeln!(
            text,
            "experts  {hits} hits, {misses} misses, {evictions} evictions, {hints_issued} hints, {} read",
            Bytes(*bytes_read)
        )?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn one_bit_is_a_difference() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(first_difference(&logits, &logits, 2), None);
        let other = [0.0, 1.0, 2.0, f32::from_bits(3f32.to_bits() + 1)];
        let found = first_difference(&logits, &other, 2).unwrap_or_default();
        assert!(found.starts_with("token 1, logit 1: 3 expected, 3.0000002"), "{found}");
        assert!(first_difference(&logits, &[-0.0, 1.0, 2.0, 3.0], 2).is_some());
        assert!(first_difference(&logits, &logits[..3], 2).is_some_and(|found| found.contains("3 found")));
    }
}
