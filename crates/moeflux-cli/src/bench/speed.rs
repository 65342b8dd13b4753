//! `moeflux bench speed`: tokens a second, and how far that is from what memory allows.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use moeflux::Engine;
use serde::Serialize;

use super::brought::{Brought, Measured};
use super::workload::{self, WorkloadArgs, median};
use crate::gpu_stats::GpuStats;
use crate::model_args::{EngineArgs, ModelArgs};
use crate::stats::Bytes;
use crate::terminal;

/// Arguments of `bench speed`.
#[derive(Args)]
pub(crate) struct SpeedArgs {
    /// Model folder, GGUF file, or name of a pulled model
    #[arg(value_name = "MODEL")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    workload: WorkloadArgs,
    /// Number of tokens decoded after the prompt, one by one. They do not depend on the logits
    #[arg(short, long, value_name = "N", default_value_t = 64, help_heading = "Measurement")]
    decode: usize,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What `bench speed` found.
#[derive(Serialize)]
struct Speed {
    threads: usize,
    context: usize,
    prefill: Phase,
    decode: Phase,
    limit: Limit,
    /// Where experts are brought to a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    brought: Option<Brought>,
}

/// So many tokens, several times.
#[derive(Serialize)]
struct Phase {
    tokens: usize,
    /// Of each measurement.
    seconds: Vec<f64>,
    /// By the median.
    tokens_per_second: f64,
}

/// What reading alone would take.
#[derive(Serialize)]
struct Limit {
    /// Weights that one decoded token reads.
    weight_bytes_per_token: u64,
    /// KV cache and recurrent states, these read and written, halfway through decoding.
    state_bytes_per_token: u64,
    /// Of the device that computes; the processor with the same threads. Measured after each measurement; the median.
    bandwidth_bytes_per_second: f64,
    decode_tokens_per_second: f64,
    /// Of the limit, decoding: the median of each measurement's share of its own limit.
    share: f64,
}

/// Runs the command.
pub(crate) fn run(args: &SpeedArgs) -> Result<()> {
    let SpeedArgs { workload, decode, .. } = args;
    let mut engine = workload.engine(&args.engine, args.model.open(args.folder.as_deref())?)?;
    workload.check(&engine, *decode)?;
    let threads = args.engine.threads();

    measure(&mut engine, workload, *decode, 0)?;
    let mut state_bytes = 0;
    let (mut prefills, mut decodes, mut bandwidths, mut gpu) = (Vec::new(), Vec::new(), Vec::new(), None);
    for round in 1..=workload.repeat {
        let times = measure(&mut engine, workload, *decode, round)?;
        prefills.push(times.prefill);
        decodes.push(times.decode);
        state_bytes = times.state_bytes;
        gpu = times.gpu;
        // Next to what is held against it: on a machine with others it changes from minute to minute.
        bandwidths.push(args.engine.read_bandwidth(engine.model())?);
    }

    let bytes = engine.model().summary()?.bytes_per_token;
    let weight_bytes = bytes.dense + bytes.experts;
    let prefill = Phase::new(workload.prompt, prefills);
    let decode = Phase::new(*decode, decodes);
    let limit = |bandwidth: f64| bandwidth / (weight_bytes + state_bytes) as f64;
    let rates = decode.seconds.iter().map(|seconds| decode.tokens as f64 / seconds);
    let share = median(rates.zip(&bandwidths).map(|(rate, &bandwidth)| rate / limit(bandwidth)));
    let bandwidth = median(bandwidths.iter().copied());
    // Its memory is needed for what it is compared with.
    drop(engine);
    let brought = gpu.map(|gpu| brought(args, &prefill.seconds, &decode.seconds, gpu)).transpose()?;
    let limit = Limit {
        weight_bytes_per_token: weight_bytes,
        state_bytes_per_token: state_bytes,
        bandwidth_bytes_per_second: bandwidth,
        decode_tokens_per_second: limit(bandwidth),
        share,
    };
    let speed = Speed { threads, context: workload.context, prefill, decode, limit, brought };
    terminal::show(&if args.json { terminal::json(&speed)? } else { speed.table()? })?;
    Ok(())
}

/// Seconds of one measurement.
struct Times {
    prefill: f64,
    decode: f64,
    /// Held by the sequence at the middle of decoding.
    state_bytes: u64,
    /// Of prefill and decode, where experts are brought to a GPU.
    gpu: Option<[GpuStats; 2]>,
}

/// Measures what the way of experts to the GPU allows.
fn brought(args: &SpeedArgs, prefills: &[f64], decodes: &[f64], gpu: [GpuStats; 2]) -> Result<Brought> {
    let model = args.model.open(args.folder.as_deref())?;
    let upload = args.engine.host_bandwidth(&model, gpu[0].host_copy_bytes > 0)?;
    let resident = match args.workload.engine(&args.engine.with_all_experts_on_gpu(), model) {
        Ok(mut engine) if engine.device_experts().is_none() => {
            let mut round = |round| measure(&mut engine, &args.workload, args.decode, round);
            round(0)?;
            let rounds = (1..=args.workload.repeat).map(round).collect::<Result<Vec<_>>>()?;
            let prefill = median(rounds.iter().map(|times| times.prefill));
            Some([prefill, median(rounds.iter().map(|times| times.decode))])
        }
        // There is not room for all of them.
        _ => None,
    };
    let [prefill, decode] = [(prefills, gpu[0]), (decodes, gpu[1])]
        .map(|(seconds, gpu)| Measured { seconds: seconds.to_vec(), gpu });
    Ok(Brought::new(&prefill, &decode, resident, upload))
}

/// Each round has tokens of its own, so that no cache of experts has seen them.
fn measure(engine: &mut Engine, workload: &WorkloadArgs, decode: usize, round: usize) -> Result<Times> {
    let mut sequence = workload::sequence(engine, workload.context);
    let of_round = workload.prompt + decode;
    let tokens = workload::tokens(engine, (round + 1) * of_round).split_off(round * of_round);
    let (prompt, answer) = tokens.split_at(workload.prompt);
    let tally = engine.device_experts().cloned();
    let counters = || tally.as_ref().map(|tally| tally.counters());
    let at_start = counters();
    let start = Instant::now();
    engine.eval(&mut sequence, prompt)?;
    let prefill = start.elapsed();
    let at_decode = counters();
    let mut state_bytes = 0;
    let start = Instant::now();
    for (i, &token) in answer.iter().enumerate() {
        engine.eval(&mut sequence, &[token])?;
        if i == decode / 2 {
            state_bytes = sequence.state_bytes() as u64;
        }
    }
    let decode = start.elapsed();
    let gpu = at_start.zip(at_decode).zip(counters()).map(|((start, middle), end)| {
        [GpuStats::between(&start, &middle, prefill), GpuStats::between(&middle, &end, decode)]
    });
    Ok(Times { prefill: prefill.as_secs_f64(), decode: decode.as_secs_f64(), state_bytes, gpu })
}

impl Phase {
    fn new(tokens: usize, seconds: Vec<f64>) -> Self {
        let tokens_per_second = tokens as f64 / median(seconds.iter().copied());
        Phase { tokens, seconds, tokens_per_second }
    }

