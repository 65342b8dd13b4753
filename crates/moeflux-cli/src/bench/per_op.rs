//! `moeflux bench per-op`: where the time of decode and of prefill goes, and what each kind of operation is held against.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use moeflux::backend::{Data, Observer};
use moeflux::engine::Input;
use moeflux::graph::{Graph, Op, StepShape, TensorId, TensorInfo};
use moeflux::kernels::{ThreadPool, float_rate, integer_rate, read_bandwidth};
use moeflux::placement::{Cost, StepFacts, cost};
use moeflux::{Engine, Precision};
use serde::Serialize;

use super::workload::{self, WorkloadArgs, median};
use crate::model_args::{EngineArgs, ModelArgs};
use crate::stats::Bytes;
use crate::terminal;

/// Arguments of `bench per-op`.
#[derive(Args)]
pub(crate) struct PerOpArgs {
    /// Model folder, GGUF file, or name of a pulled model
    #[arg(value_name = "MODEL")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    workload: WorkloadArgs,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What `bench per-op` found.
#[derive(Serialize)]
struct PerOp {
    threads: usize,
    bandwidth_bytes_per_second: f64,
    float_operations_per_second: f64,
    /// Of integers of 8 bits; not measured for every instruction set.
    integer_operations_per_second: Option<f64>,
    decode: Phase,
    prefill: Phase,
}

/// All operations of a step.
#[derive(Serialize)]
struct Phase {
    tokens: usize,
    /// Positions in the sequence before it.
    after: usize,
    /// Of the whole step, which has more than operations.
    seconds: f64,
    ops: Vec<Kind>,
}

/// All operations of one kind in a step.
#[derive(Serialize)]
struct Kind {
    op: &'static str,
    calls: usize,
    seconds: f64,
    /// Of the step's time.
    share: f64,
    bytes: u64,
    operations: u64,
    integer_operations: u64,
    /// The longest of what bytes need at the bandwidth and operations at the rates of floats and of integers, where these are
    /// known.
    limit_seconds: f64,
    share_of_limit: f64,
}

/// Runs the command.
pub(crate) fn run(args: &PerOpArgs) -> Result<()> {
    let workload = &args.workload;
    let mut engine = workload.engine(&args.engine, args.model.open(args.folder.as_deref())?)?;
    workload.check(&engine, 1)?;
    let threads = args.engine.threads();
    let pool = ThreadPool::new(threads)?;
    let machine = Machine {
        precision: args.engine.precision(),
        bandwidth: read_bandwidth(&pool),
        float_rate: float_rate(&pool),
        integer_rate: integer_rate(&pool),
    };

    let decode =
        measure(&mut engine, &machine, workload.context + workload.prompt, 1, workload.repeat.max(20))?;
    let prefill = measure(&mut engine, &machine, workload.context, workload.prompt, workload.repeat)?;
    let found = PerOp {
        threads,
        bandwidth_bytes_per_second: machine.bandwidth,
        float_operations_per_second: machine.float_rate,
        integer_operations_per_second: machine.integer_rate,
        decode,
        prefill,
    };
    terminal::show(&if args.json { terminal::json(&found)? } else { found.table()? })?;
    Ok(())
}

/// What computes, and what results are held against.
struct Machine {
    precision: Precision,
    bandwidth: f64,
    float_rate: f64,
    integer_rate: Option<f64>,
}

/// Times of one step, and what its operations found out.
#[derive(Default)]
struct Recorder {
    /// In the order of the graph.
    times: Vec<(Op, Duration)>,
    /// Distinct experts in each choice, by the tensor's label.
    visited: HashMap<String, usize>,
}

impl Observer for Recorder {
    fn wrote(&mut self, tensor: &TensorInfo, data: Data<'_>) {
        if let Data::U32(ids) = data {
            let distinct: HashSet<u32> = ids.iter().copied().collect();
            self.visited.insert(tensor.label.clone(), distinct.len());
        }
    }

