//! `moeflux run`: one answer.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use moeflux::chat::{ChatOptions, Format};
use moeflux::sampling::TokenLogprob;
use moeflux::sequence::snapshot::SnapshotOptions;
use moeflux::text::{Message, Tokenizer};
use moeflux::{CancelToken, GenerateRequest, Model, StopReason};
use serde::Serialize;

use crate::answer::{Answer, answer};
use crate::answer_writer::JsonCall;
use crate::interrupt::{EXIT_INTERRUPTED, Interrupt};
use crate::model_args::{EngineArgs, ModelArgs};
use crate::output_args::OutputArgs;
use crate::output_file;
use crate::prompt_args::PromptArgs;
use crate::samples::{MAX_SAMPLES, Observer, answers};
use crate::sampling_args::SamplingArgs;
use crate::stats::Stats;
use crate::terminal::{self, note};
use crate::tool_args::ToolArgs;

/// Arguments of `run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Continue the text as it is, without the chat template
    #[arg(long, help_heading = "Prompt", conflicts_with_all = ["system", "think", "tools"])]
    raw: bool,
    /// System prompt
    #[arg(long, value_name = "TEXT", help_heading = "Prompt")]
    system: Option<String>,
    /// Let the model reason before it answers. The reasoning goes to stderr
    #[arg(long, help_heading = "Prompt")]
    think: bool,
    /// Continue from a state that --save wrote. The part of the prompt that it contains is not prefilled again
    #[arg(long, value_name = "FILE", help_heading = "Prompt", conflicts_with = "prompt_logprobs")]
    resume: Option<PathBuf>,
    /// Write the state after the answer to this file, for --resume
    #[arg(long, value_name = "FILE", help_heading = "Output", conflicts_with = "samples")]
    save: Option<PathBuf>,
    #[command(flatten)]
    tools: ToolArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Generate N answers at once, with consecutive seeds. The prompt is prefilled once
    #[arg(
        long = "n",
        value_name = "N",
        default_value_t = 1,
        hide_default_value = true,
        value_parser = clap::value_parser!(u64).range(1..=MAX_SAMPLES),
        help_heading = "Output"
    )]
    samples: u64,
    /// Print one JSON object at the end instead of text: `schema_version` and `answers`, a list. Each answer has `text`, and
    /// if there are any `reasoning` (a text) and `tool_calls` (a list of `name` and `arguments`)
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// With --json: print the log-probability of each token, and of the N most likely tokens at its position
    #[arg(long, value_name = "N", help_heading = "Output", requires = "json")]
    logprobs: Option<usize>,
    /// With --json: print the same for the tokens of the prompt
    #[arg(long, value_name = "N", help_heading = "Output", requires = "json", conflicts_with = "samples")]
    prompt_logprobs: Option<usize>,
}

/// The version of what `--json` prints: it rises when a field goes or means something else.
const SCHEMA_VERSION: u32 = 1;

/// What `--json` prints.
#[derive(Serialize)]
struct JsonAnswers<'a> {
    schema_version: u32,
    /// As many as `--n` asks for.
    answers: Vec<JsonAnswer<'a>>,
}

/// One of the answers.
#[derive(Serialize)]
struct JsonAnswer<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reasoning: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<JsonCall<'a>>,
    tokens: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<JsonLogprob>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<Vec<JsonLogprob>>,
    #[serde(flatten)]
    stats: &'a Stats,
}

/// A token's log-probability, and those of the likeliest tokens in its place.
#[derive(Serialize)]
struct JsonLogprob {
    token: u32,
    /// Empty for padding, which has no text.
    text: String,
    /// Of the prompt's first token, none.
    logprob: Option<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top_logprobs: Vec<JsonLogprob>,
}

impl JsonLogprob {
    fn new(token: u32, logprob: Option<f32>, top: &[TokenLogprob], tokenizer: &Tokenizer) -> Self {
        let top = top.iter().map(|top| Self::new(top.token, Some(top.logprob), &[], tokenizer)).collect();
        let text = tokenizer.decode(&[token], false).unwrap_or_default();
        Self { token, text, logprob, top_logprobs: top }
    }
}

