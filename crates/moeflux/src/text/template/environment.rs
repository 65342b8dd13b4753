//! The template engine, set up to behave as Jinja2 does under `transformers`.
//!
//! Known differences that are errors here: `'%s' % x` (the filter `format` is there), `+x`, tuples without parentheses,
//! `varargs` and `kwargs` of macros, `cycler`, `joiner`, methods that change a list or a dictionary (but for those of
//! [`dialect`]), and the filters and methods that chat templates have no use for (`striptags`, `str.encode`).
//! Differences in the text: floats with an exponent inside a list that is printed as a whole (`1e-7` for
//! `1e-07`) or joined with `~` (`0.0000001`), `safe` makes nothing escape what is added to it, and looping over none, which is
//! an error in Jinja2 and no iteration here.

use std::fmt::Write;

use chrono::NaiveDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

use super::{bounds, dialect, filters, json, methods};

/// The name under which [`compile`] stores the template.
pub(super) const NAME: &str = "chat_template";

/// The source of the error that `raise_exception` causes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RaisedByTemplate(pub(super) String);

/// An environment that holds this one template.
pub(super) fn compile(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, state, value| {
        bounds::printed(value)?;
        match json::float(value) {
            Some(number) => Ok(out.write_str(&json::float_repr(number))?),
            None => minijinja::escape_formatter(out, state, value),
        }
    });
    bounds::install(&mut environment);
    filters::install(&mut environment);
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", to_string);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("callable", is_callable);
    environment.add_function("raise_exception", raise_exception);
    environment.add_template_owned(NAME, dialect::translate(source))?;
    Ok(environment)
}

/// The function `strftime_now` for one moment: Python's format codes, English names.
pub(super) fn strftime_now(now: NaiveDateTime) -> Value {
    Value::from_function(move |format: &str| {
        // Microseconds are `%f` in Python, and a time without a zone prints none.
        let format = format.replace("%f", "%6f").replace("%Z", "").replace("%z", "");
        let mut text = String::new();
        match write!(text, "{}", now.format(&format)) {
            Ok(()) => Ok(text),
            Err(_) => Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("strftime_now: `{format}` has an unknown format code"),
            )),
        }
    })
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = message.to_string();
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(RaisedByTemplate(message)))
}

#[allow(clippy::needless_pass_by_value)] // the engine calls filters with owned keyword arguments
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    bounds::written(value)?;
    let style = json::Style {
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent: options.get::<Option<&Value>>("indent")?.map(indent_text).transpose()?.flatten(),
        separators: options.get::<Option<Vec<String>>>("separators")?.map(separators).transpose()?,
    };
    options.assert_all_used()?;
    bounds::returned(Value::from(json::dumps(value, &style)?))
}

fn indent_text(indent: &Value) -> Result<Option<String>, Error> {
    if indent.is_none() {
        return Ok(None);
    }
    if let Some(text) = indent.as_str() {
        return Ok(Some(text.to_owned()));
    }
    match indent.as_i64() {
        Some(spaces @ ..=64) => Ok(Some(" ".repeat(usize::try_from(spaces).unwrap_or(0)))),
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("tojson: indent should be a string or a number up to 64, found {indent}"),
        )),
    }
}

fn separators(pair: Vec<String>) -> Result<(String, String), Error> {
    let found = pair.len();
    let [item, key] = <[String; 2]>::try_from(pair).map_err(|_| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("tojson: separators should be two strings, found {found}"),
        )
    })?;
    Ok((item, key))
}

/// A value as text, as Python writes it.
pub(super) fn to_string(value: &Value) -> Result<String, Error> {
    bounds::written(value)?;
    let text = json::float(value).map_or_else(|| value.to_string(), json::float_repr);
    bounds::sized(text.len())?;
    Ok(text)
}

/// Jinja2's undefined value has length 0.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() { Ok(0) } else { minijinja::filters::length(value) }
}

/// The engine iterates over none as if it were empty, which Python does not.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Functions and macros; Jinja2's undefined value is one too.
fn is_callable(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Undefined | ValueKind::Plain)
}

/// In Python strings and dictionaries have a length and items too, which is what Jinja2 asks for.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
}
