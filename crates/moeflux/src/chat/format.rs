//! How a model writes thoughts and tool calls.

use serde_json::Value;

use super::formats;
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
    /// Thoughts between markers such as `<think>`, and no calls, or calls in a form that is not known.
    Thoughts,
    /// Thoughts, and calls in a family's markers.
    Tagged(Syntax),
    /// Messages in channels, as gpt-oss writes them.
    Harmony,
}

/// How a family writes calls.
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
    /// DeepSeek V3.2's: `<｜DSML｜invoke name="NAME">` in `<｜DSML｜function_calls>`.
    Dsml,
    /// DeepSeek V4's: the same in `<｜DSML｜tool_calls>`.
    DsmlCalls,
    /// Seed-OSS': Qwen3-Coder's in `<seed:tool_call>`.
    SeedOss,
    /// functionary v3.1's: `<function=NAME>{…}</function>`.
    FunctionTag,
    /// functionary v3.2's: `>>>NAME`, a line break and the arguments.
    Recipient,
    /// Hunyuan 3's: GLM's with `:opensource` in each tag.
    Hunyuan,
    /// MiniMax M1's: objects on lines in `<tool_calls>`.
    MiniMaxM1,
    /// MiniMax M2's: `<invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke>` in `<minimax:tool_call>`.
    MiniMaxM2,
    /// MiniCPM5's: `<function name="NAME"><param name="KEY">VALUE</param></function>`.
    MiniCpm,
    /// Apriel's: a list of objects in `<tool_calls>`.
    Apriel,
    /// Nemotron Nano v2's: a list of objects in `<TOOLCALL>`.
    ToolCallList,
    /// Mistral's until 2024: `[TOOL_CALLS]` and a list of objects.
    MistralList,
    /// Mistral's since: `[TOOL_CALLS]NAME[ARGS]{…}`.
    Mistral,
    /// Kimi K2's: `functions.NAME:INDEX` and the arguments, in a section.
    Kimi,
    /// Kimi K3's: tags between `<|open|>` and `<|sep|>`.
    KimiTags,
    /// Gemma 4's: `<|tool_call>call:NAME{KEY:VALUE}<tool_call|>`.
    Gemma,
    /// LFM2's: `[NAME(KEY=VALUE)]`, as Python writes it.
    Pythonic,
    /// Cohere's Command R7B and later: a list of objects in `<|START_ACTION|>`.
    Cohere,
    /// Cohere's Command R: a list of objects in a fenced block after `Action:`.
    CommandR,
    /// Granite 3's: `<|tool_call|>` and a list of objects.
    Granite,
    /// Phi-4's and FireFunction's: `functools` and a list of objects.
    Functools,
    /// Apertus': a list of objects whose only key is the name.
    Apertus,
    /// Solar's: id, name and arguments, each after a marker.
    Solar,
    /// GigaChat 3's: an object in a message of its own or after `<|function_call|>`.
    FunctionCall,
    /// Llama 3's: an object alone, or after `<|python_tag|>`.
    Llama,
}

impl Format {
    /// The format of a model, recognised in what its chat template makes of a call, or in the tokenizer's markers.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        detect::format(tokenizer)
    }

    /// The name of the format of calls, such as `hermes`; `None` if it is not known how the model writes calls: what it
    /// writes is then part of its answer's text.
    pub fn calls(self) -> Option<&'static str> {
        match self {
            Format::Plain | Format::Thoughts => None,
            Format::Tagged(syntax) => Some(formats::row(syntax).name),
            Format::Harmony => Some("harmony"),
        }
    }

    /// All formats in which calls are read.
    pub fn known() -> impl Iterator<Item = Self> {
        formats::FORMATS.iter().map(|row| Format::Tagged(row.syntax)).chain([Format::Harmony])
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
