//! `moeflux trace`: which experts a model uses, and what a budget for them would do.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use moeflux::experts::{PolicyKind, Replayed, Trace};
use serde::Serialize;

use crate::stats::Bytes;
use crate::{terminal, trace_record};

/// Subcommands of `trace`.
#[derive(Subcommand)]
pub(crate) enum TraceCommand {
    /// Answer a prompt, and record which experts each step uses
    #[command(after_help = "\
Examples:
  moeflux trace record path/to/model \"Tell me a story.\" --max-tokens 200 -o trace.jsonl
  moeflux trace record path/to/model --file text.txt --raw --max-tokens 1 -o trace.jsonl --memory 8G")]
    Record(Box<trace_record::RecordArgs>),
    /// Print the hit rate of each policy, and the best that any policy could reach
    #[command(after_help = "\
A hit rate is the share of uses that found their expert in memory. The optimum is Belady's: it
knows the future, and no policy can do better.

Examples:
  moeflux trace replay trace.jsonl
  moeflux trace replay trace.jsonl --budgets 5,10,20 --json")]
    Replay(ReplayArgs),
}

/// Arguments of `trace replay`.
#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// Trace file
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// Budgets, in percent of all experts
    #[arg(
        long,
        value_name = "PERCENT,...",
        value_delimiter = ',',
        default_value = "10,25,50,100",
        value_parser = parse_percent
    )]
    budgets: Vec<f64>,
    /// Print JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// A replay as `--json` prints it.
#[derive(Serialize)]
struct JsonReplay {
    uses: u64,
    expert_bytes: u64,
    budgets: Vec<JsonBudget>,
}

#[derive(Serialize)]
struct JsonBudget {
    percent: f64,
    bytes: u64,
    policies: Vec<JsonPolicy>,
}

#[derive(Serialize)]
struct JsonPolicy {
    policy: String,
    hit_rate: f64,
    bytes_read: u64,
}

/// Runs the command.
pub(crate) fn run(command: &TraceCommand) -> Result<()> {
    match command {
        TraceCommand::Record(args) => trace_record::run(args),
        TraceCommand::Replay(args) => replay(args),
    }
}

fn replay(args: &ReplayArgs) -> Result<()> {
    let trace = Trace::load(&args.trace)?;
    let expert_bytes = trace.total_bytes();
    let mut uses = 0;
    let mut budgets = Vec::new();
    for &percent in &args.budgets {
        let bytes = (expert_bytes as f64 * percent / 100.0) as u64;
        let policy = |kind: PolicyKind| (kind.name().to_owned(), trace.replay(kind, bytes));
        let optimum = ("optimum".to_owned(), trace.replay_optimum(bytes));
        uses = optimum.1.hits + optimum.1.misses;
        let policies = PolicyKind::ALL.into_iter().map(policy).chain([optimum]);
        budgets.push(JsonBudget { percent, bytes, policies: policies.map(json_policy).collect() });
    }
    let replay = JsonReplay { uses, expert_bytes, budgets };
    let text = if args.json { terminal::json(&replay)? } else { table(&replay) };
    Ok(terminal::show(&text)?)
}

fn json_policy((policy, replayed): (String, Replayed)) -> JsonPolicy {
    JsonPolicy { policy, hit_rate: replayed.hit_rate(), bytes_read: replayed.bytes_read }
}

fn table(replay: &JsonReplay) -> String {
    let mut text =
        format!("{} uses of {} of experts\n\nBUDGET         BYTES", replay.uses, Bytes(replay.expert_bytes));
    for policy in replay.budgets.iter().take(1).flat_map(|budget| &budget.policies) {
        let _ = write!(text, "  {:>7}", policy.policy.to_uppercase());
    }
    text.push('\n');
    for budget in &replay.budgets {
        let _ = write!(text, "{:>5} %  {:>11}", budget.percent, Bytes(budget.bytes));
        for policy in &budget.policies {
            let _ = write!(text, "  {:>5.1} %", policy.hit_rate * 100.0);
        }
        text.push('\n');
    }
    text
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err(format!("expected a percentage above 0 and at most 100, found {text:?}")),
    }
}
