//! `moeflux bench stream`: how fast a model is whose experts are streamed, beside what its disk allows.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use moeflux::devices::{self, Measurements};
use moeflux::experts::{self, DiskSpeed};
use moeflux::placement::{Forecast, Hits, Machine, MemoryRequest, Placement, Speeds, needs};
use moeflux::{Engine, Model, Sequence};
use serde::Serialize;

use super::plot;
use super::workload;
use crate::expert_stats::ExpertStats;
use crate::model_args::{EngineArgs, ModelArgs};
use crate::stats::Bytes;
use crate::terminal::{self, note};

/// Arguments of `bench stream`.
#[derive(Args)]
pub(crate) struct StreamArgs {
    /// Model folder, GGUF file, or name of a pulled model
    #[arg(value_name = "MODEL")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Shares of the experts that are held in memory, in percent [default: 10,25,50,100, or what --memory allows]
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Measurement")]
    budgets: Vec<f64>,
    /// Number of tokens of the prompt
    #[arg(short, long, value_name = "N", default_value_t = 512, help_heading = "Measurement")]
    prompt: usize,
    /// Number of tokens decoded after the prompt, one by one. They do not depend on the logits
    #[arg(short, long, value_name = "N", default_value_t = 64, help_heading = "Measurement")]
    tokens: usize,
    /// Use the tokens of this text instead of random ones
    #[arg(long, value_name = "FILE", help_heading = "Measurement")]
    text: Option<PathBuf>,
    /// Let the plan assume that experts are used as in this heat file, which `--warm` writes, instead of all alike
    #[arg(long, value_name = "FILE", help_heading = "Measurement")]
    heat: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Draw tokens/s over budgets into this SVG file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    plot: Option<PathBuf>,
}

/// What `bench stream` found.
#[derive(Serialize)]
struct Report {
    model: PathBuf,
    threads: usize,
    expert_bytes: u64,
    disk: DiskSpeed,
    /// Time to touch all dense weights.
    dense_seconds: f64,
    /// What the plan's hit rate is taken from.
    plan_from: &'static str,
    runs: Vec<Run>,
}

/// One budget, from a cold start.
#[derive(Serialize)]
struct Run {
    /// Of all experts, in percent.
    percent: f64,
    budget_bytes: u64,
    prefill_chunk: usize,
    prefill: Phase,
    decode: Phase,
    peak_resident_bytes: Option<u64>,
}

/// Some tokens.
#[derive(Serialize)]
struct Phase {
    tokens: usize,
    seconds: f64,
    tokens_per_second: f64,
    /// Time that was not spent waiting for experts.
    compute_seconds: f64,
    /// The least that computing and reading, each alone, would take: over steps, the sum of the larger of the two.
    limit_seconds: f64,
    limit_tokens_per_second: f64,
    share_of_limit: f64,
    /// What `moeflux plan` expects with this budget, from measurements before the first run.
    planned_tokens_per_second: f64,
    experts: ExpertStats,
}

