//! The formats of calls, as a table: markers, nesting, and how a call is written between them.
//!
//! A format whose calls are written in one of the ways of [`Body`] is one more row.

use super::Syntax;
use super::read::{Body, Dialect, KeyEnd, Keys, Named, Tags};
use super::thoughts::{self, Thoughts};

/// A format of calls.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) syntax: Syntax,
    /// The name that users see.
    pub(super) name: &'static str,
    pub(super) thoughts: &'static [Thoughts],
    /// What stands around all calls of an answer; both are empty if nothing does.
    pub(super) around: [&'static str; 2],
    /// Any of these begins calls. The first is what templates write.
    pub(super) opens: &'static [Open],
    /// What ends them; empty: nothing.
    pub(super) close: &'static str,
    pub(super) body: Body,
    /// Marks of the answer's text that are no part of it.
    pub(super) dropped: &'static [&'static str],
    /// What stands right before and after the name in what the format's templates write, without white space. Of several rows
    /// that fit, the first is taken.
    pub(super) probes: &'static [[&'static str; 2]],
    /// Tokens, or words of the text that tells a model how to call, by which the format is told where a template writes no
    /// calls. All of them have to be there.
    pub(super) marks: &'static [&'static str],
    /// What a template writes around a call, for grammars.
    pub(super) writes: Writes,
}

/// What begins calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) text: &'static str,
    /// Whether the text is the beginning of the call itself.
    pub(super) is_kept: bool,
    /// Whether it begins calls only where an answer begins.
    pub(super) at_start: bool,
}

/// What a template writes around calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writes {
    /// Before and after each call, within its markers.
    pub(super) inside: [&'static str; 2],
    /// Between two calls.
    pub(super) between: &'static str,
    /// Whether several calls stand between one pair of markers.
    pub(super) is_list: bool,
}

const fn open(text: &'static str) -> Open {
    Open { text, is_kept: false, at_start: false }
}

const fn writes(before: &'static str, after: &'static str, between: &'static str) -> Writes {
    Writes { inside: [before, after], between, is_list: false }
}

const fn list(before: &'static str, after: &'static str, between: &'static str) -> Writes {
    Writes { inside: [before, after], between, is_list: true }
}

const NONE: [&str; 2] = ["", ""];
const TOOL_CALL: &[Open] = &[open("<tool_call>")];

const KEYS: Keys = Keys { name: &["name", "function"], arguments: &["arguments", "parameters"] };
const COHERE_KEYS: Keys = Keys { name: &["tool_name", "name"], arguments: &["parameters", "arguments"] };

/// `NAME end {…}`.
const fn named(ends: &'static [&'static str]) -> Named {
    Named { lead: "", ends, id_end: None, dialect: Dialect::Json, is_fenced: false, may_be_bare: true }
}

/// What separates name and arguments of DeepSeek's calls, or kind and name.
pub(super) const SEPARATOR: &str = "<｜tool▁sep｜>";

static DEEPSEEK: Named = named(&[SEPARATOR]);
static DEEPSEEK_FENCED: Named = Named { lead: SEPARATOR, is_fenced: true, ..named(&["\n"]) };
static KIMI: Named = named(&["<|tool_call_argument_begin|>"]);
static MISTRAL: Named =
    Named { id_end: Some("[ARGS]"), may_be_bare: false, ..named(&["[CALL_ID]", "[ARGS]", "{"]) };
static SOLAR: Named = Named { lead: "<|tool_call:name|>", ..named(&["<|tool_call:args|>"]) };
static FUNCTION_TAG: Named = named(&[">"]);
static RECIPIENT: Named = Named { may_be_bare: false, ..named(&["\n"]) };
static GEMMA: Named = Named { lead: "call:", dialect: Dialect::Gemma, may_be_bare: false, ..named(&["{"]) };

