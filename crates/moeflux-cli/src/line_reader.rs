//! Reads what the user types: with editing and history on a terminal, line by line from a pipe.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::terminal::note;

const MULTI_LINE: &str = "\"\"\"";

/// Where messages come from.
pub(crate) enum LineReader {
    Terminal { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    Pipe,
}

impl LineReader {
    /// A reader of stdin.
    pub(crate) fn new() -> Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Pipe);
        }
        let mut editor = DefaultEditor::new().context("opening the terminal")?;
        let history = history_file();
        if let Some(path) = &history {
            // The first conversation has no history yet.
            let _ = editor.load_history(path);
        }
        Ok(Self::Terminal { editor: Box::new(editor), history })
    }

    /// Whether somebody types.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// The next message: one line, or several between `"""` or ended by `\`. `None` at the end of the input.
    pub(crate) fn read(&mut self) -> Result<Option<String>> {
        let Some(line) = self.line("> ")? else { return Ok(None) };
        let message = if let Some(start) = line.trim_start().strip_prefix(MULTI_LINE) {
            self.until_quotes(start)?
        } else {
            self.while_continued(line)?
        };
        self.remember(&message);
        Ok(Some(message))
    }

    fn until_quotes(&mut self, start: &str) -> Result<String> {
        let mut message = start.to_owned();
        loop {
            if let Some(text) = message.trim_end().strip_suffix(MULTI_LINE) {
                return Ok(text.trim_matches('\n').to_owned());
            }
            let line = self.line("… ")?.context("the input ended inside \"\"\"")?;
            message.push('\n');
            message.push_str(&line);
        }
    }

    fn while_continued(&mut self, mut message: String) -> Result<String> {
        while let Some(text) = message.strip_suffix('\\') {
            let line = self.line("… ")?.unwrap_or_default();
            message = format!("{text}\n{line}");
        }
        Ok(message)
    }

    fn line(&mut self, prompt: &str) -> Result<Option<String>> {
        match self {
            Self::Pipe => io::stdin().lock().lines().next().transpose().context("reading stdin"),
            Self::Terminal { editor, .. } => loop {
                match editor.readline(prompt) {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Interrupted) => note("(Ctrl-D or /quit ends the conversation)"),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error).context("reading the terminal"),
                }
            },
        }
    }

    fn remember(&mut self, message: &str) {
        if let Self::Terminal { editor, history } = self
            && let Ok(true) = editor.add_history_entry(message)
            && let Some(path) = history
            && let Err(error) = editor.append_history(path)
        {
            note(format_args!("warning: {}: the history is not saved: {error}", path.display()));
            *history = None;
        }
    }
}

/// `moeflux/history` in the user's state folder, made if need be.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    let folder = state.join("moeflux");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}
