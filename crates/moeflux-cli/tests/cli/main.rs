//! The command as a user sees it: run on the demo model, in the root of the repository.

mod chat;
mod eval;
mod inspect;
mod run;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a finished command left.
#[derive(Debug)]
struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `moeflux` with arguments, in the root of the repository.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moeflux"));
    command.args(args).current_dir(root()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
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

fn finished(output: Output) -> Result<Finished> {
    let Output { status, stdout, stderr } = output;
    Ok(Finished {
        code: status.code(),
        stdout: String::from_utf8(stdout)?,
        stderr: String::from_utf8(stderr)?,
    })
}

impl Finished {
    /// Its stdout, of a success that said nothing else.
    #[track_caller]
    fn text(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        &self.stdout
    }

    /// Its stdout as JSON, of a success.
    #[track_caller]
    fn json(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(self.text())?)
    }

    /// That it failed with one line that has all of `pieces`, and no output that could be taken for an
    /// answer.
    #[track_caller]
    fn fails_with(&self, pieces: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        assert!(self.stderr.starts_with("error: ") && self.stderr.lines().count() == 1, "{self:?}");
        for piece in pieces {
            assert!(self.stderr.contains(piece), "{piece:?} is not in {self:?}");
        }
    }
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
