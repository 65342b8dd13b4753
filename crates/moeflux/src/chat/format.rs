//! How a model writes thoughts and tool calls.

use serde_json::Value;

use super::tools::Tools;
use super::{ToolChoice, constraint, detect};
use crate::sampling::Constraint;
use crate::text::Tokenizer;

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
    /// The format of a model, recognised in what its chat template makes of a call.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        detect::format(tokenizer)
    }

    /// A grammar of answers that call the tools that `choice` requires; `None` if it requires none, or if it is not known how
    /// the model writes calls.
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
