//! Answers that have begun, which the model continues.

use super::Format;
use super::formats;
use super::harmony::FINAL;
use super::thoughts::{self, Thoughts};
use crate::text::Tokenizer;

/// The beginning of an answer, which the model continues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefill {
    /// Its text.
    pub text: String,
    /// The thoughts before it; empty if there are none.
    pub reasoning: String,
}

impl Prefill {
    /// A prompt that ends where an answer begins, with what there is of the answer.
    pub(super) fn append(&self, mut prompt: String, format: Format, tokenizer: &Tokenizer) -> String {
        let Prefill { text, reasoning } = self;
        if format == Format::Harmony {
            if !reasoning.is_empty() {
                prompt.extend(["<|channel|>analysis<|message|>", reasoning, "<|end|><|start|>assistant"]);
            }
            if !text.is_empty() {
                prompt += FINAL;
            }
            return prompt + text;
        }
        let known = known(format);
        let open = known.iter().find(|marks| marks.is_open_after(&prompt));
        if let Some(marks) = open.or_else(|| known.iter().find(|marks| tokenizer.id(marks.open).is_some())) {
            if !reasoning.is_empty() {
                if open.is_none() {
                    prompt.extend([marks.open, "\n"]);
                }
                prompt += reasoning;
                if !text.is_empty() {
                    prompt.extend(["\n", marks.close, "\n\n"]);
                }
            } else if open.is_some() && !text.is_empty() {
                // The template has begun thoughts that there are none of.
                prompt.truncate(prompt.trim_end().len());
                prompt.extend(["\n", marks.close, "\n\n"]);
            }
        } else if !reasoning.is_empty() {
            tracing::warn!(
                "the model has no marks for thoughts: those of the answer that has begun are left out"
            );
        }
        prompt + text
    }

    /// What a parser has to read before what the model writes after `prompt`, which [`append`](Self::append) made.
    pub(super) fn header(&self, format: Format, prompt: &str) -> String {
        if format == Format::Harmony {
            return if self.text.is_empty() { String::new() } else { FINAL.to_owned() };
        }
        if self.reasoning.is_empty() || !self.text.is_empty() {
            return String::new();
        }
        let before = prompt.strip_suffix(&self.reasoning).unwrap_or(prompt);
        let open = known(format).iter().find(|marks| marks.is_open_after(before));
        open.map(|marks| format!("{}\n", marks.open)).unwrap_or_default()
    }
}

/// The marks of thoughts that a format may have.
fn known(format: Format) -> &'static [Thoughts] {
    match format {
        Format::Plain | Format::Harmony => &[],
        Format::Thoughts => thoughts::ANY,
        Format::Tagged(syntax) => formats::row(syntax).thoughts,
    }
}
