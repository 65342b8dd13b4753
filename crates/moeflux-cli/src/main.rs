//! The command `moeflux`: mixture-of-experts language models in the terminal.

mod allocator;
mod answer;
mod answer_writer;
mod bench;
mod cache;
mod chat;
mod completions;
mod constraint_args;
mod conversation;
mod convert;
mod count;
mod device_args;
mod devices;
mod eval;
mod expert_args;
mod expert_stats;
mod gpu_stats;
mod hub_args;
mod inspect;
mod interrupt;
mod line_reader;
mod list;
mod log;
mod model_args;
mod output_args;
mod output_file;
mod plan;
mod progress;
mod prompt_args;
mod pull;
mod pull_progress;
mod rm;
mod run;
mod samples;
mod sampling_args;
mod serve;
mod size;
mod stats;
mod store_args;
#[cfg(feature = "otel")]
mod telemetry;
mod terminal;
mod tool_args;
mod trace;
mod trace_record;
mod verify;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Error, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::log::LogArgs;
use crate::terminal::note;

/// Runs mixture-of-experts language models that are larger than memory.
///
/// Answers go to stdout. Everything else (reasoning, progress, statistics, errors) goes to stderr.
#[derive(Parser)]
#[command(
    name = "moeflux",
    version,
    max_term_width = 100,
    after_help = "\
Exit status: 0 success, 1 error, 2 wrong usage, 130 stopped by Ctrl-C.

Examples:
  moeflux run \"What is 17 + 25?\"          ask the demo model
  moeflux run path/to/model \"Hello\"       ask another model
  moeflux chat path/to/model              hold a conversation
  moeflux inspect path/to/model           print where each byte is
  moeflux pull OWNER/NAME                 download a model; then `moeflux run NAME`"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Answer one prompt
    #[command(after_help = "\
Examples:
  moeflux run \"What is 17 + 25?\" --temperature 0
  moeflux run models/demo \"Tell me a story about a fox.\" --seed 7 --stats
  moeflux run --think \"What is 8 * 7?\"
  moeflux run \"What is the weather in Oslo?\" --tools tools.json
  moeflux run --file question.txt --json > answer.json
  echo \"What is the capital of Norway?\" | moeflux run
  moeflux run --raw \"Once upon a time\" --max-tokens 50")]
    Run(run::RunArgs),
    /// Chat in the terminal
    #[command(after_help = "\
Examples:
  moeflux chat
  moeflux chat models/demo --system \"Answer briefly.\" --temperature 0.5")]
    Chat(chat::ChatArgs),
    /// Describe a model: parameters, bytes per token, where each byte is
    #[command(after_help = "\
Examples:
  moeflux inspect models/demo
  moeflux inspect path/to/model --tensors
  moeflux inspect --json | jq .parameters")]
    Inspect(inspect::InspectArgs),
    /// Measure the perplexity of a text
    #[command(after_help = "\
Examples:
  moeflux eval models/demo tests/data/heldout.txt
  moeflux eval text.txt --window 512 --stride 256 --json")]
    Eval(eval::EvalArgs),
    /// Convert a model to a pack, the layout for streaming experts, and quantise it
    #[command(after_help = "\
An interrupted conversion continues when the same command runs again.

Examples:
  moeflux convert path/to/model pack                      the same weights in another layout
  moeflux convert path/to/bf16 pack --bits 4              quantised as mlx_lm.convert does
  moeflux convert path/to/bf16 pack --recipe experts=4,router=8,lm_head=6,embed=8,mtp=8
  moeflux convert path/to/bf16 pack --recipe compact --dry-run")]
    Convert(convert::ConvertArgs),
    /// Check a model's files: a pack's checksums, other models' shards and known hashes
    #[command(after_help = "\
In a folder from a hub, every shard must contain the tensors of the index and be as long as its header says, and each \
file must have the hash that a download recorded.

Examples:
  moeflux verify path/to/model
  moeflux verify pack
  moeflux verify pack --against path/to/bf16 --tensors")]
    Verify(verify::VerifyArgs),
    /// Predict whether and how fast a model will run here, and what would help
    #[command(after_help = "\
Runs each kind of operation on the model's weights a few times, measures the disk, and computes the expected speed from that.

