//! Chat templates give what transformers gives for them (`tests/data/templates`; expected texts by
//! transformers 5.23).

use std::fs;
use std::path::{Path, PathBuf};

use chrono::NaiveDateTime;
use moeflux::text::{ChatRequest, ChatTemplate, Message, TextError, Tokenizer};
use serde_json::{Map, Value, json};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn now(file: &Value) -> NaiveDateTime {
    file["now"].as_str().unwrap().parse().unwrap()
}

/// What is wrong with a rendering, if anything: a case holds the `expected` text, or the message with which
/// the template has `rejected` the conversation, or says that Jinja2 `fails`.
fn fault(case: &Value, rendered: Result<String, TextError>) -> Option<String> {
    let expected = &case["expected"];
    match rendered {
        Ok(text) if expected == &text => None,
        Err(TextError::TemplateRejected { message }) if case["rejected"] == message => None,
        Err(TextError::TemplateRender { .. } | TextError::TemplateSyntax { .. })
            if !case["fails"].is_null() =>
        {
            None
        }
        Ok(text) => Some(format!("expected {}\n   found {}", wanted(case), Value::from(text))),
        Err(error) => Some(format!("expected {}\n   found error: {error}", wanted(case))),
    }
}

fn wanted(case: &Value) -> String {
    let kinds = ["expected", "rejected", "fails"];
    kinds
        .into_iter()
        .find(|kind| !case[kind].is_null())
        .map_or_else(String::new, |kind| case[kind].to_string())
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} cases differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn conversations_are_rendered_as_transformers_renders_them() {
    let mut faults = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(data().join("templates")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jinja") {
            continue;
        }
        let file = read(&path.with_extension("json"));
        let tokens = serde_json::from_value(file["special_tokens"].clone()).unwrap();
        let template =
            ChatTemplate::new(&fs::read_to_string(&path).unwrap()).unwrap().with_special_tokens(tokens);
        for case in file["cases"].as_array().unwrap() {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let request = ChatRequest {
                messages: &messages,
                tools: case["tools"].as_array().map(Vec::as_slice),
                add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
                enable_thinking: case["enable_thinking"].as_bool(),
                extra: case["extra"].as_object().cloned().unwrap_or_default(),
                now: Some(now(&file)),
            };
            count += 1;
            let name = format!("{}, {}", path.file_stem().unwrap().display(), case["name"]);
            faults.extend(fault(case, template.render(&request)).map(|fault| format!("{name}: {fault}")));
        }
    }
    assert!(count > 100, "only {count} cases were found");
    assert_none(&faults);
}

#[test]
fn expressions_have_the_values_that_jinja2_gives_them() {
    let file = read(&data().join("templates/expressions.json"));
    let variables = file["variables"].as_object().unwrap();
    let mut faults = Vec::new();
    for case in file["cases"].as_array().unwrap() {
        let source = case["template"].as_str().unwrap();
        let rendered = ChatTemplate::new(source).and_then(|template| {
            let request =
                ChatRequest { extra: variables.clone(), now: Some(now(&file)), ..ChatRequest::default() };
            template.render(&request)
        });
        faults.extend(fault(case, rendered).map(|fault| format!("{source}\n{fault}")));
    }
    assert_none(&faults);
}

#[test]
fn chats_of_the_reference_checkpoint_are_exact() {
    for folder in ["hf", "mlx-q4", "mlx-mixed"] {
        let tokenizer = Tokenizer::open(data().join("qwen3_5_moe").join(folder)).unwrap();
        let cases = read(&data().join("tokenizer_cases.json"));
        for case in cases["chat"].as_array().unwrap() {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let request = ChatRequest {
                messages: &messages,
                add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
                enable_thinking: case["enable_thinking"].as_bool(),
                ..ChatRequest::default()
            };
            let prompt = tokenizer.render_chat(&request).unwrap();
            assert_eq!(case["rendered"], prompt);
            assert_eq!(case["ids"], json!(tokenizer.encode(&prompt).unwrap()));
        }
    }
}

#[test]
fn the_demo_is_asked_with_tools_and_answers_are_given_back() {
    let tokenizer = Tokenizer::open(data().join("../../models/demo")).unwrap();
    let mut call = Message::new("assistant", "");
    call.tool_calls = vec![json!({"function": {"name": "add", "arguments": "{\"a\": 1, \"b\": true}"}})];
    let messages = [Message::new("user", "1+1?"), call, Message::new("tool", "2")];
    let tools = [json!({"name": "add"})];
    let request = ChatRequest {
        messages: &messages,
        tools: Some(&tools),
        add_generation_prompt: true,
        enable_thinking: Some(true),
        ..ChatRequest::default()
    };
    let prompt = tokenizer.render_chat(&request).unwrap();
    assert!(prompt.contains("# Tools\n\n<tools>\n{\"name\": \"add\"}\n</tools>"), "{prompt}");
    let call =
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nTrue\n</parameter>\n";
    assert!(prompt.contains(call), "{prompt}");
    assert!(
        prompt.ends_with("<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n")
    );
}

