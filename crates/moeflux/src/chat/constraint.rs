//! Grammars of answers that call tools, for llguidance.

use std::fmt::Write;

use crate::sampling::{Constraint, ConstraintLimits, can_compile, without_unknown_formats};
use crate::text::Tokenizer;
use serde_json::{Map, Value, json};

use super::formats::{self, Row};
use super::harmony::{CHANNEL, CONSTRAIN, END, FUNCTIONS, MESSAGE, START};
use super::read::{Body, Dialect, KeyEnd, Tags};
use super::schema::Types;
use super::thoughts::Thoughts;
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
    let mut grammar = Grammar::new(tokenizer);
    let start = match format {
        Format::Plain | Format::Thoughts => return None,
        Format::Tagged(syntax) => {
            let row = formats::row(syntax);
            let calls = grammar.calls(row, &wanted, parallel)?;
            grammar.after_thoughts(row, &calls)
        }
        Format::Harmony => grammar.harmony(&wanted),
    };
    Some(grammar.finish(&start))
}

/// An answer that calls tools or has a form, after thoughts; `None` if the two have no common grammar.
pub(super) fn calls_or_form(
    format: Format,
    tokenizer: &Tokenizer,
    tools: &Tools,
    form: &Constraint,
    parallel: bool,
) -> Option<Constraint> {
    let Format::Tagged(syntax) = format else { return None };
    let row = formats::row(syntax);
    let mut grammar = Grammar::new(tokenizer);
    let wanted: Vec<&Tool> = tools.iter().collect();
    let calls = grammar.calls(row, &wanted, parallel)?;
    let form = match form {
        Constraint::JsonSchema(schema) => format!("%json {}", spaced(schema.as_object().cloned()?)),
        Constraint::JsonObject => format!("%json {}", object(&json!({}))),
        Constraint::Regex(regex) => format!("/{}/", regex.replace('/', "\\/")),
        Constraint::Lark(_) => return None,
    };
    let either = grammar.choice(vec![calls, form]);
    let start = grammar.after_thoughts(row, &either);
    Some(grammar.finish(&start))
}

/// An answer in which calls are right wherever there are any: text is free up to the token that begins a call, and thoughts are
/// free up to their end. `None` where the format has no such token.
pub(super) fn lazy(format: Format, tokenizer: &Tokenizer, tools: &Tools, prompt: &str) -> Option<Constraint> {
    let Format::Tagged(syntax) = format else { return None };
    let row = formats::row(syntax);
    // What the call itself begins with begins other text too, such as the brace of Llama's calls.
    if row.around[0].is_empty() && row.opens[0].is_kept {
        return None;
    }
    let first = row.around.first().copied().filter(|mark| !mark.is_empty()).unwrap_or(row.opens[0].text);
    let trigger = tokenizer.id(first)?;
    let mut grammar = Grammar { is_lazy: true, ..Grammar::new(tokenizer) };
    let tools = compilable(tools);
    let wanted: Vec<&Tool> = tools.iter().collect();
    let calls = grammar.calls(row, &wanted, true)?;
    let calls = grammar.rule(&calls);
    let marks = |thoughts: &Thoughts| Some((tokenizer.id(thoughts.open), tokenizer.id(thoughts.close)?));
    let thoughts: Vec<_> = row.thoughts.iter().filter_map(|of| Some((of, marks(of)?))).collect();
    let begins: Vec<u32> = thoughts.iter().filter_map(|&(_, (open, _))| open).chain([trigger]).collect();
    let text = grammar.all_but(&begins);
    let (mut parts, mut cut) = (vec![calls], Vec::new());
    for &(_, (open, close)) in &thoughts {
        if let Some(open) = open {
            let inside = grammar.all_but(&[close]);
            parts.push(format!("<[{open}]> {inside} <[{close}]>"));
            cut.push(format!("<[{open}]> {inside}"));
        }
    }
    let mut answer = format!("{text} (({}) {text})*", parts.join(" | "));
    if !cut.is_empty() {
        let _ = write!(answer, " ({})?", cut.join(" | "));
    }
    let mut start = grammar.rule(&answer);
    if let Some(&(_, (_, close))) = thoughts.iter().find(|(of, _)| of.is_open_after(prompt)) {
        start = format!("{} (<[{close}]> {start})?", grammar.all_but(&[close]));
    }
    let constraint = grammar.finish(&start);
    if let Err(error) = constraint.measure(&ConstraintLimits::default()) {
        tracing::warn!(%error, "tool calls are not constrained: the tools are too many or too large");
        return None;
    }
    Some(constraint)
}

