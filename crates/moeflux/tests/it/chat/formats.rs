//! Which format a model has, told from its template, and the grammars that force calls in it: what a grammar lets through
//! the parser reads, and nothing else gets through.

use moeflux::chat::{ChatOptions, Delta, Format, Parser, Syntax, ToolChoice};
use moeflux::sampling::{Constraint, GrammarCompiler};
use moeflux::text::Tokenizer;
use serde_json::{Value, json};

use super::{demo, with_template};

/// A template that writes calls as given, where `name` and `arguments` are those of a call.
fn template(before: &str, call: &str, after: &str) -> String {
    format!(
        "{{%- if tools %}}<tools>{{{{ tools | tojson }}}}</tools>{{%- endif %}}{{%- for m in messages %}}<{{{{ m.role }}}}>\
         {{{{ m.content }}}}{{%- if m.tool_calls %}}{before}{{%- for c in m.tool_calls %}}{{%- set name = c.function.name %}}\
         {{%- set arguments = c.function.arguments %}}{call}{{%- endfor %}}{after}{{%- endif %}}{{%- endfor %}}"
    )
}

#[test]
fn the_demo_writes_xml() {
    assert_eq!(Format::of(&Tokenizer::open(demo()).unwrap()), Format::Tagged(Syntax::Xml));
}

#[test]
fn a_template_says_its_format() {
    let fenced = "{{- '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + name + '\\n```json\\n' + arguments + '\\n```<｜tool▁call▁end｜>' }}";
    let bare = "{{- '<｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' + arguments + '<｜tool▁call▁end｜>' }}";
    let (begin, end) = ("{{- '<｜tool▁calls▁begin｜>' }}", "{{- '<｜tool▁calls▁end｜>' }}");
    let hermes = "{{- '<tool_call>\\n{\"name\": \"' + name + '\", \"arguments\": ' }}{{- arguments | tojson }}{{- '}\\n</tool_call>' }}";
    let lines = "{{- '\\n<tool_call>' + name }}\n{% for k, v in arguments.items() %}<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v }}</arg_value>\n{% endfor %}</tool_call>";
    let glm = "{{- '<tool_call>' + name }}{% for k, v in arguments.items() %}<arg_key>{{ k }}</arg_key><arg_value>{{ v }}</arg_value>{% endfor %}</tool_call>";
    let harmony = "{{- '<|start|>assistant to=functions.' + name + '<|channel|>commentary json<|message|>' }}{{- arguments | tojson }}<|call|>";
    for (template, format) in [
        (template(begin, fenced, end), Format::Tagged(Syntax::DeepSeekFenced)),
        (template(begin, bare, end), Format::Tagged(Syntax::DeepSeek)),
        (template("", hermes, ""), Format::Tagged(Syntax::Hermes)),
        (template("", lines, ""), Format::Tagged(Syntax::GlmLines)),
        (template("", glm, ""), Format::Tagged(Syntax::Glm)),
        (template("", harmony, ""), Format::Harmony),
        // Both of Cohere's formats name a tool in the same way.
        (
            template(
                "Action: ```json\n[",
                "{{- '{\"tool_name\": \"' + name + '\", \"parameters\": ' }}{{- arguments | tojson }}{{- '}' }}",
                "]\n```",
            ),
            Format::Tagged(Syntax::CommandR),
        ),
        // Calls in words that nobody here knows.
        (template("", "{{- 'CALL ' + name }}", ""), Format::Thoughts),
        ("{% for m in messages %}{{ m.content }}{% endfor %}".to_owned(), Format::Thoughts),
        // Another format whose calls begin with a mark that the model is told of.
        (
            "{%- if tools %}Write <tool_call>{\"name\": a name}</tool_call>{% endif %}".to_owned()
                + &template("", "{{- '<tool_call>[<invoke=' + name + '>]' }}", ""),
            Format::Thoughts,
        ),
        // A template that takes calls only with their results, and only beside tools.
        (
            "{%- if not tools or messages[-1].role != 'tool' %}{{ raise_exception('no') }}{% endif %}"
                .to_owned()
                + &template("", hermes, ""),
            Format::Tagged(Syntax::Hermes),
        ),
    ] {
        let (_folder, tokenizer) = with_template(&template);
        assert_eq!(Format::of(&tokenizer), format, "{template}");
    }
}

fn tools() -> Vec<Value> {
    let properties = json!({
        "city": { "type": "string" },
        "days": { "type": "integer" },
        "unit": { "enum": ["celsius", "kelvin"] },
        "where": { "$ref": "#/$defs/place" },
    });
    let place = json!({ "type": "object", "properties": { "lat": { "type": "number" } }, "additionalProperties": false });
    let parameters = json!({ "type": "object", "properties": properties, "required": ["city"], "$defs": { "place": place } });
    let tool = |name, parameters| json!({ "type": "function", "function": { "name": name, "parameters": parameters } });
    vec![tool("get_weather", parameters), tool("ping", json!({ "type": "object", "properties": {} }))]
}

