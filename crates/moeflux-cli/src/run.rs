//! `moeflux run`: one answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use moeflux::text::{ChatRequest, Message};
use moeflux::{Engine, GenerateRequest, StopReason};
use serde::Serialize;
use serde_json::Value;

use crate::answer::answer;
use crate::interrupt::{EXIT_INTERRUPTED, Interrupt};
use crate::model_args::{EngineArgs, ModelArgs};
use crate::output_args::OutputArgs;
use crate::prompt_args::PromptArgs;
use crate::reasoning::ReasoningSplitter;
use crate::sampling_args::SamplingArgs;
use crate::stats::Stats;
use crate::terminal::{self, note};

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
    /// What the model is told before the question
    #[arg(long, value_name = "TEXT", help_heading = "Prompt")]
    system: Option<String>,
    /// Let the model think first; the thoughts go to stderr
    #[arg(long, help_heading = "Prompt")]
    think: bool,
    /// Offer tools: a file with a JSON list of them, as in OpenAI's API
    #[arg(long, value_name = "FILE", help_heading = "Prompt")]
    tools: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Print one JSON object when the answer is complete, instead of text
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct JsonAnswer<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reasoning: &'a str,
    tokens: &'a [u32],
    #[serde(flatten)]
    stats: &'a Stats,
}

/// Runs the command, in a program that started at `started`.
pub(crate) fn run(args: &RunArgs, started: Instant) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let (model, question) = args.prompt.read(&args.model)?;
    let tools = args.tools.as_deref().map(read_tools).transpose()?;
    let mut engine = args.engine.engine(args.model.open(model)?)?;

    let tokenizer = engine.model().tokenizer();
    let prompt = if args.raw { question } else { args.render(&engine, &question, tools.as_deref())? };
    let sampling = args.sampling.options(tokenizer.generation_defaults());
    let seed = sampling.seed;
    let request = GenerateRequest {
        prompt: tokenizer.encode(&prompt)?,
        sampling,
        max_tokens: args.output.max_tokens(),
        stop: args.output.stop.clone(),
        ignore_eos: args.output.ignore_eos,
        ..GenerateRequest::default()
    };

    let splitter = (!args.raw).then(|| ReasoningSplitter::after(&prompt));
    let mut sequence = engine.sequence();
    let before_request = started.elapsed();
    let answer = interrupt.during(|cancel| {
        let request = GenerateRequest { cancel, ..request };
        answer(&mut engine, &mut sequence, request, splitter, !args.json)
    })?;

    let stats = Stats::new(&answer, &engine, &sequence, 0, seed, Some(before_request));
    if args.json {
        let json = JsonAnswer {
            text: &answer.text,
            reasoning: &answer.reasoning,
            tokens: &answer.tokens,
            stats: &stats,
        };
        terminal::show(&format!("{}\n", serde_json::to_string_pretty(&json)?))?;
    }
    if args.output.stats {
        note(format_args!("\n{stats}"));
    }
    let cancelled = matches!(answer.outcome.stop, StopReason::Cancelled);
    Ok(if cancelled { ExitCode::from(EXIT_INTERRUPTED) } else { ExitCode::SUCCESS })
}

impl RunArgs {
    fn render(&self, engine: &Engine, question: &str, tools: Option<&[Value]>) -> Result<String> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        // A question typed into a pipe or a file ends with a line break that is no part of it.
        let user = Message::new("user", question.trim_end_matches(['\r', '\n']));
        let messages: Vec<Message> = system.chain([user]).collect();
        Ok(engine.model().tokenizer().render_chat(&ChatRequest {
            messages: &messages,
            tools,
            add_generation_prompt: true,
            enable_thinking: Some(self.think),
            ..ChatRequest::default()
        })?)
    }
}

fn read_tools(path: &Path) -> Result<Vec<Value>> {
    let named = || format!("reading tools from {}", path.display());
    let text = fs::read_to_string(path).with_context(named)?;
    match serde_json::from_str(&text).with_context(named)? {
        Value::Array(tools) => Ok(tools),
        _ => bail!("{}: expected a JSON list of tools, as in OpenAI's API", path.display()),
    }
}