/// The tools, with any object for arguments whose schema no grammar can be made of.
fn compilable(tools: &Tools) -> Vec<Tool> {
    let schemas = tools.iter().map(|tool| lenient(object(&tool.parameters))).collect();
    let compiles = can_compile(schemas);
    let kept = tools.iter().zip(compiles).map(|(tool, compiles)| {
        if compiles {
            return tool.clone();
        }
        tracing::warn!(
            tool = tool.name,
            "the tool's schema has no grammar: its arguments are not constrained"
        );
        Tool { name: tool.name.clone(), parameters: json!({}) }
    });
    kept.collect()
}

/// A schema whose keywords that the compiler lacks are left out.
fn lenient(mut schema: Value) -> Value {
    if let Some(options) = schema.get_mut("x-guidance").and_then(Value::as_object_mut) {
        options.insert("lenient".to_owned(), Value::Bool(true));
    }
    schema
}

/// A grammar in Lark's syntax on its way. Methods return expressions; rules that these need are added.
struct Grammar<'t> {
    tokenizer: &'t Tokenizer,
    rules: String,
    names: usize,
    /// Whether a call is the model's own choice: what a schema asks for in other ways than the compiler has is then left out,
    /// and arguments in tags may come in any order.
    is_lazy: bool,
}

impl<'t> Grammar<'t> {
    fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, rules: String::new(), names: 0, is_lazy: false }
    }

    fn finish(&self, start: &str) -> Constraint {
        Constraint::Lark(format!("start: {start}\n{}", self.rules))
    }

    /// Calls as the format's template writes them; `None` if the format has no grammar.
    fn calls(&mut self, row: &Row, tools: &[&Tool], parallel: bool) -> Option<String> {
        let bodies = tools.iter().map(|tool| self.body(row, tool)).collect::<Option<_>>()?;
        let body = self.choice(bodies);
        let writes = row.writes;
        let [before, after] = writes.inside;
        let opens = if row.opens[0].is_kept { "" } else { row.opens[0].text };
        let open = self.text(&format!("{opens}{before}"));
        // In two expressions: the first may also begin what stands between calls, and the lexer does not go back.
        let close = format!("{} {}", self.text(after), self.text(row.close));
        let between = self.text(writes.between);
        if writes.is_list {
            let more = if parallel { format!("({between} {body})*") } else { String::new() };
            return Some(format!("{open} {body} {more} {close}"));
        }
        let call = self.rule(&format!("{open} {body} {close}"));
        let calls = if parallel { format!("{call} ({between} {call})*") } else { call };
        let [begin, end] = row.around.map(|mark| self.text(mark));
        let line = if row.syntax == Syntax::Hunyuan { "\"\\n\"?" } else { "" };
        Some(format!("{begin} {line} {calls} {line} {end}"))
    }

    /// An expression after a thinking block that the prompt opened, or that the model opens itself.
    fn after_thoughts(&mut self, row: &Row, expression: &str) -> String {
        let breaks = r"/\n{0,2}/";
        for thoughts in row.thoughts {
            if self.tokenizer.id(thoughts.open).and(self.tokenizer.id(thoughts.close)).is_some() {
                let inside = self.until(thoughts.close);
                let open = self.text(thoughts.open);
                return format!("({open} {inside})? {breaks} ({expression})");
            }
        }
        expression.to_owned()
    }

    /// A call between its markers.
    fn body(&mut self, row: &Row, tool: &Tool) -> Option<String> {
        let name = &tool.name;
        let quoted = Value::from(name.as_str());
        let arguments = self.arguments(tool);
        Some(match row.body {
            Body::Envelope(keys) if keys.name[0] == "tool_name" => {
                let before = format!("\", \"tool_name\": {quoted}, \"parameters\": ");
                let id = literal("{\"tool_call_id\": \"");
                format!("{id} /[0-9]{{1,3}}/ {} {arguments} \"}}\"", literal(&before))
            }
            Body::Envelope(_) => {
                let key = if row.syntax == Syntax::Llama { "parameters" } else { "arguments" };
                let before = format!("{{\"name\": {quoted}, \"{key}\": ");
                let has_id = matches!(row.syntax, Syntax::MistralList | Syntax::Apriel);
                let id = if has_id { "(\", \\\"id\\\": \\\"\" /[a-zA-Z0-9]{1,40}/ \"\\\"\")?" } else { "" };
                format!("{} {arguments} {id} \"}}\"", literal(&before))
            }
            Body::Keyed => format!("{} {arguments} \"}}\"", literal(&format!("{{{quoted}: "))),
            Body::Named(spec) => {
                if spec.dialect != Dialect::Json || row.syntax == Syntax::Recipient {
                    return None;
                }
                match row.syntax {
                    Syntax::DeepSeekFenced => {
                        let before = self.text(&format!("function{}{name}\n```json\n", spec.lead));
                        format!("{before} {arguments} {}", literal("\n```"))
                    }
                    Syntax::Kimi => {
                        let before = literal(&format!("functions.{name}:"));
                        format!("{before} /[0-9]{{1,3}}/ {} {arguments}", self.text(spec.ends[0]))
                    }
                    Syntax::Solar => {
                        let before = self.text(&format!("{}{name}{}", spec.lead, spec.ends[0]));
                        format!("/[a-zA-Z0-9_-]{{1,40}}/ {before} {arguments}")
                    }
                    Syntax::Mistral => format!("{} {arguments}", self.text(&format!("{name}[ARGS]"))),
                    _ => format!("{} {arguments}", self.text(&format!("{name}{}", spec.ends[0]))),
                }
            }
            Body::Tags(tags) => self.tags(row, tags, tool),
            Body::Python => {
                let mut arguments = Vec::new();
                for (key, schema) in properties(tool) {
                    let value = self.json(with_definitions(schema, &tool.parameters));
                    let rule = self.rule(&format!("{} {value}", literal(&format!("{key}="))));
                    arguments.push((rule, !tool.requires(key)));
                }
                let open = literal(&format!("{name}("));
                if arguments.is_empty() {
                    return Some(format!("{open} \")\""));
                }
                let arguments = if self.is_lazy {
                    let any = arguments.into_iter().map(|(rule, _)| rule).collect();
                    let any = self.choice(any);
                    format!("({any} (\", \" {any})*)?")
                } else {
                    self.in_order(&arguments)
                };
                format!("{open} {arguments} \")\"")
            }
        })
    }

    /// A call whose arguments stand in tags.
    fn tags(&mut self, row: &Row, tags: &Tags, tool: &Tool) -> String {
        let name = &tool.name;
        let on_lines =
            row.syntax != Syntax::Glm && row.syntax != Syntax::MiniCpm && row.syntax != Syntax::KimiTags;
        let line = if on_lines { "\n" } else { "" };
        // Seed-OSS' template writes values without line breaks around them.
        let edge = if tags.on_lines && row.syntax != Syntax::SeedOss { "\n" } else { "" };
        let head = match (tags.key_end, row.syntax) {
            (KeyEnd::Quoted(end), Syntax::KimiTags) => {
                let before = self.text(&format!("{}{name}\" index=\"", tags.open));
                format!("{before} /[0-9]{{1,3}}/ {}", self.text(&format!("\"{end}")))
            }
            (KeyEnd::Quoted(end), _) => self.text(&format!("{}{name}\"{end}{line}", tags.open)),
            (KeyEnd::Tag(end), _) => self.text(&format!("{}{name}{end}{line}", tags.open)),
            (KeyEnd::Pair(..), _) => self.text(&format!("{name}{}{line}", tags.after_name)),
        };
        let arguments = self.each_argument(tool, |grammar, key, schema| {
            let is_string = Types::of(schema, &tool.parameters).has_string();
            let end = match tags.key_end {
                KeyEnd::Tag(end) => end.to_owned(),
                KeyEnd::Quoted(end) if row.syntax == Syntax::KimiTags => {
                    let name = schema.get("type").and_then(Value::as_str).filter(|_| !is_string);
                    format!(
                        "\" type=\"{}\"{end}",
                        name.unwrap_or(if is_string { "string" } else { "object" })
                    )
                }
                KeyEnd::Quoted(end) if matches!(row.syntax, Syntax::Dsml | Syntax::DsmlCalls) => {
                    format!("\" string=\"{is_string}\"{end}")
                }
                KeyEnd::Quoted(end) => format!("\"{end}"),
                KeyEnd::Pair(close, open) => format!("{close}{line}{open}"),
            };
            let before = grammar.text(&format!("{}{key}{end}{edge}", tags.key_open));
            let value = grammar.value(schema, tool, &format!("{edge}{}", tags.value_close), line);
            format!("{before} {value}")
        });
        format!("{head} {arguments} {}", self.text(tags.close))
    }

    /// An object of arguments.
    fn arguments(&mut self, tool: &Tool) -> String {
        self.json(object(&tool.parameters))
    }

    /// JSON that meets a schema.
    fn json(&self, schema: Value) -> String {
        format!("%json {}", if self.is_lazy { lenient(schema) } else { schema })
    }

    /// Any tokens but these and those that end an answer.
    fn all_but(&mut self, tokens: &[u32]) -> String {
        let mut ids = [self.tokenizer.eos_ids(), tokens].concat();
        ids.sort_unstable();
        ids.dedup();
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        self.rule(&format!("<[^{}]>*", ids.join(",")))
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
            let arguments = self.arguments(tool);
            format!("{to} {constrain} {} {message} {arguments}", literal("json"))
        });
        let calls: Vec<String> = calls.collect();
        let call = self.choice(calls);
        format!("{thoughts} {channel} {call}")
    }

    /// All arguments in the schema's order; those that it does not require may be missing. Where a call is the model's own
    /// choice, in any order: none that it means to write is to be lost.
    fn each_argument(&mut self, tool: &Tool, write: impl Fn(&mut Self, &str, &Value) -> String) -> String {
        let mut arguments = Vec::new();
        for (key, schema) in properties(tool) {
            let argument = write(self, key, schema);
            let rule = self.rule(&argument);
            let is_optional = !self.is_lazy && !tool.requires(key);
            arguments.push(if is_optional { format!("{rule}?") } else { rule });
        }
        if self.is_lazy && !arguments.is_empty() {
            format!("({})*", arguments.join(" | "))
        } else {
            arguments.join(" ")
        }
    }

    /// Arguments with commas between them, in their order; each is a rule, and whether it may be missing.
    fn in_order(&mut self, arguments: &[(String, bool)]) -> String {
        let follows = |(rule, is_optional): &(String, bool)| {
            format!("(\", \" {rule}){}", if *is_optional { "?" } else { "" })
        };
        let required = arguments.iter().position(|(_, is_optional)| !is_optional);
        // Any up to the first that is required may be the first that is there.
        let firsts = 0..=required.unwrap_or(arguments.len() - 1);
        let firsts = firsts.map(|first| {
            let rest: Vec<String> = arguments[first + 1..].iter().map(follows).collect();
            format!("{} {}", arguments[first].0, rest.join(" "))
        });
        let choice = self.choice(firsts.collect());
        if required.is_some() { choice } else { format!("{choice}?") }
    }

    /// A value as bare text, the mark that ends it, and what follows that.
    fn value(&mut self, schema: &Value, tool: &Tool, end: &str, line: &str) -> String {
        let values = schema.get("enum").and_then(Value::as_array).cloned();
        let values = values.or_else(|| schema.get("const").map(|value| vec![value.clone()]));
        if let Some(values) = values.filter(|values| !values.is_empty()) {
            let bare =
                |value: &Value| literal(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            let choice = self.choice(values.iter().map(bare).collect());
            return format!("{choice} {}", self.text(&format!("{end}{line}")));
        }
        if Types::of(schema, &tool.parameters).has_string() {
            let (until, line) = (self.until(end), self.text(line));
            return format!("{until} {line}");
        }
        let value = self.json(with_definitions(schema, &tool.parameters));
        format!("{value} {}", self.text(&format!("{end}{line}")))
    }

    /// Any text up to a mark, which ends it.
    fn until(&mut self, mark: &str) -> String {
        if self.is_special(mark) {
            return format!("/(?s:.*)/ {}", self.text(mark));
        }
        let name = self.name();
        let mark = literal(mark);
        // Writing to a string does not fail.
        let _ = writeln!(self.rules, "{name}[suffix={mark}]: /(?s:.*)/");
        name
    }

    /// A mark as an expression: special tokens are named, all else is text.
    fn marker(&self, mark: &str) -> String {
        self.text(mark)
    }

    /// A text as an expression: the special tokens in it are named, all else is text. Empty for an empty text.
    fn text(&self, text: &str) -> String {
        let (mut expressions, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let ends = rest.char_indices().filter(|(_, end)| matches!(end, '>' | ']')).take(8);
            let token = ends.map(|(at, _)| &rest[..=at]).find(|mark| self.is_special(mark));
            let Some(token) = token.filter(|_| matches!(c, '<' | '[' | ']')) else {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            };
            if !plain.is_empty() {
                expressions.push(literal(&plain));
                plain.clear();
            }
            let id = self.tokenizer.id(token).unwrap_or_default();
            expressions.push(format!("<[{id}]>"));
            rest = &rest[token.len()..];
        }
        if !plain.is_empty() {
            expressions.push(literal(&plain));
        }
        expressions.join(" ")
    }

    fn is_special(&self, mark: &str) -> bool {
        self.tokenizer.id(mark).is_some_and(|id| self.tokenizer.is_special(id) || self.is_trigger(mark))
    }

    /// Whether text is free up to this token: it is then named as one.
    fn is_trigger(&self, mark: &str) -> bool {
        let begins = |row: &Row| row.around[0] == mark || row.opens.iter().any(|open| open.text == mark);
        self.is_lazy && formats::FORMATS.iter().any(begins)
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

/// The arguments that a tool names.
fn properties(tool: &Tool) -> impl Iterator<Item = (&String, &Value)> {
    tool.parameters.get("properties").and_then(Value::as_object).into_iter().flatten()
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
fn spaced(schema: Map<String, Value>) -> Value {
    let mut schema = without_unknown_formats(schema);
    schema.insert("x-guidance".to_owned(), json!({ "whitespace_pattern": r"\x20?" }));
    Value::Object(schema)
}
