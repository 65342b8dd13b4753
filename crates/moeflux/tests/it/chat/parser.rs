//! What parsers make of answers: cases of each family as its template writes them, nonsense, and any way to cut a text.

use std::ops::Range;

use crate::property;
use moeflux::chat::{Delta, Format, Parser, Syntax};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What is left of an answer when its pieces are joined.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    reasoning: String,
    calls: Vec<(String, String)>,
    /// The order of the kinds.
    order: String,
}

fn tools() -> Vec<Value> {
    let properties = json!({
        "city": { "type": "string" },
        "days": { "type": "integer" },
        "exact": { "type": ["boolean", "null"] },
        "where": { "$ref": "#/$defs/place" },
        "any": {},
        "unit": { "enum": ["celsius", "kelvin"] },
    });
    let place = json!({ "type": "object", "properties": { "lat": { "type": "number" } } });
    let parameters = json!({ "type": "object", "properties": properties, "$defs": { "place": place } });
    let tool = |name, parameters| json!({ "type": "function", "function": { "name": name, "parameters": parameters } });
    vec![tool("get_weather", parameters), tool("ping", json!({}))]
}

fn parse<'t>(format: Format, prompt: &str, pieces: impl IntoIterator<Item = &'t str>) -> Said {
    let mut parser = Parser::new(format, &tools(), prompt);
    let mut said = Said::default();
    let mut take = |deltas: Vec<Delta>| {
        for delta in deltas {
            let kind = match delta {
                Delta::Text(text) => {
                    assert!(!text.is_empty());
                    said.text.push_str(&text);
                    't'
                }
                Delta::Reasoning(text) => {
                    said.reasoning.push_str(&text);
                    'r'
                }
                Delta::ToolCall { index, name } => {
                    assert_eq!(index, said.calls.len());
                    said.calls.push((name, String::new()));
                    'c'
                }
                Delta::Arguments { index, piece } => {
                    said.calls[index].1.push_str(&piece);
                    continue;
                }
            };
            if !said.order.ends_with(kind) || kind == 'c' {
                said.order.push(kind);
            }
        }
    };
    for piece in pieces {
        take(parser.push(piece));
    }
    take(parser.finish());
    for (name, arguments) in &said.calls {
        match serde_json::from_str::<Value>(arguments) {
            Ok(arguments) => assert!(arguments.is_object()),
            // What is longer than a line streams, and may break off.
            Err(error) => assert!(arguments.len() > 100 && error.is_eof(), "{name}: {error}: {arguments}"),
        }
    }
    said
}

const FORMATS: [Format; 9] = [
    Format::Plain,
    Format::Thoughts,
    Format::Tagged(Syntax::Xml),
    Format::Tagged(Syntax::Hermes),
    Format::Tagged(Syntax::DeepSeek),
    Format::Tagged(Syntax::DeepSeekFenced),
    Format::Tagged(Syntax::Glm),
    Format::Tagged(Syntax::GlmLines),
    Format::Harmony,
];

struct Case {
    format: Format,
    prompt: &'static str,
    answer: &'static str,
    reasoning: &'static str,
    text: &'static str,
    calls: &'static [(&'static str, &'static str)],
}

const XML: Format = Format::Tagged(Syntax::Xml);
const HERMES: Format = Format::Tagged(Syntax::Hermes);
const DEEPSEEK: Format = Format::Tagged(Syntax::DeepSeek);
const FENCED: Format = Format::Tagged(Syntax::DeepSeekFenced);
const GLM: Format = Format::Tagged(Syntax::Glm);
const LINES: Format = Format::Tagged(Syntax::GlmLines);
const OPEN: &str = "<|im_start|>assistant\n<think>\n";

