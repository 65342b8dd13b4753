//! Penalties for tokens that have occurred.

use std::collections::{HashMap, VecDeque};

use super::SamplingOptions;

/// Which tokens have occurred, and what that costs them.
#[derive(Debug, Clone)]
pub(super) struct Penalties {
    repetition: f32,
    presence: f32,
    frequency: f32,
    /// Number of last tokens that count; 0 is all.
    window: usize,
    /// The tokens in the window, oldest first; not kept without one.
    history: VecDeque<(u32, Origin)>,
    occurrences: HashMap<u32, Occurrences>,
}

/// Where a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Prompt,
    Output,
}

#[derive(Debug, Clone, Copy, Default)]
struct Occurrences {
    prompt: u32,
    output: u32,
}

impl Penalties {
    pub(super) fn new(options: &SamplingOptions) -> Self {
        Self {
            repetition: options.repetition_penalty,
            presence: options.presence_penalty,
            frequency: options.frequency_penalty,
            window: options.penalty_window,
            history: VecDeque::new(),
            occurrences: HashMap::new(),
        }
    }

    /// Whether [`apply`](Self::apply) would do nothing, whatever has occurred.
    pub(super) fn are_off(&self) -> bool {
        self.repetition == 1.0 && self.presence == 0.0 && self.frequency == 0.0
    }

    /// Counts one more token.
    pub(super) fn record(&mut self, token: u32, origin: Origin) {
        if self.are_off() {
            return;
        }
        *self.occurrences.entry(token).or_default().of(origin) += 1;
        if self.window == 0 {
            return;
        }
        self.history.push_back((token, origin));
        if self.history.len() > self.window
            && let Some((token, origin)) = self.history.pop_front()
            && let Some(occurrences) = self.occurrences.get_mut(&token)
        {
            *occurrences.of(origin) -= 1;
            if occurrences.prompt + occurrences.output == 0 {
                self.occurrences.remove(&token);
            }
        }
    }

    /// Changes the logits (`[vocab_size]`) of the tokens that have occurred: first repetition (transformers'
    /// `RepetitionPenaltyLogitsProcessor`), then frequency and presence (as OpenAI defines them).
    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (&token, occurrences) in &self.occurrences {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            if *logit < 0.0 {
                *logit *= self.repetition;
            } else {
                *logit /= self.repetition;
            }
            if occurrences.output > 0 {
                *logit -= self.frequency * occurrences.output as f32;
                *logit -= self.presence;
            }
        }
    }
}

impl Occurrences {
    fn of(&mut self, origin: Origin) -> &mut u32 {
        match origin {
            Origin::Prompt => &mut self.prompt,
            Origin::Output => &mut self.output,
        }
    }
}
