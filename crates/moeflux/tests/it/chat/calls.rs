//! Calls as each family writes them, and near misses: `calls/` has a file of cases for each format.

use std::path::Path;
use std::sync::LazyLock;

use moeflux::chat::{Answer, Format, Parser};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::property;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    prompt: String,
    answer: String,
    #[serde(default)]
    reasoning: String,
    text: String,
    /// Names and arguments.
    calls: Vec<(String, String)>,
}

fn tools() -> Vec<Value> {
    let tool = |name: &str, properties: Value, required: Value| {
        let parameters = json!({ "type": "object", "properties": properties, "required": required });
        json!({ "type": "function", "function": { "name": name, "parameters": parameters } })
    };
    let text = json!({ "type": "string" });
    vec![
        tool(
            "get_weather",
            json!({ "city": text, "days": { "type": "integer" }, "exact": { "type": "boolean" } }),
            json!(["city"]),
        ),
        tool(
            "write_file",
            json!({ "path": text, "content": text, "mode": text }),
            json!(["path", "content"]),
        ),
        tool("ping", json!({}), json!([])),
    ]
}

fn parse<'t>(format: Format, prompt: &str, pieces: impl IntoIterator<Item = &'t str>) -> Answer {
    let mut parser = Parser::new(format, &tools(), prompt);
    let mut answer = Answer::default();
    for piece in pieces {
        parser.push(piece).into_iter().for_each(|delta| answer.push(delta));
    }
    parser.finish().into_iter().for_each(|delta| answer.push(delta));
    answer
}

/// Each format with its cases.
fn all() -> &'static [(Format, Vec<Case>)] {
    static ALL: LazyLock<Vec<(Format, Vec<Case>)>> = LazyLock::new(read_all);
    &ALL
}

fn read_all() -> Vec<(Format, Vec<Case>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/chat/calls");
    let read = |format: Format| {
        let path = folder.join(format!("{}.json", format.calls().unwrap()));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let cases = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (format, cases)
    };
    Format::known().map(read).collect()
}

#[test]
fn every_format_reads_its_cases() {
    for (format, cases) in all() {
        for case in cases {
            let said = parse(*format, &case.prompt, [case.answer.as_str()]);
            let calls: Vec<(String, String)> =
                said.tool_calls().into_iter().map(|call| (call.name, call.arguments)).collect();
            let found = (said.reasoning(), said.text(), calls);
            assert_eq!(
                found,
                (case.reasoning.clone(), case.text.clone(), case.calls.clone()),
                "{format:?}: {}",
                case.answer
            );
        }
    }
}

#[test]
fn however_a_case_is_cut_it_says_the_same() {
    for (format, cases) in all() {
        for case in cases {
            let whole = parse(*format, &case.prompt, [case.answer.as_str()]);
            let characters = case.answer.split_inclusive(|_: char| true);
            assert_eq!(parse(*format, &case.prompt, characters), whole, "{format:?}: {}", case.answer);
            for (cut, _) in case.answer.char_indices() {
                let (before, after) = case.answer.split_at(cut);
                assert_eq!(
                    parse(*format, &case.prompt, [before, after]),
                    whole,
                    "{format:?}: {before}|{after}"
                );
            }
        }
    }
}

#[test]
fn an_answer_that_is_cut_off_has_the_beginning_of_its_calls() {
    for (format, cases) in all() {
        for case in cases {
            for (end, _) in case.answer.char_indices() {
                let said = parse(*format, &case.prompt, [&case.answer[..end]]);
                for (told, (name, arguments)) in said.tool_calls().iter().zip(&case.calls) {
                    assert_eq!(&told.name, name, "{format:?}: {}", &case.answer[..end]);
                    let is_begun = told.arguments.len() > 100 && arguments.starts_with(&told.arguments);
                    assert!(is_begun || &told.arguments == arguments, "{format:?}: {}", &case.answer[..end]);
                }
            }
        }
    }
}

/// Long arguments come in many pieces.
#[test]
fn arguments_stream() {
    for (format, cases) in all() {
        for case in cases.iter().filter(|case| case.calls.iter().any(|(_, arguments)| arguments.len() > 150))
        {
            let mut parser = Parser::new(*format, &tools(), &case.prompt);
            let pieces = case
                .answer
                .split_inclusive(' ')
                .map(|piece| parser.push(piece))
                .filter(|deltas| !deltas.is_empty());
            assert!(pieces.count() > 10, "{format:?}: {}", case.answer);
        }
    }
}

proptest! {
    #![proptest_config(property::config(2000))]

    /// Whatever becomes of an answer, pieces do not matter, calls are of offered tools, and short arguments are whole.
    #[test]
    fn mutations_are_read_alike(
        place: prop::sample::Index, other: prop::sample::Index,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u8..4), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (format, cases) = &all()[place.index(all().len())];
        let case = &cases[other.index(cases.len())];
        let mut answer = case.answer.clone();
        for (from, to, kind) in edits {
            let [from, to] = [from, to].map(|at| answer.floor_char_boundary(at.index(answer.len() + 1)));
            let (from, to) = (from.min(to), from.max(to));
            let part = answer[from..to].to_owned();
            match kind {
                0 => answer.replace_range(from..answer.floor_char_boundary(to.min(from + 8)).max(from), ""),
                1 => answer.insert_str(from, &part),
                2 => answer.insert_str(to, &cases[to % cases.len()].answer),
                _ => answer.truncate(to),
            }
            if answer.len() > 4000 { break }
        }
        let whole = parse(*format, &case.prompt, [answer.as_str()]);
        let mut places: Vec<usize> = cuts.iter().map(|cut| answer.floor_char_boundary(cut.index(answer.len() + 1))).collect();
        places.extend([0, answer.len()]);
        places.sort_unstable();
        let pieces = places.windows(2).map(|ends| &answer[ends[0]..ends[1]]);
        prop_assert_eq!(&parse(*format, &case.prompt, pieces), &whole, "{:?} of {:?}", format, answer);
        for call in whole.tool_calls() {
            prop_assert!(["get_weather", "write_file", "ping"].contains(&call.name.as_str()));
            prop_assert!(call.is_whole() || call.arguments.len() > 100, "{:?} of {:?}: {}", format, answer, call.arguments);
        }
    }
}