static QWEN_TAGS: Tags = Tags {
    open: "<function=",
    after_name: "",
    key_open: "<parameter=",
    key_end: KeyEnd::Tag(">"),
    value_close: "</parameter>",
    close: "</function>",
    on_lines: true,
};
static INVOKE: Tags = Tags {
    open: "<invoke name=\"",
    key_open: "<parameter name=\"",
    key_end: KeyEnd::Quoted(">"),
    close: "</invoke>",
    on_lines: false,
    ..QWEN_TAGS
};
static DSML: Tags = Tags {
    open: "<｜DSML｜invoke name=\"",
    key_open: "<｜DSML｜parameter name=\"",
    value_close: "</｜DSML｜parameter>",
    close: "</｜DSML｜invoke>",
    ..INVOKE
};
static MINICPM_TAGS: Tags = Tags {
    open: "<function name=\"",
    key_open: "<param name=\"",
    value_close: "</param>",
    close: "</function>",
    ..INVOKE
};
static KIMI_K3_TAGS: Tags = Tags {
    open: "<|open|>call tool=\"",
    after_name: "",
    key_open: "<|open|>argument key=\"",
    key_end: KeyEnd::Quoted("<|sep|>"),
    value_close: "<|close|>argument<|sep|>",
    close: "<|close|>call<|sep|>",
    on_lines: false,
};
static GLM_TAGS: Tags = Tags {
    open: "",
    after_name: "",
    key_open: "<arg_key>",
    key_end: KeyEnd::Pair("</arg_key>", "<arg_value>"),
    value_close: "</arg_value>",
    close: "",
    on_lines: false,
};
static HUNYUAN_TAGS: Tags = Tags {
    after_name: "<tool_sep:opensource>",
    key_open: "<arg_key:opensource>",
    key_end: KeyEnd::Pair("</arg_key:opensource>", "<arg_value:opensource>"),
    value_close: "</arg_value:opensource>",
    ..GLM_TAGS
};

/// What most rows have in common.
const ROW: Row = Row {
    syntax: Syntax::Hermes,
    name: "hermes",
    thoughts: thoughts::THINK,
    around: NONE,
    opens: TOOL_CALL,
    close: "</tool_call>",
    body: Body::Envelope(KEYS),
    dropped: &[],
    probes: &[],
    marks: &[],
    writes: writes("\n", "\n", "\n"),
};

/// DeepSeek's calls until V3.1.
const DEEPSEEK_ROW: Row = Row {
    around: ["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"],
    opens: &[open("<｜tool▁call▁begin｜>")],
    close: "<｜tool▁call▁end｜>",
    ..ROW
};

/// Calls in tags with the name as an attribute.
const DSML_ROW: Row = Row {
    opens: &[open("<｜DSML｜function_calls>")],
    close: "</｜DSML｜function_calls>",
    body: Body::Tags(&DSML),
    writes: list("\n", "\n", "\n"),
    ..ROW
};

