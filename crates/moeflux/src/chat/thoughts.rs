//! The markers around thoughts.

use crate::text::THINK as COMMON;

/// What opens and closes thoughts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thoughts {
    pub(super) open: &'static str,
    pub(super) close: &'static str,
}

const fn between(open: &'static str, close: &'static str) -> Thoughts {
    Thoughts { open, close }
}

const COMMON_TAGS: Thoughts = between(COMMON.open, COMMON.close);
const SEED_TAGS: Thoughts = between("<seed:think>", "</seed:think>");
const MISTRAL_MARKS: Thoughts = between("[THINK]", "[/THINK]");
const GEMMA_CHANNEL: Thoughts = between("<|channel>thought", "<channel|>");

pub(super) const THINK: &[Thoughts] = &[COMMON_TAGS];
pub(super) const SEED: &[Thoughts] = &[SEED_TAGS, COMMON_TAGS];
pub(super) const MISTRAL: &[Thoughts] = &[MISTRAL_MARKS, COMMON_TAGS];
pub(super) const GEMMA: &[Thoughts] = &[GEMMA_CHANNEL];
pub(super) const HUNYUAN: &[Thoughts] = &[between("<think:opensource>", "</think:opensource>"), COMMON_TAGS];
pub(super) const APRIEL: &[Thoughts] =
    &[between("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"), COMMON_TAGS];
pub(super) const COHERE: &[Thoughts] = &[between("<|START_THINKING|>", "<|END_THINKING|>")];
pub(super) const APERTUS: &[Thoughts] = &[between("<|inner_prefix|>", "<|inner_suffix|>")];
pub(super) const KIMI_K3: &[Thoughts] = &[between("<|open|>think<|sep|>", "<|close|>think<|sep|>")];

/// Those of models whose calls are not known.
pub(super) const ANY: &[Thoughts] =
    &[COMMON_TAGS, SEED_TAGS, MISTRAL_MARKS, GEMMA_CHANNEL, between("<mm:think>", "</mm:think>")];

impl Thoughts {
    /// Whether a prompt ends inside thoughts: templates that ask for them leave a block open.
    pub(super) fn is_open_after(self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open)
    }
}
