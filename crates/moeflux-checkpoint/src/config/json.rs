//! JSON as Python writes it: `json.dump` has `NaN`, `Infinity` and `-Infinity` for numbers that JSON has not.

use crate::error::Error;
use serde_json::{Map, Value};
use std::path::Path;

/// The object in a JSON file; `path` names it in errors. Numbers that are not finite become strings of that name, which
/// no field takes for a number.
pub(crate) fn object(path: &Path, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    let error = |source| Error::Json { path: path.to_owned(), source };
    // Some editors begin a file with a byte order mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(bytes).or_else(|source| {
        let quoted = quote_non_finite(bytes).ok_or(source).map_err(error)?;
        serde_json::from_slice(&quoted).map_err(error)
    })
}

/// The text with quotes around `NaN`, `Infinity` and `-Infinity` where they are not in a string; `None` if there are
/// none.
fn quote_non_finite(bytes: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let mut quoted = Vec::with_capacity(bytes.len() + 16);
    let (mut at, mut in_string, mut found) = (0, false, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        match (in_string, rest[0]) {
            (true, b'\\') => {
                quoted.extend(rest.iter().take(2));
                at += 2;
                continue;
            }
            (_, b'"') => in_string = !in_string,
            (false, _) => {
                if let Some(word) = WORDS.iter().find(|word| rest.starts_with(word)) {
                    quoted.push(b'"');
                    quoted.extend(*word);
                    quoted.push(b'"');
                    at += word.len();
                    found = true;
                    continue;
                }
            }
            _ => {}
        }
        quoted.push(rest[0]);
        at += 1;
    }
    found.then_some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_words() {
        let text = br#"{"a": [0.0, Infinity], "NaN \" NaN": -Infinity, "b": NaN, "c": "Infinity"}"#;
        let found = object(Path::new("x"), text).expect("JSON");
        let expected = serde_json::json!(
            {"a": [0.0, "Infinity"], "NaN \" NaN": "-Infinity", "b": "NaN", "c": "Infinity"}
        );
        assert_eq!(Value::Object(found), expected);
        for text in [&b"{\"a\": Infinit}"[..], b"{\"a\": NaN", b"[NaN]", b"", b"\xff"] {
            assert!(object(Path::new("x"), text).is_err());
        }
        assert!(object(Path::new("x"), b"\xef\xbb\xbf{}").is_ok());
    }
}
