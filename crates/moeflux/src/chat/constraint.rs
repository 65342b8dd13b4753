//! Grammars of answers that call tools, for llguidance.

use std::fmt::Write;

use crate::sampling::Constraint;
use crate::text::{THINK, Tokenizer};
use serde_json::{Map, Value, json};

use super::harmony::{CHANNEL, CONSTRAIN, END, FUNCTIONS, MESSAGE, START};
use super::read::SEPARATOR;
use super::schema::Types;
use super::tagged::Markers;
use super::tools::{Tool, Tools};
use super::{Format, Syntax, ToolChoice};

/// What an answer must look like so that `choice` is met.
pub(super) fn of(
    format: Format,
    tokenizer: &Tokenizer,
    tools: &Tools,
    choice: &ToolChoice,
    parallel: bool,
) -> Option<Constraint> {
    let wanted: Vec<&Tool> = match choice {
        ToolChoice::Auto | ToolChoice::None => return None,
        ToolChoice::Required => tools.iter().collect(),
        ToolChoice::Named(name) => tools.get(name).into_iter().collect(),
    };
    if wanted.is_empty() {
        return None;
    }
    let mut grammar = Grammar { tokenizer, rules: String::new(), names: 0 };
    let start = match format {
        Format::Plain | Format::Thoughts => return None,
        Format::Tagged(syntax) => grammar.tagged(syntax, &wanted, parallel),
        Format::Harmony => grammar.harmony(&wanted),
    };
    Some(Constraint::Lark(format!("start: {start}\n{}", grammar.rules)))
}

/// A grammar in Lark's syntax on its way. Methods return expressions; rules that these need are added.
struct Grammar<'t> {
    tokenizer: &'t Tokenizer,
    rules: String,
    names: usize,
}

