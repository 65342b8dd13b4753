//! A file of flags: each key is a flag's name without its dashes, `models` are the arguments.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use toml::{Table, Value};

/// Name of the arguments without a flag.
const ARGUMENTS: &str = "models";

/// The file as arguments, without those that were given already. So a file can say what flags can, no more and no less.
pub(crate) fn arguments(path: &Path, command: &Command, given: &ArgMatches) -> Result<Vec<OsString>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let table: Table = text.parse().with_context(|| path.display().to_string())?;
    let mut arguments = Vec::new();
    for (key, value) in &table {
        let flag = command.get_arguments().find(|arg| match arg.get_long() {
            Some(long) => long == key,
            None => arg.get_id() == key.as_str(),
        });
        let Some(flag) = flag.filter(|flag| flag.get_id() != "config" && flag.get_id() != "help") else {
            bail!("{}: `{key}`: `moeflux serve` has no such flag", path.display());
        };
        if given.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine) {
            continue;
        }
        let takes_value = flag.get_action().takes_values();
        for value in texts(value).with_context(|| format!("{}: `{key}`", path.display()))? {
            match (takes_value, value.as_str()) {
                (true, value) if key == ARGUMENTS => arguments.push(value.into()),
                (true, value) => arguments.push(format!("--{key}={value}").into()),
                (false, "true") => arguments.push(format!("--{key}").into()),
                (false, "false") => {}
                (false, value) => bail!("{}: `{key}`: expected true or false, found {value}", path.display()),
            }
        }
    }
    Ok(arguments)
}

/// A value, or the values of a list, as they would be typed.
fn texts(value: &Value) -> Result<Vec<String>> {
    Ok(match value {
        Value::String(text) => vec![text.clone()],
        Value::Integer(number) => vec![number.to_string()],
        Value::Float(number) => vec![number.to_string()],
        Value::Boolean(value) => vec![value.to_string()],
        Value::Array(values) => {
            let nested: Result<Vec<Vec<String>>> = values.iter().map(texts).collect();
            nested?.concat()
        }
        Value::Datetime(_) | Value::Table(_) => {
            bail!("expected a text, a number, true, false or a list of them")
        }
    })
}
