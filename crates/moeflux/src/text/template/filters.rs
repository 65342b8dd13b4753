//! Jinja2's filters that the template engine lacks, or that give something else there.
//!
//! Left out are those of which no prompt is made: `filesizeformat`, `random`, `striptags`, `urlize`, `wordwrap`, `xmlattr`.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

use super::environment::to_string;
use super::{bounds, methods};

/// A filter, which takes what it is called on and its arguments.
type Filter = fn(&[Value]) -> Result<Value, Error>;

const FILTERS: &[(&str, Filter)] = &[
    ("center", center),
    ("d", default),
    ("default", default),
    ("e", escape),
    ("escape", escape),
    ("forceescape", force_escape),
    ("indent", indent),
    ("replace", replace),
    ("truncate", truncate),
    ("urlencode", url_encode),
    ("wordcount", word_count),
];

/// Adds the filters.
pub(super) fn install(environment: &mut Environment) {
    for &(name, filter) in FILTERS {
        environment.add_filter(name, move |arguments: Rest<ValueOrKwargs>| -> Result<Value, Error> {
            let arguments = arguments.into_values();
            bounds::bounded(name, &arguments, || filter(&arguments))
        });
    }
    // The engine's take names alone.
    let named: [(&'static str, Value, &'static [&'static str]); 3] = [
        ("dictsort", Value::from_function(filters::dictsort), &["value", "case_sensitive", "by", "reverse"]),
        ("sort", Value::from_function(filters::sort), &["value", "reverse", "case_sensitive", "attribute"]),
        ("unique", Value::from_function(filters::unique), &["value", "case_sensitive", "attribute"]),
    ];
    for (name, filter, parameters) in named {
        environment.add_filter(
            name,
            move |state: &mut State, arguments: Rest<ValueOrKwargs>| -> Result<Value, Error> {
                let arguments = arguments.into_values();
                bounds::bounded(name, &arguments, || {
                    let bound = bind(&arguments, parameters)?;
                    let given = parameters.iter().zip(bound).skip(1);
                    let given: Kwargs = given.filter_map(|(&name, value)| Some((name, value?))).collect();
                    filter.call(state, &[arguments[0].clone(), Value::from(given)])
                })
            },
        );
    }
    // The engine's have an error where these have a default.
    for (name, filter, zero) in [
        ("float", Value::from_function(filters::float), Value::from(0.0)),
        ("int", Value::from_function(filters::int), Value::from(0)),
    ] {
        environment.add_filter(
            name,
            move |state: &mut State, arguments: Rest<ValueOrKwargs>| -> Result<Value, Error> {
                let arguments = arguments.into_values();
                bounds::call(name, &arguments)?;
                let default = bind(&arguments, &["value", "default", "base"])?.swap_remove(1);
                let number = filter.call(state, &arguments);
                Ok(number.unwrap_or_else(|_| default.unwrap_or_else(|| zero.clone())))
            },
        );
    }
    environment.add_filter("items", |value: &Value| {
        bounds::bounded("items", std::slice::from_ref(value), || {
            if value.is_undefined() { Ok(Value::from(Vec::<Value>::new())) } else { filters::items(value) }
        })
    });
}

/// The arguments of a call by the parameters that they are for, as Python binds them: by their place, or by their name.
fn bind(arguments: &[Value], parameters: &[&str]) -> Result<Vec<Option<Value>>, Error> {
    let (placed, named) = from_args::<(&[Value], Kwargs)>(arguments)?;
    if placed.len() > parameters.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut bound: Vec<Option<Value>> = placed.iter().cloned().map(Some).collect();
    for &name in &parameters[placed.len()..] {
        bound.push(if named.has(name) { Some(named.get::<ValueOrKwargs>(name)?.into_value()) } else { None });
    }
    named.assert_all_used()?;
    Ok(bound)
}

/// The same for a certain number of parameters.
fn bound<const N: usize>(arguments: &[Value], parameters: [&str; N]) -> Result<[Option<Value>; N], Error> {
    let bound = bind(arguments, &parameters)?;
    bound.try_into().map_err(|_| Error::from(ErrorKind::MissingArgument))
}

fn text(value: Option<&Value>) -> Result<String, Error> {
    value.map_or_else(|| Ok(String::new()), to_string)
}

fn is_set(flag: Option<&Value>) -> bool {
    flag.is_some_and(Value::is_true)
}

/// A number of characters: none for negative ones, as Python repeats texts.
fn count(value: Option<&Value>, default: usize) -> Result<usize, Error> {
    let Some(value) = value else { return Ok(default) };
    let number = i64::try_from(value.clone())?;
    methods::width(usize::try_from(number).unwrap_or(0))
}

fn center(arguments: &[Value]) -> Result<Value, Error> {
    let [value, width] = bound(arguments, ["value", "width"])?;
    Ok(Value::from(methods::centered(&text(value.as_ref())?, count(width.as_ref(), 80)?, ' ')))
}

fn default(arguments: &[Value]) -> Result<Value, Error> {
    let [value, other, boolean] = bound(arguments, ["value", "default_value", "boolean"])?;
    let is_missing = |value: &Value| value.is_undefined() || is_set(boolean.as_ref()) && !value.is_true();
    Ok(value.filter(|value| !is_missing(value)).or(other).unwrap_or_else(|| Value::from("")))
}

fn escape(arguments: &[Value]) -> Result<Value, Error> {
    match &arguments[0] {
        safe if safe.is_safe() => Ok(safe.clone()),
        _ => force_escape(arguments),
    }
}

/// The entities of `markupsafe`.
fn force_escape(arguments: &[Value]) -> Result<Value, Error> {
    let [value] = bound(arguments, ["value"])?;
    let mut escaped = String::new();
    for character in text(value.as_ref())?.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            character => escaped.push(character),
        }
    }
    Ok(Value::from_safe_string(escaped))
}