#[test]
fn a_syntax_error_names_its_line() {
    let error = ChatTemplate::new("a\n{% for x in y %}\n{{ x }\n{% endfor %}").unwrap_err();
    assert!(matches!(error, TextError::TemplateSyntax { line: 3, .. }), "{error:?}");
}

#[test]
fn a_failing_expression_names_its_line() {
    let template =
        ChatTemplate::new("a\n{% macro m() %}\n{{ nothing.at.all }}\n{% endmacro %}\n{{ m() }}").unwrap();
    let error = template.render(&ChatRequest::default()).unwrap_err();
    assert!(matches!(error, TextError::TemplateRender { line: 3, .. }), "{error:?}");
}

#[test]
fn arguments_that_are_no_object_are_an_error() {
    let source = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}\
                  {{ c.function.arguments | tojson }}{% endfor %}{% endfor %}";
    let template = ChatTemplate::new(source).unwrap();
    for arguments in [json!("{\"a\": "), json!("[1]"), json!("1"), json!([1]), json!(3)] {
        let mut call = Message::new("assistant", "");
        call.tool_calls = vec![json!({"function": {"name": "add", "arguments": arguments}})];
        let messages = [Message::new("user", "x"), call];
        let error =
            template.render(&ChatRequest { messages: &messages, ..ChatRequest::default() }).unwrap_err();
        let TextError::ToolArguments { message: 1, function, .. } = &error else { panic!("{error:?}") };
        assert_eq!(function, "add");
    }
}

#[test]
fn an_image_is_an_error_where_only_text_has_a_place() {
    let template = ChatTemplate::new("{% for m in messages %}{{ m.content | trim }}{% endfor %}").unwrap();
    let message = json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]});
    let messages = [serde_json::from_value::<Message>(message).unwrap()];
    let error = template.render(&ChatRequest { messages: &messages, ..ChatRequest::default() }).unwrap_err();
    let TextError::UnsupportedContent { message: 0, kind } = &error else { panic!("{error:?}") };
    assert_eq!(kind, "image_url");
}

#[test]
fn messages_keep_fields_that_they_do_not_know() {
    let extra = json!({"b": 1, "a": 2});
    let json = json!({"role": "assistant", "content": null, "tool_calls": null, "prefix": true, "n": extra});
    let message: Message = serde_json::from_value(json).unwrap();
    assert!(message.tool_calls.is_empty() && message.content.is_none());
    assert_eq!(message.extra["n"].to_string(), "{\"b\":1,\"a\":2}");
    assert_eq!(serde_json::to_value(&message).unwrap()["prefix"], true);
}

/// A checkpoint folder with a usable tokenizer and these further files.
fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(data().join("qwen3_5_moe/hf/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.as_str().map_or_else(|| content.to_string(), str::to_owned)).unwrap();
    }
    folder
}

#[test]
fn templates_are_found_where_checkpoints_keep_them() {
    let tokens = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null});
    let with = |template: Value| {
        let mut config = tokens.clone();
        config["chat_template"] = template;
        config
    };
    let named = json!([
        {"name": "tool_use", "template": "tools {{ bos_token }}"},
        {"name": "default", "template": "default {{ bos_token }}{{ eos_token }}{{ pad_token is defined }}"},
    ]);
    let default = "default <s></s>False";
    let jinja = json!("file {{ bos_token }}");
    let cases = [
        (vec![("tokenizer_config.json", with(json!("one {{ bos_token }}")))], "one <s>", "one <s>"),
        (vec![("tokenizer_config.json", with(named.clone()))], default, "tools <s>"),
        (
            vec![("tokenizer_config.json", with(named)), ("chat_template.jinja", jinja.clone())],
            "file <s>",
            "file <s>",
        ),
        (vec![("chat_template.json", json!({"chat_template": "json {{ bos_token }}"}))], "json ", "json "),
        (
            vec![
                ("tokenizer_config.json", tokens.clone()),
                ("chat_template.jinja", jinja),
                ("additional_chat_templates/tool_use.jinja", json!("more {{ eos_token }}")),
            ],
            "file <s>",
            "more </s>",
        ),
    ];
    for (files, plain, with_tools) in cases {
        let folder = folder(&files);
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        assert_eq!(tokenizer.render_chat(&ChatRequest::default()).unwrap(), plain);
        let request = ChatRequest { tools: Some(&[]), ..ChatRequest::default() };
        assert_eq!(tokenizer.render_chat(&request).unwrap(), with_tools);
    }
}

#[test]
fn a_checkpoint_without_a_template_says_so() {
    let folder = folder(&[]);
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert!(tokenizer.chat_template().is_none());
    let error = tokenizer.render_chat(&ChatRequest::default()).unwrap_err();
    assert!(matches!(error, TextError::NoChatTemplate { .. }), "{error:?}");
}

#[test]
fn a_template_field_of_another_type_is_an_error() {
    for template in [json!(3), json!([]), json!([{"name": "default"}]), json!({"default": "x"})] {
        let folder = folder(&[("tokenizer_config.json", json!({"chat_template": template}))]);
        let error = Tokenizer::open(folder.path()).unwrap_err();
        let TextError::Field { field, .. } = &error else { panic!("{error:?}") };
        assert_eq!(field, "chat_template");
    }
}

