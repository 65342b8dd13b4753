//! What Hugging Face templates say that the template engine does not understand, said in its words.
//!
//! - `{% generation %}` blocks, with which training marks the assistant's words, become `{% with %}` blocks:
//!   same output, scope and whitespace control.
//! - Slices with a step, `x[a:b:c]`, become calls of the method [`SLICE`], because the engine's own go wrong
//!   where they run backwards to index 0, and panic on empty strings.

/// The name of the method that takes a slice.
pub(super) const SLICE: &str = "python_slice";

/// The template in the engine's dialect. Lines keep their numbers.
pub(super) fn translate(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        let (text, tag) = rest.split_at(start);
        result.push_str(text);
        let (tag, after) = tag.split_at(tag_length(tag));
        rest = after;
        match words(tag)[..] {
            ["generation"] => result.push_str(&tag.replace("generation", "with")),
            ["endgeneration"] => result.push_str(&tag.replace("endgeneration", "endwith")),
            ["raw"] => {
                let (raw, after) = rest.split_at(raw_length(rest));
                result.push_str(tag);
                result.push_str(raw);
                rest = after;
            }
            _ if tag.starts_with("{#") => result.push_str(tag),
            _ => translate_slices(tag, &mut result),
        }
    }
    result.push_str(rest);
    result
}

/// The words of a block tag without its markers; empty for anything else.
fn words(tag: &str) -> Vec<&str> {
    let inner = tag.strip_prefix("{%").and_then(|tag| tag.strip_suffix("%}")).unwrap_or("");
    inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).split_whitespace().collect()
}

/// Length of the comment, expression or block at the start of `source`, or 1 if the brace opens none.
fn tag_length(source: &str) -> usize {
    let close = match source.as_bytes().get(1) {
        Some(b'#') => return source.find("#}").map_or(source.len(), |end| end + 2),
        Some(b'{') => "}}",
        Some(b'%') => "%}",
        _ => return 1,
    };
    let mut depth = 0_usize;
    for (at, character) in code(source).skip(2) {
        if depth == 0 && source[at..].starts_with(close) {
            return at + close.len();
        }
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    source.len()
}

/// Length of raw text up to its `{% endraw %}`.
fn raw_length(source: &str) -> usize {
    let mut tags = source.match_indices("{%").map(|(at, _)| at);
    tags.find(|&at| words(&source[at..at + tag_length(&source[at..])]) == ["endraw"]).unwrap_or(source.len())
}

/// The characters of a tag that are not within string literals, with their positions.
fn code(tag: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    let mut escaped = false;
    tag.char_indices().filter(move |&(_, character)| {
        let Some(open) = quote else {
            quote = matches!(character, '\'' | '"').then_some(character);
            return quote.is_none();
        };
        if !escaped && character == open {
            quote = None;
        }
        escaped = !escaped && character == '\\';
        false
    })
}

/// Appends a tag with its slices `[a:b:c]` as `.python_slice(a, b, c)`.
fn translate_slices(tag: &str, result: &mut String) {
    /// A bracket that is open: where it and the colons directly within it are in `result`.
    struct Bracket {
        start: usize,
        colons: Vec<usize>,
    }
    let mut open: Vec<Bracket> = Vec::new();
    let mut copied = 0;
    for (at, character) in code(tag) {
        result.push_str(&tag[copied..at]);
        copied = at;
        match character {
            '(' | '[' | '{' => open.push(Bracket { start: result.len(), colons: Vec::new() }),
            ':' => {
                if let Some(bracket) = open.last_mut() {
                    bracket.colons.push(result.len());
                }
            }
            ')' | '}' => drop(open.pop()),
            ']' => {
                if let Some(Bracket { start, colons }) = open.pop()
                    && let [first, second] = colons[..]
                {
                    let bounds = [start + 1..first, first + 1..second, second + 1..result.len()];
                    let arguments = bounds.map(|bound| match &result[bound] {
                        blank if blank.trim().is_empty() => format!("{blank}none"),
                        bound => bound.to_owned(),
                    });
                    result.truncate(start);
                    result.extend([".", SLICE, "(", &arguments.join(","), ")"]);
                    copied = at + 1;
                }
            }
            _ => {}
        }
    }
    result.push_str(&tag[copied..]);
}
