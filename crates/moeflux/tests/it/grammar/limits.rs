//! Constraints that are made to cost much: refused with the limit, before anything is compiled, and what is within the limits
//! compiles whatever the caller's stack.

use std::thread;
use std::time::{Duration, Instant};

use moeflux::CancelToken;
use moeflux::sampling::{Constraint, ConstraintError, ConstraintLimits, GrammarCompiler};
use serde_json::{Map, Value, json};

use super::demo;

/// A chain of `n` definitions, each of which leads to the next by `link`.
fn chain(n: usize, link: impl Fn(Value) -> Value) -> Value {
    let reference = |index: usize| json!({ "$ref": format!("#/$defs/a{index}") });
    let mut definitions: Map<String, Value> =
        (0..n).map(|index| (format!("a{index}"), link(reference(index + 1)))).collect();
    definitions.insert(format!("a{n}"), json!({ "type": "string" }));
    json!({ "$ref": "#/$defs/a0", "$defs": definitions })
}

/// Makes a schema that leads to the next one.
type Link = fn(Value) -> Value;

fn links() -> [(&'static str, Link); 6] {
    [
        ("object", |next| json!({ "type": "object", "properties": { "x": next } })),
        ("array", |next| json!({ "type": "array", "items": next })),
        ("anyOf", |next| json!({ "anyOf": [next, { "type": "null" }] })),
        ("oneOf", |next| json!({ "oneOf": [next, { "type": "null" }] })),
        ("allOf", |next| json!({ "allOf": [next] })),
        ("$ref", |next| next),
    ]
}

fn text(n: usize, line: impl Fn(usize) -> String) -> String {
    (0..n).map(line).collect()
}

fn too_large(constraint: &Constraint) -> (&'static str, usize, usize) {
    let start = Instant::now();
    let result = constraint.measure(&ConstraintLimits::default());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?} to measure", start.elapsed());
    match result {
        Err(ConstraintError::TooLarge { what, found, limit, .. }) => {
            assert!(found > limit);
            (what, found, limit)
        }
        other => panic!("expected too large, found {other:?}"),
    }
}

#[test]
fn chains_of_references_are_as_deep_as_their_sum() {
    for (name, link) in links() {
        for n in [1000, 5000] {
            let (what, _, _) = too_large(&Constraint::JsonSchema(chain(n, link)));
            assert!(what.contains("levels"), "{name}: {what}");
        }
    }
}

#[test]
fn what_is_within_the_limits_compiles_on_a_small_stack() {
    let compile = || {
        let engine = demo();
        let grammars = GrammarCompiler::default();
        let compile = |constraint: &Constraint| grammars.compile(constraint, engine.model().tokenizer());
        for (name, link) in links() {
            let limits = ConstraintLimits::default();
            let fits = |n: &usize| Constraint::JsonSchema(chain(*n, link)).measure(&limits).is_ok();
            let deepest = (1..600).rev().find(fits).unwrap();
            assert!(deepest > 100, "{name}: {deepest}");
            // It compiles, or the compiler says why not; either way the process goes on.
            match compile(&Constraint::JsonSchema(chain(deepest, link))) {
                Ok(_) | Err(ConstraintError::Invalid { .. }) => {}
                Err(error) => panic!("{name}: {error}"),
            }
        }
        let rules = text(500, |index| format!("r{index}: \"a\" r{}\n", index + 1));
        compile(&Constraint::Lark(format!("start: r0\n{rules}r500: \"b\"\n"))).unwrap();
    };
    thread::Builder::new().stack_size(1 << 20).spawn(compile).unwrap().join().unwrap();
}

