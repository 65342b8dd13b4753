//! `moeflux plan`: whether and how fast a model will run here.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use moeflux::checkpoint::Matrix;
use moeflux::experts::{self, DiskSpeed, Heat};
use moeflux::graph::{Graph, Op, StepShape};
use moeflux::placement::{Placement, Residence};
use moeflux::{EngineOptions, Model};
use moeflux_kernels::{self as kernels, Int8Scratch, Numbers, ThreadPool, read_bandwidth};
use serde::Serialize;

use crate::model_args::{EngineArgs, ModelArgs};
use crate::stats::Bytes;
use crate::terminal;

/// Arguments of `plan`.
#[derive(Args)]
pub(crate) struct PlanArgs {
    /// Model folder, GGUF file, or name of a pulled model
    #[arg(value_name = "MODEL")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Assume that experts are used as in this heat file, which `--warm` writes, instead of all alike
    #[arg(long, value_name = "FILE", help_heading = "Memory")]
    heat: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What the command expects.
#[derive(Serialize)]
pub(crate) struct Plan {
    model: PathBuf,
    threads: usize,
    /// Memory that the process may take.
    memory_bytes: u64,
    dense_bytes: u64,
    expert_bytes: u64,
    streamed: bool,
    /// For experts.
    budget_bytes: u64,
    prefill_chunk: usize,
    disk_bytes_per_second: f64,
    memory_bytes_per_second: f64,
    hit_rate: f64,
    /// What the hit rate is taken from.
    hit_rate_from: &'static str,
    pub(crate) decode: Expected,
    pub(crate) prefill: Expected,
    advice: Vec<String>,
}

/// Seconds of a step and what they are made of.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Expected {
    /// Of a step.
    tokens: usize,
    compute_seconds: f64,
    read_bytes: f64,
    read_seconds: f64,
    seconds: f64,
    pub(crate) tokens_per_second: f64,
}

/// Reading and computing overlap but for what waits for a router: of the shorter one, this part comes on top in decoding.
const DECODE_NOT_OVERLAPPED: f64 = 0.45;
/// And in a prompt's steps, which look ahead, but reading takes time of the processor and of memory too.
const PREFILL_NOT_OVERLAPPED: f64 = 0.3;
/// Tokens of the prompt that a plan is made for.
const PROMPT: usize = 512;
/// Of the rate of matrix products alone, what a prompt's steps reach: experts have fewer tokens, and not all is products.
const PRODUCT_SHARE: f64 = 0.55;
/// Of memory's bandwidth, what decoding reaches.
const BANDWIDTH_SHARE: f64 = 0.75;

/// Runs the command.
pub(crate) fn run(args: &PlanArgs) -> Result<()> {
    let model = args.model.open(args.folder.as_deref())?;
    let options = args.engine.options(&model)?;
    let decision = Placement::decide(&model, &options)?;
    let facts = Facts::measure(&model, &options, decision.prefill_chunk)?;
    let hits = Hits::load(args.heat.as_deref())?;
    let plan = Plan::new(&model, &decision, &facts, &hits, PROMPT)?;
    terminal::show(&if args.json { terminal::json(&plan)? } else { plan.text()? })?;
    Ok(())
}

/// What was measured.
pub(crate) struct Facts {
    threads: usize,
    disk: f64,
    bandwidth: f64,
    /// Multiplications and additions a second of matrix products with a prompt's rows.
    products: f64,
}

impl Facts {
    /// Measures for two seconds.
    pub(crate) fn measure(model: &Model, options: &EngineOptions, chunk: usize) -> Result<Self> {
        let pool = ThreadPool::new(options.threads)?;
        let DiskSpeed { bytes_per_second: disk, .. } =
            experts::measure(&experts::layout(model), options.experts.store.io, Duration::from_millis(700))?;
        Ok(Facts {
            threads: options.threads,
            disk,
            bandwidth: read_bandwidth(&pool),
            products: product_rate(&pool, model, options.numbers, chunk),
        })
    }
}

