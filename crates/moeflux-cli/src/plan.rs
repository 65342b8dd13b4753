//! `moeflux plan`: whether and how fast a model will run here, and on which device.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use moeflux::devices::{Candidate, Device, Measurements, Question};
use moeflux::placement::{
    DECODE_NOT_OVERLAPPED, ExpertShare, Forecast, Hits, PREFILL_NOT_OVERLAPPED, Speeds, StepForecast,
};
use moeflux::{EngineOptions, Model};
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
    /// Assume that experts are used as in this heat file, which `--warm` writes, instead of equally often
    #[arg(long, value_name = "FILE", help_heading = "Memory")]
    heat: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What the command expects.
#[derive(Serialize)]
struct Plan {
    model: PathBuf,
    threads: usize,
    /// What computes.
    device: String,
    /// Memory that the process may take.
    memory_bytes: u64,
    dense_bytes: u64,
    expert_bytes: u64,
    streamed: bool,
    /// For experts.
    budget_bytes: u64,
    prefill_chunk: usize,
    /// Of experts that are not in the memory which computes; `null` if all are.
    link_bytes_per_second: Option<f64>,
    hit_rate: f64,
    /// What the hit rate is taken from.
    hit_rate_from: &'static str,
    decode: StepForecast,
    prefill: StepForecast,
    /// Every device that has room for the model, the fastest first.
    choices: Vec<Choice>,
    /// Flags that choose the fastest.
    best: String,
    advice: Vec<String>,
}

/// A device that has room for the model.
#[derive(Serialize)]
struct Choice {
    device: String,
    name: String,
    /// Of the experts, in the memory that computes.
    expert_share: f64,
    decode_tokens_per_second: f64,
    prefill_tokens_per_second: f64,
}

/// Tokens of the prompt that a plan is made for.
const PROMPT: usize = 512;

/// Runs the command.
pub(crate) fn run(args: &PlanArgs) -> Result<()> {
    let model = args.model.open(args.folder.as_deref())?;
    let options = args.engine.options(&model)?;
    let hits = args.heat.as_deref().map_or(Ok(Hits::Even), Hits::load)?;
    let question =
        Question { options: &options, memory: args.engine.gpu_memory(&model)?, hits: &hits, prompt: PROMPT };
    // A plan measures: what was measured before may have been on a busy machine.
    let candidates = args.engine.candidates(&model, &question, &mut Measurements::default())?;
    let plan = Plan::new(&model, &options, &hits, candidates)?;
    terminal::show(&if args.json { terminal::json(&plan)? } else { plan.text()? })?;
    Ok(())
}