#[test]
fn grammars_are_measured_through_their_rules_and_what_they_embed() {
    let rules = text(5000, |index| format!("r{index}: r{}\n", index + 1));
    let long = format!("start: r0\n{rules}r5000: \"b\"\n");
    let schema = chain(1000, links()[0].1);
    for (grammar, word) in [
        (long.clone(), "levels"),
        // However it is laid out.
        (long.replace(": ", "[lazy]  :  "), "levels"),
        (long.replace(": ", ".7: /\n/ "), "levels"),
        (format!("start: %lark {{ {long} }}\n"), "levels"),
        (format!("start: \"a\" %json {schema}\n"), "levels"),
        // Special tokens, whose slashes begin no regular expression.
        (format!("start: <think> /.*/ </think> %json {schema} </tool_call>\n"), "levels"),
        (format!("start: {}\"a\"{}\n", "(".repeat(600), ")".repeat(600)), "levels"),
        (format!("start: /{}a{}/\n", "(".repeat(300), ")".repeat(300)), "groups"),
        (format!("start: {}\n", "\"a\" ".repeat(60_000)), "symbols"),
        ("a".repeat(2 << 20), "bytes"),
    ] {
        let (what, _, _) = too_large(&Constraint::Lark(grammar.clone()));
        assert!(what.contains(word), "{word}: {what}: {}", &grammar[..60]);
    }
    let many = text(3000, |index| format!("r{index}: \"a\"\n"));
    Constraint::Lark(format!("start: r0\n{many}")).measure(&ConstraintLimits::default()).unwrap();
}

#[test]
fn width_counts_as_well() {
    let properties = |n: usize| -> Map<String, Value> {
        (0..n).map(|index| (format!("p{index}"), json!({ "type": "string" }))).collect()
    };
    let names: Vec<String> = (0..1500).map(|index| format!("p{index}")).collect();
    let doubling = |index: usize| {
        let next = json!({ "$ref": format!("#/$defs/a{}", index + 1) });
        (format!("a{index}"), json!({ "anyOf": [next, next] }))
    };
    let mut definitions: Map<String, Value> = (0..20).map(doubling).collect();
    definitions.insert("a20".to_owned(), json!({ "type": "string" }));
    for (schema, word) in [
        (json!({ "type": "object", "properties": properties(1500) }), "optional"),
        (json!({ "$ref": "#/$defs/a0", "$defs": definitions }), "alternatives"),
        (json!({ "anyOf": vec![json!({ "type": "string" }); 5000] }), "alternatives"),
        (
            json!({ "allOf": vec![json!({ "anyOf": [{ "minimum": 1 }, { "maximum": 2 }] }); 20] }),
            "alternatives",
        ),
        (json!({ "enum": vec![json!(1); 60_000] }), "values"),
        (json!({ "const": "x".repeat(2 << 20) }), "bytes"),
    ] {
        let (what, _, _) = too_large(&Constraint::JsonSchema(schema));
        assert!(what.contains(word), "{word}: {what}");
    }
    let required = json!({ "type": "object", "properties": properties(1500), "required": names });
    Constraint::JsonSchema(required).measure(&ConstraintLimits::default()).unwrap();
    too_large(&Constraint::Regex("(".repeat(1000)));
    too_large(&Constraint::Regex("a".repeat(1 << 20)));
}

#[test]
fn schemas_that_refer_to_themselves_are_measured_once_around() {
    let tree = json!({
        "$ref": "#/$defs/node",
        "$defs": { "node": { "type": "object", "properties": {
            "left": { "anyOf": [{ "$ref": "#/$defs/node" }, { "type": "null" }] },
            "right": { "anyOf": [{ "$ref": "#" }, { "type": "null" }] },
            "value": { "type": "number" },
        } } },
    });
    Constraint::JsonSchema(tree.clone()).measure(&ConstraintLimits::default()).unwrap();
    let engine = demo();
    GrammarCompiler::default().compile(&Constraint::JsonSchema(tree), engine.model().tokenizer()).unwrap();
}

#[test]
fn who_has_cancelled_gets_nothing_and_what_is_known_comes_at_once() {
    let engine = demo();
    let (grammars, tokenizer) = (GrammarCompiler::default(), engine.model().tokenizer());
    let constraint = Constraint::Regex("[a-z]{1,50}( [a-z]{1,50}){0,50}".to_owned());
    let cancel = CancelToken::default();
    cancel.cancel();
    let error = grammars.compile_unless(&constraint, tokenizer, &cancel).unwrap_err();
    assert!(matches!(error, ConstraintError::Cancelled { .. }), "{error}");
    grammars.compile(&constraint, tokenizer).unwrap();
    // Each has its own place in the output.
    let mut one = grammars.compile_unless(&constraint, tokenizer, &cancel).unwrap();
    let mut other = grammars.compile(&constraint, tokenizer).unwrap();
    let first = one.allowed().unwrap();
    one.accept(tokenizer.id("a").unwrap()).unwrap();
    assert_eq!(other.allowed().unwrap(), first);
}