/// How experts are expected to be used.
pub(crate) enum Hits {
    /// All alike.
    Even,
    /// As often as these, by layer.
    ByHeat(Vec<Vec<u64>>),
}

impl Hits {
    /// By a heat file, if there is one.
    pub(crate) fn load(heat: Option<&Path>) -> Result<Self> {
        let Some(path) = heat else { return Ok(Hits::Even) };
        Ok(Hits::ByHeat(Heat::load(path)?.layers.into_iter().map(|layer| layer.uses).collect()))
    }

    pub(crate) fn source(&self) -> &'static str {
        match self {
            Hits::Even => "the assumption that all experts are used alike",
            Hits::ByHeat(_) => "the heat file: the hottest experts stay in memory",
        }
    }

    /// Which share of the uses a share of the experts gets, if it is the hottest.
    fn rate(&self, share: f64) -> f64 {
        let share = share.clamp(0.0, 1.0);
        let Hits::ByHeat(layers) = self else { return share };
        let mut uses: Vec<u64> = layers.concat();
        uses.sort_unstable_by(|a, b| b.cmp(a));
        let held = (uses.len() as f64 * share) as usize;
        match uses.iter().sum::<u64>() {
            0 => share,
            all => uses[..held].iter().sum::<u64>() as f64 / all as f64,
        }
    }

    /// Which share of the experts some tokens visit, each of which chooses `k` of a layer.
    fn visited(&self, tokens: usize, k: usize, experts: usize) -> f64 {
        let by_one_or_more = |by_one: f64| 1.0 - (1.0 - by_one.min(1.0)).powi(tokens as i32);
        let even = by_one_or_more(k as f64 / experts.max(1) as f64);
        let Hits::ByHeat(layers) = self else { return even };
        let of_layer = |uses: &Vec<u64>| match uses.iter().sum::<u64>() {
            0 => even * uses.len() as f64,
            all => uses.iter().map(|&uses| by_one_or_more(k as f64 * uses as f64 / all as f64)).sum(),
        };
        let experts: usize = layers.iter().map(Vec::len).sum();
        layers.iter().map(of_layer).sum::<f64>() / experts.max(1) as f64
    }
}

