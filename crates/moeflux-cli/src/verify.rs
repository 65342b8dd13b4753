//! `moeflux verify`: whether a pack is what it was when it was made.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use moeflux::ModelOptions;
use moeflux::convert::{self, Difference};

use crate::convert::threads;
use crate::progress::Progress;
use crate::store_args::StoreArgs;
use crate::terminal::{self, note};

/// Arguments of `verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Pack to check
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// Also compare its weights with those of the model that it was made from
    #[arg(long, value_name = "SRC")]
    against: Option<PathBuf>,
    /// With --against: list every tensor, not only the sums by encoding
    #[arg(long, requires = "against")]
    tensors: bool,
    /// Threads that work [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs) -> Result<()> {
    // Shapes and lengths.
    let model = args.store.open(&args.pack, &ModelOptions::default())?;
    let threads = threads(args.threads);
    let damage = Progress::bytes("checking")
        .follow(|tell| convert::verify(model.checkpoint().path(), threads, tell))?;
    if !damage.is_empty() {
        for damage in &damage {
            note(format!("damaged: {damage}"));
        }
        bail!("{}: {} damaged; copy or convert it again", args.pack.display(), parts(damage.len()));
    }
    let mut page = format!("{}: every checksum is right\n", args.pack.display());
    if let Some(source) = &args.against {
        let source = args.store.open(source, &ModelOptions::default())?;
        let differences =
            Progress::counts("comparing").follow(|tell| convert::compare(&model, &source, threads, tell))?;
        table(&mut page, &differences, args.tensors)?;
    }
    terminal::show(&page)?;
    Ok(())
}

fn parts(count: usize) -> String {
    if count == 1 { "one part is".to_owned() } else { format!("{count} parts are") }
}

/// Differences by encoding, or tensor by tensor.
fn table(page: &mut String, differences: &[Difference], tensors: bool) -> Result<()> {
    writeln!(page, "{:18} {:18} {:>8} {:>12} {:>10}", "source", "pack", "tensors", "max error", "relative")?;
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for Difference { from, to, .. } in differences {
        if !kinds.contains(&(from, to)) {
            kinds.push((from, to));
        }
    }
    for (from, to) in kinds {
        let those: Vec<_> =
            differences.iter().filter(|d| (d.from.as_str(), d.to.as_str()) == (from, to)).collect();
        let worst = |of: fn(&Difference) -> f64| those.iter().map(|d| of(d)).fold(0.0, f64::max);
        let (max, relative) = (worst(|d| d.max), worst(|d| d.relative));
        writeln!(page, "{from:18} {to:18} {:>8} {max:>12.3e} {:>9.3} %", those.len(), 100.0 * relative)?;
        for Difference { name, max, relative, .. } in those.into_iter().filter(|_| tensors) {
            writeln!(page, "  {name:43} {max:>12.3e} {:>9.3} %", 100.0 * relative)?;
        }
    }
    Ok(())
}
