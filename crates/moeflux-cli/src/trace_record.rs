//! `moeflux trace record`: which experts a run uses, written down.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use moeflux::GenerateRequest;
use moeflux::chat::{ChatOptions, Format};
use moeflux::experts::{self, Recorder};
use moeflux::text::Message;

use crate::answer::answer;
use crate::interrupt::Interrupt;
use crate::model_args::{EngineArgs, ModelArgs};
use crate::output_args::OutputArgs;
use crate::prompt_args::PromptArgs;
use crate::sampling_args::SamplingArgs;
use crate::terminal::note;

/// Arguments of `trace record`.
#[derive(Args)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Continue the text as it is, without the chat template
    #[arg(long, help_heading = "Prompt")]
    raw: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Trace file to write
    #[arg(short = 'o', long = "out", value_name = "FILE", help_heading = "Output")]
    target: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &RecordArgs) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let (folder, question) = args.prompt.read(&args.model)?;
    let model = args.model.open(folder)?;
    let recorder = Recorder::create(&args.target, &experts::layout(&model))?;
    let mut options = args.engine.options(&model)?;
    options.experts.store.trace = Some(recorder.clone());
    let mut engine = args.engine.engine_with(model, &options)?;

    let tokenizer = engine.model().tokenizer();
    let options = ChatOptions::default();
    let format = if args.raw { Format::Plain } else { Format::of(tokenizer) };
    let prompt = if args.raw {
        question
    } else {
        options.prompt(tokenizer, &[Message::new("user", question.trim_end_matches(['\r', '\n']))])?
    };
    let request = GenerateRequest {
        prompt: tokenizer.encode(&prompt)?,
        sampling: args.sampling.options(tokenizer.generation_defaults()),
        max_tokens: args.output.max_tokens(),
        stop: args.output.stop.clone(),
        ignore_eos: args.output.ignore_eos,
        ..GenerateRequest::default()
    };
    let parser = options.parser(format, &prompt);
    let mut sequence = engine.sequence();
    let answer = interrupt.during(|cancel| {
        let request = GenerateRequest { cancel, ..request };
        answer(&mut engine, &mut sequence, request, parser, true)
    })?;
    recorder.finish()?;
    let (read, written) = (answer.outcome.prompt_tokens, answer.outcome.completion_tokens);
    note(format_args!("{}: {read} tokens prefilled, {written} generated", args.target.display()));
    args.engine.finish(&engine)
}