/// Measures on a matrix of the model with as many rows as an expert has in a prompt's step.
fn product_rate(pool: &ThreadPool, model: &Model, numbers: Numbers, chunk: usize) -> f64 {
    let table = model.weights();
    let rows = |named: &&moeflux::graph::NamedMatrix| named.matrix.rows;
    // Embedding and output projection are the ones as long as the vocabulary.
    let inner = table.matrices().iter().filter(|named| named.matrix.rows < model.vocab_size());
    let Some(named) = inner.max_by_key(rows) else { return f64::INFINITY };
    let matrix = model.checkpoint().view(&named.matrix);
    let n = chunk.min(32);
    let x: Vec<f32> = (0..n * matrix.cols()).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
    let mut y = vec![0.0; n * matrix.rows()];
    let mut scratch = Int8Scratch::default();
    let mut best = f64::INFINITY;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        let start = Instant::now();
        match numbers {
            Numbers::Exact => kernels::linear(pool, &matrix, &x, &mut y),
            Numbers::Fast => kernels::int8_linear(pool, &matrix, &x, &mut scratch, &mut y),
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (n * matrix.rows() * matrix.cols()) as f64 / best
}

/// Multiplications and additions of a graph's matrix products.
fn operations(graph: &Graph, model: &Model) -> f64 {
    let table = model.weights();
    let parameters = |matrix: &Matrix| (matrix.rows * matrix.cols) as f64;
    let products = graph.ops().iter().map(|op| match *op {
        Op::Linear { x, weight, .. } | Op::HeadLinear { x, weight, .. } => {
            graph.tensor(x).rows as f64 * parameters(&table.matrices()[weight].matrix)
        }
        Op::Experts { ids, experts, .. } => {
            let one = table.experts()[experts].experts.first();
            let one: f64 =
                one.map_or(0.0, |expert| expert.matrices().map(|(_, matrix)| parameters(matrix)).sum());
            graph.tensor(ids).len() as f64 * one
        }
        _ => 0.0,
    });
    2.0 * products.sum::<f64>()
}

impl Plan {
    /// What to expect where the experts live so, of a prompt of so many tokens with no expert in memory yet.
    pub(crate) fn new(
        model: &Model,
        decision: &Placement,
        facts: &Facts,
        hits: &Hits,
        prompt: usize,
    ) -> Result<Self> {
        let &Placement { needs, residence, prefill_chunk, .. } = decision;
        let summary = model.summary()?;
        let budget = match residence {
            Residence::Mapped => needs.experts,
            Residence::Streamed { budget } => budget.min(needs.experts),
        };
        let share = budget as f64 / needs.experts.max(1) as f64;
        let streamed = residence != Residence::Mapped;
        let graph = model.graph(StepShape { n_tokens: prefill_chunk, n_outputs: 1 })?;
        let expect = |share: f64, facts: &Facts| {
            let hit_rate = hits.rate(share);
            let active = summary.bytes_per_token;
            let computed = (active.dense + active.experts) as f64;
            let decode = Expected::new(
                1,
                computed / (facts.bandwidth * BANDWIDTH_SHARE),
                active.experts as f64 * (1.0 - hit_rate),
                facts.disk,
                DECODE_NOT_OVERLAPPED,
            );
            // A step of a prompt visits each expert that any of its tokens chooses.
            let tokens = prefill_chunk.min(prompt);
            let visited = hits.visited(tokens, summary.experts.active, summary.experts.total);
            let operations = operations(&graph, model) * tokens as f64 / prefill_chunk as f64;
            let missing = if streamed { needs.experts as f64 * visited } else { 0.0 };
            let prefill = Expected::new(
                tokens,
                operations / (facts.products * PRODUCT_SHARE),
                missing,
                facts.disk,
                PREFILL_NOT_OVERLAPPED,
            );
            (hit_rate, decode, prefill)
        };
        let (hit_rate, decode, prefill) = expect(share, facts);

        let mut advice = Vec::new();
        let mut consider = |what: String, (_, faster, _): (f64, Expected, Expected)| {
            let gain = faster.tokens_per_second / decode.tokens_per_second;
            if gain > 1.05 {
                advice.push((
                    gain,
                    format!("{what}: {:.2} tokens/s ({gain:.1} times)", faster.tokens_per_second),
                ));
            }
        };
        if streamed {
            let more = 4 << 30;
            let with_more = (budget + more).min(needs.experts) as f64 / needs.experts as f64;
            consider(format!("{} more memory", Bytes(more)), expect(with_more, facts));
            consider(
                "a disk twice as fast".to_owned(),
                expect(share, &Facts { disk: 2.0 * facts.disk, ..*facts }),
            );
            // Half the bytes fit twice as well and are read twice as fast.
            let halved = Facts { disk: 2.0 * facts.disk, bandwidth: 2.0 * facts.bandwidth, ..*facts };
            consider("weights of half the bits".to_owned(), expect((2.0 * share).min(1.0), &halved));
        } else {
            let faster = Facts { bandwidth: 2.0 * facts.bandwidth, ..*facts };
            consider("weights of half the bits, or memory twice as fast".to_owned(), expect(share, &faster));
        }
        advice.sort_by(|a, b| b.0.total_cmp(&a.0));
        let fixed = needs.dense + needs.transient + needs.sequence + decision.machine.resident;
        Ok(Plan {
            model: model.checkpoint().path().to_owned(),
            threads: facts.threads,
            memory_bytes: fixed + budget,
            dense_bytes: needs.dense,
            expert_bytes: needs.experts,
            streamed,
            budget_bytes: budget,
            prefill_chunk,
            disk_bytes_per_second: facts.disk,
            memory_bytes_per_second: facts.bandwidth,
            hit_rate: if streamed { hit_rate } else { 1.0 },
            hit_rate_from: hits.source(),
            decode,
            prefill,
            advice: advice.into_iter().map(|(_, text)| text).collect(),
        })
    }

    fn text(&self) -> Result<String> {
        let mut text = String::new();
        let (dense, experts, budget) =
            (Bytes(self.dense_bytes), Bytes(self.expert_bytes), Bytes(self.budget_bytes));
        if self.streamed {
            let percent = 100.0 * self.budget_bytes as f64 / self.expert_bytes as f64;
            writeln!(
                text,
                "streams   {experts} of experts through {budget} ({percent:.0} %); {dense} of dense weights"
            )?;
            let hits = 100.0 * self.hit_rate;
            writeln!(text, "hit rate  {hits:.0} % in decoding, by {}", self.hit_rate_from)?;
        } else {
            writeln!(text, "fits      {experts} of experts and {dense} of dense weights, all mapped")?;
        }
        writeln!(text, "takes     {} with buffers and a context of 4,096 tokens", Bytes(self.memory_bytes))?;
        let (disk, memory) = (self.disk_bytes_per_second as u64, self.memory_bytes_per_second as u64);
        writeln!(
            text,
            "measured  disk {}/s, memory {}/s, {} threads",
            Bytes(disk),
            Bytes(memory),
            self.threads
        )?;
        for (name, expected) in [("decode", &self.decode), ("prefill", &self.prefill)] {
            let Expected { tokens, compute_seconds, read_bytes, read_seconds, seconds, tokens_per_second } =
                expected;
            writeln!(
                text,
                "{name:<9} {tokens_per_second:.2} tokens/s expected: a step of {tokens} computes {compute_seconds:.3} s, reads {} \
                 in {read_seconds:.3} s, takes {seconds:.3} s",
                Bytes(*read_bytes as u64)
            )?;
        }
        writeln!(
            text,
            "          (a step takes max(compute, read) and of the lesser {DECODE_NOT_OVERLAPPED} in decoding, \
             {PREFILL_NOT_OVERLAPPED} in a prompt, which finds no expert in memory; decoding computes at {:.0} % of \
             memory's bandwidth)",
            100.0 * BANDWIDTH_SHARE
        )?;
        for (i, advice) in self.advice.iter().enumerate() {
            let label = if i == 0 { "helps" } else { "" };
            writeln!(text, "{label:<9} {advice}")?;
        }
        Ok(text)
    }
}

impl Expected {
    fn new(tokens: usize, compute: f64, read_bytes: f64, disk: f64, not_overlapped: f64) -> Self {
        let read = read_bytes / disk;
        let seconds = compute.max(read) + not_overlapped * compute.min(read);
        Expected {
            tokens,
            compute_seconds: compute,
            read_bytes,
            read_seconds: read,
            seconds,
            tokens_per_second: tokens as f64 / seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_the_longer_of_both_and_part_of_the_shorter() {
        let expected = Expected::new(2, 1.0, 4.0, 2.0, 0.25);
        assert_eq!((expected.read_seconds, expected.seconds), (2.0, 2.25));
        assert_eq!(Expected::new(8, 2.0, 0.0, 1.0, 0.25).tokens_per_second, 4.0);
    }

    #[test]
    fn hit_rates_by_share_and_by_heat() {
        assert_eq!(Hits::Even.rate(0.25), 0.25);
        let heat = Hits::ByHeat(vec![vec![1, 6], vec![0, 3]]);
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|share| heat.rate(share)), [0.0, 0.6, 0.9, 1.0]);
        assert_eq!(Hits::ByHeat(vec![vec![0, 0]]).rate(0.5), 0.5);
    }

    #[test]
    fn visits_of_a_prompt() {
        assert_eq!(Hits::Even.visited(1, 2, 8), 0.25);
        assert_eq!(Hits::Even.visited(2, 4, 8), 0.75);
        // One expert of the first layer is chosen always, the others never; the second layer was not used.
        let heat = Hits::ByHeat(vec![vec![5, 0], vec![0, 0]]);
        assert_eq!(heat.visited(1, 1, 2), (1.0 + 2.0 * 0.5) / 4.0);
        assert!(Hits::Even.visited(500, 8, 256) > 0.999);
    }
}