    /// The rates of the slowest and of the fastest measurement.
    fn range(&self) -> (f64, f64) {
        let rate = |seconds: f64| self.tokens as f64 / seconds;
        let slowest = self.seconds.iter().copied().fold(0.0, f64::max);
        let fastest = self.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        (rate(slowest), rate(fastest))
    }
}

impl Speed {
    fn table(&self) -> Result<String> {
        let Speed { threads, context, prefill, decode, limit, brought } = self;
        let mut table = String::new();
        for (name, phase, before) in
            [("prefill", prefill, *context), ("decode", decode, context + prefill.tokens)]
        {
            if phase.tokens > 0 {
                let (tokens, rate, (least, most)) = (phase.tokens, phase.tokens_per_second, phase.range());
                write!(table, "{name:<8} {tokens:6} tokens after {before:<6} {rate:9.2} tokens/s")?;
                writeln!(table, "  ({least:.2} to {most:.2}, {} times)", phase.seconds.len())?;
            }
        }
        if let Some(brought) = brought {
            table += &brought.table()?;
        } else if decode.tokens > 0 {
            let bytes = limit.weight_bytes_per_token + limit.state_bytes_per_token;
            let per_second = Bytes(limit.bandwidth_bytes_per_second as u64);
            writeln!(
                table,
                "limit    {} a token at {per_second}/s: {:.2} tokens/s; decoding is at {:.0} % (each time beside its own bandwidth)",
                Bytes(bytes),
                limit.decode_tokens_per_second,
                100.0 * limit.share
            )?;
        }
        writeln!(table, "threads  {threads}")?;
        Ok(table)
    }
}
