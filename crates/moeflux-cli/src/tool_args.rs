//! Tools that the model may call.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::{NonEmptyStringValueParser, TypedValueParser};
use moeflux::chat::{ChatOptions, ToolChoice};
use serde_json::Value;

/// Flags for tools.
#[derive(Args)]
#[command(next_help_heading = "Prompt")]
pub(crate) struct ToolArgs {
    /// Offer tools: a file with a JSON list of them, as in OpenAI's API. Each call of the model is printed to stdout as a line
    /// of JSON: {"name": …, "arguments": {…}}
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// Which tools may or must be called: auto (the model chooses), none, required (at least one), or the name of a tool
    /// [default: auto]
    #[arg(long, value_name = "CHOICE", requires = "tools", value_parser = NonEmptyStringValueParser::new().map(choice))]
    tool_choice: Option<ToolChoice>,
}

impl ToolArgs {
    /// The options of a conversation in which the model thinks first, or does not.
    pub(crate) fn options(&self, enable_thinking: bool) -> Result<ChatOptions> {
        Ok(ChatOptions {
            tools: self.tools.as_deref().map(read).transpose()?.unwrap_or_default(),
            tool_choice: self.tool_choice.clone().unwrap_or_default(),
            enable_thinking: Some(enable_thinking),
            ..ChatOptions::default()
        })
    }
}

fn read(path: &Path) -> Result<Vec<Value>> {
    let named = || format!("reading tools from {}", path.display());
    let text = fs::read_to_string(path).with_context(named)?;
    match serde_json::from_str(&text).with_context(named)? {
        Value::Array(tools) => Ok(tools),
        _ => bail!("{}: expected a JSON list of tools, as in OpenAI's API", path.display()),
    }
}

/// Any word that is none of the three is the name of a tool.
fn choice(word: String) -> ToolChoice {
    match word.as_str() {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "required" => ToolChoice::Required,
        _ => ToolChoice::Named(word),
    }
}
