//! `moeflux completions`: what a shell needs to complete commands and flags.

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::{Shell, generate};

#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// Shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, mut command: Command) -> Result<()> {
    // Not to stdout at once: the generator takes whoever closes it for a bug.
    let mut script = Vec::new();
    generate(args.shell, &mut command, "moeflux", &mut script);
    Ok(io::stdout().write_all(&script)?)
}
