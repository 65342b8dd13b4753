//! What an answer must look like.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use moeflux::sampling::Constraint;

/// Flags for constrained output.
#[derive(Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Output")]
pub(crate) struct ConstraintArgs {
    /// Constrain the answer to JSON that follows this schema: a file, or the schema itself
    #[arg(long, value_name = "FILE|JSON")]
    json_schema: Option<String>,
    /// Constrain the answer to text that this regular expression matches as a whole
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    regex: Option<String>,
    /// Constrain the answer to this grammar: a file in the syntax of Lark
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
}

impl ConstraintArgs {
    /// The constraint, if there is one.
    pub(crate) fn constraint(&self) -> Result<Option<Constraint>> {
        if let Some(schema) = &self.json_schema {
            return json_schema(schema).map(Some);
        }
        if let Some(path) = &self.grammar {
            let named = || format!("reading a grammar from {}", path.display());
            return Ok(Some(Constraint::Lark(fs::read_to_string(path).with_context(named)?)));
        }
        Ok(self.regex.clone().map(Constraint::Regex))
    }
}

/// A schema is an object, and no file is called that way.
fn json_schema(argument: &str) -> Result<Constraint> {
    let schema = if argument.trim_start().starts_with('{') {
        serde_json::from_str(argument).context("--json-schema: the text is not JSON")?
    } else {
        let named = || format!("reading a JSON schema from {argument}");
        serde_json::from_str(&fs::read_to_string(argument).with_context(named)?).with_context(named)?
    };
    Ok(Constraint::JsonSchema(schema))
}
