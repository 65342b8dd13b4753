//! `moeflux convert`: any checkpoint into a pack.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use moeflux::convert::{self, Outcome, Plan, Recipe, RunOptions};
use moeflux::{Model, ModelOptions};

use crate::progress::Progress;
use crate::stats::Bytes;
use crate::store_args::StoreArgs;
use crate::terminal::note;

/// Arguments of `convert`.
#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// Model to convert: a folder, a GGUF file, or the name of a pulled model
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Folder to create. Until the pack is complete, everything is in DST.partial
    #[arg(value_name = "DST")]
    target: PathBuf,
    /// Quantise all linear maps to 2, 3, 4, 5, 6 or 8 bits, to mxfp4, or not at all (bf16). Routers have 8 bits
    #[arg(long, value_name = "WIDTH", value_parser = ["2", "3", "4", "5", "6", "8", "mxfp4", "bf16"], help_heading = "Encoding")]
    bits: Option<String>,
    /// Number of weights that share a scale: 32, 64 or 128
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Encoding")]
    group: usize,
    /// Widths of parts, or the name of a recipe. The last entry that matches a tensor decides; a tensor without a match
    /// is copied
    #[arg(long, value_name = "RECIPE", help_heading = "Encoding", long_help = recipe_help())]
    recipe: Option<String>,
    /// Print the plan and stop
    #[arg(long)]
    dry_run: bool,
    /// Delete unfinished work in DST.partial instead of continuing it
    #[arg(long)]
    restart: bool,
    /// Number of threads. The result does not depend on it [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    store: StoreArgs,
}

fn recipe_help() -> String {
    let named: Vec<String> =
        convert::NAMED.iter().map(|(name, entries)| format!("  {name:10}{entries}")).collect();
    format!(
        "Widths part by part, as in experts=4,router=8,lm_head=6,embed=8,mtp=8.\n\n\
         Parts: all, experts, router (with the shared expert's gate), shared, attention, dense, embed, lm_head, mtp, or a \
         pattern of names such as *.v_proj or *.experts.down. Widths: 2, 3, 4, 5, 6, 8 (with a group of its own: 4g32), \
         mxfp4, bf16, keep. The last entry that matches decides; what none matches is copied, and so is what is \
         quantised to no more bits already.\n\nRecipes with names:\n{}",
        named.join("\n")
    )
}

/// Runs the command.
pub(crate) fn run(args: &ConvertArgs) -> Result<()> {
    if !matches!(args.group, 32 | 64 | 128) {
        bail!("--group: expected 32, 64 or 128, found {}", args.group);
    }
    let started = Instant::now();
    let model = args.store.open(&args.source, &ModelOptions::default())?;
    let plan = convert::plan(&model, &recipe(args)?)?;
    announce(&model, &plan, args);
    if args.dry_run {
        return Ok(());
    }

    let options = RunOptions { threads: threads(args.threads), restart: args.restart };
    let outcome = Progress::bytes("converting")
        .follow(|tell| convert::run(&plan, model.checkpoint(), &args.target, &options, tell));
    let seconds = started.elapsed().as_secs_f64();
    match outcome? {
        Outcome::AlreadyThere => note(format!("{} exists already", args.target.display())),
        Outcome::Made { resumed } => {
            let written = plan.bytes().saturating_sub(resumed);
            let rate = Bytes((written as f64 / seconds) as u64);
            let found = if resumed > 0 { format!(", {} found done", Bytes(resumed)) } else { String::new() };
            note(format!("made {} in {seconds:.1} s, {rate}/s{found}", args.target.display()));
        }
    }
    Ok(())
}

/// `--bits` and then `--recipe`.
fn recipe(args: &ConvertArgs) -> Result<Recipe> {
    let base = match args.bits.as_deref() {
        None => String::new(),
        // Routers are small, and choose.
        Some(bits @ ("8" | "bf16")) => format!("all={bits}"),
        Some(bits) => format!("all={bits},router=8"),
    };
    let read = |text: &str| Recipe::parse(text, args.group);
    Ok(read(&base)?.then(read(args.recipe.as_deref().unwrap_or_default())?))
}

/// Says what is going to be done.
fn announce(model: &Model, plan: &Plan, args: &ConvertArgs) {
    note(format!("{}: {}", args.source.display(), model.checkpoint().layout()));
    for change in plan.changes() {
        let what = if change.from == change.to {
            format!("{}, copied", change.from)
        } else {
            format!("{} → {}, {}", change.from, change.to, Bytes(change.bytes_before))
        };
        note(format!("{:>8} linear maps  {what} → {}", change.maps, Bytes(change.bytes_after)));
    }
    note(format!("{}: takes {}", args.target.display(), Bytes(plan.bytes())));
}

/// So many threads, or one a core.
pub(crate) fn threads(asked: Option<NonZeroUsize>) -> usize {
    let available = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked.map_or_else(available, NonZeroUsize::get)
}
