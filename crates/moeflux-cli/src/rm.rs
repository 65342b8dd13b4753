//! `moeflux rm`: removes a pulled model.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::stats::Bytes;
use crate::store_args::StoreArgs;
use crate::terminal::{note, show_dim};

/// Arguments of `rm`.
#[derive(Args)]
pub(crate) struct RmArgs {
    /// Name of the model, as `moeflux list` prints it
    #[arg(value_name = "NAME")]
    name: String,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the command.
pub(crate) fn run(args: &RmArgs) -> Result<()> {
    let model = args.store.find(&args.name)?;
    let what = format!("{}, {}", model.name, Bytes(model.there));
    if !args.yes && !is_confirmed(&what)? {
        bail!("{} was not removed", model.name);
    }
    args.store.store()?.remove(&model)?;
    note(format_args!("removed {what}"));
    Ok(())
}

fn is_confirmed(what: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("stdin is no terminal, so the removal of {what} cannot be confirmed: add --yes");
    }
    show_dim(&format!("remove {what}? [y/N] "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
