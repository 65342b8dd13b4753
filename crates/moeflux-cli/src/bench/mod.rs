//! `moeflux bench`: what measurements need.

mod make_model;
mod noise;
mod shapes;

use anyhow::Result;
use clap::Subcommand;

/// The commands under `bench`.
#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Write a model of random weights at a real model's shapes
    #[command(after_help = "\
The weights are noise of a scale that keeps activations sane; the same seed gives the same bytes. An expert of rank R \
has its router's row scaled by (R + 1)^-SKEW, so that 0 visits all experts alike and larger numbers make some popular \
(no expert is visited by more than about half of the tokens).

Examples:
  moeflux bench make-model /data/a3b --shape 35b-a3b
  moeflux bench make-model /data/small --shape 35b-a3b --layers 8 --bits bf16
  moeflux bench make-model /data/popular --shape 35b-a3b --skew 0.5 --pack")]
    MakeModel(make_model::MakeModelArgs),
}

/// Runs the command.
pub(crate) fn run(command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::MakeModel(args) => make_model::run(args),
    }
}