impl Plan {
    /// Of the fastest of the candidates.
    fn new(model: &Model, options: &EngineOptions, hits: &Hits, candidates: Vec<Candidate>) -> Result<Self> {
        let choices = candidates.iter().map(Choice::of).collect();
        let best = candidates.first().context("a model runs on the processor at least")?;
        let &Candidate { device, share, speeds, forecast, needs, prefill_chunk, resident, .. } = best;
        let ExpertShare { held, streamed, .. } = share;
        Ok(Plan {
            model: model.checkpoint().path().to_owned(),
            threads: options.threads,
            device: device.to_string(),
            memory_bytes: needs.besides_experts() + resident + held,
            dense_bytes: needs.dense,
            expert_bytes: needs.experts,
            streamed,
            budget_bytes: held,
            prefill_chunk,
            link_bytes_per_second: Some(speeds.link).filter(|link| link.is_finite()),
            hit_rate: forecast.hit_rate,
            hit_rate_from: hits.source(),
            decode: forecast.decode,
            prefill: forecast.prefill,
            choices,
            best: format!("--device {device}"),
            advice: advice(model, best, hits)?,
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
            writeln!(text, "fits      {experts} of experts and {dense} of dense weights, all in memory")?;
        }
        let device = if self.device == "cpu" { String::new() } else { format!(" of {}", self.device) };
        let memory = Bytes(self.memory_bytes);
        writeln!(text, "takes     {memory}{device} with buffers and a context of 4,096 tokens")?;
        let Plan { decode, prefill, threads, .. } = self;
        write!(
            text,
            "measured  operations of a token {:.1} ms, of {} tokens of a prompt {:.2} s, {threads} threads",
            1e3 * decode.compute_seconds,
            prefill.tokens,
            prefill.compute_seconds
        )?;
        if let Some(link) = self.link_bytes_per_second {
            write!(text, "; experts that are not in memory {}/s", Bytes(link as u64))?;
        }
        writeln!(text)?;
        for (name, expected) in [("decode", decode), ("prefill", prefill)] {
            let StepForecast {
                tokens,
                compute_seconds,
                read_bytes,
                read_seconds,
                seconds,
                tokens_per_second,
            } = expected;
            writeln!(
                text,
                "{name:<9} {tokens_per_second:.2} tokens/s expected: a step of {tokens} takes {seconds:.3} s, computing {compute_seconds:.3} s, \
                 reading {} from the disk or host {read_seconds:.3} s",
                Bytes(*read_bytes as u64)
            )?;
        }
        if self.streamed {
            writeln!(
                text,
                "          (a step takes max(compute, read) and of the lesser {DECODE_NOT_OVERLAPPED} in decoding, \
                 {PREFILL_NOT_OVERLAPPED} in a prompt, which finds no expert in memory)"
            )?;
        }
        for (i, choice) in self.choices.iter().enumerate() {
            let label = if i == 0 { "choices" } else { "" };
            let Choice { device, name, expert_share, decode_tokens_per_second, prefill_tokens_per_second } =
                choice;
            let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
            writeln!(
                text,
                "{label:<9} {device}{name}: {decode_tokens_per_second:.2} tokens/s decode, {prefill_tokens_per_second:.1} tokens/s prefill, \
                 {:.0} % of the experts in its memory",
                100.0 * expert_share
            )?;
        }
        writeln!(text, "best      {}", self.best)?;
        for (i, advice) in self.advice.iter().enumerate() {
            let label = if i == 0 { "helps" } else { "" };
            writeln!(text, "{label:<9} {advice}")?;
        }
        Ok(text)
    }
}

impl Choice {
    fn of(candidate: &Candidate) -> Self {
        let Candidate { device, name, share, forecast, .. } = candidate;
        Choice {
            device: device.to_string(),
            name: name.clone(),
            expert_share: share.fraction(),
            decode_tokens_per_second: forecast.decode.tokens_per_second,
            prefill_tokens_per_second: forecast.prefill.tokens_per_second,
        }
    }
}

/// What would make decoding faster, the most effective first.
fn advice(model: &Model, best: &Candidate, hits: &Hits) -> Result<Vec<String>> {
    let &Candidate { share, speeds, forecast, .. } = best;
    let forecast_of = |share, speeds: Speeds| Forecast::new(model, share, &speeds, hits, PROMPT);
    let mut found: Vec<(String, Forecast)> = Vec::new();
    if share.streamed {
        let more: u64 = 4 << 30;
        let with_more = ExpertShare { held: (share.held + more).min(share.experts), ..share };
        found.push((format!("{} more memory", Bytes(more)), forecast_of(with_more, speeds)?));
        let faster = Speeds { link: 2.0 * speeds.link, ..speeds };
        let what = if best.device == Device::Cpu {
            "a disk twice as fast"
        } else {
            "a link to the host twice as fast"
        };
        found.push((what.to_owned(), forecast_of(share, faster)?));
        // Half the bytes fit twice as well and are read twice as fast.
        let halved = ExpertShare { held: (2 * share.held).min(share.experts), ..share };
        found.push(("weights of half the bits".to_owned(), forecast_of(halved, faster)?));
    }
    let mut advice: Vec<(f64, String)> = found
        .into_iter()
        .filter_map(|(what, Forecast { decode, .. })| {
            let gain = decode.tokens_per_second / forecast.decode.tokens_per_second;
            let text = format!("{what}: {:.2} tokens/s ({gain:.1} times)", decode.tokens_per_second);
            (gain > 1.05).then_some((gain, text))
        })
        .collect();
    advice.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(advice.into_iter().map(|(_, text)| text).collect())
}
