//! What a Lark grammar will cost. It is read as far as measuring needs: which rule names which, and what is nested.

use std::collections::HashMap;

use serde_json::Value;

use super::{BYTES, ConstraintLimits, DEPTH, SYMBOLS, TooLarge, deepest, measure_regex, schema, within};

/// Checks a grammar, with the schemas and regular expressions in it.
pub(super) fn measure(grammar: &str, limits: &ConstraintLimits) -> Result<(), TooLarge> {
    within(BYTES, grammar.len(), limits.bytes)?;
    let tokens = tokens(grammar, limits)?;
    within(SYMBOLS, tokens.len(), limits.nodes)?;
    let mut rules = Rules::default();
    // What comes before the first rule belongs to none.
    let (mut current, mut depth) = (None, 0_usize);
    for (index, token) in tokens.iter().enumerate() {
        match *token {
            Token::Name(name) if defines(&tokens[index + 1..]) => current = Some(rules.part(name)),
            Token::Name(name) => {
                let named = rules.part(name);
                if let Some(current) = current {
                    rules.edges[current].push(named);
                }
                // A rule with a parameter, `name::…`: defined here or named, so it counts as both.
                if tokens[index + 1..].starts_with(&[Token::Mark(b':'); 2]) {
                    current = Some(named);
                }
            }
            Token::Mark(b'(' | b'[' | b'{') => {
                depth += 1;
                within(DEPTH, depth, limits.depth)?;
                if let Some(current) = current {
                    rules.levels[current] = rules.levels[current].max(depth + 1);
                }
            }
            Token::Mark(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            Token::Mark(_) | Token::Text => {}
        }
    }
    within(DEPTH, deepest(&rules.levels, &rules.edges), limits.depth)
}

#[derive(Default)]
struct Rules<'g> {
    names: HashMap<&'g str, usize>,
    levels: Vec<usize>,
    edges: Vec<Vec<usize>>,
}

impl<'g> Rules<'g> {
    fn part(&mut self, name: &'g str) -> usize {
        let next = self.names.len();
        let part = *self.names.entry(name).or_insert(next);
        if part == next {
            self.levels.push(1);
            self.edges.push(Vec::new());
        }
        part
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'g> {
    Name(&'g str),
    Mark(u8),
    /// A string, a regular expression, or a schema: measured already.
    Text,
}

/// Whether a name before these is defined by them: `:`, `.1 :`, `[attributes] :`.
fn defines(rest: &[Token<'_>]) -> bool {
    let mut depth = 0_usize;
    for (index, token) in rest.iter().enumerate().take(64) {
        match token {
            Token::Mark(b'[') => depth += 1,
            // An attribute is no rule, though a colon may follow its bracket.
            Token::Mark(b']') if depth == 0 => return false,
            Token::Mark(b']') => depth -= 1,
            _ if depth > 0 => {}
            Token::Mark(b':') => return rest.get(index + 1) != Some(token),
            // A priority.
            Token::Mark(b'.' | b'0'..=b'9' | b'-') => {}
            _ => return false,
        }
    }
    false
}

fn tokens<'g>(grammar: &'g str, limits: &ConstraintLimits) -> Result<Vec<Token<'g>>, TooLarge> {
    let bytes = grammar.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'/' if bytes.get(at) == Some(&b'/') => at = end_of_line(bytes, at),
            b'#' => at = end_of_line(bytes, at),
            // A special token such as `</think>`, whose slash begins no regular expression.
            b'<' => match special_token(&bytes[at..]) {
                Some(length) => {
                    at += length;
                    tokens.push(Token::Text);
                }
                None => tokens.push(Token::Mark(b'<')),
            },
            b'"' | b'/' => {
                at = after(bytes, at, byte);
                if byte == b'/' {
                    let inner = grammar.get(start + 1..at.saturating_sub(1)).unwrap_or("");
                    measure_regex(inner, limits)?;
                }
                tokens.push(Token::Text);
            }
            b'%' => {
                at += bytes[at..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'_')
                    .count();
                let keyword = &grammar[start + 1..at];
                if matches!(keyword, "json" | "regex" | "lark" | "llguidance") {
                    at = embedded(keyword, grammar, at, limits)?;
                }
                tokens.push(Token::Text);
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
                at += bytes[at..].iter().take_while(|byte| is_name(byte)).count();
                tokens.push(Token::Name(&grammar[start..at]));
            }
            byte if byte.is_ascii_whitespace() => {}
            byte => tokens.push(Token::Mark(byte)),
        }
        within(SYMBOLS, tokens.len(), limits.nodes)?;
    }
    Ok(tokens)
}

/// Measures the object behind a keyword such as `%json`; where it ends. What can't be read the compiler will refuse.
fn embedded(keyword: &str, grammar: &str, at: usize, limits: &ConstraintLimits) -> Result<usize, TooLarge> {
    let mut values = serde_json::Deserializer::from_str(&grammar[at..]).into_iter::<Value>();
    let Some(Ok(value)) = values.next() else { return Ok(at) };
    if keyword == "json" {
        schema::measure(&value, limits)?;
    }
    Ok(at + values.byte_offset())
}

/// The length of a special token behind its opening bracket; `None` if it is none.
fn special_token(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| matches!(byte, b'<' | b'>') || byte.is_ascii_whitespace())?;
    (end > 0 && bytes[end] == b'>').then_some(end + 1)
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |line| at + line)
}

/// The place after the next such quote that is not escaped.
fn after(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'\\' => at += 1,
            byte if byte == quote => return at,
            _ => {}
        }
    }
    bytes.len()
}
