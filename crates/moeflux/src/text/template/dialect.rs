//! What Hugging Face templates say that the template engine does not understand, said in its words.
//!
//! - `{% generation %}` blocks, with which training marks the assistant's words, become `{% with %}` blocks:
//!   same output, scope and whitespace control.
//! - What grows is checked: see [`bounds`](super::bounds). What `set` keeps and what a slice takes goes through a filter, and so
//!   do both sides of `~`, `+` and `*`, the left side of comparisons and the right side of `in`; a loop begins with a call.
//! - `{% set _ = a.b.append(x) %}` and `{% set x = a.b.pop(0) %}` of a namespace's list set the list anew, because lists do not
//!   change here. Other calls that change something are errors, as they are in the sandbox of `transformers`.
//! - Slices with a step, `x[a:b:c]`, become calls of the method [`SLICE`], because the engine's own go wrong
//!   where they run backwards to index 0, and panic on empty strings.

use super::bounds;

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
        if let Some(changed) = changed_list(tag) {
            result.push_str(&translate(&changed));
            continue;
        }
        match words(tag)[..] {
            ["generation"] => result.push_str(&tag.replace("generation", "with")),
            ["endgeneration"] => result.push_str(&tag.replace("endgeneration", "endwith")),
            ["raw"] => {
                let (raw, after) = rest.split_at(raw_length(rest));
                // The line break behind it is text in Jinja2.
                match end_length(tag) {
                    2 => result.extend([&tag[..tag.len() - 2], "+%}"]),
                    _ => result.push_str(tag),
                }
                result.push_str(raw);
                rest = after;
            }
            _ if tag.starts_with("{#") => result.push_str(tag),
            ref words => {
                let mut translated = String::with_capacity(tag.len());
                translate_slices(tag, &mut translated);
                let translated = bound_operators(&translated, words.first() == Some(&"for"));
                match words.first() {
                    Some(&"set") => result.push_str(&bound_set(&translated)),
                    Some(&"for") => {
                        result.push_str(&translated);
                        result.push_str(&tick(&translated));
                    }
                    _ => result.push_str(&translated),
                }
            }
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

/// The tags that change a namespace's list as this one would: `append`, or `pop` of the first or last item.
fn changed_list(tag: &str) -> Option<String> {
    let open = if tag.starts_with("{%-") || tag.starts_with("{%+") { 3 } else { 2 };
    let close = tag.len() - end_length(tag);
    let (target, call) = tag.get(open..close)?.trim().strip_prefix("set ")?.split_once('=')?;
    let (target, call) = (target.trim(), call.trim());
    let at = call.find('(')?;
    let (list, method) = call[..at].rsplit_once('.')?;
    let (space, name) = list.split_once('.')?;
    let is_name = |name: &str| !name.is_empty() && name.chars().all(is_of_word);
    if !is_name(space) || !is_name(name) || group_end(call, at) != Some(call.len()) {
        return None;
    }
    let argument = call[at + 1..call.len() - 1].trim();
    let (open, close) = (&tag[..open], &tag[close..]);
    let (item, others) = match (method, argument) {
        ("append", _) if target == "_" => {
            return Some(format!("{open} set {list} = {list} + [{argument}] {close}"));
        }
        ("pop", "0") => ("[0]", "[1:]"),
        ("pop", "" | "-1") => ("[-1]", "[:-1]"),
        _ => return None,
    };
    Some(format!("{open} set {target} = {list}{item} %}}{{% set {list} = {list}{others} {close}"))
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

/// A tag with filters at what operators take: see the [module](self).
fn bound_operators(tag: &str, is_loop: bool) -> String {
    let end = tag.len() - end_length(tag).max(if tag.ends_with("}}") { 2 } else { 0 });
    let mut filters: Vec<(usize, &str)> = Vec::new();
    // Where the right side of the last product ends.
    let mut product = None;
    let mut is_iterated = is_loop;
    let places: Vec<(usize, char)> = code(tag).filter(|&(at, _)| at >= 2 && at < end).collect();
    for &(at, character) in &places {
        let (last, next) = (tag[..at].chars().next_back(), tag[at + character.len_utf8()..].chars().next());
        let left = tag[..at].trim_end();
        let right = |length: usize| operand_end(tag, at + length, end);
        match character {
            '~' | '+' if ends_a_value(left) && !is_in_number(&tag[..at], next) => {
                let name = if character == '~' { bounds::JOINED } else { bounds::ADDED };
                let Some(right) = right(1) else { continue };
                filters.extend([(left.len(), name), (right, name)]);
            }
            '*' if last != Some('*') && next != Some('*') && ends_a_value(left) => {
                let Some(right) = right(1) else { continue };
                let goes_on = product == Some(left.len());
                let name = if goes_on { bounds::PRODUCT_AGAIN } else { bounds::PRODUCT_OF };
                filters.extend([(left.len(), name), (right, bounds::PRODUCT)]);
                product = Some(right);
            }
            '=' | '!' if next == Some('=') && !matches!(last, Some('=' | '!' | '<' | '>')) => {
                filters.extend(ends_a_value(left).then_some((left.len(), bounds::WALKED)));
            }
            '<' | '>' => filters.extend(ends_a_value(left).then_some((left.len(), bounds::WALKED))),
            // A loop goes through its list one by one.
            'i' if next == Some('n') && is_word(tag, at, 2) && !std::mem::take(&mut is_iterated) => {
                filters.extend(right(2).map(|right| (right, bounds::WALKED)));
            }
            _ => {}
        }
    }
    filters.extend(slices(tag, end).into_iter().map(|at| (at, bounds::SLICED)));
    filters.sort_by_key(|&(at, _)| at);
    let mut result = String::with_capacity(tag.len() + filters.len() * 20);
    let mut copied = 0;
    for (at, name) in filters {
        result.extend([&tag[copied..at], "|", name]);
        copied = at;
    }
    result.push_str(&tag[copied..]);
    result
}

/// Where slices end that nothing is taken of at once.
fn slices(tag: &str, end: usize) -> Vec<usize> {
    let (mut open, mut found) = (Vec::new(), Vec::new());
    for (at, character) in code(tag).filter(|&(at, _)| at >= 2 && at < end) {
        match character {
            '(' | '[' | '{' => open.push(false),
            ':' => open.last_mut().into_iter().for_each(|has_colon| *has_colon = true),
            ')' | '}' => drop(open.pop()),
            ']' if open.pop() == Some(true) && !tag[at + 1..].trim_start().starts_with(['.', '[', '(']) => {
                found.push(at + 1);
            }
            _ => {}
        }
    }
    found
}

/// Whether the bytes there are a word of their own, and no attribute.
fn is_word(tag: &str, at: usize, length: usize) -> bool {
    let before = tag[..at].chars().next_back();
    let after = tag[at + length..].chars().next();
    !before.is_some_and(|character| is_of_word(character) || character == '.')
        && !after.is_some_and(is_of_word)
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether a sign between these belongs to a number, such as that of `1e+7`.
fn is_in_number(before: &str, next: Option<char>) -> bool {
    let number =
        &before[before.trim_end_matches(|character: char| is_of_word(character) || character == '.').len()..];
    let digits = number.strip_suffix(['e', 'E']).unwrap_or_default();
    digits.starts_with(|character: char| character.is_ascii_digit())
        && digits.chars().all(|character| character.is_ascii_digit() || matches!(character, '.' | '_'))
        && next.is_some_and(|character| character.is_ascii_digit())
}

/// Where the number ends that begins here, with its fraction and exponent.
fn number_end(tag: &str, start: usize) -> usize {
    let digits = |at: usize| {
        at + tag[at..]
            .find(|character: char| !character.is_ascii_digit() && character != '_')
            .unwrap_or(tag.len() - at)
    };
    let begins = |at: usize| tag[at..].starts_with(|character: char| character.is_ascii_digit());
    let mut end = digits(start);
    if tag[end..].starts_with('.') && begins(end + 1) {
        end = digits(end + 1);
    }
    if tag[end..].starts_with(['e', 'E']) {
        let sign = usize::from(tag[end + 1..].starts_with(['+', '-']));
        if begins(end + 1 + sign) {
            end = digits(end + 1 + sign);
        }
    }
    end
}

/// Whether a value ends here, and not a word after which an operator has one operand.
fn ends_a_value(before: &str) -> bool {
    if before.ends_with([')', ']', '}', '\'', '"']) {
        return true;
    }
    let word = &before[before.trim_end_matches(is_of_word).len()..];
    let is_keyword =
        matches!(word, "not" | "in" | "and" | "or" | "if" | "else" | "is" | "elif" | "set" | "for" | "do");
    !is_keyword && !word.is_empty()
}

/// Where the operand ends that begins behind an operator, with its attributes, calls and filters; `None` if there is none.
fn operand_end(tag: &str, start: usize, end: usize) -> Option<usize> {
    let inner = &tag[..end];
    let blank = |at: usize| at + inner[at..].len() - inner[at..].trim_start().len();
    let word = |at: usize| at + inner[at..].find(|character| !is_of_word(character)).unwrap_or(end - at);
    let mut at = blank(start);
    while inner[at..].starts_with(['-', '+']) {
        at = blank(at + 1);
    }
    at = match inner[at..].chars().next()? {
        '(' | '[' | '{' => group_end(inner, at)?,
        quote @ ('\'' | '"') => texts_end(inner, at, quote)?,
        character if character.is_ascii_digit() => word(at).max(number_end(inner, at)),
        character if is_of_word(character) => word(at),
        _ => return None,
    };
    if inner[..at].ends_with("not") && is_word(inner, at - 3, 3) {
        return None;
    }
    let mut is_filtered = false;
    loop {
        let next = blank(at);
        match inner[next..].chars().next() {
            Some('.' | '|') => {
                is_filtered |= inner[next..].starts_with('|');
                let name = blank(next + 1);
                if word(name) == name {
                    return None;
                }
                at = word(name);
            }
            Some('(') => at = group_end(inner, next)?,
            Some('[') if !is_filtered => at = group_end(inner, next)?,
            _ => return Some(at),
        }
    }
}

/// The place behind the bracket that closes the one here.
fn group_end(tag: &str, start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, character) in code(&tag[start..]) {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(start + at + 1);
        }
    }
    None
}

/// The place behind all texts from here on, which are one where nothing is between them.
fn texts_end(tag: &str, start: usize, quote: char) -> Option<usize> {
    let mut end = text_end(tag, start, quote)?;
    loop {
        let next = tag.len() - tag[end..].trim_start().len();
        match tag[next..].chars().next() {
            Some(quote @ ('\'' | '"')) => end = text_end(tag, next, quote)?,
            _ => return Some(end),
        }
    }
}

/// The place behind the quote that closes the one here.
fn text_end(tag: &str, start: usize, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in tag[start + 1..].char_indices() {
        if !escaped && character == quote {
            return Some(start + 1 + at + 1);
        }
        escaped = !escaped && character == '\\';
    }
    None
}

/// A `set` with the filter around what it keeps; one without `=` captures what is printed, which is checked there.
fn bound_set(tag: &str) -> String {
    let mut depth = 0_usize;
    let mut equals = None;
    for (at, character) in code(tag).skip(2) {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '=' if depth == 0 => {
                equals = Some(at);
                break;
            }
            _ => {}
        }
    }
    let Some(equals) = equals else { return tag.to_owned() };
    let end = tag.len() - end_length(tag);
    if equals + 1 > end {
        return tag.to_owned();
    }
    let value = &tag[equals + 1..end];
    // Several targets take a tuple apart, whose values are small or were checked when they were made.
    if value.trim().is_empty() || tag[..equals].contains(',') {
        return tag.to_owned();
    }
    format!("{}=({value})|{}{}", &tag[..equals], bounds::KEPT, &tag[end..])
}

/// A call that checks the time, with the whitespace control of the tag before it.
fn tick(tag: &str) -> String {
    let end = &tag[tag.len() - end_length(tag)..];
    let trimmed = if end == "-%}" { "-%}" } else { end };
    format!("{{% set {0}_ = {0}() {trimmed}", bounds::TICK)
}

/// Length of a block's end with its sign: `%}`, `-%}`, `+%}`.
fn end_length(tag: &str) -> usize {
    if tag.ends_with("-%}") || tag.ends_with("+%}") {
        3
    } else if tag.ends_with("%}") {
        2
    } else {
        0
    }
}
