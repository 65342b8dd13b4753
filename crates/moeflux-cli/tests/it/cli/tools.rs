//! `moeflux run --tools` and `moeflux chat --tools`: calls are read out of what models write, in each format.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{Result, moeflux, moeflux_with};

/// A file with tools in a folder.
fn tools_file(folder: &Path, tools: &Value) -> Result<String> {
    let file = folder.join("tools.json");
    fs::write(&file, tools.to_string())?;
    Ok(file.to_str().ok_or("a path in UTF-8")?.to_owned())
}

fn tool(name: &str, properties: Value) -> Value {
    let required: Vec<&String> =
        properties.as_object().into_iter().flat_map(|object| object.keys()).collect();
    let parameters = json!({ "type": "object", "properties": properties, "required": required });
    let function = json!({ "name": name, "description": "A tool", "parameters": parameters });
    json!({ "type": "function", "function": function })
}

/// A way to write calls, and a checkpoint of a family that has it.
struct Format {
    name: &'static str,
    family: &'static str,
    /// Tokens of the checkpoint's tokenizer, and the format's markers that take their places.
    markers: &'static [(&'static str, &'static str)],
    /// What the template makes of an answer's calls: before them, each one, and after them.
    calls: [&'static str; 3],
}

/// Without the markers of thoughts, in which random weights stay until the context ends.
const DEEPSEEK: &[(&str, &str)] = &[
    ("think>", "muse>"),
    ("<tool_call>", "<｜tool▁sep｜>"),
    ("<|image_pad|>", "<｜tool▁calls▁begin｜>"),
    ("<|video_pad|>", "<｜tool▁calls▁end｜>"),
    ("<|vision_start|>", "<｜tool▁call▁begin｜>"),
    ("<|vision_end|>", "<｜tool▁call▁end｜>"),
];
const HARMONY: &[(&str, &str)] = &[
    ("<|im_start|>", "<|start|>"),
    ("<think>", "<|channel|>"),
    ("</think>", "<|message|>"),
    ("<tool_call>", "<|constrain|>"),
    ("<|image_pad|>", "<|end|>"),
];

/// As in `crates/moeflux/tests/it/chat/formats.rs`, where templates say what format they are of.
const FORMATS: [Format; 7] = [
    Format {
        name: "xml",
        family: "qwen3_5_moe",
        markers: &[],
        calls: [
            "",
            "{{- '<tool_call>\\n<function=' + name + '>\\n' }}{% for k, v in arguments.items() %}{{- '<parameter=' + k + '>\\n' }}{{- v }}{{- '\\n</parameter>\\n' }}{% endfor %}{{- '</function>\\n</tool_call>' }}",
            "",
        ],
    },
    Format {
        name: "hermes",
        family: "qwen3_moe",
        markers: &[],
        calls: [
            "",
            "{{- '<tool_call>\\n{\"name\": \"' + name + '\", \"arguments\": ' }}{{- arguments | tojson }}{{- '}\\n</tool_call>' }}",
            "",
        ],
    },
    Format {
        name: "deepseek",
        family: "deepseek_v3",
        markers: DEEPSEEK,
        calls: [
            "{{- '<｜tool▁calls▁begin｜>' }}",
            "{{- '<｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' + arguments + '<｜tool▁call▁end｜>' }}",
            "{{- '<｜tool▁calls▁end｜>' }}",
        ],
    },
    Format {
        name: "deepseek fenced",
        family: "deepseek_v3",
        markers: DEEPSEEK,
        calls: [
            "{{- '<｜tool▁calls▁begin｜>' }}",
            "{{- '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + name + '\\n```json\\n' + arguments + '\\n```<｜tool▁call▁end｜>' }}",
            "{{- '<｜tool▁calls▁end｜>' }}",
        ],
    },
    Format {
        name: "glm",
        family: "glm4_moe",
        markers: &[],
        calls: [
            "",
            "{{- '<tool_call>' + name }}{% for k, v in arguments.items() %}<arg_key>{{ k }}</arg_key><arg_value>{{ v }}</arg_value>{% endfor %}</tool_call>",
            "",
        ],
    },
    Format {
        name: "glm in lines",
        family: "glm4_moe",
        markers: &[],
        calls: [
            "",
            "{{- '\\n<tool_call>' + name }}\n{% for k, v in arguments.items() %}<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v }}</arg_value>\n{% endfor %}</tool_call>",
            "",
        ],
    },
    Format {
        name: "harmony",
        family: "gpt_oss",
        markers: HARMONY,
        calls: [
            "",
            "{{- '<|start|>assistant to=functions.' + name + '<|channel|>commentary json<|message|>' }}{{- arguments | tojson }}<|call|>",
            "",
        ],
    },
];

impl Format {
    /// The family's small checkpoint with the format's template and markers. Its weights are random.
    fn checkpoint(&self) -> Result<TempDir> {
        let folder = tempfile::tempdir()?;
        let source: PathBuf =
            moeflux_testing::data(env!("CARGO_TARGET_TMPDIR"), &format!("{}/hf", self.family));
        for entry in fs::read_dir(source)? {
            let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
            let target = folder.path().join(&name);
            if name.to_string_lossy().starts_with("tokenizer") {
                let text = fs::read_to_string(path)?;
                let renamed = self.markers.iter().fold(text, |text, (from, to)| text.replace(from, to));
                fs::write(target, renamed)?;
            } else {
                fs::copy(path, target)?;
            }
        }
        let [before, call, after] = self.calls;
        let template = format!(
            "{{%- for m in messages %}}<{{{{ m.role }}}}>{{{{ m.content }}}}{{%- if m.tool_calls %}}{before}{{%- for c in \
             m.tool_calls %}}{{%- set name = c.function.name %}}{{%- set arguments = c.function.arguments %}}{call}\
             {{%- endfor %}}{after}{{%- endif %}}{{%- endfor %}}"
        );
        fs::write(folder.path().join("chat_template.jinja"), template)?;
        Ok(folder)
    }
}

#[test]
fn calls_of_every_format_are_printed_as_lines_of_json() -> Result<()> {
    let weather = tool("get_weather", json!({ "city": { "enum": ["Oslo", "Bergen"] } }));
    for format in FORMATS {
        let folder = format.checkpoint()?;
        let file = tools_file(folder.path(), &json!([weather, tool("ping", json!({}))]))?;
        let model = folder.path().to_str().ok_or("a path in UTF-8")?;
        let args = ["run", model, "Hi", "-t", "0", "--tools", &file, "--tool-choice", "get_weather"];
        let finished = moeflux(&args)?;
        // Random weights go on to call until the context ends, and a call that this cuts off is text.
        let lines = finished.output().lines().take_while(|line| line.starts_with("{\"name\":"));
        let lines = lines.map(serde_json::from_str).collect::<serde_json::Result<Vec<Value>>>();
        let lines = lines.map_err(|error| format!("{}: {error} in {finished:?}", format.name))?;
        assert!(!lines.is_empty(), "{}: {finished:?}", format.name);
        for call in &lines {
            assert_eq!(call["name"], "get_weather", "{}: {finished:?}", format.name);
            let city = &call["arguments"]["city"];
            assert!(city == "Oslo" || city == "Bergen", "{}: {finished:?}", format.name);
        }
        let answer = moeflux(&[&args[..], &["--json"]].concat())?.answer()?;
        assert_eq!(answer["tool_calls"], Value::Array(lines), "{}: {answer}", format.name);
    }
    Ok(())
}

#[test]
fn the_demo_calls_a_tool_of_its_own_accord() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let weather = tool("get_weather", json!({ "city": { "type": "string", "description": "The city" } }));
    let file = tools_file(folder.path(), &json!([weather]))?;
    let args = ["run", "What is the weather in Oslo?", "-t", "0", "--tools", &file];
    let finished = moeflux(&args)?;
    assert_eq!(finished.text(), "{\"name\":\"get_weather\",\"arguments\":{\"city\": \"Oslo\"}}\n");
    let answer = moeflux(&[&args[..], &["--json"]].concat())?.answer()?;
    assert_eq!(answer["tool_calls"], json!([{ "name": "get_weather", "arguments": { "city": "Oslo" } }]));
    assert_eq!((&answer["text"], answer.get("reasoning")), (&"".into(), None));
    // What is not offered is not looked for.
    let finished =
        moeflux(&["run", "What is 17 + 25?", "-t", "0", "--tools", &file, "--tool-choice", "none"])?;
    assert_eq!(finished.text(), "17 + 25 = 42.\n");
    Ok(())
}

