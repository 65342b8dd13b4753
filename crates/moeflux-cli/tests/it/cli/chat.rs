//! `moeflux chat`, driven through a pipe.

use std::fs;
#[cfg(target_os = "linux")]
use std::{io::Write, process::Stdio, time::Duration};

use serde_json::json;

use crate::cli::{Finished, Result, moeflux_with};
#[cfg(target_os = "linux")]
use crate::cli::{command, finished, root};

fn chat(lines: &str) -> Result<Finished> {
    moeflux_with(lines, &["chat", "-t", "0"])
}

#[test]
fn turns_of_a_conversation() -> Result<()> {
    let finished = chat("What is the capital of Norway?\n\nWhat is 9 * 12?\n/quit\nWhat is 17 + 25?\n")?;
    assert_eq!(finished.text(), "The capital of Norway is Oslo.\n9 * 12 = 108.\n");
    Ok(())
}

#[test]
fn only_new_tokens_are_read() -> Result<()> {
    let cached = |stderr: &str| stderr.matches("were there already").count();
    let finished = chat("What is the capital of Norway?\n/stats\nWhat is 9 * 12?\n/stats\n")?;
    assert_eq!((finished.code, cached(&finished.stderr)), (Some(0), 1), "{finished:?}");
    let finished = chat("What is the capital of Norway?\n/reset\nWhat is 9 * 12?\n/stats\n")?;
    assert_eq!((finished.code, cached(&finished.stderr)), (Some(0), 0), "{finished:?}");
    Ok(())
}

#[test]
fn kept_state_gives_the_answers_of_a_fresh_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("chat.json");
    let file = path.to_str().ok_or("a path in UTF-8")?;
    let first = "Tell me a story about a fox.\n";
    let second = "Tell me a story about Mia the owl.\n";
    let whole = chat(&format!("{first}{second}"))?;
    let saved = chat(&format!("{first}/save {file}\n"))?;
    // After loading, the sequence is built from text alone.
    let loaded = chat(&format!("/load {file}\n{second}"))?;
    assert_eq!(whole.text(), format!("{}{}", saved.text(), loaded.stdout));
    Ok(())
}

#[test]
fn messages_are_taken_back_and_answered_again() -> Result<()> {
    let (norway, product) = ("What is the capital of Norway?\n", "What is 9 * 12?\n");
    let (oslo, answer) = ("The capital of Norway is Oslo.\n", "9 * 12 = 108.\n");
    let finished = chat(&format!("{norway}/retry\n{product}/undo\n/undo\n{product}/retry\n"))?;
    assert_eq!(finished.text(), [oslo, oslo, answer, answer, answer].concat());
    let finished = chat(&format!("{norway}{product}/undo\n{product}/stats\n"))?;
    assert_eq!(finished.stdout, [oslo, answer, answer].concat());
    assert!(finished.stderr.contains("were there already"), "{finished:?}");
    chat("/retry\n")?.fails_with(&["no message to answer again"]);
    chat("/undo\n")?.fails_with(&["no message to remove"]);
    Ok(())
}

#[test]
fn a_saved_conversation_is_json() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("chat.json");
    let file = path.to_str().ok_or("a path in UTF-8")?;
    let finished = chat(&format!("/system Answer briefly.\n/think on\nWhat is 8 * 7?\n/save {file}\n"))?;
    assert_eq!(finished.stdout, "8 * 7 = 56.\n");
    let messages: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    assert_eq!(
        messages,
        json!([
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": "What is 8 * 7?"},
            {"role": "assistant", "content": "8 * 7 = 56.", "reasoning_content": "This is a sum."},
        ])
    );
    Ok(())
}

#[test]
fn messages_of_several_lines() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("chat.json");
    let file = path.to_str().ok_or("a path in UTF-8")?;
    let finished = chat(&format!("What is\\\n9 * 12?\n\"\"\"\nWhat is\n17 + 25?\n\"\"\"\n/save {file}\n"))?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let messages: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    assert_eq!(messages[0]["content"], "What is\n9 * 12?");
    assert_eq!(messages[2]["content"], "What is\n17 + 25?");
    Ok(())
}

#[test]
fn slips() -> Result<()> {
    chat("/sing\n")?.fails_with(&["/sing: not a command", "/help"]);
    chat("/think maybe\n")?.fails_with(&["/think", "on or off", "maybe"]);
    chat("/save\n")?.fails_with(&["/save: expected a file"]);
    chat("/load no-such-file\n")?.fails_with(&["no-such-file"]);
    chat("/load models/demo/config.json\n")?.fails_with(&["config.json", "list of messages"]);
    chat("\"\"\"\nnever closed\n")?.fails_with(&["inside \"\"\""]);
    Ok(())
}

/// A weight file that is cut short while the command has it mapped: one line that names it, and no hang.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_shrinks_while_it_is_mapped_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for entry in fs::read_dir(root().join("models/demo"))? {
        let entry = entry?;
        fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    let weights = folder.path().join("model.safetensors");
    let model = folder.path().to_str().ok_or("a path in UTF-8")?;
    let mut child = command(&["chat", model, "--device", "cpu"]).stdin(Stdio::piped()).spawn()?;
    let maps = format!("/proc/{}/maps", child.id());
    while !fs::read_to_string(&maps)?.contains("model.safetensors") {
        assert_eq!(child.try_wait()?, None);
        std::thread::sleep(Duration::from_millis(10));
    }
    // The header stays, so that it ends neither sooner nor by another error.
    fs::OpenOptions::new().write(true).open(&weights)?.set_len(64 << 10)?;
    // It may have ended before it reads this.
    let _ = child.stdin.take().ok_or("stdin")?.write_all(b"Hello\n");
    let left = finished(child.wait_with_output()?)?;
    left.exits(1, &["model.safetensors", "cut short while it was in use"]);
    assert_eq!(left.stdout, "");
    Ok(())
}
