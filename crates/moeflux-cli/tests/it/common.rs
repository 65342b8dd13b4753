//! Runs the command and keeps what it leaves.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `moeflux`, in the root of the repository, with nothing on stdin.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moeflux"));
    command.current_dir(root()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Without these, drivers of GPUs write to stderr.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir()).env("MESA_VK_IGNORE_CONFORMANCE_WARNING", "true");
    command
}

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn finished(output: Output) -> Result<Finished> {
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
    pub(crate) fn text(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        &self.stdout
    }

    /// Its stdout as JSON, of a success that said nothing else.
    #[track_caller]
    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(self.text())?)
    }

    /// The first answer in what `run --json` printed.
    #[track_caller]
    pub(crate) fn answer(&self) -> Result<serde_json::Value> {
        let mut json = self.json()?;
        assert_eq!(json["schema_version"], 1, "{json}");
        Ok(json["answers"][0].take())
    }

    /// Its stdout, of a success.
    #[track_caller]
    pub(crate) fn output(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.stdout
    }

    /// What it said on stderr, of a success.
    #[track_caller]
    pub(crate) fn notes(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.stderr
    }

    /// That it failed with one line that has all of `pieces`, and no output that could be taken for an
    /// answer.
    #[track_caller]
    pub(crate) fn fails_with(&self, pieces: &[&str]) {
        assert_eq!(self.stdout, "", "{self:?}");
        assert!(self.stderr.starts_with("error: ") && self.stderr.lines().count() == 1, "{self:?}");
        self.exits(1, pieces);
    }

    /// That it ended with `code` and said all of `pieces`, and maybe more.
    #[track_caller]
    pub(crate) fn exits(&self, code: i32, pieces: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for piece in pieces {
            assert!(self.stderr.contains(piece), "{piece:?} is not in {self:?}");
        }
    }
}
