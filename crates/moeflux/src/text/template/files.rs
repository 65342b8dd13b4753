//! Where a checkpoint keeps its chat template.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::ChatTemplate;
use crate::text::TextError;
use crate::text::generation::{read_object, read_text};

impl ChatTemplate {
    /// The template of a checkpoint folder: `chat_template.jinja`, else `chat_template` of
    /// `tokenizer_config.json` (given as `config`), else of `chat_template.json`; with the special tokens of
    /// `tokenizer_config.json`.
    pub(in crate::text) fn open(
        folder: &Path,
        config: &Map<String, Value>,
    ) -> Result<Option<Self>, TextError> {
        let path = folder.join("tokenizer_config.json");
        let sources = if let Some(default) = read_text(&folder.join("chat_template.jinja"))? {
            let tool_use = read_text(&folder.join("additional_chat_templates").join("tool_use.jinja"))?;
            Some(Sources { default, tool_use })
        } else if let Some(sources) = Sources::of_config(config, &path)? {
            Some(sources)
        } else {
            let path = folder.join("chat_template.json");
            Sources::of_config(&read_object(&path)?.unwrap_or_default(), &path)?
        };
        let Some(sources) = sources else { return Ok(None) };
        let template = Self::new(&sources.default)?.with_special_tokens(special_tokens(config));
        match sources.tool_use {
            Some(source) => template.with_tool_use(&source).map(Some),
            None => Ok(Some(template)),
        }
    }
}

/// The text of a special token: a string, or an object with `content`.
pub(in crate::text) fn special_token(value: &Value) -> Option<&str> {
    value.get("content").unwrap_or(value).as_str()
}

struct Sources {
    default: String,
    tool_use: Option<String>,
}

impl Sources {
    /// `chat_template` of a JSON file: a string, or a list of `{name, template}`.
    fn of_config(config: &Map<String, Value>, path: &Path) -> Result<Option<Self>, TextError> {
        let value = match config.get("chat_template") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(source)) => return Ok(Some(Self { default: source.clone(), tool_use: None })),
            Some(value) => value,
        };
        let named = |name: &str| {
            let entry = value.as_array()?.iter().find(|entry| entry["name"] == name)?;
            entry["template"].as_str().map(str::to_owned)
        };
        let expected = "a template or a list of {name, template} with one named `default`";
        let default =
            named("default").ok_or_else(|| TextError::field(path, "chat_template", expected, value))?;
        Ok(Some(Self { default, tool_use: named("tool_use") }))
    }
}

fn special_tokens(config: &Map<String, Value>) -> BTreeMap<String, String> {
    let tokens = config.iter().filter(|(name, _)| name.ends_with("_token"));
    tokens.filter_map(|(name, value)| Some((name.clone(), special_token(value)?.to_owned()))).collect()
}
