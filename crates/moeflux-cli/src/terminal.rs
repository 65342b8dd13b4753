//! Where text goes: the answer to stdout, everything else to stderr, dimmed where a terminal shows it.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Writes one line to stderr. A stderr that nobody reads any more is no reason to stop.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes `text` to stdout at once, without buffering it.
pub(crate) fn show(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// A value as JSON over several lines, for [`show`].
pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Writes `text` to stderr at once, dimmed on a terminal unless `NO_COLOR` asks for none.
pub(crate) fn show_dim(text: &str) {
    let mut stderr = io::stderr().lock();
    let dim = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let _ = if dim { write!(stderr, "\x1b[2m{text}\x1b[0m") } else { write!(stderr, "{text}") };
    let _ = stderr.flush();
}
