//! From generated text to what it says: answer, thoughts and tool calls, in the format that the model was taught.
//!
//! A call is told when it is complete and its arguments are a JSON object; before that nobody knows what it will be. What
//! begins like a call and is none, or is cut off, is text, as the model wrote it.

mod constraint;
mod detect;
mod harmony;
mod read;
mod schema;
mod tagged;
mod tools;

use moeflux::sampling::Constraint;
use moeflux::text::Tokenizer;
use serde_json::Value;

use self::harmony::Harmony;
use self::tagged::Tagged;
use self::tools::Tools;
use crate::generation::{Delta, ToolChoice};

/// How a model writes thoughts and tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Text alone.
    Plain,
    /// Thoughts in `<think>`, and no calls.
    Thoughts,
    /// Thoughts in `<think>`, calls in a family's markers.
    Tagged(Syntax),
    /// Messages in channels, as gpt-oss writes them.
    Harmony,
}

/// How a call is written between a family's markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Syntax {
    /// Qwen3-Coder's and Qwen3.5's: `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`.
    Xml,
    /// Hermes' and Qwen3's: `<tool_call>{"name": NAME, "arguments": {…}}</tool_call>`.
    Hermes,
    /// DeepSeek V3's and R1's: the kind, the name, and arguments in a fenced block.
    DeepSeekFenced,
    /// DeepSeek V3.1's: the name and the arguments.
    DeepSeek,
    /// GLM 4.5's: `<tool_call>NAME <arg_key>KEY</arg_key> <arg_value>VALUE</arg_value></tool_call>`, each part on a line.
    GlmLines,
    /// The same without line breaks.
    Glm,
}

impl Format {
    /// The format of a model, told from what its chat template makes of a call.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        detect::format(tokenizer)
    }

    /// What the output must look like so that the tools are called that `choice` wants; `None` if anything will do, or if
    /// it is not known how the model writes calls.
    pub fn constraint(
        self,
        tokenizer: &Tokenizer,
        tools: &[Value],
        choice: &ToolChoice,
        parallel: bool,
    ) -> Option<Constraint> {
        constraint::of(self, tokenizer, &Tools::new(tools), choice, parallel)
    }
}

/// Streaming parser of one answer. Whatever pieces a text comes in, the joined deltas are the same.
#[derive(Debug)]
pub struct Parser(Kind);

#[derive(Debug)]
enum Kind {
    Plain,
    Tagged(Tagged),
    Harmony(Harmony),
}

impl Parser {
    /// A parser of what follows `prompt`, in which a thinking block may be open already, and of calls of these tools
    /// (in the form of OpenAI's chat API; empty: calls are text).
    pub fn new(format: Format, tools: &[Value], prompt: &str) -> Self {
        let tools = Tools::new(tools);
        Self(match format {
            Format::Plain => Kind::Plain,
            Format::Thoughts => Kind::Tagged(Tagged::new(None, tools, prompt)),
            Format::Tagged(syntax) => Kind::Tagged(Tagged::new(Some(syntax), tools, prompt)),
            Format::Harmony => Kind::Harmony(Harmony::new(tools)),
        })
    }

    /// Takes the next text and returns what is certain.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        let mut deltas = Deltas::default();
        match &mut self.0 {
            Kind::Plain => deltas.text(text),
            Kind::Tagged(parser) => parser.push(text, &mut deltas),
            Kind::Harmony(parser) => parser.push(text, &mut deltas),
        }
        deltas.0
    }

    /// What was held back, when no more text will come.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut deltas = Deltas::default();
        match &mut self.0 {
            Kind::Plain => {}
            Kind::Tagged(parser) => parser.finish(&mut deltas),
            Kind::Harmony(parser) => parser.finish(&mut deltas),
        }
        deltas.0
    }
}

/// Deltas on their way out, with neighbours of one kind joined.
#[derive(Debug, Default)]
struct Deltas(Vec<Delta>);

impl Deltas {
    fn text(&mut self, more: &str) {
        match self.0.last_mut() {
            _ if more.is_empty() => {}
            Some(Delta::Text(text)) => text.push_str(more),
            _ => self.0.push(Delta::Text(more.to_owned())),
        }
    }

    fn reasoning(&mut self, more: &str) {
        match self.0.last_mut() {
            _ if more.is_empty() => {}
            Some(Delta::Reasoning(text)) => text.push_str(more),
            _ => self.0.push(Delta::Reasoning(more.to_owned())),
        }
    }

    fn call(&mut self, index: usize, call: read::Call) {
        self.0.push(Delta::ToolCall { index, name: call.name });
        self.0.push(Delta::Arguments { index, piece: call.arguments });
    }
}

/// How many bytes at the end of `text` could be the beginning of one of the markers.
fn partial_marker(text: &str, markers: &[&str]) -> usize {
    let longest = markers.iter().map(|marker| marker.len() - 1).max().unwrap_or(0);
    let from = text.ceil_char_boundary(text.len().saturating_sub(longest));
    let tails = text[from..].char_indices().map(|(at, _)| &text[from + at..]);
    let begins =
        |tail: &&str| markers.iter().any(|marker| marker.len() > tail.len() && marker.starts_with(tail));
    tails.into_iter().find(begins).map_or(0, str::len)
}
