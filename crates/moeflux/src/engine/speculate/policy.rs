//! How many tokens to draft, and by what: as many as make the most tokens a second, by what was measured.

use std::time::Duration;

use super::MAX_DRAFT;

/// What drafts are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Source {
    NGrams,
    Mtp,
}

/// What steps and drafts have cost, of all sequences of an engine. It is about speed alone.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Policy {
    /// Seconds of a step of so many tokens less one.
    steps: Vec<Mean>,
    /// Seconds of a source's first draft.
    first: [Mean; 2],
    /// Seconds of each further draft.
    each: [Mean; 2],
    /// How often drafts of all sequences were right.
    pub(super) acceptance: Acceptance,
    /// Steps so far.
    turns: u64,
}

/// How often each draft of a source was right where those before it were.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Acceptance([[Mean; MAX_DRAFT]; 2]);

/// What is expected of the step that is being planned.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct StepEstimate {
    /// Tokens to read.
    rows: usize,
    /// Tokens that will have been chosen after it.
    tokens: f64,
    /// Seconds that drafts take.
    drafting: f64,
}

/// A mean that forgets.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    value: f64,
    count: u32,
}

/// What a further token is taken to cost of a step of one token before that is known.
const ROW: f64 = 0.25;
/// How often a first draft is taken to be right before that is known; a later one as often as the one before it.
const HOPE: f64 = 0.6;
/// How many of a sequence's own drafts weigh as much as those of all.
const PRIOR: f64 = 4.0;
/// How often what does not pay is tried all the same: conditions change.
const TRIAL: u64 = 48;
/// Largest step whose time is measured, in tokens.
const MAX_ROWS: usize = 512;

impl Policy {
    /// Begins to plan a step of so many tokens before drafts, one of each sequence that decodes.
    pub(super) fn begin_step(&mut self, rows: usize) -> StepEstimate {
        self.turns += 1;
        StepEstimate { rows, tokens: rows as f64, drafting: 0.0 }
    }

    /// The source, of those at hand with the most tokens that each can draft, and how many tokens one sequence of the step is
    /// to draft; `None` for none.
    pub(super) fn choose(
        &self,
        own: &Acceptance,
        sources: &[(Source, usize)],
        estimate: &StepEstimate,
    ) -> Option<(Source, usize)> {
        let choices = sources.iter().flat_map(|&(source, most)| (1..=most).map(move |n| (source, n)));
        let rate = |&(source, n): &(Source, usize)| self.rate(&self.with(own, source, n, estimate));
        let best = choices.max_by(|a, b| rate(a).total_cmp(&rate(b)));
        let best = best.filter(|choice| rate(choice) > self.rate(estimate));
        // The first steps and one now and then are without drafts, to have what to compare with.
        let due = self.turns.is_multiple_of(TRIAL);
        match best {
            Some(_) if due || self.mean(estimate.rows).count < 2 => None,
            None if due => sources.iter().find(|&&(_, most)| most > 0).map(|&(source, _)| (source, 1)),
            best => best,
        }
    }

    /// Adds a sequence's drafts to the step.
    pub(super) fn add(&self, own: &Acceptance, source: Source, n: usize, estimate: &mut StepEstimate) {
        *estimate = self.with(own, source, n, estimate);
    }

    /// A step of so many tokens took so long.
    pub(in crate::engine) fn stepped(&mut self, rows: usize, time: Duration) {
        if (1..=MAX_ROWS).contains(&rows) {
            if self.steps.len() < rows {
                self.steps.resize(rows, Mean::default());
            }
            self.steps[rows - 1].add_time(time);
        }
    }

    /// A source's first draft took so long, and each further one.
    pub(super) fn add_draft_time(&mut self, source: Source, first: Duration, each: Option<Duration>) {
        self.first[source as usize].add_time(first);
        if let Some(each) = each {
            self.each[source as usize].add_time(each);
        }
    }

    /// The step with `n` more drafts.
    fn with(&self, own: &Acceptance, source: Source, n: usize, estimate: &StepEstimate) -> StepEstimate {
        let (mut tokens, mut likely, mut right) = (estimate.tokens, 1.0, HOPE);
        for (own, all) in own.0[source as usize].iter().zip(&self.acceptance.0[source as usize]).take(n) {
            let prior = all.get().unwrap_or(right);
            let weight = f64::from(own.count);
            right = (weight * own.value + PRIOR * prior) / (weight + PRIOR);
            likely *= right;
            tokens += likely;
        }
        let unknown = match source {
            Source::NGrams => 0.0,
            Source::Mtp => ROW * self.step(1),
        };
        let cost = |mean: &Mean| mean.get().unwrap_or(unknown);
        let draft = cost(&self.first[source as usize]) + (n - 1) as f64 * cost(&self.each[source as usize]);
        StepEstimate { rows: estimate.rows + n, tokens, drafting: estimate.drafting + draft }
    }

