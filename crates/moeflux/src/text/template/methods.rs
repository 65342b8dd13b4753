//! Methods of Python's strings, lists and dictionaries that templates call, beyond those of
//! `minijinja-contrib`.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::{bounds, dialect};

/// Calls `value.method(args)`.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if value.as_str().is_some() {
        bounds::call(method, &[std::slice::from_ref(value), args].concat())?;
    }
    if method == dialect::SLICE {
        bounds::kept(value, bounds::ITEM)?;
    }
    let known = match (value.kind(), value.as_str()) {
        (ValueKind::String | ValueKind::Seq | ValueKind::Iterable, _) if method == dialect::SLICE => {
            Some(slice(value, args)?)
        }
        (_, Some(text)) => string_method(text, method, args)?,
        (ValueKind::Seq, _) => list_method(value, method, args)?,
        (ValueKind::Map, _) if method == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        _ => None,
    };
    let result = match known {
        Some(result) => Ok(result),
        None => {
            unknown_method_callback(state, value, method, args).map_err(|error| name(error, value, method))
        }
    };
    bounds::returned(result?)
}

/// Says which method is unknown, and on what.
fn name(error: Error, value: &Value, method: &str) -> Error {
    if error.kind() == ErrorKind::UnknownMethod && error.detail().is_none() {
        return Error::new(ErrorKind::UnknownMethod, format!("{} has no method `{method}`", value.kind()));
    }
    error
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "split" | "rsplit" => split(text, method == "rsplit", args)?,
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            partition(text.split_once(separator), separator, [text, "", ""])
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            partition(text.rsplit_once(separator), separator, ["", "", text])
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let sign = usize::from(text.starts_with(['+', '-']));
            let zeros = "0".repeat(padding(text, width)?);
            Value::from(format!("{}{zeros}{}", &text[..sign], &text[sign..]))
        }
        "ljust" | "rjust" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let fill = String::from(fill.unwrap_or(' ')).repeat(padding(text, width)?);
            Value::from(if method == "ljust" { format!("{text}{fill}") } else { format!("{fill}{text}") })
        }
        "center" => {
            let (wanted, fill): (usize, Option<char>) = from_args(args)?;
            Value::from(centered(text, width(wanted)?, fill.unwrap_or(' ')))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (what, from, to): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let (before, part) = within(text, from, to);
            let at = if method.starts_with('r') { part.rfind(what) } else { part.find(what) };
            match at {
                Some(at) => Value::from(before + part[..at].chars().count()),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(not_found()),
            }
        }
        "count" => {
            let (what, from, to): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            Value::from(within(text, from, to).1.matches(what).count())
        }
        "startswith" | "endswith" if args.len() > 1 => {
            let (what, from, to): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let part = within(text, from, to).1;
            let fits = |what: &str| {
                if method == "startswith" { part.starts_with(what) } else { part.ends_with(what) }
            };
            Value::from(match what.as_str() {
                Some(what) => fits(what),
                None => what.try_iter()?.any(|what| what.as_str().is_some_and(fits)),
            })
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.to_lowercase().replace('ß', "ss"))
        }
        "swapcase" => {
            let () = from_args(args)?;
            let mut swapped = String::with_capacity(text.len());
            for character in text.chars() {
                if character.is_uppercase() {
                    swapped.extend(character.to_lowercase());
                } else {
                    swapped.extend(character.to_uppercase());
                }
            }
            Value::from(swapped)
        }
        "expandtabs" => {
            let (size,): (Option<usize>,) = from_args(args)?;
            let size = width(size.unwrap_or(8))?;
            bounds::sized(text.matches('\t').count().saturating_mul(size).saturating_add(text.len()))?;
            Value::from(expanded(text, size))
        }
        "splitlines" => {
            let (with_ends, named): (Option<bool>, Kwargs) = from_args(args)?;
            let with_ends = with_ends.or(named.get("keepends")?).unwrap_or(false);
            named.assert_all_used()?;
            lines(text, with_ends).into_iter().map(Value::from).collect()
        }
        "istitle" => {
            let () = from_args(args)?;
            Value::from(text.chars().any(char::is_alphabetic) && title(text) == text)
        }
        "isidentifier" => {
            let () = from_args(args)?;
            let is_of_name = |character: char| character.is_alphanumeric() || character == '_';
            let begins = text.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_');
            Value::from(begins && text.chars().all(is_of_name))
        }
        "isdecimal" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(|character| character.is_ascii_digit()))
        }
        _ => return Ok(None),
    }))
}

fn list_method(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == *what).ok_or_else(not_found)?;
            Ok(Some(Value::from(at)))
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(Some(value.clone()))
        }
        _ => Ok(None),
    }
}

/// `value[from:to:step]` of a string, list or tuple.
fn slice(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let (from, to, step): (Option<i64>, Option<i64>, Option<i64>) = from_args(args)?;
    // Characters are smaller than values.
    if let Some(text) = value.as_str() {
        let characters: Vec<char> = text.chars().collect();
        let picked = picked(characters.len(), from, to, step)?.map(|place| characters[place]);
        return Ok(Value::from(picked.collect::<String>()));
    }
    let mut items: Vec<Value> = value.try_iter()?.collect();
    let picked = picked(items.len(), from, to, step)?.map(|place| std::mem::take(&mut items[place]));
    Ok(if value.is_tuple() { Value::from(Tuple::from(picked.collect::<Vec<_>>())) } else { picked.collect() })
}

