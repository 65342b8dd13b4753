//! Drafts by n-grams (prompt lookup): the tokens that followed when the last ones occurred before.

use std::collections::HashMap;

/// Tokens that have to agree.
const N: usize = 3;

/// The tokens of a sequence, indexed by what follows each [`N`] of them.
#[derive(Clone, Debug, Default)]
pub(super) struct NGrams {
    tokens: Vec<u32>,
    /// Where the last token that followed these stands.
    followers: HashMap<[u32; N], usize>,
}

impl NGrams {
    /// At most `n` tokens that followed the last occurrence of the end of `tokens` and `pending_token`, nearest first.
    /// `tokens` are those of the last call and more.
    pub(super) fn draft(&mut self, tokens: &[u32], pending_token: u32, n: usize) -> &[u32] {
        self.index(tokens);
        let Some(last) = tokens.len().checked_sub(N - 1) else { return &[] };
        let mut gram = [pending_token; N];
        gram[..N - 1].copy_from_slice(&tokens[last..]);
        match self.followers.get(&gram) {
            Some(&at) => &self.tokens[at..self.tokens.len().min(at + n)],
            None => &[],
        }
    }

    fn index(&mut self, tokens: &[u32]) {
        for &token in &tokens[self.tokens.len()..] {
            if let Some(gram) = self.tokens.last_chunk::<N>() {
                self.followers.insert(*gram, self.tokens.len());
            }
            self.tokens.push(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_occurrence_is_what_is_guessed_by() {
        let mut grams = NGrams::default();
        let tokens = [1, 2, 3, 4, 5, 1, 2, 3, 6, 7, 1, 2];
        assert_eq!(grams.draft(&tokens[..7], 3, 4), [4, 5, 1, 2]);
        assert_eq!(grams.draft(&tokens, 3, 4), [6, 7, 1, 2]);
        assert_eq!(grams.draft(&tokens, 3, 1), [6]);
        assert_eq!(grams.draft(&tokens, 9, 4), [0; 0]);
        assert_eq!(NGrams::default().draft(&[1], 2, 4), [0; 0]);
    }

    #[test]
    fn what_has_just_begun_to_repeat_is_guessed_as_far_as_it_goes() {
        assert_eq!(NGrams::default().draft(&[8, 8, 8, 8], 8, 4), [8]);
    }
}
