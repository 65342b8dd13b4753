//! `moeflux pull`: a model from a hub.

use std::fmt::Write;
use std::process;

use anyhow::{Context, Result, bail};
use clap::Args;
use moeflux_hub::{ModelName, Plan, Store};

use crate::hub_args::HubArgs;
use crate::interrupt::EXIT_INTERRUPTED;
use crate::pull_progress::PullProgress;
use crate::stats::Bytes;
use crate::store_args::StoreArgs;
use crate::terminal::{self, note};

/// Arguments of `pull`.
#[derive(Args)]
pub(crate) struct PullArgs {
    /// Model to download: OWNER/NAME, OWNER/NAME@REVISION, or OWNER/NAME:FILE.gguf
    #[arg(value_name = "REPO")]
    name: ModelName,
    /// Weights to download, if there are several: a file, a part of its name such as Q4_K_M, or a pattern with * and ?;
    /// the same as :FILE
    #[arg(long, value_name = "PATTERN")]
    file: Option<String>,
    /// Print what would be downloaded and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    hub: HubArgs,
}

/// Runs the command.
pub(crate) fn run(args: &PullArgs) -> Result<()> {
    let name = match (args.name.file(), &args.file) {
        (Some(one), Some(other)) => {
            bail!("the weights are given twice, :{one} and --file {other}: remove one of them")
        }
        (_, None) => args.name.clone(),
        (None, file) => args.name.with_file(file.clone()),
    };
    let (hub, store) = (args.hub.hub()?, args.store.store()?);
    let plan = hub.plan(&name)?;
    if args.dry_run {
        return Ok(terminal::show(&table(&plan, &store))?);
    }

    let progress = PullProgress::new(&plan, &store.there(&plan));
    let bars = progress.bars();
    ctrlc::set_handler(move || {
        // Nothing has to be put in order: the store bears being killed.
        let _ = bars.clear();
        note("stopped; the downloaded part is kept, and the same command continues");
        process::exit(i32::from(EXIT_INTERRUPTED));
    })
    .context("installing the Ctrl-C handler")?;
    let model = store.pull(&hub, &plan, &|event| progress.take(&event));
    progress.clear();
    let model = model?;
    note(format_args!("{} is complete, {}: `moeflux run {0} \"Hello\"`", model.name, Bytes(model.size)));
    Ok(terminal::show(&format!("{}\n", model.open_folder()?.display()))?)
}

/// A plan for people.
fn table(plan: &Plan, store: &Store) -> String {
    let there = store.there(plan);
    let mut text = String::new();
    for (file, there) in plan.files.iter().zip(&there) {
        let there = match *there {
            0 => String::new(),
            bytes if bytes == file.size => "  there already".to_owned(),
            bytes => format!("  {} of it there already", Bytes(bytes)),
        };
        let _ = writeln!(text, "{:>10}  {}{there}", Bytes(file.size), file.path);
    }
    let (size, missing) = (plan.size(), plan.size().saturating_sub(there.iter().sum()));
    let (total, missing) = (Bytes(size), Bytes(missing));
    let _ = writeln!(text, "{total:>10}  {} at commit {}, {missing} to download", plan.name, plan.commit);
    text
}
