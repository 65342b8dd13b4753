//! `moeflux bench`: what measurements need.

mod batch;
mod brought;
mod kernels;
mod make_model;
mod noise;
mod per_op;
mod plot;
mod same_bits;
mod shapes;
mod speed;
mod stream;
mod workload;

use anyhow::Result;
use clap::Subcommand;

/// The commands under `bench`.
#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Write a model with random weights and the shapes of a real model
    #[command(after_help = "\
The weights are random, at a scale that keeps activations finite. The same seed gives the same bytes. The logarithms of the \
scales of router rows are normally distributed with the standard deviation S: with 0 all experts are chosen equally often, \
with larger numbers some are popular (no expert is chosen by more than about half of the tokens). With 0.5, a quarter of \
256 experts received four fifths of the choices of a generated text.

Examples:
  moeflux bench make-model /data/a3b --shape 35b-a3b
  moeflux bench make-model /data/small --shape 35b-a3b --layers 8 --bits bf16
  moeflux bench make-model /data/popular --shape 35b-a3b --router-skew 0.5 --pack")]
    MakeModel(make_model::MakeModelArgs),
    /// Measure products with each encoding of weights and each instruction set, beside the memory's read bandwidth
    #[command(after_help = "\
Each product reads weights that are in no cache. With one token the bytes are the limit, with many tokens the products.

Examples:
  moeflux bench kernels
  moeflux bench kernels --encoding affine4 --shape 512x2048 --shape 248320x2048 --tokens 1")]
    Kernels(kernels::KernelsArgs),
    /// Measure tokens/s of prefill and decode, beside the limit that reading the weights sets
    #[command(after_help = "\
Tokens are random. After one round to warm up, each measurement prefills a new sequence and decodes after it. If experts are \
copied to a GPU, the limit is the longer of the time of these copies alone and the time with all experts on the GPU. Both \
are measured afterwards.

Examples:
  moeflux bench speed path/to/model
  moeflux bench speed path/to/model --prompt 4096 --decode 16 --repeat 3
  moeflux bench speed path/to/model --device gpu --gpu-memory 25%
  moeflux bench speed path/to/model --context 32768 --prompt 1 --decode 32 --json")]
    Speed(speed::SpeedArgs),
    /// Measure tokens/s of several sequences at once
    #[command(after_help = "\
Each sequence has its own prompt and samples its answer. The answers run together in the steps of one engine. The time in \
which all of them decode is measured, after one answer alone to warm up.

Examples:
  moeflux bench batch path/to/model
  moeflux bench batch path/to/model --sequences 1,8 --expert-budget 25%")]
    Batch(batch::BatchArgs),
    /// Measure each kind of operation, beside the limits of its bytes and its arithmetic
    #[command(after_help = "\
Decode is one token after context and prompt; prefill is the prompt after the context. The limit of an operation is the \
longer of its bytes at the machine's read bandwidth and its operations at the machine's rate of float32 products and sums. \
Both are measured just before, with the same threads. Data in the processor's caches can exceed the first limit, and \
integer products the second.

Examples:
  moeflux bench per-op path/to/model
  moeflux bench per-op path/to/model --context 32000 --prompt 128")]
    PerOp(per_op::PerOpArgs),
    /// Measure a model with streamed experts under several budgets, beside the limit that the disk sets
    #[command(after_help = "\
Each budget starts with no expert in memory. Tokens are random with a fixed seed, or those of --text.

Examples:
  moeflux bench stream path/to/model
  moeflux bench stream path/to/model --budgets 5,25 --prompt 2048 --tokens 32 --plot speed.svg
  moeflux bench stream path/to/model --memory 8G --json")]
    Stream(stream::StreamArgs),
    /// Compare the logits of a model with streamed experts with those of the same model mapped, bit by bit
    #[command(after_help = "\
Each run draws a random prompt and a random way of streaming: the budget, how files are read, the policy, hints, the prefill \
chunk, threads, precision, whether reads are delayed, whether checksums are verified. A single bit that differs is an error \
that names the run. The same seed gives the same runs.

Examples:
  moeflux bench same-bits path/to/model
  moeflux bench same-bits path/to/model --runs 1000 --seed 7 --json")]
    SameBits(same_bits::SameBitsArgs),
}

/// Runs the command.
pub(crate) fn run(command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::MakeModel(args) => make_model::run(args),
        BenchCommand::Kernels(args) => kernels::run(args),
        BenchCommand::Speed(args) => speed::run(args),
        BenchCommand::Batch(args) => batch::run(args),
        BenchCommand::PerOp(args) => per_op::run(args),
        BenchCommand::Stream(args) => stream::run(args),
        BenchCommand::SameBits(args) => same_bits::run(args),
    }
}
