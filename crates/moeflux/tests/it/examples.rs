//! The examples run on the demo. Cargo has built them beside the tests.

use std::path::PathBuf;
use std::process::Command;

use crate::common::root;

fn run(example: &str) -> String {
    let tests = std::env::current_exe().unwrap();
    let folder: PathBuf = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    let path = folder.join(example).with_extension(std::env::consts::EXE_EXTENSION);
    let output = Command::new(&path).arg(root().join("models/demo")).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; `cargo test` builds it", path.display()));
    assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn generate() {
    assert_eq!(run("generate"), "17 + 25 = 42.\n");
}

#[test]
fn chat_tools() {
    assert_eq!(run("chat_tools"), "add{\"a\": 4321, \"b\": 1234}\n4321 + 1234 = 5555.\n");
}

/// A library user needs no more for a conversation with tools.
#[test]
fn chat_tools_is_short() {
    let source = std::fs::read_to_string(root().join("crates/moeflux/examples/chat_tools.rs")).unwrap();
    let main = source.split("fn main").nth(1).unwrap();
    assert!(main.lines().count() <= 25, "{main}");
}

#[test]
fn count_tokens() {
    let output = run("count_tokens");
    let n: usize = output.split(' ').next().unwrap().parse().unwrap();
    assert!(n > 5 && output.lines().count() == n + 1, "{output}");
}

#[test]
fn batch() {
    let output = run("batch");
    assert!(output.lines().count() == 5 && output.starts_with("\"Once upon a time"), "{output}");
}

#[test]
fn in_async() {
    let output = run("in_async");
    assert!(output.contains("384 numbers") && output.contains("Once upon a time"), "{output}");
}

#[test]
fn resume() {
    let output = run("resume");
    assert!(output.contains("tokens are back"), "{output}");
}

#[test]
fn compare() {
    let output = run("compare");
    for line in output.lines().skip(1) {
        let numbers: Vec<f32> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert!((numbers[1] - numbers[2]).abs() < 0.5, "{line}");
    }
    assert!(output.lines().count() > 5, "{output}");
}