/// All formats.
pub(super) static FORMATS: &[Row] = &[
    Row {
        syntax: Syntax::SeedOss,
        name: "seed-oss",
        thoughts: thoughts::SEED,
        opens: &[open("<seed:tool_call>")],
        close: "</seed:tool_call>",
        body: Body::Tags(&QWEN_TAGS),
        probes: &[["<seed:tool_call><function=", ">"]],
        marks: &["<seed:tool_call>"],
        ..ROW
    },
    Row {
        syntax: Syntax::FunctionTag,
        name: "functionary-v3.1",
        opens: &[open("<function=")],
        close: "</function>",
        body: Body::Named(&FUNCTION_TAG),
        probes: &[["<function=", ">{"]],
        writes: writes("", "", ""),
        ..ROW
    },
    Row {
        syntax: Syntax::Xml,
        name: "qwen-xml",
        opens: &[open("<tool_call>"), Open { is_kept: true, ..open("<function=") }],
        body: Body::Tags(&QWEN_TAGS),
        probes: &[["<function=", ">"]],
        marks: &["<tool_call>", "<function=", "<parameter="],
        ..ROW
    },
    Row {
        syntax: Syntax::DeepSeekFenced,
        name: "deepseek-v3",
        body: Body::Named(&DEEPSEEK_FENCED),
        probes: &[[SEPARATOR, ""]],
        writes: writes("", "", "\n"),
        ..DEEPSEEK_ROW
    },
    Row {
        syntax: Syntax::DeepSeek,
        name: "deepseek-v3.1",
        body: Body::Named(&DEEPSEEK),
        probes: &[["", SEPARATOR]],
        writes: writes("", "", ""),
        ..DEEPSEEK_ROW
    },
    Row {
        syntax: Syntax::Dsml,
        name: "deepseek-v3.2",
        probes: &[["<｜DSML｜function_calls><｜DSML｜invokename=\"", "\""]],
        marks: &["<｜DSML｜function_calls>"],
        ..DSML_ROW
    },
    Row {
        syntax: Syntax::DsmlCalls,
        name: "deepseek-v4",
        opens: &[open("<｜DSML｜tool_calls>")],
        close: "</｜DSML｜tool_calls>",
        probes: &[["<｜DSML｜tool_calls><｜DSML｜invokename=\"", "\""]],
        marks: &["<｜DSML｜tool_calls>"],
        ..DSML_ROW
    },
    Row {
        syntax: Syntax::GlmLines,
        name: "glm-4.5",
        body: Body::Tags(&GLM_TAGS),
        probes: &[["<tool_call>", "\n<arg_key>"]],
        writes: writes("", "", "\n"),
        ..ROW
    },
    Row {
        syntax: Syntax::Glm,
        name: "glm-4.7",
        body: Body::Tags(&GLM_TAGS),
        probes: &[["<tool_call>", "<arg_key>"]],
        marks: &["<tool_call>", "<arg_key>"],
        writes: writes("", "", ""),
        ..ROW
    },
    Row {
        syntax: Syntax::Hunyuan,
        name: "hunyuan-3",
        thoughts: thoughts::HUNYUAN,
        around: ["<tool_calls:opensource>", "</tool_calls:opensource>"],
        opens: &[open("<tool_call:opensource>")],
        close: "</tool_call:opensource>",
        body: Body::Tags(&HUNYUAN_TAGS),
        probes: &[["<tool_call:opensource>", "<tool_sep:opensource>"]],
        marks: &["<tool_call:opensource>"],
        writes: writes("", "", "\n"),
        ..ROW
    },
    Row {
        syntax: Syntax::MiniMaxM2,
        name: "minimax-m2",
        opens: &[open("<minimax:tool_call>")],
        close: "</minimax:tool_call>",
        body: Body::Tags(&INVOKE),
        probes: &[["<minimax:tool_call><invokename=\"", "\""]],
        marks: &["<minimax:tool_call>"],
        writes: list("\n", "\n", "\n"),
        ..ROW
    },
    Row {
        syntax: Syntax::MiniMaxM1,
        name: "minimax-m1",
        opens: &[open("<tool_calls>")],
        close: "</tool_calls>",
        probes: &[["<tool_calls>{\"name\":\"", "\""]],
        writes: list("\n", "\n", "\n"),
        ..ROW
    },
    Row {
        syntax: Syntax::Apriel,
        name: "apriel",
        thoughts: thoughts::APRIEL,
        opens: &[open("<tool_calls>")],
        close: "</tool_calls>",
        probes: &[["<tool_calls>[{\"name\":\"", "\""]],
        dropped: &["[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"],
        writes: list("[", "]", ", "),
        ..ROW
    },
    Row {
        syntax: Syntax::ToolCallList,
        name: "nemotron-nano-v2",
        opens: &[open("<TOOLCALL>")],
        close: "</TOOLCALL>",
        probes: &[["<TOOLCALL>[{\"name\":\"", "\""]],
        marks: &["<TOOLCALL>"],
        writes: list("[", "]", ", "),
        ..ROW
    },
    Row {
        syntax: Syntax::MistralList,
        name: "mistral-v3",
        thoughts: thoughts::MISTRAL,
        opens: &[open("[TOOL_CALLS]")],
        close: "",
        probes: &[["[TOOL_CALLS][{\"name\":\"", "\""]],
        writes: list("[", "]", ", "),
        ..ROW
    },
    Row {
        syntax: Syntax::Mistral,
        name: "mistral-v11",
        thoughts: thoughts::MISTRAL,
        opens: &[open("[TOOL_CALLS]")],
        close: "",
        body: Body::Named(&MISTRAL),
        probes: &[["[TOOL_CALLS]", "[ARGS]"], ["[TOOL_CALLS]", "[CALL_ID]"], ["[TOOL_CALLS]", "{"]],
        marks: &["[TOOL_CALLS]", "[ARGS]"],
        writes: writes("", "", ""),
        ..ROW
    },
    Row {
        syntax: Syntax::Kimi,
        name: "kimi-k2",
        around: ["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"],
        opens: &[open("<|tool_call_begin|>")],
        close: "<|tool_call_end|>",
        body: Body::Named(&KIMI),
        probes: &[["<|tool_call_begin|>functions.", ""], ["<|tool_call_begin|>", ""]],
        marks: &["<|tool_call_begin|>", "<|tool_call_argument_begin|>"],
        writes: writes("", "", ""),
        ..ROW
    },
    Row {
        syntax: Syntax::KimiTags,
        name: "kimi-k3",
        thoughts: thoughts::KIMI_K3,
        opens: &[open("<|open|>tools<|sep|>")],
        close: "<|close|>tools<|sep|>",
        body: Body::Tags(&KIMI_K3_TAGS),
        dropped: &["<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"],
        probes: &[["<|open|>tools<|sep|><|open|>calltool=\"", "\""]],
        writes: list("", "", ""),
        ..ROW
    },
    Row {
        syntax: Syntax::Gemma,
        name: "gemma-4",
        thoughts: thoughts::GEMMA,
        opens: &[open("<|tool_call>")],
        close: "<tool_call|>",
        body: Body::Named(&GEMMA),
        probes: &[["<|tool_call>call:", "{"]],
        marks: &["<|tool_call>", "<tool_call|>"],
        writes: writes("", "", ""),
        ..ROW
    },
    Row {
        syntax: Syntax::Pythonic,
        name: "lfm2",
        opens: &[open("<|tool_call_start|>")],
        close: "<|tool_call_end|>",
        body: Body::Python,
        probes: &[["<|tool_call_start|>[", "("]],
        marks: &["<|tool_call_start|>", "<|tool_call_end|>"],
        writes: list("[", "]", ", "),
        ..ROW
    },
    Row {
        syntax: Syntax::CommandR,
        name: "command-r-plus",
        opens: &[open("Action: ```json"), open("Action:```json"), open("Action:\n```json")],
        close: "```",
        body: Body::Envelope(COHERE_KEYS),
        probes: &[["Action:```json[{\"tool_name\":\"", "\""]],
        writes: list("\n[\n    ", "\n]", ",\n    "),
        ..ROW
    },
    Row {
        syntax: Syntax::Cohere,
        name: "command-r7b",
        thoughts: thoughts::COHERE,
        opens: &[open("<|START_ACTION|>")],
        close: "<|END_ACTION|>",
        body: Body::Envelope(COHERE_KEYS),
        dropped: &["<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"],
        probes: &[["\"tool_name\":\"", "\",\"parameters\":"]],
        marks: &["<|START_ACTION|>", "<|END_ACTION|>"],
        writes: list("[\n    ", "\n]", ",\n    "),
        ..ROW
    },
    Row {
        syntax: Syntax::Granite,
        name: "granite-3",
        opens: &[open("<|tool_call|>"), open("<tool_call>")],
        close: "",
        dropped: &["<response>", "</response>"],
        probes: &[["<|tool_call|>[{\"name\":\"", "\""], ["<|tool_call|>{\"name\":\"", "\""]],
        marks: &["<|tool_call|>", "<|start_of_role|>"],
        writes: list("[", "]", ", "),
        ..ROW
    },
    Row {
        syntax: Syntax::Functools,
        name: "functools",
        opens: &[open("functools["), open("functools ["), open("<|tool_call|>")],
        close: "",
        dropped: &["<|/tool_call|>"],
        probes: &[["functools[{\"name\":\"", "\""]],
        marks: &["<|tool|>", "<|/tool|>"],
        writes: list("", "]", ", "),
        ..ROW
    },
    Row {
        syntax: Syntax::Apertus,
        name: "apertus",
        thoughts: thoughts::APERTUS,
        opens: &[open("<|tools_prefix|>")],
        close: "<|tools_suffix|>",
        body: Body::Keyed,
        probes: &[["<|tools_prefix|>[{\"", "\":"]],
        marks: &["<|tools_prefix|>", "<|tools_suffix|>"],
        writes: list("[", "]", ", "),
        ..ROW
    },
    Row {
        syntax: Syntax::Solar,
        name: "solar",
        around: ["<|tool_calls|>", "<|calls|>"],
        opens: &[open("<|tool_call:begin|>")],
        close: "<|tool_call:end|>",
        body: Body::Named(&SOLAR),
        probes: &[["<|tool_call:name|>", "<|tool_call:args|>"]],
        marks: &["<|tool_call:name|>", "<|tool_call:args|>"],
        writes: writes("", "", ""),
        ..ROW
    },
    Row {
        syntax: Syntax::Recipient,
        name: "functionary-v3.2",
        opens: &[open(">>>")],
        close: "",
        body: Body::Named(&RECIPIENT),
        dropped: &[">>>all\n"],
        probes: &[[">>>", "{"]],
        writes: writes("", "", ""),
        ..ROW
    },
    Row {
        syntax: Syntax::FunctionCall,
        name: "gigachat-3",
        opens: &[
            open("<|function_call|>"),
            open("<|message_sep|>\n\nfunction call<|role_sep|>\n"),
            Open { at_start: true, ..open("function call<|role_sep|>\n") },
        ],
        close: "",
        probes: &[["<|function_call|>{\"name\":\"", "\""], ["functioncall<|role_sep|>{\"name\":\"", "\""]],
        writes: writes("", "", ""),
        ..ROW
    },
    Row {
        syntax: Syntax::MiniCpm,
        name: "minicpm-5",
        opens: &[Open { is_kept: true, ..open("<function name=\"") }],
        close: "",
        body: Body::Tags(&MINICPM_TAGS),
        probes: &[["<functionname=\"", "\""]],
        writes: writes("", "", "\n"),
        ..ROW
    },
    Row {
        probes: &[["<tool_call>{\"name\":\"", "\""], ["<tool_call>{\"name\":", ""]],
        marks: &["<tool_call>", "{\"name\":"],
        ..ROW
    },
    Row {
        syntax: Syntax::Llama,
        name: "llama-3",
        opens: &[Open { is_kept: true, at_start: true, ..open("{") }, open("<|python_tag|>")],
        close: "",
        probes: &[["<|end_header_id|>{\"name\":\"", "\""], ["<|python_tag|>{\"name\":\"", "\""]],
        marks: &["<|python_tag|>"],
        writes: writes("", "", "; "),
        ..ROW
    },
];

/// The row of a format.
pub(super) fn row(syntax: Syntax) -> &'static Row {
    // Each has one: a test goes through all of them.
    FORMATS.iter().find(|row| row.syntax == syntax).unwrap_or(&FORMATS[0])
}