/// Runs the command, in a program that started at `started`.
pub(crate) fn run(args: &RunArgs, started: Instant) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    if let Some(path) = &args.save {
        output_file::check("--save", path)?;
    }
    let (model, question) = args.prompt.read(&args.model)?;
    let options = args.tools.options(args.think)?;
    let mut engine = args.engine.engine(args.model.open_with(model, args.output.wants_mtp())?)?;

    let tokenizer = engine.model().tokenizer();
    let format = if args.raw { Format::Plain } else { Format::of(tokenizer) };
    let prompt = if args.raw { question } else { args.prompt_of(&options, &question, tokenizer)? };
    let sampling = args.sampling.options(tokenizer.generation_defaults());
    let mut request = GenerateRequest {
        prompt: tokenizer.encode_within(&prompt, engine.model().context_length(), &CancelToken::default())?,
        logprobs: args.logprobs,
        prompt_logprobs: args.prompt_logprobs,
        ..args.output.request(sampling)?
    };
    request.constraint = options.constraint(tokenizer, format, &prompt, request.constraint)?;

    let before_request = started.elapsed();
    let model = Arc::clone(engine.model());
    let mut shared = engine.sequence();
    if let Some(path) = &args.resume {
        shared = engine.load(path)?.sequence;
        let known = shared.reusable(&request.prompt);
        engine.truncate(&mut shared, known)?;
        request.prompt.drain(..known);
    }
    let known = shared.len();
    let mut shown =
        Shown { args, known, before_request, request: request.clone(), answers: Vec::new(), model };
    if args.samples == 1 {
        let parser = options.parser(format, &prompt);
        let answer = interrupt.during(|cancel| {
            let request = GenerateRequest { cancel, ..request };
            answer(&mut engine, &mut shared, request, parser, !args.json)
        })?;
        shown.end(answer, shared.state_bytes())?;
        if let Some(path) = &args.save {
            engine.save(&shared, path, &SnapshotOptions::default())?;
        }
    } else {
        let parsers = (0..args.samples).map(|_| options.parser(format, &prompt)).collect();
        interrupt.during(|cancel| {
            let request = GenerateRequest { cancel, ..request };
            answers(&mut engine, &shared, request, parsers, !args.json, &mut shown)
        })?;
    }
    let answers = shown.answers;
    let cancelled = answers.iter().any(|(answer, _)| answer.outcome.stop == StopReason::Cancelled);
    if args.json {
        let tokenizer = engine.model().tokenizer();
        let answers = answers.iter().map(|(answer, stats)| args.json_answer(answer, stats, tokenizer));
        let answers = answers.collect::<Result<_>>()?;
        let json = serde_json::to_string_pretty(&JsonAnswers { schema_version: SCHEMA_VERSION, answers })?;
        terminal::show(&format!("{json}\n"))?;
    }
    args.engine.finish(&engine)?;
    Ok(if cancelled { ExitCode::from(EXIT_INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// The answers so far.
struct Shown<'a> {
    args: &'a RunArgs,
    request: GenerateRequest,
    model: Arc<Model>,
    /// Tokens that the sequence had before the prompt.
    known: usize,
    before_request: Duration,
    answers: Vec<(Answer, Stats)>,
}

impl Shown<'_> {
    fn seed(&self, index: usize) -> u64 {
        self.request.sampling.seed.wrapping_add(index as u64)
    }
}

impl Observer for Shown<'_> {
    fn begin(&mut self, index: usize) {
        if !self.args.json {
            let (n, seed) = (self.args.samples, self.seed(index));
            note(format_args!("[{} of {n}, seed {seed}]", index + 1));
        }
    }

    fn end(&mut self, answer: Answer, state_bytes: usize) -> Result<()> {
        let seed = self.seed(self.answers.len());
        let before_request = Some(self.before_request);
        let stats = Stats::new(&answer, &self.model, state_bytes, self.known, seed, before_request);
        if self.args.output.stats {
            note(format_args!("\n{stats}"));
        }
        self.answers.push((answer, stats));
        Ok(())
    }
}

impl RunArgs {
    fn json_answer<'a>(
        &self,
        answer: &'a Answer,
        stats: &'a Stats,
        tokenizer: &Tokenizer,
    ) -> Result<JsonAnswer<'a>> {
        let logprobs = answer
            .logprobs
            .iter()
            .map(|(chosen, top)| JsonLogprob::new(chosen.token, Some(chosen.logprob), top, tokenizer));
        let prompt_logprobs = answer
            .prompt_logprobs
            .iter()
            .map(|told| JsonLogprob::new(told.token, told.logprob, &told.top_logprobs, tokenizer));
        let tool_calls = answer.tool_calls.iter().map(JsonCall::new);
        Ok(JsonAnswer {
            text: &answer.text,
            reasoning: &answer.reasoning,
            tool_calls: tool_calls.collect::<Result<_, _>>()?,
            tokens: &answer.tokens,
            logprobs: self.logprobs.map(|_| logprobs.collect()),
            prompt_logprobs: self.prompt_logprobs.map(|_| prompt_logprobs.collect()),
            stats,
        })
    }

    /// The prompt of a question.
    fn prompt_of(&self, options: &ChatOptions, question: &str, tokenizer: &Tokenizer) -> Result<String> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        // A question typed into a pipe or a file ends with a line break that is no part of it.
        let user = Message::new("user", question.trim_end_matches(['\r', '\n']));
        let messages: Vec<Message> = system.chain([user]).collect();
        Ok(options.prompt(tokenizer, &messages)?)
    }
}
