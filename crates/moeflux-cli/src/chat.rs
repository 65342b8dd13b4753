//! `moeflux chat`: a conversation in the terminal.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;

use crate::conversation::Conversation;
use crate::interrupt::Interrupt;
use crate::line_reader::LineReader;
use crate::model_args::{EngineArgs, ModelArgs};
use crate::output_args::OutputArgs;
use crate::sampling_args::SamplingArgs;
use crate::stats::Stats;
use crate::terminal::{note, show_dim};
use crate::tool_args::ToolArgs;

const HELP: &str = r#"/retry         answer the last message again
/undo          remove the last message and its answer
/reset         remove all messages except the system prompt
/system TEXT   set the system prompt; without TEXT, remove it
/think on|off  let the model reason before it answers
/result TEXT   set the result of the first tool call that has none
/stats         print times, rates and memory of the last answer
/save FILE     write the conversation as JSON
/load FILE     continue a saved conversation
/quit          end the program, as Ctrl-D does
A message can have several lines: end a line with \, or put the message between """ and """.
Ctrl-C stops the answer."#;

/// Arguments of `chat`.
#[derive(Args)]
pub(crate) struct ChatArgs {
    /// Model folder, GGUF file, or name of a pulled model [default: the demo in models/demo]
    #[arg(value_name = "MODEL")]
    argument: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// System prompt
    #[arg(long, value_name = "TEXT", help_heading = "Prompt")]
    system: Option<String>,
    /// Let the model reason before it answers. The reasoning goes to stderr
    #[arg(long, help_heading = "Prompt")]
    think: bool,
    #[command(flatten)]
    tools: ToolArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,
}

struct Chat<'a> {
    args: &'a ChatArgs,
    conversation: Conversation,
    last: Option<Stats>,
    /// Somebody types at a terminal.
    is_typed: bool,
}

/// The message that an answer is generated for.
enum Turn<'a> {
    /// A message.
    Question(&'a str),
    /// The last message, again.
    Retry,
    /// The result of a tool.
    Result(&'a str),
}

/// Whether the conversation goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Quit,
}

/// Runs the command.
pub(crate) fn run(args: &ChatArgs) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let options = args.tools.options(args.think)?;
    let model = args.model.open_with(args.argument.as_deref(), args.output.wants_mtp())?;
    let engine = args.engine.engine(model)?;
    let mut conversation = Conversation::new(engine, options);
    conversation.set_system(args.system.as_deref().unwrap_or_default());
    let mut reader = LineReader::new()?;
    let is_typed = reader.is_terminal();
    let mut chat = Chat { args, conversation, last: None, is_typed };
    if reader.is_terminal() {
        note(format_args!("{}: /help lists commands", chat.folder().display()));
    }
    while let Some(line) = reader.read()? {
        match chat.take(&line, &interrupt) {
            Ok(Next::GoOn) => {}
            Ok(Next::Quit) => break,
            // Somebody who types can mend it; a script must not go on.
            Err(error) if reader.is_terminal() && !crate::is_broken_pipe(&error) => {
                note(crate::one_line(&error));
            }
            Err(error) => return Err(error),
        }
    }
    args.engine.finish(chat.conversation.engine())
}

impl Chat<'_> {
    fn folder(&self) -> &Path {
        self.conversation.engine().model().checkpoint().path()
    }

    /// Takes a line: a command, or a message to the model.
    fn take(&mut self, line: &str, interrupt: &Interrupt) -> Result<Next> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Next::GoOn);
        }
        let Some(command) = line.strip_prefix('/') else {
            self.answer(Turn::Question(line), interrupt)?;
            return Ok(Next::GoOn);
        };
        let (command, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        self.command(command, argument.trim(), interrupt)
    }

    fn command(&mut self, command: &str, argument: &str, interrupt: &Interrupt) -> Result<Next> {
        match (command, argument) {
            ("quit" | "exit", "") => return Ok(Next::Quit),
            ("help", "") => note(HELP),
            ("retry", "") => self.answer(Turn::Retry, interrupt)?,
            ("result", "") => bail!("/result: expected what the tool returned, as in `/result 42`"),
            ("result", text) => self.answer(Turn::Result(text), interrupt)?,
            ("undo", "") => self.conversation.undo()?,
            ("reset", "") => {
                self.conversation.reset();
                self.done("the conversation is forgotten");
            }
            ("system", text) => {
                self.conversation.set_system(text);
                self.done(if text.is_empty() {
                    "the system prompt is removed"
                } else {
                    "the system prompt is set"
                });
            }
            ("think", "on") => {
                self.conversation.set_thinking(true);
                self.done("the model thinks before it answers");
            }
            ("think", "off") => {
                self.conversation.set_thinking(false);
                self.done("the model answers at once");
            }
            ("think", _) => bail!("/think: expected on or off, found {argument:?}"),
            ("stats", "") => match &self.last {
                Some(stats) => note(stats),
                None => note("no answer yet"),
            },
            ("save" | "load", "") => bail!("/{command}: expected a file, as in `/{command} chat.json`"),
            ("save", path) => {
                self.conversation.save(Path::new(path))?;
                self.done(&format!("saved to {path}"));
            }
            ("load", path) => {
                let messages = self.conversation.load(Path::new(path))?;
                note(format_args!("{messages} messages loaded"));
            }
            _ => bail!("{}: not a command; /help lists them", format!("/{command} {argument}").trim()),
        }
        Ok(Next::GoOn)
    }

    /// Prints that a command was carried out, if messages are typed and not piped.
    fn done(&self, what: &str) {
        if self.is_typed {
            note(what);
        }
    }

    /// Generates and prints the answer to a turn.
    fn answer(&mut self, turn: Turn<'_>, interrupt: &Interrupt) -> Result<()> {
        let defaults = self.conversation.engine().model().tokenizer().generation_defaults();
        let request = self.args.output.request(self.args.sampling.options(defaults))?;
        let stats = match turn {
            Turn::Question(question) => self.conversation.ask(question, request, interrupt)?,
            Turn::Retry => self.conversation.retry(request, interrupt)?,
            Turn::Result(result) => match self.conversation.give_result(result, request, interrupt)? {
                Some(stats) => stats,
                None => {
                    self.done("another call waits for its result");
                    return Ok(());
                }
            },
        };
        if self.args.output.stats {
            note(&stats);
        } else if let Some(experts) = &stats.experts {
            show_dim(&format!("[{experts}]\n"));
        }
        self.last = Some(stats);
        Ok(())
    }
}
