//! How many tokens of prompts a step may read while others wait, from how long steps have taken.

use std::time::Duration;

use super::Limits;

/// Time that a step may take after which a token is chosen.
const MIXED_STEP: f64 = 0.1;
/// Time that a step may take while requests of several callers are there.
const SHARED_STEP: f64 = 0.3;
/// Fewest tokens of such steps: with fewer, reading the weights takes most of the time.
const LEAST: usize = 64;
/// Fewest tokens of a step whose time says how long a token takes.
const MEASURED: usize = 16;

/// Measures steps with prompts and derives the sizes of the next ones.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct StepSize {
    /// Tokens of a step after which a token is chosen, if they are set.
    mixed: Option<usize>,
    /// Seconds that a token of a prompt takes, if that is known.
    token_seconds: Option<f64>,
}

impl StepSize {
    /// Sizes that are still to be measured, but for the tokens of a step after which a token is chosen where they are set.
    pub(in crate::engine) fn new(mixed: Option<usize>) -> Self {
        StepSize { mixed, token_seconds: None }
    }

    /// Notes that a step with prompts took so long for so many tokens in all.
    pub(in crate::engine) fn note(&mut self, tokens: usize, elapsed: Duration) {
        if tokens >= MEASURED {
            let seconds = elapsed.as_secs_f64() / tokens as f64;
            self.token_seconds =
                Some(self.token_seconds.map_or(seconds, |before| before * 0.75 + seconds * 0.25));
        }
    }

    /// The limits with sizes that take about [`MIXED_STEP`] and [`SHARED_STEP`], where they are not set.
    pub(in crate::engine) fn limits(&self, limits: Limits) -> Limits {
        let tokens = |seconds: f64| match self.token_seconds {
            Some(each) if each > 0.0 => ((seconds / each) as usize).max(LEAST),
            _ => LEAST,
        };
        let mixed_tokens = self.mixed.unwrap_or_else(|| tokens(MIXED_STEP));
        Limits { mixed_tokens, shared_tokens: tokens(SHARED_STEP).max(mixed_tokens), ..limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { running: 1, prefill_chunk: 512, shared_tokens: 0, mixed_tokens: 0, state_bytes: None };

    #[test]
    fn sizes_follow_what_steps_take() {
        let mut size = StepSize::new(None);
        let of = |size: StepSize, mixed| {
            let Limits { shared_tokens, mixed_tokens, .. } = StepSize { mixed, ..size }.limits(LIMITS);
            (shared_tokens, mixed_tokens)
        };
        assert_eq!(of(size, None), (64, 64));
        // A step of one token says little of a prompt's.
        size.note(1, Duration::from_secs(1));
        assert_eq!(of(size, None), (64, 64));
        size.note(1024, Duration::from_secs(1));
        assert_eq!(of(size, None), (307, 102));
        assert_eq!(of(size, Some(7)), (307, 7));
        assert_eq!(of(size, Some(500)), (500, 500));
        // A slow machine reads some tokens in each step all the same.
        (0..50).for_each(|_| size.note(64, Duration::from_secs(2)));
        assert_eq!(of(size, None), (64, 64));
    }
}
