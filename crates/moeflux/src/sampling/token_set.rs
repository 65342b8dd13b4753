//! Which tokens may be chosen.

/// A set of tokens of a vocabulary, one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u32>,
}

impl TokenSet {
    /// The set of every token below `vocab_size`.
    pub fn full(vocab_size: usize) -> Self {
        let mut words = vec![u32::MAX; vocab_size.div_ceil(32)];
        if let Some(last) = words.last_mut()
            && !vocab_size.is_multiple_of(32)
        {
            *last = (1 << (vocab_size % 32)) - 1;
        }
        Self { words }
    }

    /// The set whose tokens are the bits of `words`, lowest first.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// Whether a token is in it.
    pub fn contains(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// Takes a token out, if it is in.
    pub fn remove(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word &= !(1 << (token % 32));
        }
    }

    /// Whether no token is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Makes the logits (`[vocab_size]`) of all other tokens -∞.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (index, logits) in logits.chunks_mut(32).enumerate() {
            let word = self.words.get(index).copied().unwrap_or(0);
            if word == u32::MAX {
                continue;
            }
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}
