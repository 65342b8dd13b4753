//! Where the prompt comes from, and which of two optional arguments is the model.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::model_args::ModelArgs;

const NO_PROMPT: &str = "no prompt is given: add one, as in `moeflux run \"What is 17 + 25?\"`, \
                         or use --file or a pipe; `moeflux chat` holds a conversation";

/// `[MODEL] [PROMPT]` and `--file`.
#[derive(Args)]
pub(crate) struct PromptArgs {
    /// Model folder, GGUF file, or name of a pulled model. It may be left out: a single argument that is none of these
    /// is the prompt [default: the demo in models/demo]
    #[arg(value_name = "MODEL")]
    first: Option<OsString>,
    /// The prompt. Without it, or with `-`, the prompt is read from stdin
    #[arg(value_name = "PROMPT")]
    second: Option<OsString>,
    /// Read the prompt from this file
    #[arg(short, long, value_name = "FILE", help_heading = "Prompt")]
    file: Option<PathBuf>,
}

impl PromptArgs {
    /// The model if an argument names it, and the prompt. A lone argument is the model if it is a folder or a
    /// pulled model's name, else the prompt; where a flag of `model` names the model, only the prompt is left.
    pub(crate) fn read(&self, model: &ModelArgs) -> Result<(Option<&Path>, String)> {
        let (model, prompt) = match (self.first.as_deref(), self.second.as_deref()) {
            (Some(first), None) if !model.is_named() && self.is_model(first, model)? => (Some(first), None),
            (Some(first), None) => (None, Some(first)),
            (Some(first), Some(_)) if model.locate(Path::new(first))?.is_none() => bail!(
                "{} is neither a folder nor a GGUF file, and no pulled model: put a prompt of several words in quotes, \
                 or name a model of `moeflux list`; `moeflux pull OWNER/NAME` downloads one",
                first.display()
            ),
            (model, prompt) => (model, prompt),
        };
        let text = self.text(prompt)?;
        if text.trim().is_empty() {
            bail!(NO_PROMPT);
        }
        Ok((model.map(Path::new), text))
    }

    /// Whether a lone argument is the model. One that looks like a path, or like OWNER/NAME, and leads nowhere
    /// is a slip, and no question to a model.
    fn is_model(&self, argument: &OsStr, model: &ModelArgs) -> Result<bool> {
        if model.locate(Path::new(argument))?.is_some() {
            return Ok(true);
        }
        let text = argument.to_string_lossy();
        let looks_like_path = text.contains(std::path::is_separator) && !text.contains(char::is_whitespace);
        if looks_like_path || self.file.is_some() {
            bail!(
                "{text}: no such folder, and no pulled model: name a model folder or a model of `moeflux list` \
                 (to ask just this, use `moeflux run -m MODEL {text}`)"
            );
        }
        Ok(false)
    }

    fn text(&self, argument: Option<&OsStr>) -> Result<String> {
        match (argument, &self.file) {
            (Some(_), Some(_)) => {
                bail!("the prompt is given twice, as an argument and by --file: remove one of them")
            }
            (None, Some(path)) => fs::read_to_string(path)
                .with_context(|| format!("reading the prompt from {}", path.display())),
            (Some(argument), None) if argument != "-" => match argument.to_str() {
                Some(text) => Ok(text.to_owned()),
                None => bail!("the prompt is not UTF-8 text"),
            },
            (None, None) if io::stdin().is_terminal() => bail!(NO_PROMPT),
            _ => {
                let mut text = String::new();
                io::stdin().read_to_string(&mut text).context("reading the prompt from stdin")?;
                Ok(text)
            }
        }
    }
}
