//! Where the prompt comes from, and which of two optional arguments is the model.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

/// `[MODEL] [PROMPT]` and `--file`.
#[derive(Args)]
pub(crate) struct PromptArgs {
    /// Model folder; may be left out [default: the demo in models/demo]
    #[arg(value_name = "MODEL")]
    first: Option<OsString>,
    /// The question; `-` reads it from stdin, as does leaving it out
    #[arg(value_name = "PROMPT")]
    second: Option<OsString>,
    /// Read the prompt from a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl PromptArgs {
    /// The model's folder if an argument names it, and the prompt. A lone argument is the model if it is a folder,
    /// else the prompt; `model_is_named` says that a flag names the model, which leaves the prompt only.
    pub(crate) fn read(&self, model_is_named: bool) -> Result<(Option<&Path>, String)> {
        let (model, prompt) = match (self.first.as_deref(), self.second.as_deref()) {
            (Some(first), None) if !model_is_named && self.is_model(first)? => (Some(first), None),
            (Some(first), None) => (None, Some(first)),
            (model, prompt) => (model, prompt),
        };
        Ok((model.map(Path::new), self.text(prompt)?))
    }

    /// Whether a lone argument is the model. One that looks like a path to a folder that does not exist is a slip, and no
    /// question to a model.
    fn is_model(&self, argument: &OsStr) -> Result<bool> {
        let path = Path::new(argument);
        if path.is_dir() {
            return Ok(true);
        }
        let text = argument.to_string_lossy();
        let looks_like_path = text.contains(std::path::is_separator) && !text.contains(char::is_whitespace);
        if looks_like_path || self.file.is_some() {
            bail!(
                "{text}: no such folder: name a model folder (to ask just this, use `moeflux run -m MODEL {text}`)"
            );
        }
        Ok(false)
    }

    fn text(&self, argument: Option<&OsStr>) -> Result<String> {
        match (argument, &self.file) {
            (Some(_), Some(_)) => {
                bail!("the prompt is given twice, as an argument and by --file: leave one out")
            }
            (None, Some(path)) => fs::read_to_string(path)
                .with_context(|| format!("reading the prompt from {}", path.display())),
            (Some(argument), None) if argument != "-" => match argument.to_str() {
                Some(text) => Ok(text.to_owned()),
                None => bail!("the prompt is not UTF-8 text"),
            },
            (None, None) if io::stdin().is_terminal() => bail!(
                "no prompt: ask something, as in `moeflux run \"What is 17 + 25?\"`, or use --file or a pipe; \
                 `moeflux chat` holds a conversation"
            ),
            _ => {
                let mut text = String::new();
                io::stdin().read_to_string(&mut text).context("reading the prompt from stdin")?;
                Ok(text)
            }
        }
    }
}
