//! The command as a user sees it: run on the demo model, in the root of the repository.

mod chat;
mod eval;
mod gpu;
mod inspect;
mod run;
mod stream;
mod tools;
mod trace;

use crate::common::{Finished, Result, finished, root};
use std::io::Write;
use std::process::{Command, Stdio};

/// `moeflux` with arguments.
fn command(args: &[&str]) -> Command {
    let mut command = crate::common::command();
    command.args(args);
    command
}

/// Runs `moeflux` with arguments and nothing on stdin.
fn moeflux(args: &[&str]) -> Result<Finished> {
    finished(command(args).output()?)
}

/// Runs `moeflux` with arguments and a text on stdin.
fn moeflux_with(stdin: &str, args: &[&str]) -> Result<Finished> {
    let mut child = command(args).stdin(Stdio::piped()).spawn()?;
    let mut pipe = child.stdin.take().ok_or("stdin is piped")?;
    pipe.write_all(stdin.as_bytes())?;
    drop(pipe);
    finished(child.wait_with_output()?)
}

#[test]
fn help_and_version() -> Result<()> {
    assert!(moeflux(&["--version"])?.text().starts_with("moeflux 0."));
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["chat", "--help"],
        &["inspect", "--help"],
        &["eval", "--help"],
    ] {
        assert!(moeflux(args)?.text().contains("Examples:"), "{args:?}");
    }
    Ok(())
}

#[test]
fn completions_for_every_shell() -> Result<()> {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let finished = moeflux(&["completions", shell])?;
        let script = finished.text();
        assert!(script.contains("moeflux") && script.contains("max-tokens"), "{shell}: {script}");
    }
    Ok(())
}

#[test]
fn wrong_usage_exits_with_2() -> Result<()> {
    for args in [&["run", "--temprature", "1"][..], &["run", "--logit-bias", "42"], &["eval"], &["sing"], &[]]
    {
        let finished = moeflux(args)?;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:?}");
        assert!(finished.stderr.contains("Usage:") || finished.stderr.contains("--help"), "{finished:?}");
    }
    Ok(())
}

#[test]
fn a_log_filter_that_cannot_be_read() -> Result<()> {
    moeflux(&["run", "Hi", "--log", "moeflux=loud"])?.fails_with(&["--log moeflux=loud"]);
    Ok(())
}