fn indent(arguments: &[Value]) -> Result<Value, Error> {
    let [value, width, first, blank] = bound(arguments, ["s", "width", "first", "blank"])?;
    let with = match width.as_ref().and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => " ".repeat(count(width.as_ref(), 4)?),
    };
    // The line break that Jinja2 adds keeps the one at the end of a text.
    let source = text(value.as_ref())? + "\n";
    let lines = methods::lines(&source, false);
    bounds::sized(lines.len().saturating_mul(with.len() + 1).saturating_add(source.len()))?;
    let mut indented = String::with_capacity(source.len() + lines.len() * with.len());
    for (index, line) in lines.into_iter().enumerate() {
        if index > 0 {
            indented.push('\n');
        }
        let is_indented =
            if index == 0 { is_set(first.as_ref()) } else { is_set(blank.as_ref()) || !line.is_empty() };
        if is_indented {
            indented.push_str(&with);
        }
        indented.push_str(line);
    }
    Ok(Value::from(indented))
}

fn replace(arguments: &[Value]) -> Result<Value, Error> {
    let [value, old, new, most] = bound(arguments, ["s", "old", "new", "count"])?;
    let (source, old, new) = (text(value.as_ref())?, text(old.as_ref())?, text(new.as_ref())?);
    let most = most.filter(|most| !most.is_none()).map(i64::try_from).transpose()?;
    Ok(Value::from(match most.and_then(|most| usize::try_from(most).ok()) {
        Some(most) => source.replacen(&old, &new, most),
        None => source.replace(&old, &new),
    }))
}

fn truncate(arguments: &[Value]) -> Result<Value, Error> {
    let [value, length, kill_words, end, leeway] =
        bound(arguments, ["s", "length", "killwords", "end", "leeway"])?;
    let source = text(value.as_ref())?;
    let (length, leeway) = (count(length.as_ref(), 255)?, count(leeway.as_ref(), 5)?);
    let end = if end.is_some() { text(end.as_ref())? } else { "...".to_owned() };
    let kept = length.checked_sub(end.chars().count()).ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, format!("truncate: expected a length of at least {end:?}"))
    })?;
    if source.chars().count() <= length + leeway {
        return Ok(Value::from(source));
    }
    let kept: String = source.chars().take(kept).collect();
    let words = if is_set(kill_words.as_ref()) { None } else { kept.rsplit_once(' ') };
    Ok(Value::from(format!("{}{end}", words.map_or(kept.as_str(), |(words, _)| words))))
}

fn word_count(arguments: &[Value]) -> Result<Value, Error> {
    let [value] = bound(arguments, ["s"])?;
    let source = text(value.as_ref())?;
    let words = source.split(|character: char| !character.is_alphanumeric() && character != '_');
    Ok(Value::from(words.filter(|word| !word.is_empty()).count()))
}

/// A text as a part of a URL, or an object as its query.
fn url_encode(arguments: &[Value]) -> Result<Value, Error> {
    let [value] = bound(arguments, ["value"])?;
    let value = value.unwrap_or_default();
    if value.kind() != ValueKind::Map {
        return Ok(Value::from(quoted(&text(Some(&value))?, b"/")));
    }
    let mut pairs = Vec::new();
    for key in value.try_iter()? {
        let pair = [text(Some(&key))?, text(Some(&value.get_item(&key)?))?];
        pairs.push(pair.map(|text| quoted(&text, b" ").replace(' ', "+")).join("="));
    }
    Ok(Value::from(pairs.join("&")))
}

fn quoted(source: &str, safe: &[u8]) -> String {
    let mut quoted = String::new();
    for &byte in source.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) || safe.contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(quoted, "%{byte:02X}");
        }
    }
    quoted
}