#[test]
fn a_conversation_goes_on_from_results() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let number = json!({ "type": "integer" });
    let file = tools_file(folder.path(), &json!([tool("add", json!({ "a": number, "b": number }))]))?;
    let chat = |lines: &str| moeflux_with(lines, &["chat", "-t", "0", "--tools", &file]);
    let finished = chat("What is 4321 + 1234?\n/result {\"result\": 5555}\n")?;
    let call = "{\"name\":\"add\",\"arguments\":{\"a\": 4321, \"b\": 1234}}\n";
    assert_eq!(finished.text(), format!("{call}4321 + 1234 = 5555.\n"));
    chat("/result 42\n")?.fails_with(&["no tool call waits for a result"]);
    chat("/result\n")?.fails_with(&["/result: expected"]);
    Ok(())
}

#[test]
fn tools_that_cannot_be_called() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = tools_file(folder.path(), &json!([tool("ping", json!({}))]))?;
    let run = |args: &[&str]| moeflux(&[&["run", "Hi", "--tools", &file], args].concat());
    run(&["--tool-choice", "pong"])?.fails_with(&["tool_choice", "(ping)", "found pong"]);
    let grammar = folder.path().join("grammar.lark");
    fs::write(&grammar, "start: \"yes\" | \"no\"\n")?;
    let grammar = grammar.to_str().ok_or("a path in UTF-8")?;
    run(&["--grammar", grammar])?.fails_with(&["cannot call tools"]);
    run(&["--raw"])?.exits(2, &["--raw", "--tools"]);
    moeflux(&["run", "Hi", "--tool-choice", "auto"])?.exits(2, &["--tools"]);
    let file = tools_file(folder.path(), &json!([{ "name": 3 }]))?;
    moeflux(&["run", "Hi", "--tools", &file])?.fails_with(&["tools[0]", "function", "{\"name\":3}"]);
    Ok(())
}
