//! Whatever answer the bytes stand for, in any format of calls: it is read alike in whatever pieces it comes, and what it calls
//! are tools that are offered.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use moeflux::chat::{Answer, Format, Parser};
use serde_json::{Value, json};

/// Pieces of answers: markers of every format, and what stands between them.
const PIECES: &[&str] = &[
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<function=f>\n",
    "<function=f>",
    "</function>",
    "<parameter=a>\n",
    "<parameter=b>",
    "\n</parameter>\n",
    "{\"name\": \"f\", \"arguments\": ",
    "{\"name\": \"f\", \"parameters\": ",
    "{\"a\": \"b\"}",
    "{\"a\": ",
    "{\"f\": ",
    "}",
    "[",
    "]",
    ", ",
    "\"",
    "\\",
    "\\ud83d",
    "f",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "\n```json\n",
    "\n```",
    "<｜DSML｜function_calls>",
    "<｜DSML｜tool_calls>",
    "<｜DSML｜invoke name=\"f\">",
    "<｜DSML｜parameter name=\"b\" string=\"false\">",
    "</｜DSML｜parameter>",
    "</｜DSML｜invoke>",
    "</｜DSML｜tool_calls>",
    "<minimax:tool_call>",
    "</minimax:tool_call>",
    "<invoke name=\"f\">",
    "<parameter name=\"a\">",
    "</parameter>",
    "</invoke>",
    "<arg_key>",
    "a</arg_key>\n<arg_value>",
    "</arg_value>",
    "<tool_call:opensource>f<tool_sep:opensource>",
    "<arg_key:opensource>a</arg_key:opensource><arg_value:opensource>",
    "</arg_value:opensource></tool_call:opensource>",
    "<seed:tool_call>",
    "</seed:tool_call>",
    "<tool_calls>",
    "</tool_calls>",
    "<TOOLCALL>[",
    "]</TOOLCALL>",
    "[TOOL_CALLS]",
    "[CALL_ID]",
    "[ARGS]",
    "[THINK]",
    "[/THINK]",
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>functions.f:0",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|open|>tools<|sep|>",
    "<|open|>call tool=\"f\" index=\"1\"<|sep|>",
    "<|open|>argument key=\"a\" type=\"string\"<|sep|>",
    "<|close|>argument<|sep|>",
    "<|close|>call<|sep|>",
    "<|close|>tools<|sep|>",
    "<|tool_call>call:f{",
    "a:<|\"|>",
    "<|\"|>",
    "}<tool_call|>",
    "<|channel>thought\n",
    "<channel|>",
    "<|tool_call_start|>[f(",
    "a='",
    "b=1",
    ")]<|tool_call_end|>",
    "<|START_ACTION|>[{\"tool_name\": \"f\", \"parameters\": ",
    "<|END_ACTION|>",
    "Action: ```json\n",
    "<|tool_call|>",
    "functools[",
    "<|tools_prefix|>",
    "<|tools_suffix|>",
    "<|tool_call:begin|>1<|tool_call:name|>f<|tool_call:args|>",
    "<|tool_call:end|>",
    ">>>f\n",
    ">>>all\n",
    "<|function_call|>",
    "<function name=\"f\">",
    "<param name=\"a\">",
    "</param>",
    "<|python_tag|>",
    "<|channel|>",
    "analysis",
    "commentary to=functions.f ",
    "<|message|>",
    "<|start|>assistant",
    "<|end|>",
    "\n",
    " ",
    "<",
    "ä",
    "a text that is longer than what is held back of a call before it is told, so that it streams, and may break off",
];

static TOOLS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let properties = json!({ "a": { "type": "string" }, "b": { "type": ["integer", "object"] }, "c": {} });
    let parameters = json!({ "type": "object", "properties": properties, "required": ["a"] });
    vec![json!({ "type": "function", "function": { "name": "f", "parameters": parameters } })]
});

fuzz_target!(|bytes: &[u8]| {
    let [format, kind, rest @ ..] = bytes else { return };
    let formats: Vec<Format> = Format::known().collect();
    let format = formats[usize::from(*format) % formats.len()];
    let prompt = if kind & 1 == 0 { "" } else { "<think>\n" };
    let answer: String = match kind & 2 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        _ => rest.iter().map(|&byte| PIECES[usize::from(byte) % PIECES.len()]).collect(),
    };
    let whole = read(format, prompt, [answer.as_str()]);
    let characters = answer.split_inclusive(|_: char| true);
    fault_if(read(format, prompt, characters) != whole, "pieces matter");
    for call in whole.tool_calls() {
        fault_if(call.name != "f", "a tool is called that is not offered");
        fault_if(!call.is_whole() && call.arguments.len() <= 100, "short arguments are no object");
    }
});

fn read<'t>(format: Format, prompt: &str, pieces: impl IntoIterator<Item = &'t str>) -> Answer {
    let mut parser = Parser::new(format, &TOOLS, prompt);
    let mut answer = Answer::default();
    for piece in pieces {
        parser.push(piece).into_iter().for_each(|delta| answer.push(delta));
    }
    parser.finish().into_iter().for_each(|delta| answer.push(delta));
    answer
}

fn fault_if(is_wrong: bool, what: &str) {
    assert!(!is_wrong, "{what}");
}