Examples:
  moeflux plan path/to/model
  moeflux plan path/to/model --memory 8G
  moeflux plan path/to/model --memory 8G --heat heat.json --json")]
    Plan(plan::PlanArgs),
    /// Record which experts are used, and replay that with other budgets and policies
    #[command(subcommand)]
    Trace(trace::TraceCommand),
    /// Measure speed, and check that streaming changes no bit
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Serve models over HTTP: OpenAI's, Anthropic's and Ollama's APIs, and a web page
    #[command(after_help = "\
Examples:
  moeflux serve                                       the demo, at http://127.0.0.1:8080/
  moeflux serve path/to/model --listen 0.0.0.0:8080 --api-keys-file keys.txt
  moeflux serve small=path/to/one large=path/to/other
  moeflux serve --config moeflux.toml")]
    Serve(Box<serve::ServeArgs>),
    /// Download a model from a hub. Other commands then take its name
    #[command(after_help = "\
Examples:
  moeflux pull Qwen/Qwen3.5-35B-A3B --dry-run
  moeflux pull Qwen/Qwen3.5-35B-A3B
  moeflux run Qwen3.5-35B-A3B \"Hello\"
  moeflux pull unsloth/Qwen3-30B-A3B-GGUF:Q4_K_M

An interrupted download continues when the same command runs again. Set HF_TOKEN for gated and private models.")]
    Pull(pull::PullArgs),
    /// List the GPUs: memory, limits, measured bandwidth
    Devices(devices::DevicesArgs),
    /// List the pulled models
    List(list::ListArgs),
    /// Remove a pulled model
    Rm(rm::RmArgs),
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  moeflux completions bash > ~/.local/share/bash-completion/completions/moeflux
  moeflux completions zsh > ~/.zfunc/_moeflux
  moeflux completions fish > ~/.config/fish/completions/moeflux.fish

The folder of such a file must exist.")]
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    let started = Instant::now();
    without_desktop();
    moeflux::checkpoint::report_bus_errors();
    let run = |cli: Cli| {
        // A server that says nothing of its requests can't be run.
        let _unsent = cli.log.start(matches!(cli.command, Command::Serve(_)))?;
        execute(&cli.command, started)
    };
    match parse().and_then(run) {
        Ok(code) => code,
        // A broken pipe is no error: the reader of the output has closed it, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// Mesa's layer that orders GPUs asks the desktop which one it prefers, and complains on stderr where there is no desktop.
/// Without it the order is ours, which does not look at the desktop.
fn without_desktop() {
    let is_set = |name| std::env::var_os(name).is_some();
    if cfg!(unix) && !is_set("XDG_RUNTIME_DIR") && !is_set("MESA_VK_DEVICE_SELECT") {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// The arguments, with those of the file that they name.
fn parse() -> Result<Cli> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = Cli::command();
    command.build();
    let matches = command.clone().get_matches_from(&arguments);
    let cli = Cli::from_arg_matches(&matches)?;
    let Command::Serve(args) = &cli.command else { return Ok(cli) };
    let (Some(path), Some(("serve", given))) = (args.config_file(), matches.subcommand()) else {
        return Ok(cli);
    };
    let Some(serve) = command.find_subcommand("serve") else { return Ok(cli) };
    let of_file = serve::arguments(path, serve, given)?;
    // What follows two dashes is no flag.
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    arguments.splice(end..end, of_file);
    Ok(Cli::from_arg_matches(&command.get_matches_from(arguments))?)
}

fn execute(command: &Command, started: Instant) -> Result<ExitCode> {
    match command {
        Command::Run(args) => return run::run(args, started),
        Command::Chat(args) => chat::run(args)?,
        Command::Inspect(args) => inspect::run(args)?,
        Command::Eval(args) => eval::run(args)?,
        Command::Convert(args) => convert::run(args)?,
        Command::Verify(args) => verify::run(args)?,
        Command::Plan(args) => plan::run(args)?,
        Command::Trace(command) => trace::run(command)?,
        Command::Bench(command) => bench::run(command)?,
        Command::Serve(args) => serve::run(args)?,
        Command::Pull(args) => pull::run(args)?,
        Command::Devices(args) => devices::run(args)?,
        Command::List(args) => list::run(args)?,
        Command::Rm(args) => rm::run(args)?,
        Command::Completions(args) => completions::run(args, Cli::command())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn is_broken_pipe(error: &Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// `error: …: …` on one line, with each cause that the message before it does not quote already.
fn one_line(error: &Error) -> String {
    let mut line = String::from("error: ");
    let mut last = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if last.contains(&text) {
            continue;
        }
        if !last.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text.replace('\n', " "));
        last = text;
    }
    line
}
