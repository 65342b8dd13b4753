//! Calls as a name and an object of arguments, with marks around them.

use super::json::{self, Dialect};
use super::{Found, NAME_LENGTH, Step};
use crate::chat::tools::Tools;

/// How such calls are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chat) struct Named {
    /// What the name follows, with whatever stands before that; empty: the name comes first.
    pub(in crate::chat) lead: &'static str,
    /// What ends the name. A brace is that of the arguments.
    pub(in crate::chat) ends: &'static [&'static str],
    /// What ends a call's id, where that follows the name.
    pub(in crate::chat) id_end: Option<&'static str>,
    pub(in crate::chat) dialect: Dialect,
    /// Whether the arguments may stand in a fenced block of code.
    pub(in crate::chat) is_fenced: bool,
    /// Whether a call without arguments may have no object either: a mark has to end the call.
    pub(in crate::chat) may_be_bare: bool,
}

/// Reader of one such call.
#[derive(Debug)]
pub(in crate::chat) struct Reader {
    spec: &'static Named,
    state: State,
    arguments: json::Reader,
    is_fenced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Lead,
    Name,
    Id,
    /// Before the arguments.
    Gap,
    Arguments,
    /// After the arguments in a block of code.
    Fence,
}

const FENCE: &str = "```";

impl Reader {
    pub(super) fn new(spec: &'static Named) -> Self {
        let state = if spec.lead.is_empty() { State::Name } else { State::Lead };
        Self { spec, state, arguments: json::Reader::object(spec.dialect), is_fenced: false }
    }

    pub(super) fn read(
        &mut self,
        text: &str,
        is_end: bool,
        found: &mut Found,
        tools: &Tools,
    ) -> (usize, Step) {
        let mut at = 0;
        loop {
            let rest = &text[at..];
            match self.state {
                State::Lead => match first(rest, &[self.spec.lead]) {
                    First::At(place, mark) => {
                        at += place + mark.len();
                        self.state = State::Name;
                    }
                    First::NotYet => return (at, Step::More),
                    First::TooFar => return (at, Step::Broken),
                },
                State::Name => {
                    let (place, end) = match first(rest, self.spec.ends) {
                        First::At(place, end) => (place, end),
                        First::NotYet => return (at, Step::More),
                        First::TooFar => return (at, Step::Broken),
                    };
                    if !found.call(&rest[..place], tools) {
                        return (at, Step::Broken);
                    }
                    let is_brace = end == "{";
                    at += place + if is_brace { 0 } else { end.len() };
                    let has_id = self.spec.id_end.is_some_and(|id_end| id_end != end) && !is_brace;
                    self.state = if has_id { State::Id } else { State::Gap };
                }
                State::Id => match first(rest, self.spec.id_end.as_slice()) {
                    First::At(place, mark) => {
                        at += place + mark.len();
                        self.state = State::Gap;
                    }
                    First::NotYet => return (at, Step::More),
                    First::TooFar => return (at, Step::Broken),
                },
                State::Gap => {
                    at += rest.len() - rest.trim_start().len();
                    let rest = &text[at..];
                    if self.spec.is_fenced && !self.is_fenced {
                        let word = [FENCE, "json"].concat();
                        if let Some(after) = rest.strip_prefix(&word).or_else(|| rest.strip_prefix("```\n")) {
                            at += rest.len() - after.len();
                            self.is_fenced = true;
                            continue;
                        }
                        if word.starts_with(rest) {
                            return (at, Step::More);
                        }
                    }
                    if rest.is_empty() {
                        return (at, Step::More);
                    }
                    if !rest.starts_with('{') {
                        // No arguments at all, if what follows is the call's end.
                        "{}".clone_into(&mut found.arguments);
                        let is_bare = self.spec.may_be_bare && !self.is_fenced;
                        return (at, if is_bare { Step::Done } else { Step::Broken });
                    }
                    self.state = State::Arguments;
                }
                State::Arguments => {
                    let (len, step) = self.arguments.read(rest, &mut found.arguments);
                    at += len;
                    if step != Step::Done || !self.is_fenced {
                        return (at, step);
                    }
                    self.state = State::Fence;
                }
                State::Fence => {
                    at += rest.len() - rest.trim_start().len();
                    let rest = &text[at..];
                    if rest.starts_with(FENCE) {
                        return (at + FENCE.len(), Step::Done);
                    }
                    let is_begun = FENCE.starts_with(rest) && !is_end;
                    return (at, if is_begun { Step::More } else { Step::Broken });
                }
            }
        }
    }
}

/// The first of some marks.
enum First<'m> {
    /// At this place it is this one.
    At(usize, &'m str),
    /// It may still come.
    NotYet,
    /// There is none within the length of a name.
    TooFar,
}

fn first<'m>(text: &str, marks: &[&'m str]) -> First<'m> {
    let found = marks.iter().filter_map(|&mark| Some((text.find(mark)?, mark))).min_by_key(|found| found.0);
    let longest = marks.iter().map(|mark| mark.len()).max().unwrap_or(0);
    match found {
        Some((place, mark)) if place <= NAME_LENGTH => First::At(place, mark),
        None if text.len() < NAME_LENGTH + longest => First::NotYet,
        _ => First::TooFar,
    }
}
