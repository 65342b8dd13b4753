//! Reads what the user types: with editing and history on a terminal, line by line from a pipe.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::terminal::note;

const MULTI_LINE: &str = "\"\"\"";

/// Where messages come from.
pub(crate) enum LineReader {
    Terminal { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    Pipe,
}

/// What came when a line was asked for.
enum Line {
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the end of the input.
    End,
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

    /// The next message: one line, or several between `"""` or ended by `\`. `None` at the end of the input. One that is left
    /// by Ctrl-C or Ctrl-D between its lines is none.
    pub(crate) fn read(&mut self) -> Result<Option<String>> {
        loop {
            let line = match self.line("> ")? {
                Line::Text(line) => line,
                Line::Interrupted => {
                    note("(Ctrl-D or /quit ends the conversation)");
                    continue;
                }
                Line::End => return Ok(None),
            };
            let message = match line.trim_start().strip_prefix(MULTI_LINE) {
                Some(start) => self.until_quotes(start)?,
                None => self.while_continued(line)?,
            };
            let Some(message) = message else {
                note("(the message is discarded)");
                continue;
            };
            self.remember(&message);
            return Ok(Some(message));
        }
    }

    fn until_quotes(&mut self, start: &str) -> Result<Option<String>> {
        let mut message = start.to_owned();
        loop {
            if let Some(text) = message.trim_end().strip_suffix(MULTI_LINE) {
                return Ok(Some(text.trim_matches('\n').to_owned()));
            }
            match self.line("… ")? {
                Line::Text(line) => message.extend(["\n", &line]),
                Line::End if !self.is_terminal() => bail!("the input ended inside \"\"\""),
                Line::Interrupted | Line::End => return Ok(None),
            }
        }
    }

    fn while_continued(&mut self, mut message: String) -> Result<Option<String>> {
        while let Some(text) = message.strip_suffix('\\') {
            message = match self.line("… ")? {
                Line::Text(line) => format!("{text}\n{line}"),
                Line::End => format!("{text}\n"),
                Line::Interrupted => return Ok(None),
            };
        }
        Ok(Some(message))
    }

    fn line(&mut self, prompt: &str) -> Result<Line> {
        match self {
            Self::Pipe => {
                let line = io::stdin().lock().lines().next().transpose().context("reading stdin")?;
                Ok(line.map_or(Line::End, Line::Text))
            }
            Self::Terminal { editor, .. } => match editor.readline(prompt) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(error).context("reading the terminal"),
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
