//! Separates what a model thinks (`<think>…</think>`) from what it answers, while the text streams.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Which of the two a piece of text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Reasoning,
    Answer,
}

/// Streaming splitter. The tags, and the line breaks beside them, belong to neither part.
pub(crate) struct ReasoningSplitter {
    part: Part,
    /// Nothing of the present part has been given out yet.
    at_start: bool,
    held: String,
}

impl ReasoningSplitter {
    /// A splitter for the text that follows `prompt`: templates that ask for thinking leave `<think>` open at
    /// its end.
    pub(crate) fn after(prompt: &str) -> Self {
        let thinking = prompt.trim_end().ends_with(OPEN);
        let part = if thinking { Part::Reasoning } else { Part::Answer };
        Self { part, at_start: true, held: String::new() }
    }

    /// Takes the next text and gives out, through `give`, what of it is certain.
    pub(crate) fn push(&mut self, text: &str, give: &mut dyn FnMut(Part, &str)) {
        self.held.push_str(text);
        while let Some(at) = self.tag().and_then(|tag| self.held.find(tag)) {
            let rest = self.held.split_off(at);
            let before = std::mem::take(&mut self.held);
            self.give(before.trim_end_matches('\n'), give);
            let (tag, next) = match self.part {
                Part::Reasoning => (CLOSE, Part::Answer),
                Part::Answer => (OPEN, Part::Reasoning),
            };
            (self.part, self.at_start) = (next, true);
            rest[tag.len()..].clone_into(&mut self.held);
        }
        let held_from = self.held.len() - self.uncertain();
        let rest = self.held.split_off(held_from);
        let certain = std::mem::replace(&mut self.held, rest);
        self.give(&certain, give);
    }

    /// Gives out what was held back; the text has ended.
    pub(crate) fn finish(&mut self, give: &mut dyn FnMut(Part, &str)) {
        let held = std::mem::take(&mut self.held);
        self.give(&held, give);
    }

    /// The tag that would end the present part. An answer that has begun is not left again.
    fn tag(&self) -> Option<&'static str> {
        match self.part {
            Part::Reasoning => Some(CLOSE),
            Part::Answer if self.at_start && self.held.trim_start().starts_with(OPEN) => Some(OPEN),
            Part::Answer => None,
        }
    }

    /// Length of the tail of `held` that later text may turn into a tag or into the line breaks before one.
    fn uncertain(&self) -> usize {
        match self.part {
            Part::Reasoning => {
                let partial = partial_tag(&self.held, CLOSE);
                let before = &self.held[..self.held.len() - partial];
                self.held.len() - before.trim_end_matches('\n').len()
            }
            Part::Answer if self.at_start && OPEN.starts_with(self.held.trim_start()) => self.held.len(),
            Part::Answer => 0,
        }
    }

    fn give(&mut self, text: &str, give: &mut dyn FnMut(Part, &str)) {
        let text = if self.at_start { text.trim_start_matches('\n') } else { text };
        if !text.is_empty() {
            self.at_start = false;
            give(self.part, text);
        }
    }
}

/// Length of the longest end of `text` that begins `tag`.
fn partial_tag(text: &str, tag: &str) -> usize {
    (1..tag.len()).rev().find(|&n| text.ends_with(&tag[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits `text` fed in pieces of `step` characters: (reasoning, answer).
    fn split(prompt: &str, text: &str, step: usize) -> (String, String) {
        let (mut reasoning, mut answer) = (String::new(), String::new());
        let mut splitter = ReasoningSplitter::after(prompt);
        let mut give = |part, text: &str| match part {
            Part::Reasoning => reasoning.push_str(text),
            Part::Answer => answer.push_str(text),
        };
        let characters: Vec<char> = text.chars().collect();
        for piece in characters.chunks(step) {
            splitter.push(&piece.iter().collect::<String>(), &mut give);
        }
        splitter.finish(&mut give);
        (reasoning, answer)
    }

    #[test]
    fn thinking_left_open_by_the_prompt() {
        for step in 1..40 {
            let parts =
                split("assistant\n<think>\n", "A sum.\n\nIt is <42>.\n</think>\n\n17 + 25\n\n= 42.", step);
            assert_eq!(
                parts,
                ("A sum.\n\nIt is <42>.".to_owned(), "17 + 25\n\n= 42.".to_owned()),
                "step {step}"
            );
        }
    }

    #[test]
    fn thinking_opened_by_the_model() {
        for step in 1..40 {
            let parts = split("assistant\n", "<think>\nHm…\n</think>\n\nYes.", step);
            assert_eq!(parts, ("Hm…".to_owned(), "Yes.".to_owned()), "step {step}");
        }
    }

    #[test]
    fn an_answer_may_talk_about_tags() {
        for step in 1..40 {
            let parts = split("<think>\n\n</think>\n\n", "The tags are <think> and </think>\n", step);
            assert_eq!(
                parts,
                (String::new(), "The tags are <think> and </think>\n".to_owned()),
                "step {step}"
            );
        }
    }

    #[test]
    fn thinking_that_never_ends() {
        assert_eq!(split("<think>\n", "and so on\n</thi", 3), ("and so on\n</thi".to_owned(), String::new()));
    }
}