#[test]
fn extra_variables_go_before_all_others() {
    let template = ChatTemplate::new("{{ add_generation_prompt }} {{ x }}").unwrap();
    let extra: Map<String, Value> =
        [("add_generation_prompt".to_owned(), json!(7)), ("x".to_owned(), json!(null))].into_iter().collect();
    assert_eq!(template.render(&ChatRequest { extra, ..ChatRequest::default() }).unwrap(), "7 None");
}

/// The filters that check sizes change nothing else.
#[test]
fn operators_mean_what_they_meant() {
    for (source, expected) in [
        ("{{ (1 + 2 * 3) ~ 'a' ~ -1 }}", "7a-1"),
        ("{{ 2 ** 3 * 2 ** 2 * 2 }}", "64"),
        ("{{ 'ab' * 2 * 2 ~ '-' * 3 }}", "abababab---"),
        ("{{ (1+1)*'x' }}{{ 2*'y' }}", "xxyy"),
        ("{{- 'a' + 'b' -}}", "ab"),
        ("{{ not x == 'hello' }}", "False"),
        ("{{ x ~ '!' if x == 'hello' else x ~ '?' }}", "hello!"),
        ("{{ (x ~ 'B')|upper ~ 'C'|lower }}", "HELLOBc"),
        ("{{ x[1:] ~ x[:-1] ~ x[-1] ~ x[1:][0] ~ x[1:3].upper() }}", "ellohelloeEL"),
        ("{{ x[::-1] ~ x[1:4:2] }}", "ollehel"),
        ("{{ {'a': 1}['a'] + {'b': [1, 2]}.b[1] + [1, 2][0] }}", "4"),
        ("{{ 'in' in 'xinx' }}{{ 'a' not in [1, 'a'] }}{{ x in ['hello', 'y'] and 1 }}", "TrueFalse1"),
        ("{{ x is not none and x != 'y' and y is not defined }}", "True"),
        ("{{ 1 < 2 and 3 >= 2 and not 1 <= 0 and 2 > 1 }}", "True"),
        ("{{ ([1, 2] + [3] + [4])[1:] }}", "[2, 3, 4]"),
        ("{{ dict(a=1 + 1, b=x ~ '+*~==<in').b }}", "hello+*~==<in"),
        (
            "{% set n = namespace(i=0, s='') %}{% for c in x if c != 'l' %}{% set n.i = n.i + 1 %}{% set n.s = n.s + c %}{% endfor %}{{ n.i ~ n.s }}",
            "3heo",
        ),
        ("{% set a, b = 1 + 1, 'y' ~ 'z' %}{{ a * 10 + b | length }}", "22"),
        ("{% macro f(a, b='u' ~ 'v') %}{{ a + b }}{% endmacro %}{{ f('x') ~ f(a='y', b='z') }}", "xuvyz"),
        ("{% if y in [1] or y == 1 or y ~ '' == 'q' %}no{% elif x in 'hello' %}yes{% endif %}", "yes"),
        (
            "{{ 1.5 * 2 + 0.5 }} {{ 7 // 2 * 2 }} {{ 7 % 4 + 1 }} {{ -3 + 5 }} {{ 5 - -3 * 2 }}",
            "3.5 6 4 2 11",
        ),
        ("{{ x|length * 2 }}{{ x|replace('l', 'L') ~ x|first }}", "10heLLoh"),
        (
            "{{ [3, 1, 2] | sort | join(',') }}{{ ['a', 'b'] | map('upper') | list }}{{ [1, 2, 2] | select('eq', 2) | list }}",
            "1,2,3['A', 'B'][2, 2]",
        ),
        ("{{ 2 is eq 2 }}{{ 2 is ne(3) }}{{ 2 is in([1, 2]) }}{{ 'a' is in 'abc' }}", "TrueTrueTrueTrue"),
    ] {
        let template = ChatTemplate::new(source).unwrap();
        let extra = [("x".to_owned(), json!("hello"))].into_iter().collect();
        let text = template
            .render(&ChatRequest { extra, ..ChatRequest::default() })
            .map_err(|error| error.to_string());
        assert_eq!(text.as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn limits_leave_long_conversations_alone() {
    let source = "{% set ns = namespace(text='') %}{% for m in messages -%}
        {% if m.role == 'user' %}{% set ns.text = ns.text ~ m.content + '!' %}{% endif %}
        {{- loop.index * 2 ~ ':' ~ m.content }}
    {%- endfor %}{{ ns.text | length }}";
    let messages: Vec<Message> = (0..3000).map(|index| Message::new("user", index.to_string())).collect();
    let template = ChatTemplate::new(source).unwrap();
    let text = template.render(&ChatRequest { messages: &messages, ..ChatRequest::default() }).unwrap();
    let numbers: Vec<String> = (0..3000).map(|index| format!("{}:{index}", (index + 1) * 2)).collect();
    let numbers = numbers.concat();
    let length: usize = (0..3000).map(|index: usize| index.to_string().len() + 1).sum();
    assert_eq!(text, format!("{numbers}{length}"));
}