    /// Tokens a second.
    fn rate(&self, estimate: &StepEstimate) -> f64 {
        estimate.tokens / (self.step(estimate.rows) + estimate.drafting)
    }

    fn mean(&self, rows: usize) -> Mean {
        self.steps.get(rows - 1).copied().unwrap_or_default()
    }

    /// Seconds of a step of so many tokens: measured, or drawn from the nearest steps that were.
    fn step(&self, rows: usize) -> f64 {
        let known = |rows: usize| Some((rows as f64, self.mean(rows).get()?));
        let below = (1..=rows.min(self.steps.len())).rev().find_map(known);
        let above = (rows + 1..=self.steps.len()).find_map(known);
        let rows = rows as f64;
        let line = |n: f64, seconds: f64| seconds * (1.0 + ROW * (rows - 1.0)) / (1.0 + ROW * (n - 1.0));
        match (below, above) {
            (Some((n, seconds)), _) if n == rows => seconds,
            (Some((n, seconds)), Some((n_above, seconds_above))) => {
                seconds + (seconds_above - seconds) * (rows - n) / (n_above - n)
            }
            (Some((n, seconds)), None) => {
                let (n_first, seconds_first) = (1..=self.steps.len()).find_map(known).unwrap_or((n, seconds));
                if n_first < n {
                    seconds + ((seconds - seconds_first) / (n - n_first)).max(0.0) * (rows - n)
                } else {
                    line(n, seconds)
                }
            }
            (None, Some((n, seconds))) => line(n, seconds),
            (None, None) => line(1.0, 1.0),
        }
    }
}

impl Acceptance {
    /// Of a source's drafts the first `accepted` were right.
    pub(super) fn judged(&mut self, source: Source, drafted: usize, accepted: usize) {
        let right = &mut self.0[source as usize];
        for (index, mean) in right[..drafted.min(accepted + 1)].iter_mut().enumerate() {
            mean.add(f64::from(u8::from(index < accepted)));
        }
    }
}

impl Mean {
    /// What counts of the past.
    const MEMORY: u32 = 24;

    fn get(self) -> Option<f64> {
        (self.count > 0).then_some(self.value)
    }

    fn add(&mut self, value: f64) {
        self.count = (self.count + 1).min(Self::MEMORY);
        self.value += (value - self.value) / f64::from(self.count);
    }

    /// A time, of which a delay by other programs counts little.
    fn add_time(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.add(if self.count > 2 { seconds.min(2.0 * self.value) } else { seconds });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is chosen most often of up to four drafts by each of several sequences, of which one token more costs `row` of a
    /// step and a draft is right so often of ten.
    fn learned(row: f64, right: &[usize]) -> Vec<usize> {
        let mut policy = Policy::default();
        let mut acceptances = vec![Acceptance::default(); right.len()];
        let mut chosen = vec![[0; MAX_DRAFT + 1]; right.len()];
        let each = Duration::from_micros(50);
        for turn in 0..2000 {
            let mut estimate = policy.begin_step(right.len());
            let mut rows = right.len();
            for (index, acceptance) in acceptances.iter_mut().enumerate() {
                let n = policy.choose(acceptance, &[(Source::Mtp, 4)], &estimate).map_or(0, |(_, n)| n);
                if n > 0 {
                    policy.add(acceptance, Source::Mtp, n, &mut estimate);
                    let accepted = |guess: &usize| (turn * 7 + guess * 3) % 10 < right[index];
                    let accepted = (0..n).take_while(accepted).count();
                    policy.add_draft_time(Source::Mtp, each, (n > 1).then_some(each));
                    acceptance.judged(Source::Mtp, n, accepted);
                    policy.acceptance.judged(Source::Mtp, n, accepted);
                }
                rows += n;
                chosen[index][n] += usize::from(turn >= 500);
            }
            policy.stepped(rows, Duration::from_secs_f64(1e-3 * (1.0 + row * (rows - 1) as f64)));
        }
        let most =
            |chosen: &[usize; MAX_DRAFT + 1]| (0..chosen.len()).max_by_key(|&n| chosen[n]).unwrap_or(0);
        chosen.iter().map(most).collect()
    }

    #[test]
    fn drafts_are_made_where_they_pay() {
        assert_eq!(learned(0.05, &[10]), [4]);
        assert!(learned(0.3, &[8])[0] >= 1);
        assert_eq!(learned(1.0, &[8]), [0]);
        assert_eq!(learned(0.3, &[0]), [0]);
    }

    #[test]
    fn each_sequence_of_a_batch_is_decided_for_itself() {
        assert_eq!(learned(0.02, &[10, 0, 10, 0]), [4, 0, 4, 0]);
        assert_eq!(learned(2.0, &[10, 0, 10, 0]), [0; 4]);
    }
}
