//! `moeflux verify`: whether a pack is what it was when it was made, and whether the files of another model are whole.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use moeflux::convert::{self, Difference};
use moeflux::{Model, ModelOptions};

use crate::convert::threads;
use crate::progress::Progress;
use crate::store_args::StoreArgs;
use crate::terminal::{self, note};

/// Arguments of `verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Pack, or another model, to check
    #[arg(value_name = "MODEL")]
    pack: PathBuf,
    /// Also compare its weights with those of the model that it was converted from
    #[arg(long, value_name = "SRC")]
    against: Option<PathBuf>,
    /// With --against: list every tensor, not only a summary of each encoding
    #[arg(long, requires = "against")]
    tensors: bool,
    /// Number of threads [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs) -> Result<()> {
    // Shapes and lengths.
    let model = args.store.open(&args.pack, &ModelOptions::default())?;
    if !model.checkpoint().is_pack() {
        if args.against.is_some() {
            bail!("{}: --against needs a pack, and this is none", args.pack.display());
        }
        return files(&model);
    }
    let threads = threads(args.threads);
    let damage = Progress::bytes("checking")
        .follow(|tell| convert::verify(model.checkpoint().path(), threads, tell))?;
    if !damage.is_empty() {
        for damage in &damage {
            note(format!("damaged: {damage}"));
        }
        bail!("{}: {} damaged; copy or convert it again", args.pack.display(), parts(damage.len()));
    }
    let mut page = format!("{}: all checksums match\n", args.pack.display());
    if let Some(source) = &args.against {
        let source = args.store.open(source, &ModelOptions::default())?;
        let differences =
            Progress::counts("comparing").follow(|tell| convert::compare(&model, &source, threads, tell))?;
        table(&mut page, &differences, args.tensors)?;
    }
    terminal::show(&page)?;
    Ok(())
}

/// Checks the files of a model that is no pack. That it could be opened shows that its shards are those of the index, each as
/// long as its header says.
fn files(model: &Model) -> Result<()> {
    let checkpoint = model.checkpoint();
    let (path, tensors) = (checkpoint.path(), checkpoint.tensors().count());
    let weights = checkpoint.files().iter().filter(|file| file.is_in_place()).count();
    let known = if path.is_dir() { moeflux_hub::known_files(path)? } else { Vec::new() };
    let total = known.iter().map(|file| file.size).sum();
    let damaged = Progress::bytes("checking").follow(|tell| {
        let mut done = 0;
        let mut damaged = Vec::new();
        for file in &known {
            let is_whole = file.is_whole(&mut |bytes| {
                done += bytes;
                tell(done, total);
            })?;
            if !is_whole {
                damaged.push(file);
            }
        }
        Ok::<_, moeflux_hub::Error>(damaged)
    })?;
    for file in &damaged {
        note(format!("damaged: {}: expected {}", file.path.display(), file.digest));
    }
    if !damaged.is_empty() {
        bail!("{}: {} damaged; download it again", path.display(), parts(damaged.len()));
    }
    let hashes = match known.len() {
        0 => "no hash is known to compare with".to_owned(),
        count => format!("{count} known hashes are right"),
    };
    terminal::show(&format!(
        "{}: {weights} weight files with {tensors} tensors, all whole; {hashes}\n",
        path.display()
    ))?;
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