/// The places that a slice takes of so many items.
fn picked(
    length: usize,
    from: Option<i64>,
    to: Option<i64>,
    step: Option<i64>,
) -> Result<impl Iterator<Item = usize>, Error> {
    let (length, step) = (length as i64, step.unwrap_or(1));
    if step == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "a slice cannot have step 0"));
    }
    // Python's `slice.indices`: bounds count from the end if negative, and stop one outside of the list.
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let bound = |bound: i64| (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(low, high);
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (from, to) = (from.map_or(first, bound), to.map_or(last, bound));
    let distance = if step > 0 { to - from } else { from - to };
    let count = u64::try_from(distance).unwrap_or(0).div_ceil(step.unsigned_abs());
    Ok((0..count as i64).map(move |nth| (from + nth * step) as usize))
}

/// `text.split(sep=None, maxsplit=-1)`, or `rsplit` if splits count from the end.
fn split(text: &str, from_end: bool, args: &[Value]) -> Result<Value, Error> {
    let (separator, limit, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = separator.or(named.get("sep")?).filter(|separator| !separator.is_none());
    let limit = limit.or(named.get("maxsplit")?).and_then(|limit| usize::try_from(limit).ok());
    named.assert_all_used()?;
    let separator = separator.as_ref().map(|separator| separator.as_str().filter(|text| !text.is_empty()));
    let parts: Vec<&str> = match (separator, limit.map(|limit| limit.saturating_add(1))) {
        (Some(None), _) => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "split: the separator should be a string, not empty",
            ));
        }
        (Some(Some(separator)), None) => text.split(separator).collect(),
        (Some(Some(separator)), Some(parts)) if from_end => {
            let mut parts: Vec<_> = text.rsplitn(parts, separator).collect();
            parts.reverse();
            parts
        }
        (Some(Some(separator)), Some(parts)) => text.splitn(parts, separator).collect(),
        (None, None) => text.split_whitespace().collect(),
        (None, Some(parts)) => split_whitespace(text, parts, from_end),
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

/// At most `parts` parts; the last one (or the first, `from_end`) keeps the whitespace within and on its far
/// side.
fn split_whitespace(text: &str, parts: usize, from_end: bool) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = if from_end { text.trim_end() } else { text.trim_start() };
    while !rest.is_empty() {
        let cut = if found.len() + 1 == parts {
            None
        } else if from_end {
            rest.rsplit_once(char::is_whitespace).map(|(rest, part)| (part, rest.trim_end()))
        } else {
            rest.split_once(char::is_whitespace).map(|(part, rest)| (part, rest.trim_start()))
        };
        let (part, after) = cut.unwrap_or((rest, ""));
        found.push(part);
        rest = after;
    }
    if from_end {
        found.reverse();
    }
    found
}

fn partition(parts: Option<(&str, &str)>, separator: &str, whole: [&str; 3]) -> Value {
    let parts = parts.map_or(whole, |(head, tail)| [head, separator, tail]);
    Value::from(Tuple::from(parts.map(Value::from)))
}

/// Upper case for each letter that follows none, lower case for the others.
fn title(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut in_word = false;
    for character in text.chars() {
        if in_word {
            result.extend(character.to_lowercase());
        } else {
            result.extend(character.to_uppercase());
        }
        in_word = character.is_alphabetic();
    }
    result
}

/// How many characters are missing to this width.
fn padding(text: &str, wanted: usize) -> Result<usize, Error> {
    Ok(width(wanted)?.saturating_sub(text.chars().count()))
}

/// A width, which is bounded because templates come from files.
pub(super) fn width(wanted: usize) -> Result<usize, Error> {
    if wanted > 100_000 {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("a width of {wanted} is over 100000")));
    }
    Ok(wanted)
}

/// A text in the middle of so many characters. Of an odd number of missing ones, Python puts the greater half on the left if
/// the width is odd too.
pub(super) fn centered(text: &str, width: usize, fill: char) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let left = missing / 2 + (missing & width & 1);
    let fill = |count: usize| String::from(fill).repeat(count);
    format!("{}{text}{}", fill(left), fill(missing - left))
}

/// The lines of a text, at each of the characters that end lines in Python.
pub(super) fn lines(text: &str, with_ends: bool) -> Vec<&str> {
    let ends_line = |character: char| {
        matches!(
            character,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((at, end)) = rest.char_indices().find(|&(_, character)| ends_line(character)) else {
            found.push(rest);
            break;
        };
        let length = if rest[at..].starts_with("\r\n") { 2 } else { end.len_utf8() };
        let (line, after) = rest.split_at(at + length);
        found.push(if with_ends { line } else { &line[..at] });
        rest = after;
    }
    found
}

/// The part of a text between two numbers of characters, which count from the end if they are negative, and how many
/// characters are before it.
fn within(text: &str, from: Option<i64>, to: Option<i64>) -> (usize, &str) {
    if from.is_none() && to.is_none() {
        return (0, text);
    }
    let length = text.chars().count();
    let place = |bound: i64| {
        let distance = usize::try_from(bound.unsigned_abs()).unwrap_or(usize::MAX);
        if bound < 0 { length.saturating_sub(distance) } else { distance.min(length) }
    };
    let from = from.map_or(0, place);
    let to = to.map_or(length, place).max(from);
    let byte = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(at, _)| at);
    (from, &text[byte(from)..byte(to)])
}

/// Tabs as spaces up to the next multiple of `size` in their line.
fn expanded(text: &str, size: usize) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut column = 0;
    for character in text.chars() {
        match character {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                expanded.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                expanded.push(character);
                column = 0;
            }
            character => {
                expanded.push(character);
                column += 1;
            }
        }
    }
    expanded
}

fn not_found() -> Error {
    Error::new(ErrorKind::InvalidOperation, "index: not found")
}