/// Runs the command.
pub(crate) fn run(args: &StreamArgs) -> Result<()> {
    let open = || args.model.open(args.folder.as_deref());
    let model = open()?;
    ensure!(!model.weights().experts().is_empty(), "the model has no experts to stream");
    ensure!(args.prompt > 0, "--prompt: expected at least 1 token, found 0");
    let folder = model.checkpoint().path().to_owned();
    let tokens = args.tokens(&model)?;
    let expert_bytes = needs(&model, 1, 0)?.experts;
    let io = args.engine.options(&model)?.experts.store.io;
    let disk = experts::measure(&experts::layout(&model), io, Duration::from_secs(1))?;
    let dense_seconds = touch_dense(&model);
    let hits = args.heat.as_deref().map_or(Ok(Hits::Even), Hits::load)?;
    let options = args.engine.options(&model)?;
    // Longer steps take as long for each token, but for attention.
    let chunk = options.prefill_chunk.unwrap_or(usize::MAX).min(args.prompt).min(512);
    let speeds = devices::cpu_speeds(&model, &options, chunk, &mut Measurements::default())?;
    let speeds = Speeds { link: disk.bytes_per_second, ..speeds };
    // What it has touched counts as resident.
    drop(model);

    let mut runs = Vec::new();
    for percent in args.percents() {
        let model = open()?;
        let mut options = args.engine.options(&model)?;
        if let Some(percent) = percent {
            let budget = (expert_bytes as f64 * percent / 100.0) as u64;
            options.experts.memory = MemoryRequest { process: None, experts: Some(budget) };
        }
        let decision = Placement::decide(&model, &options)?;
        let plan = Forecast::new(&model, decision.share(), &speeds, &hits, args.prompt)?;
        let mut engine = args.engine.engine_with(model, &options)?;
        let Some(store) = engine.experts().cloned() else {
            note("all experts fit into memory and are mapped: set --budgets to stream them");
            continue;
        };
        if let Some(percent) = percent {
            // Slots take a little more than what lies in them.
            store.resize((store.bytes_of_all() as f64 * percent / 100.0) as u64)?;
        }
        forget_peak();
        let (prompt, answer) = tokens.split_at(args.prompt);
        let mut sequence = engine.sequence();
        let chunks: Vec<&[u32]> = prompt.chunks(engine.prefill_chunk()).collect();
        let mut prefill = measure(&mut engine, &mut sequence, &chunks, disk.bytes_per_second)?;
        prefill.planned_tokens_per_second = plan.prefill.tokens_per_second;
        let singles: Vec<&[u32]> = answer.chunks(1).collect();
        let mut decode = measure(&mut engine, &mut sequence, &singles, disk.bytes_per_second)?;
        decode.planned_tokens_per_second = plan.decode.tokens_per_second;
        let budget_bytes = store.counters().budget;
        let run = Run {
            percent: 100.0 * budget_bytes as f64 / store.bytes_of_all() as f64,
            budget_bytes,
            prefill_chunk: engine.prefill_chunk(),
            prefill,
            decode,
            peak_resident_bytes: Machine::peak_resident(),
        };
        if !args.json {
            terminal::show(&run.row(runs.is_empty())?)?;
        }
        runs.push(run);
    }
    let report = Report {
        model: folder,
        threads: args.engine.threads(),
        expert_bytes,
        disk,
        dense_seconds,
        plan_from: hits.source(),
        runs,
    };
    if args.json {
        terminal::show(&terminal::json(&report)?)?;
    } else {
        terminal::show(&report.foot()?)?;
    }
    if let Some(path) = &args.plot {
        fs::write(path, report.plot()).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

impl StreamArgs {
    /// The budgets to try; `None` is whatever the flags about memory say.
    fn percents(&self) -> Vec<Option<f64>> {
        match self.budgets.as_slice() {
            [] if self.engine.limits_memory() => vec![None],
            [] => [10.0, 25.0, 50.0, 100.0].map(Some).into(),
            budgets => budgets.iter().copied().map(Some).collect(),
        }
    }

    /// Prompt and answer: noise of a fixed seed, or a text.
    fn tokens(&self, model: &Model) -> Result<Vec<u32>> {
        for percent in &self.budgets {
            ensure!(
                (0.0..=100.0).contains(percent),
                "--budgets: expected shares from 0 to 100, found {percent}"
            );
        }
        let n = self.prompt + self.tokens;
        let room = model.context_length();
        ensure!(n <= room, "{n} tokens in all, but the model's context ends at {room}");
        let Some(path) = &self.text else { return Ok(workload::noise(model, n)) };
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let mut tokens = model.tokenizer().encode(&text)?;
        ensure!(tokens.len() >= n, "{}: expected {n} tokens, found {}", path.display(), tokens.len());
        tokens.truncate(n);
        Ok(tokens)
    }
}

/// Runs the steps and finds what each could have taken at least.
fn measure(engine: &mut Engine, sequence: &mut Sequence, steps: &[&[u32]], disk: f64) -> Result<Phase> {
    let store = engine.experts().cloned().context("experts are streamed")?;
    let (mut seconds, mut compute, mut limit) = (0.0, 0.0, 0.0);
    let first = store.counters();
    let mut before = first;
    for step in steps {
        let start = Instant::now();
        engine.eval(sequence, step)?;
        let time = start.elapsed();
        let after = store.counters();
        let stats = ExpertStats::between(&before, &after, time);
        let computing = (time.as_secs_f64() - stats.stall_seconds).max(0.0);
        seconds += time.as_secs_f64();
        compute += computing;
        limit += computing.max(stats.bytes_read as f64 / disk);
        before = after;
    }
    let tokens = steps.iter().map(|step| step.len()).sum();
    let rate = |seconds: f64| tokens as f64 / seconds;
    Ok(Phase {
        tokens,
        seconds,
        tokens_per_second: rate(seconds),
        compute_seconds: compute,
        limit_seconds: limit,
        limit_tokens_per_second: rate(limit),
        share_of_limit: limit / seconds,
        planned_tokens_per_second: f64::NAN,
        experts: ExpertStats::between(&first, &before, Duration::from_secs_f64(seconds)),
    })
}

/// Reads every page of the weights that are not streamed, so that each budget finds them alike.
fn touch_dense(model: &Model) -> f64 {
    let start = Instant::now();
    let mut sum = 0u64;
    for named in model.weights().matrices() {
        let matrix = &named.matrix;
        for span in matrix.spans() {
            sum +=
                model.checkpoint().bytes(span).iter().step_by(4096).map(|&byte| u64::from(byte)).sum::<u64>();
        }
    }
    std::hint::black_box(sum);
    start.elapsed().as_secs_f64()
}

/// Has Linux find the largest resident set anew; elsewhere it stays that of the whole process.
fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

impl Run {
    fn row(&self, first: bool) -> Result<String> {
        let mut row = String::new();
        if first {
            writeln!(
                row,
                "{:>6} {:>10}  {:<7} {:>9} {:>8} {:>6} {:>8} {:>9} {:>7} {:>9} {:>6}  {:>10}",
                "budget",
                "",
                "",
                "tokens/s",
                "limit",
                "share",
                "plan",
                "compute/s",
                "hits",
                "read",
                "stalls",
                "peak RSS"
            )?;
        }
        for (name, phase) in [("prefill", &self.prefill), ("decode", &self.decode)] {
            if phase.tokens == 0 {
                continue;
            }
            let (budget, bytes, peak) = match name {
                "prefill" => {
                    (format!("{:.0} %", self.percent), Bytes(self.budget_bytes).to_string(), String::new())
                }
                _ => {
                    let peak = self.peak_resident_bytes.map_or(String::new(), |peak| Bytes(peak).to_string());
                    (String::new(), String::new(), peak)
                }
            };
            let read = phase
                .experts
                .read_bytes_per_second
                .map_or("-".to_owned(), |rate| format!("{}/s", Bytes(rate as u64)));
            writeln!(
                row,
                "{budget:>6} {bytes:>10}  {name:<7} {:>9.2} {:>8.2} {:>5.0}% {:>8.2} {:>9.2} {:>6.1}% {read:>9} {:>5.0}%  {peak:>10}",
                phase.tokens_per_second,
                phase.limit_tokens_per_second,
                100.0 * phase.share_of_limit,
                phase.planned_tokens_per_second,
                phase.tokens as f64 / phase.compute_seconds,
                100.0 * phase.experts.hit_rate,
                100.0 * phase.experts.stall_share,
            )?;
        }
        Ok(row)
    }
}

impl Report {
    fn foot(&self) -> Result<String> {
        let Report { threads, expert_bytes, disk, dense_seconds, .. } = self;
        let mut foot = String::new();
        let way = if disk.direct { "direct" } else { "through the page cache" };
        writeln!(
            foot,
            "disk    {}/s, measured with {} readers of {} ({way})",
            Bytes(disk.bytes_per_second as u64),
            disk.readers,
            Bytes(disk.chunk),
        )?;
        writeln!(
            foot,
            "experts {}, {threads} threads; dense weights were touched first, in {dense_seconds:.2} s",
            Bytes(*expert_bytes)
        )?;
        writeln!(foot, "limit   over steps, the sum of max(time without stalls, bytes read / disk)")?;
        writeln!(foot, "plan    what `moeflux plan` expects, by {}", self.plan_from)?;
        Ok(foot)
    }

    fn plot(&self) -> String {
        let series = |name, pick: fn(&Run) -> f64, dashed| plot::Series {
            name,
            dashed,
            points: self.runs.iter().map(|run| (run.percent, pick(run))).collect(),
        };
        plot::svg(
            "budget, % of all experts",
            &[
                (
                    "decode, tokens/s",
                    [
                        series("measured", |run| run.decode.tokens_per_second, false),
                        series("limit", |run| run.decode.limit_tokens_per_second, true),
                    ],
                ),
                (
                    "prefill, tokens/s",
                    [
                        series("measured", |run| run.prefill.tokens_per_second, false),
                        series("limit", |run| run.prefill.limit_tokens_per_second, true),
                    ],
                ),
            ],
        )
    }
}