/// Whether a grammar takes a text as a whole.
fn takes(constraint: &Constraint, tokenizer: &Tokenizer, text: &str) -> bool {
    let mut grammar = GrammarCompiler::default().compile(constraint, tokenizer).unwrap();
    for token in tokenizer.encode(text).unwrap() {
        let Ok(allowed) = grammar.allowed() else { return false };
        if !allowed.contains(token) {
            return false;
        }
        grammar.accept(token).unwrap();
    }
    grammar.accept(tokenizer.eos_ids()[0]).is_ok()
}

fn calls(format: Format, text: &str) -> Vec<String> {
    let mut parser = Parser::new(format, &tools(), "");
    let mut deltas = parser.push(text);
    deltas.extend(parser.finish());
    let name = |delta| if let Delta::ToolCall { name, .. } = delta { Some(name) } else { None };
    deltas.into_iter().filter_map(name).collect()
}

/// Of each format: a call with arguments, one without, and what breaks the schema.
const CALLS: [(Format, &str, &str, &str, &str); 8] = [
    (
        Format::Tagged(Syntax::Xml),
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln\nam <Rhein>\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=unit>\nkelvin\n</parameter>\n<parameter=where>\n{\"lat\": 1.5}\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=ping>\n</function>\n</tool_call>",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\na\n</parameter>\n<parameter=days>\nmany\n</parameter>\n</function>\n</tool_call>",
        "\n",
    ),
    (
        Format::Tagged(Syntax::Hermes),
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\", \"days\": 3, \"unit\": \"kelvin\", \"where\": {\"lat\": 1.5}}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"ping\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"days\": 3}}\n</tool_call>",
        "\n",
    ),
    (
        Format::Tagged(Syntax::DeepSeek),
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Köln\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>ping<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>pong<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
    ),
    (
        Format::Tagged(Syntax::DeepSeekFenced),
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Köln\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
    ),
    (
        Format::Tagged(Syntax::GlmLines),
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Köln\n</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        "<tool_call>ping\n</tool_call>",
        "<tool_call>get_weather\n</tool_call>",
        "\n",
    ),
    (
        Format::Tagged(Syntax::Glm),
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Köln</arg_value><arg_key>unit</arg_key><arg_value>kelvin</arg_value></tool_call>",
        "<tool_call>ping</tool_call>",
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Köln</arg_value><arg_key>unit</arg_key><arg_value>warm</arg_value></tool_call>",
        "\n",
    ),
    (
        Format::Tagged(Syntax::Pythonic),
        "<|tool_call_start|>[get_weather(city=\"Köln\", unit=\"kelvin\", where={\"lat\": 1.5})]<|tool_call_end|>",
        "<|tool_call_start|>[ping()]<|tool_call_end|>",
        "<|tool_call_start|>[get_weather(days=3)]<|tool_call_end|>",
        "",
    ),
    (
        Format::Harmony,
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Köln\", \"unit\": \"kelvin\"}",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.ping <|constrain|>json<|message|>{}",
        "<|channel|>final<|message|>Hello",
        "",
    ),
];

#[test]
fn a_grammar_forces_what_the_parser_reads() {
    let tokenizer = Tokenizer::open(demo()).unwrap();
    for (format, weather, ping, wrong, _) in CALLS {
        let of = |choice: &ToolChoice| format.constraint(&tokenizer, &tools(), choice, false).unwrap();
        let required = of(&ToolChoice::Required);
        for (text, name) in [(weather, "get_weather"), (ping, "ping")] {
            assert_eq!(calls(format, text), [name], "{format:?}");
            assert!(takes(&required, &tokenizer, text), "{format:?}: {text}\n{required:?}");
            let named = of(&ToolChoice::Named(name.to_owned()));
            assert!(takes(&named, &tokenizer, text), "{format:?}: {text}\n{named:?}");
        }
        let named = of(&ToolChoice::Named("ping".to_owned()));
        assert!(!takes(&named, &tokenizer, weather), "{format:?}");
        for text in [wrong, "Hello", "", &weather[..weather.len() - 1]] {
            assert!(!takes(&required, &tokenizer, text), "{format:?}: {text}");
        }
    }
}

#[test]
fn several_calls_only_if_allowed() {
    let tokenizer = Tokenizer::open(demo()).unwrap();
    for (format, weather, ping, _, between) in &CALLS[..2] {
        let text = format!("{weather}{between}{ping}");
        assert_eq!(calls(*format, &text), ["get_weather", "ping"]);
        for parallel in [false, true] {
            let constraint =
                format.constraint(&tokenizer, &tools(), &ToolChoice::Required, parallel).unwrap();
            assert_eq!(takes(&constraint, &tokenizer, &text), parallel, "{format:?}");
        }
    }
}

/// The line break between two calls is also that before the end of all.
#[test]
fn several_calls_between_one_pair_of_markers() {
    let tokenizer = Tokenizer::open(demo()).unwrap();
    let ping = "<invoke name=\"ping\">\n</invoke>";
    let text = format!("<minimax:tool_call>\n{ping}\n{ping}\n</minimax:tool_call>");
    let format = Format::Tagged(Syntax::MiniMaxM2);
    assert_eq!(calls(format, &text), ["ping", "ping"]);
    let constraint = format.constraint(&tokenizer, &tools(), &ToolChoice::Required, true).unwrap();
    assert!(takes(&constraint, &tokenizer, &text), "{constraint:?}");
}

#[test]
fn a_model_may_think_before_a_call_that_is_required() {
    let tokenizer = Tokenizer::open(demo()).unwrap();
    let (format, weather, ..) = CALLS[0];
    let constraint = format.constraint(&tokenizer, &tools(), &ToolChoice::Required, true).unwrap();
    for before in ["<think>\nHm.\n</think>\n\n", "\n\n", "\n"] {
        assert!(takes(&constraint, &tokenizer, &format!("{before}{weather}")), "{before:?}");
    }
    assert!(!takes(&constraint, &tokenizer, &format!("Well: {weather}")));
}

#[test]
fn nothing_is_forced_where_nothing_is_asked() {
    let tokenizer = Tokenizer::open(demo()).unwrap();
    for (format, ..) in CALLS {
        for choice in [ToolChoice::Auto, ToolChoice::None] {
            assert_eq!(format.constraint(&tokenizer, &tools(), &choice, true), None);
        }
        assert_eq!(format.constraint(&tokenizer, &[], &ToolChoice::Required, true), None);
    }
}

/// Where the model chooses, text is free, and what begins like a call has to be one.
#[test]
fn a_call_of_the_models_choice_meets_its_schema() {
    let tokenizer = Tokenizer::open(demo()).unwrap();
    let options = ChatOptions { tools: tools(), ..ChatOptions::default() };
    for (format, weather, ping, _, between) in &CALLS[..2] {
        let free = options.constraint(&tokenizer, *format, "", None).unwrap().unwrap();
        for text in ["", "Hello <b>, {", "<think>Hm.</think>\n\nYes"] {
            assert!(takes(&free, &tokenizer, text), "{format:?}: {text}");
        }
        for text in [
            format!("Well:\n{weather}"),
            format!("{weather}{between}{ping}"),
            format!("<think>\nHm <tool_call>\n</think>\n{ping}"),
            format!("{weather}<think>And <tool_call></think>{ping}"),
            "<think>\nHm <tool_call>".to_owned(),
        ] {
            assert!(takes(&free, &tokenizer, &text), "{format:?}: {text}\n{free:?}");
        }
        for text in [weather.replace("get_weather", "get_whether"), weather.replace('3', "many")] {
            assert!(!takes(&free, &tokenizer, &format!("Well: {text}")), "{format:?}: {text}");
        }
        let thinking = options.constraint(&tokenizer, *format, "<think>\n", None).unwrap().unwrap();
        for text in
            ["Hm <tool_call> nothing", "Hm <tool_call>\n</think>\n\nYes", &format!("Hm</think>{weather}")]
        {
            assert!(takes(&thinking, &tokenizer, text), "{format:?}: {text}");
        }
    }
    // What begins their calls begins other text too.
    for syntax in [Syntax::Llama, Syntax::MiniCpm] {
        assert_eq!(options.constraint(&tokenizer, Format::Tagged(syntax), "", None).unwrap(), None);
    }
    // A schema that cannot be enforced does not forbid the call.
    let odd = json!({ "type": "object", "properties": { "a": { "type": "array", "uniqueItems": true }, "b": { "not": {} } } });
    let tools = vec![json!({ "type": "function", "function": { "name": "odd", "parameters": odd } })];
    let options = ChatOptions { tools, ..ChatOptions::default() };
    let free = options.constraint(&tokenizer, CALLS[1].0, "", None).unwrap().unwrap();
    assert!(takes(&free, &tokenizer, "<tool_call>\n{\"name\": \"odd\", \"arguments\": {}}\n</tool_call>"));
}

/// Tools and a form together: calls, or an answer that has the form.
#[test]
fn an_answer_calls_or_has_its_form() {
    let tokenizer = Tokenizer::open(demo()).unwrap();
    let options = ChatOptions { tools: tools(), ..ChatOptions::default() };
    let path = json!({ "type": "string", "format": "path" });
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" }, "p": path }, "required": ["n"] });
    for (format, weather, _, wrong, _) in &CALLS[..2] {
        let form = Some(Constraint::JsonSchema(schema.clone()));
        let either = options.constraint(&tokenizer, *format, "", form).unwrap().unwrap();
        for text in [weather, "{\"n\": 1, \"p\": \"/a\"}", "<think>Hm.</think>\n\n{\"n\": 1}"] {
            assert!(takes(&either, &tokenizer, text), "{format:?}: {text}\n{either:?}");
        }
        for text in [wrong, "Hello", "{\"n\": \"one\"}", "{}"] {
            assert!(!takes(&either, &tokenizer, text), "{format:?}: {text}");
        }
        assert!(
            options.constraint(&tokenizer, *format, "", Some(Constraint::Regex("[a/]+".to_owned()))).is_ok()
        );
    }
}
