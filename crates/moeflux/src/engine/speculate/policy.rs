//! How many tokens to guess, and by what: as many as make the most tokens a second by what was measured.

use std::time::Duration;

use super::MAX_DRAFT;

/// What guesses are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Source {
    Lookup,
    Further,
}

/// What steps have cost and how often guesses were right, of all sequences of an engine. It is about speed alone.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Policy {
    /// Seconds of a step of so many rows less one.
    steps: [Mean; MAX_DRAFT + 1],
    /// Seconds of a source's first guess.
    first: [Mean; 2],
    /// Seconds of each further guess.
    each: [Mean; 2],
    /// How often each guess of a source was right where those before it were.
    right: [[Mean; MAX_DRAFT]; 2],
    /// Choices so far.
    turns: u64,
}

/// A mean that forgets.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    value: f64,
    count: u32,
}

/// What a further row is taken to cost of a step of one row before that is known.
const ROW: f64 = 0.25;
/// How often a first guess is taken to be right before that is known; a later one as often as the one before it.
const HOPE: f64 = 0.6;
/// How often what does not pay is tried all the same: conditions change.
const TRIAL: u64 = 48;

impl Policy {
    /// The source, of those at hand with the most tokens that each can guess, and how many to guess; `None` for none.
    pub(super) fn choose(&mut self, sources: &[(Source, usize)]) -> Option<(Source, usize)> {
        self.turns += 1;
        let choices = sources.iter().flat_map(|&(source, most)| (1..=most).map(move |n| (source, n)));
        let rate = |&(source, n): &(Source, usize)| self.rate(source, n);
        let best = choices.max_by(|a, b| rate(a).total_cmp(&rate(b)));
        let best = best.filter(|choice| rate(choice) > 1.0 / self.step(0));
        // The first steps and one now and then are without guesses, to have what to compare with.
        let due = self.turns.is_multiple_of(TRIAL);
        match best {
            Some(_) if due || self.steps[0].count < 2 => None,
            None if due => sources.first().map(|&(source, _)| (source, 1)),
            best => best,
        }
    }

    /// A step of one token and `drafted` guesses took so long.
    pub(super) fn stepped(&mut self, drafted: usize, time: Duration) {
        self.steps[drafted].add_time(time);
    }

    /// A source's guesses took so long, the first and all others.
    pub(super) fn drafted(&mut self, source: Source, n: usize, first: Duration, others: Duration) {
        self.first[source as usize].add_time(first);
        if n > 1 {
            self.each[source as usize].add_time(others / (n - 1) as u32);
        }
    }

    /// Of a source's guesses the first `accepted` were right.
    pub(super) fn judged(&mut self, source: Source, drafted: usize, accepted: usize) {
        let right = &mut self.right[source as usize];
        for (index, mean) in right[..drafted.min(accepted + 1)].iter_mut().enumerate() {
            mean.add(f64::from(u8::from(index < accepted)));
        }
    }

    /// Tokens a second.
    fn rate(&self, source: Source, n: usize) -> f64 {
        let (mut tokens, mut likely, mut right) = (1.0, 1.0, HOPE);
        for mean in &self.right[source as usize][..n] {
            right = mean.get().unwrap_or(right);
            likely *= right;
            tokens += likely;
        }
        let unknown = match source {
            Source::Lookup => 0.0,
            Source::Further => ROW * self.step(0),
        };
        let cost = |mean: &Mean| mean.get().unwrap_or(unknown);
        let draft = cost(&self.first[source as usize]) + (n - 1) as f64 * cost(&self.each[source as usize]);
        tokens / (self.step(n) + draft)
    }

    /// Seconds of a step with so many guesses: measured, or drawn on from the nearest shorter one that was.
    fn step(&self, drafted: usize) -> f64 {
        let known = (0..=drafted).rev().find_map(|n| Some((n, self.steps[n].get()?)));
        let (n, seconds) = known.unwrap_or((0, 1.0));
        let alone = self.steps[0].get().unwrap_or(1.0);
        let row = if n > 0 { ((seconds - alone) / n as f64).max(0.0) } else { ROW * alone };
        seconds + (drafted - n) as f64 * row
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

    /// A time, of which what someone else took counts little.
    fn add_time(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.add(if self.count > 2 { seconds.min(2.0 * self.value) } else { seconds });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &[(Source, usize)] = &[(Source::Further, 4)];

    /// What is chosen most often once a row costs `row` of a step and a guess is right so often.
    fn learned(row: f64, right: usize) -> usize {
        let mut policy = Policy::default();
        let mut chosen = [0; MAX_DRAFT + 1];
        for turn in 0..2000 {
            let n = policy.choose(SOURCES).map_or(0, |(_, n)| n);
            let accepted = (0..n).take_while(|guess| (turn * 7 + guess * 3) % 10 < right).count();
            policy.stepped(n, Duration::from_secs_f64(1e-3 * (1.0 + row * n as f64)));
            if n > 0 {
                let each = Duration::from_micros(50);
                policy.drafted(Source::Further, n, each, each * (n as u32 - 1));
                policy.judged(Source::Further, n, accepted);
            }
            if turn >= 500 {
                chosen[n] += 1;
            }
        }
        (0..chosen.len()).max_by_key(|&n| chosen[n]).unwrap_or(0)
    }

    #[test]
    fn guesses_are_made_where_they_pay() {
        assert_eq!(learned(0.05, 10), 4);
        assert!(learned(0.3, 8) >= 1);
        assert_eq!(learned(1.0, 8), 0);
        assert_eq!(learned(0.3, 0), 0);
    }
}
