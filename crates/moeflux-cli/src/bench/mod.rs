//! `moeflux bench`: what measurements need.

mod batch;
mod brought;
mod cost;
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
    /// Write a model of random weights at a real model's shapes
    #[command(after_help = "\
The weights are noise of a scale that keeps activations sane; the same seed gives the same bytes. The \
logarithms of the scales of router rows are normal with the standard deviation S, so that 0 visits all experts alike \
and larger numbers make some popular (no expert is visited by more than about half of the tokens). With 0.5, a quarter \
of 256 experts got four fifths of the visits of a generated text.

Examples:
  moeflux bench make-model /data/a3b --shape 35b-a3b
  moeflux bench make-model /data/small --shape 35b-a3b --layers 8 --bits bf16
  moeflux bench make-model /data/popular --shape 35b-a3b --router-skew 0.5 --pack")]
    MakeModel(make_model::MakeModelArgs),
    /// Measure products with weights in each encoding, with each instruction set, beside the memory's read bandwidth
    #[command(after_help = "\
Each product reads weights that no cache holds. With one token the bytes are the limit, with many the products.

Examples:
  moeflux bench kernels
  moeflux bench kernels --encoding affine4 --shape 512x2048 --shape 248320x2048 --tokens 1")]
    Kernels(kernels::KernelsArgs),
    /// Measure tokens a second of prefill and decode, beside what reading the weights alone would take
    #[command(after_help = "\
Tokens are noise. One round warms up, then each measurement prefills a new sequence and decodes after it. Where experts \
are brought to a GPU, the limit is the longer of the bytes that were brought at the rate of uploads alone and the time \
with all experts on the GPU, both measured afterwards.

Examples:
  moeflux bench speed path/to/model
  moeflux bench speed path/to/model --prompt 4096 --decode 16 --repeat 3
  moeflux bench speed path/to/model --device gpu --gpu-memory 25%
  moeflux bench speed path/to/model --context 32768 --prompt 1 --decode 32 --json")]
    Speed(speed::SpeedArgs),
    /// Measure tokens a second of several sequences at once
    #[command(after_help = "\
Each sequence has a prompt of its own and samples its answer; the answers run together in the steps of one engine. What \
counts is the time in which all of them answer. One answer alone warms up.

Examples:
  moeflux bench batch path/to/model
  moeflux bench batch path/to/model --sequences 1,8 --expert-budget 25%")]
    Batch(batch::BatchArgs),
    /// Measure each kind of operation, beside what its bytes and its arithmetic would take alone
    #[command(after_help = "\
Decode is one token after context and prompt, prefill the prompt after the context. The limit of an operation is the \
longer of its bytes at the machine's read bandwidth and its operations at the machine's rate of float32 products and \
sums, both measured with the same threads just before. What fits in the processor's caches can be above the first, \
and integer products above the second.

Examples:
  moeflux bench per-op path/to/model
  moeflux bench per-op path/to/model --context 32000 --prompt 128")]
    PerOp(per_op::PerOpArgs),
    /// Measure a model whose experts are streamed, under several budgets, beside what its disk allows
    #[command(after_help = "\
Each budget starts with no expert in memory. Tokens are noise of a fixed seed, or those of --text.

Examples:
  moeflux bench stream path/to/model
  moeflux bench stream path/to/model --budgets 5,25 --prompt 2048 --tokens 32 --plot speed.svg
  moeflux bench stream path/to/model --memory 8G --json")]
    Stream(stream::StreamArgs),
    /// Compare the logits of a model whose experts are streamed with those of the same model mapped, bit by bit
    #[command(after_help = "\
Each run takes a prompt of noise and a way of streaming by lot: the budget, how files are read, the policy, hints, the \
prefill chunk, threads, numbers, whether reads come late, whether checksums are compared. One bit that differs is an \
error, which says in which run; the same seed gives the same runs.

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