    fn ran(&mut self, op: &Op, time: Duration) {
        self.times.push((op.clone(), time));
    }
}

/// Steps of `n` tokens after `first` positions, `repeat` times, in chunks as the engine's.
fn measure(engine: &mut Engine, machine: &Machine, first: usize, n: usize, repeat: usize) -> Result<Phase> {
    let tokens = workload::tokens(engine, n);
    let blank = workload::sequence(engine, first);
    let chunk = engine.prefill_chunk();
    let mut seconds: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut kinds: BTreeMap<&'static str, (usize, Cost)> = BTreeMap::new();
    let mut sequence = blank.clone();
    // The first measurement only warms caches.
    for round in 0..=repeat {
        // One token goes on where the last ended: a fresh copy would get states of its own in its first step.
        if n > 1 {
            sequence = blank.clone();
        }
        let mut of_round: BTreeMap<&'static str, f64> = BTreeMap::new();
        kinds.clear();
        for tokens in tokens.chunks(chunk) {
            let first = sequence.len();
            let mut recorder = Recorder::default();
            let start = std::time::Instant::now();
            engine.step(&mut [Input::new(&mut sequence, tokens)], Some(&mut recorder))?;
            *of_round.entry("").or_default() += start.elapsed().as_secs_f64();
            let graph = engine.model().graph(StepShape { n_tokens: tokens.len(), n_outputs: 1 })?;
            let visited = by_id(&graph, &recorder.visited);
            let cache_element = sequence.kv_type().bytes();
            let facts = StepFacts { first, cache_element, precision: machine.precision, visited: &visited };
            for (op, time) in &recorder.times {
                *of_round.entry(op.name()).or_default() += time.as_secs_f64();
                let (calls, total) = kinds.entry(op.name()).or_default();
                let cost = cost(op, &graph, engine.model().weights(), &facts);
                *calls += 1;
                total.bytes += cost.bytes;
                total.operations += cost.operations;
                total.integer_operations += cost.integer_operations;
            }
        }
        if round > 0 {
            for (name, time) in of_round {
                seconds.entry(name).or_default().push(time);
            }
        }
    }
    let seconds_of = |name: &str| median(seconds.get(name).into_iter().flatten().copied());
    let whole = seconds_of("");
    let mut ops: Vec<Kind> = kinds
        .into_iter()
        .map(|(op, (calls, Cost { bytes, operations, integer_operations, .. }))| {
            let seconds = seconds_of(op);
            let integer_rate = machine.integer_rate.unwrap_or(f64::INFINITY);
            let limit = (bytes as f64 / machine.bandwidth)
                .max(operations as f64 / machine.float_rate)
                .max(integer_operations as f64 / integer_rate);
            let (share, share_of_limit) = (seconds / whole, limit / seconds);
            Kind {
                op,
                calls,
                seconds,
                share,
                bytes,
                operations,
                integer_operations,
                limit_seconds: limit,
                share_of_limit,
            }
        })
        .collect();
    ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(Phase { tokens: n, after: first, seconds: whole, ops })
}

fn by_id(graph: &Graph, by_label: &HashMap<String, usize>) -> HashMap<TensorId, usize> {
    let tensors = graph.tensors().iter().enumerate();
    tensors.filter_map(|(id, tensor)| Some((TensorId(id), *by_label.get(&tensor.label)?))).collect()
}

impl PerOp {
    fn table(&self) -> Result<String> {
        let mut table = String::new();
        let bandwidth = Bytes(self.bandwidth_bytes_per_second as u64);
        let rate = self.float_operations_per_second / 1e9;
        write!(table, "{} threads: {bandwidth}/s read, {rate:.1} G float operations/s", self.threads)?;
        match self.integer_operations_per_second {
            Some(rate) => writeln!(table, ", {:.1} G of integers of 8 bits", rate / 1e9)?,
            None => writeln!(table, "; the rate of integers is not measured with this instruction set")?,
        }
        for (name, phase) in [("decode", &self.decode), ("prefill", &self.prefill)] {
            let Phase { tokens, after, seconds, ops } = phase;
            writeln!(table, "\n{name} of {tokens} after {after}: {:.3} ms", 1e3 * seconds)?;
            writeln!(
                table,
                "{:<17} {:>5} {:>10} {:>6} {:>10} {:>10} {:>10} {:>8}",
                "op", "calls", "ms", "share", "bytes", "G ops", "limit ms", "of limit"
            )?;
            for kind in ops {
                let Kind { op, calls, seconds, share, bytes, limit_seconds, share_of_limit, .. } = kind;
                writeln!(
                    table,
                    "{op:<17} {calls:>5} {:>10.3} {:>5.1}% {:>10} {:>10.4} {:>10.3} {:>7.0}%",
                    1e3 * seconds,
                    100.0 * share,
                    Bytes(*bytes),
                    (kind.operations + kind.integer_operations) as f64 / 1e9,
                    1e3 * limit_seconds,
                    100.0 * share_of_limit
                )?;
            }
            let ops: f64 = ops.iter().map(|kind| kind.seconds).sum();
            let rest = seconds - ops;
            writeln!(
                table,
                "{:<17} {:>5} {:>10.3} {:>5.1}%",
                "the rest",
                "",
                1e3 * rest,
                100.0 * rest / seconds
            )?;
        }
        Ok(table)
    }
}