impl Grammar<'_> {
    fn tagged(&mut self, syntax: Syntax, tools: &[&Tool], parallel: bool) -> String {
        let Markers { open, close, around } = Markers::of(syntax);
        let (open, close) = (self.marker(open), self.marker(close));
        let calls = tools.iter().map(|tool| self.body(syntax, tool)).collect();
        let body = self.choice(calls);
        let call = self.rule(&format!("{open} {body} {close}"));
        let calls = match (parallel, around) {
            (false, _) => call,
            // Templates break the line between calls; DeepSeek's since V3.1 does not.
            (true, _) if syntax == Syntax::DeepSeek => format!("{call} ({call})*"),
            (true, _) => format!("{call} (\"\\n\" {call})*"),
        };
        let calls = match around {
            [begin, end] => format!("{} {calls} {}", self.marker(begin), self.marker(end)),
            _ => calls,
        };
        // After a thinking block that the prompt opened, or that the model opens itself.
        let breaks = r"/\n{0,2}/";
        match self.tokenizer.id(THINK.open).and(self.tokenizer.id(THINK.close)) {
            Some(_) => {
                let thoughts = self.until(THINK.close);
                format!("({} {thoughts})? {breaks} {calls}", self.marker(THINK.open))
            }
            None => calls,
        }
    }

    fn body(&mut self, syntax: Syntax, tool: &Tool) -> String {
        let name = &tool.name;
        let arguments = || format!("%json {}", object(&tool.parameters));
        match syntax {
            Syntax::Hermes => {
                let before = format!("\n{{\"name\": {}, \"arguments\": ", Value::from(name.as_str()));
                format!("{} {} {}", literal(&before), arguments(), literal("}\n"))
            }
            Syntax::DeepSeek => format!("{} {} {}", literal(name), self.marker(SEPARATOR), arguments()),
            Syntax::DeepSeekFenced => {
                let (kind, before) = (literal("function"), literal(&format!("{name}\n```json\n")));
                format!("{kind} {} {before} {} {}", self.marker(SEPARATOR), arguments(), literal("\n```"))
            }
            Syntax::Xml => {
                let before = literal(&format!("\n<function={name}>\n"));
                let arguments = self.each_argument(tool, |grammar, key, schema| {
                    let before = literal(&format!("<parameter={key}>\n"));
                    let value = grammar.value(schema, tool, "\n</parameter>\n");
                    format!("{before} {value}")
                });
                format!("{before} {arguments} {}", literal("</function>\n"))
            }
            Syntax::Glm | Syntax::GlmLines => {
                let line = if syntax == Syntax::GlmLines { "\n" } else { "" };
                let before = literal(&format!("{name}{line}"));
                let arguments = self.each_argument(tool, |grammar, key, schema| {
                    let marks = ["<arg_key>", "</arg_key>", "<arg_value>"].map(|mark| grammar.marker(mark));
                    let [open, close, open_value] = marks;
                    let value = grammar.value(schema, tool, "</arg_value>");
                    let key = literal(key);
                    let line = if line.is_empty() { String::new() } else { literal(line) };
                    format!("{open} {key} {close} {line} {open_value} {value} {line}")
                });
                format!("{before} {arguments}")
            }
        }
    }

    /// Thoughts if the model wants to, then one call.
    fn harmony(&mut self, tools: &[&Tool]) -> String {
        let [channel, message, constrain, start] =
            [CHANNEL, MESSAGE, CONSTRAIN, START].map(|mark| self.marker(mark));
        let thoughts = self.until(END);
        let thoughts = format!(
            "({channel} {} {message} {thoughts} {start} {})?",
            literal("analysis"),
            literal("assistant")
        );
        let calls = tools.iter().map(|tool| {
            let to = literal(&format!("commentary to={FUNCTIONS}{} ", tool.name));
            let arguments = object(&tool.parameters);
            format!("{to} {constrain} {} {message} %json {arguments}", literal("json"))
        });
        let calls = calls.collect();
        let call = self.choice(calls);
        format!("{thoughts} {channel} {call}")
    }

    /// All arguments in the schema's order; those that it does not require may be missing.
    fn each_argument(&mut self, tool: &Tool, write: impl Fn(&mut Self, &str, &Value) -> String) -> String {
        let none = Map::new();
        let properties = tool.parameters.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let required = tool.parameters.get("required").and_then(Value::as_array);
        let mut arguments = Vec::new();
        for (key, schema) in properties {
            let argument = write(self, key, schema);
            let is_required = required.is_some_and(|keys| keys.iter().any(|name| name == key));
            let rule = self.rule(&argument);
            arguments.push(if is_required { rule } else { format!("{rule}?") });
        }
        arguments.join(" ")
    }

    /// A value as bare text, and the mark that ends it.
    fn value(&mut self, schema: &Value, tool: &Tool, end: &str) -> String {
        let values = schema.get("enum").and_then(Value::as_array).cloned();
        let values = values.or_else(|| schema.get("const").map(|value| vec![value.clone()]));
        if let Some(values) = values {
            let bare =
                |value: &Value| literal(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            let choice = self.choice(values.iter().map(bare).collect());
            return format!("{choice} {}", self.marker(end));
        }
        if Types::of(schema, &tool.parameters).has_string() {
            return self.until(end);
        }
        format!("%json {} {}", with_definitions(schema, &tool.parameters), self.marker(end))
    }

    /// Any text up to a mark, which ends it.
    fn until(&mut self, mark: &str) -> String {
        if self.is_special(mark) {
            return format!("/(?s:.*)/ {mark}");
        }
        let name = self.name();
        let mark = literal(mark);
        // Writing to a string does not fail.
        let _ = writeln!(self.rules, "{name}[suffix={mark}]: /(?s:.*)/");
        name
    }

    /// A mark as an expression: special tokens are named, all else is text.
    fn marker(&self, mark: &str) -> String {
        if self.is_special(mark) { mark.to_owned() } else { literal(mark) }
    }

    fn is_special(&self, mark: &str) -> bool {
        self.tokenizer.id(mark).is_some_and(|id| self.tokenizer.is_special(id))
    }

    fn choice(&mut self, of: Vec<String>) -> String {
        let of: Vec<String> = of.iter().map(|expression| self.rule(expression)).collect();
        format!("({})", of.join(" | "))
    }

    /// A rule of its own, by its name.
    fn rule(&mut self, expression: &str) -> String {
        let name = self.name();
        let _ = writeln!(self.rules, "{name}: {expression}");
        name
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("r{}", self.names)
    }
}

/// Text as Lark writes it, which is as JSON does.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A schema that allows objects only.
fn object(schema: &Value) -> Value {
    let mut schema = schema.as_object().cloned().unwrap_or_default();
    schema.entry("type").or_insert_with(|| json!("object"));
    spaced(schema)
}

/// The schema of an argument, with what its references lead to.
fn with_definitions(schema: &Value, root: &Value) -> Value {
    let mut schema = schema.as_object().cloned().unwrap_or_default();
    for key in ["$defs", "definitions"] {
        if let Some(definitions) = root.get(key) {
            schema.entry(key).or_insert_with(|| definitions.clone());
        }
    }
    spaced(schema)
}

/// A schema whose JSON has as much white space as models write.
fn spaced(mut schema: Map<String, Value>) -> Value {
    schema.insert("x-guidance".to_owned(), json!({ "whitespace_pattern": r"\x20?" }));
    Value::Object(schema)
}