const CASES: &[Case] = &[
    // Thoughts.
    Case {
        format: Format::Thoughts,
        prompt: OPEN,
        answer: "One.\n\nTwo.\n</think>\n\nYes. ",
        reasoning: "One.\n\nTwo.",
        text: "Yes. ",
        calls: &[],
    },
    Case {
        format: Format::Thoughts,
        prompt: "",
        answer: "<think>\nOne.\n</think>\n\nYes.",
        reasoning: "One.",
        text: "Yes.",
        calls: &[],
    },
    Case {
        format: XML,
        prompt: "",
        answer: "<think>\n\n</think>\n\nYes.\n",
        reasoning: "",
        text: "Yes.\n",
        calls: &[],
    },
    Case { format: XML, prompt: OPEN, answer: "Not done\n", reasoning: "Not done\n", text: "", calls: &[] },
    Case {
        format: XML,
        prompt: "",
        answer: "The tag <think> is a tag, </think> too.",
        reasoning: "",
        text: "The tag <think> is a tag, </think> too.",
        calls: &[],
    },
    Case {
        format: Format::Plain,
        prompt: OPEN,
        answer: "<think>a</think><tool_call>",
        reasoning: "",
        text: "<think>a</think><tool_call>",
        calls: &[],
    },
    // Qwen3.5.
    Case {
        format: XML,
        prompt: OPEN,
        answer: "Look.\n</think>\n\nLet me see.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln \"am\" Rhein\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=exact>\nTrue\n</parameter>\n<parameter=where>\n{\"lat\": 50.90}\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=ping>\n</function>\n</tool_call>\n",
        reasoning: "Look.",
        text: "Let me see.",
        calls: &[
            (
                "get_weather",
                r#"{"city": "Köln \"am\" Rhein", "days": 3, "exact": true, "where": {"lat": 50.90}}"#,
            ),
            ("ping", "{}"),
        ],
    },
    Case {
        format: XML,
        prompt: "",
        answer: "<tool_call><function=get_weather><parameter=city>007</parameter><parameter=any>7</parameter><parameter=days>many</parameter><parameter=exact>null</parameter></function></tool_call>",
        reasoning: "",
        text: "",
        calls: &[("get_weather", r#"{"city": "007", "any": 7, "days": "many", "exact": null}"#)],
    },
    // A value that contains what ends values and calls.
    Case {
        format: XML,
        prompt: "",
        answer: "<tool_call>\n<function=get_weather>\n<parameter=city>\na</parameter>b</tool_call>\n\nc\n</parameter>\n</function>\n</tool_call>",
        reasoning: "",
        text: "",
        calls: &[("get_weather", r#"{"city": "a</parameter>b</tool_call>\n\nc"}"#)],
    },
    // Whole but for the last marker.
    Case {
        format: XML,
        prompt: "",
        answer: "<tool_call>\n<function=ping>\n</function>\n",
        reasoning: "",
        text: "",
        calls: &[("ping", "{}")],
    },
    // Cut off, and nonsense: text as it was written.
    Case {
        format: XML,
        prompt: "",
        answer: "Hm. <tool_call>\n<function=get_weather>\n<parameter=city>\nPar",
        reasoning: "",
        text: "Hm. <tool_call>\n<function=get_weather>\n<parameter=city>\nPar",
        calls: &[],
    },
    Case {
        format: XML,
        prompt: "",
        answer: "<tool_call>\nhello\n</tool_call>\n",
        reasoning: "",
        text: "<tool_call>\nhello\n</tool_call>\n",
        calls: &[],
    },
    Case {
        format: XML,
        prompt: "",
        answer: "<tool_call>\n<tool_call>\n<function=ping>\n</function>\n</tool_call>",
        reasoning: "",
        text: "<tool_call>",
        calls: &[("ping", "{}")],
    },
    Case {
        format: XML,
        prompt: "",
        answer: "a < b, <tool and <tool_call",
        reasoning: "",
        text: "a < b, <tool and <tool_call",
        calls: &[],
    },
    // Hermes.
    Case {
        format: HERMES,
        prompt: "",
        answer: "Hm.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"a</tool_call>b\", \"days\": 12345678901234567890123}}\n</tool_call>\n<tool_call>\n{\"arguments\": {}, \"name\": \"ping\"}\n</tool_call>",
        reasoning: "",
        text: "Hm.",
        calls: &[
            ("get_weather", r#"{"city": "a</tool_call>b", "days": 12345678901234567890123}"#),
            ("ping", "{}"),
        ],
    },
    Case {
        format: HERMES,
        prompt: "",
        answer: "<tool_call>{\"name\": \"ping\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call> then",
        reasoning: "",
        text: " then",
        calls: &[("ping", r#"{"a": 1}"#)],
    },
    Case {
        format: HERMES,
        prompt: "",
        answer: "<tool_call>{\"name\": \"ping\", \"arguments\": [1]}</tool_call>",
        reasoning: "",
        text: "<tool_call>{\"name\": \"ping\", \"arguments\": [1]}</tool_call>",
        calls: &[],
    },
    Case {
        format: HERMES,
        prompt: "",
        answer: "<tool_call>{'name': 'ping'}</tool_call>",
        reasoning: "",
        text: "<tool_call>{'name': 'ping'}</tool_call>",
        calls: &[],
    },
    Case {
        format: HERMES,
        prompt: "",
        answer: "<tool_call>{\"name\": \"ping\", \"argum",
        reasoning: "",
        text: "<tool_call>{\"name\": \"ping\", \"argum",
        calls: &[],
    },
    // DeepSeek.
    Case {
        format: FENCED,
        prompt: "",
        answer: "See.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        reasoning: "",
        text: "See.",
        calls: &[("get_weather", r#"{"city": "Paris"}"#), ("ping", "{}")],
    },
    Case {
        format: DEEPSEEK,
        prompt: "<｜Assistant｜><think>",
        answer: "Hm</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        reasoning: "Hm",
        text: "",
        calls: &[("get_weather", r#"{"city": "Paris"}"#)],
    },
    Case {
        format: DEEPSEEK,
        prompt: "<｜Assistant｜></think>",
        answer: "<｜tool▁calls▁begin｜>nothing",
        reasoning: "",
        text: "<｜tool▁calls▁begin｜>nothing",
        calls: &[],
    },
    // GLM.
    Case {
        format: LINES,
        prompt: "",
        answer: "\n<think>Hm.</think>\nSo:\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Köln\n</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        reasoning: "Hm.",
        text: "So:",
        calls: &[("get_weather", r#"{"city": "Köln\n", "days": 3}"#)],
    },
    Case {
        format: GLM,
        prompt: "",
        answer: "<tool_call>get_weather<arg_key>unit</arg_key><arg_value>kelvin</arg_value></tool_call><tool_call>ping</tool_call>",
        reasoning: "",
        text: "",
        calls: &[("get_weather", r#"{"unit": "kelvin"}"#), ("ping", "{}")],
    },
    Case {
        format: GLM,
        prompt: "",
        answer: "<tool_call>get_weather<arg_key>unit</arg_key><arg_value>kelvin</arg_value>",
        reasoning: "",
        text: "<tool_call>get_weather<arg_key>unit</arg_key><arg_value>kelvin</arg_value>",
        calls: &[],
    },
    // gpt-oss.
    Case {
        format: Format::Harmony,
        prompt: "",
        answer: "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Paris\"}",
        reasoning: "Hm.",
        text: "I look.",
        calls: &[("get_weather", r#"{"city": "Paris"}"#)],
    },
    Case {
        format: Format::Harmony,
        prompt: "",
        answer: " to=functions.ping<|channel|>commentary json<|message|>{}<|call|>",
        reasoning: "",
        text: "",
        calls: &[("ping", "{}")],
    },
    Case {
        format: Format::Harmony,
        prompt: "",
        answer: "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>analysis<|message|>B<|end|><|start|>assistant<|channel|>final<|message|>Yes <|",
        reasoning: "A\n\nB",
        text: "Yes <|",
        calls: &[],
    },
    Case {
        format: Format::Harmony,
        prompt: "",
        answer: "<|channel|>commentary to=functions.ping <|constrain|>json<|message|>{\"a\": \"b",
        reasoning: "",
        text: "<|channel|>commentary to=functions.ping <|constrain|>json<|message|>{\"a\": \"b",
        calls: &[],
    },
    Case {
        format: Format::Harmony,
        prompt: "",
        answer: "{\"a\": 1}",
        reasoning: "",
        text: "{\"a\": 1}",
        calls: &[],
    },
    Case {
        format: Format::Harmony,
        prompt: "",
        answer: "to be or",
        reasoning: "",
        text: "to be or",
        calls: &[],
    },
];

#[test]
fn each_family_is_read() {
    for case in CASES {
        let said = parse(case.format, case.prompt, [case.answer]);
        let calls: Vec<(&str, &str)> = said.calls.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let found = (said.reasoning.as_str(), said.text.as_str(), calls.as_slice());
        assert_eq!(found, (case.reasoning, case.text, case.calls), "{:?} of {:?}", case.format, case.answer);
        let characters: Vec<&str> = case.answer.split_inclusive(|_: char| true).collect();
        assert_eq!(
            parse(case.format, case.prompt, characters),
            said,
            "{:?} of {:?}",
            case.format,
            case.answer
        );
    }
}

/// Whatever is cut off, what is told of a call is whole, and of an answer without one nothing is lost.
#[test]
fn an_answer_may_end_anywhere() {
    for case in CASES {
        for (end, _) in case.answer.char_indices() {
            let said = parse(case.format, case.prompt, [&case.answer[..end]]);
            assert!(case.calls.len() >= said.calls.len(), "{:?}", &case.answer[..end]);
            for (told, whole) in said.calls.iter().zip(case.calls) {
                assert_eq!((told.0.as_str(), told.1.as_str()), *whole, "{:?}", &case.answer[..end]);
            }
        }
    }
}

#[test]
fn without_tools_a_call_is_text() {
    let answer = "<tool_call>\n<function=ping>\n</function>\n</tool_call>";
    let mut parser = Parser::new(XML, &[], "");
    let mut deltas = parser.push(answer);
    deltas.extend(parser.finish());
    assert_eq!(deltas, [Delta::Text(answer.to_owned())]);
}

/// Text is not kept waiting without need.
#[test]
fn text_comes_at_once() {
    let mut parser = Parser::new(XML, &tools(), OPEN);
    assert_eq!(parser.push("Hm"), [Delta::Reasoning("Hm".to_owned())]);
    assert_eq!(parser.push("m</thi"), [Delta::Reasoning("m".to_owned())]);
    assert_eq!(parser.push("nk>\n\nYes"), [Delta::Text("Yes".to_owned())]);
    assert_eq!(parser.push(", a <b>"), [Delta::Text(", a <b>".to_owned())]);
    let mut parser = Parser::new(Format::Harmony, &tools(), "");
    assert_eq!(parser.push("<|channel|>final<|message|>Ye"), [Delta::Text("Ye".to_owned())]);
}

/// A format of these and an answer: markers and parts of them, which are more likely here than in any text, and what the
/// template of the format or of another wrote, whole or a part of it. By chance alone no markers would make a call.
fn answers(formats: Range<usize>) -> impl Strategy<Value = (Format, String)> {
    let markers = vec![
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<function=get_weather>",
        "</function>",
        "<parameter=city>",
        "</parameter>",
        "{\"name\": \"ping\", \"arguments\": ",
        "{\"a\": 1}",
        "}",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "ping",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
        "function",
        "\n```json\n",
        "\n```",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<|channel|>",
        "<|message|>",
        "<|end|>",
        "<|start|>",
        "assistant",
        "commentary to=functions.ping ",
        "analysis",
        "final",
        "<|call|>",
        "\n",
        " ",
        "ä",
        "<",
        "\"",
        "x",
    ];
    formats.prop_flat_map(move |format| {
        let format = FORMATS[format];
        let all: Vec<&str> = CASES.iter().map(|case| case.answer).collect();
        let mut own: Vec<&str> =
            CASES.iter().filter(|case| case.format == format).map(|case| case.answer).collect();
        if own.is_empty() {
            own.clone_from(&all);
        }
        let place = any::<prop::sample::Index>;
        let part = (prop::sample::select(all), place(), place()).prop_map(|(answer, from, to)| {
            let [from, to] = [from, to].map(|at| answer.floor_char_boundary(at.index(answer.len() + 1)));
            answer[from.min(to)..from.max(to)].to_owned()
        });
        let piece = prop_oneof![
            12 => prop::sample::select(markers.clone()).prop_map(str::to_owned),
            2 => prop::sample::select(own).prop_map(str::to_owned),
            1 => part,
        ];
        (Just(format), prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat()))
    })
}

proptest! {
    #![proptest_config(property::config(4000))]

    #[test]
    fn pieces_do_not_matter(
        (format, answer) in answers(0..FORMATS.len()), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        thinks: bool,
    ) {
        let prompt = if thinks { OPEN } else { "" };
        let whole = parse(format, prompt, [answer.as_str()]);
        let mut places: Vec<usize> = cuts.iter().map(|cut| answer.floor_char_boundary(cut.index(answer.len() + 1))).collect();
        places.extend([0, answer.len()]);
        places.sort_unstable();
        let pieces = places.windows(2).map(|ends| &answer[ends[0]..ends[1]]);
        prop_assert_eq!(parse(format, prompt, pieces), whole);
    }

    /// An answer that calls nothing is all there, but for the marks of thoughts and line breaks around them.
    #[test]
    fn nothing_is_lost((format, answer) in answers(1..FORMATS.len() - 1)) {
        let said = parse(format, "", [answer.as_str()]);
        if said.calls.is_empty() {
            let bare = |text: &str| text.replace("<think>", "").replace("</think>", "").replace(['\n', ' '], "");
            prop_assert_eq!(bare(&said.reasoning) + &bare(&said.text), bare(&answer));
        }
    }
}
