//! Guesses at what a layer's router will say, made early enough for reads to begin.
//!
//! A hint never changes the output: it asks the store for experts that a fetch may want soon.

use std::time::Instant;

use crate::options::HintMode;

/// Hints of one engine, and whether they are worth it.
///
/// The rule of `Auto`: steps that read a prompt always look ahead, since they want nearly all experts and the disk would
/// rest while the layer's other parts compute. Decoding looks ahead too, for [`KEEP`] steps; then it is measured: of
/// [`TRIAL`] steps every other one looks ahead, and the following [`KEEP`] steps do so unless the median of those that did
/// not is shorter by at least 2 %. The first steps after a prompt would be a poor trial: the cache holds what the prompt
/// used last, and there is less to guess the longer decoding goes on.
#[derive(Debug)]
pub(crate) struct Hints {
    mode: HintMode,
    /// What the last token chose, by layer.
    last: Vec<Vec<u32>>,
    phase: Phase,
    /// When the step of decoding that is now running began.
    began: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    /// Seconds of the steps so far, without hints and with them in turns.
    Trial(Vec<f64>),
    /// Whether to look ahead, and for how many more steps.
    Keep(bool, usize),
}

const TRIAL: usize = 24;
const KEEP: usize = 128;

impl Hints {
    pub(crate) fn new(mode: HintMode) -> Self {
        Hints { mode, last: Vec::new(), phase: Phase::Keep(true, KEEP), began: None }
    }

    /// The kind of hints that the next step gives: one that reads a prompt, or one of decoding.
    pub(crate) fn begin_step(&mut self, is_prefill: bool) -> HintMode {
        self.began = None;
        match (&self.phase, self.mode) {
            (_, HintMode::Auto) if is_prefill => HintMode::Lookahead,
            (phase, HintMode::Auto) => {
                self.began = Some(Instant::now());
                let on = match phase {
                    Phase::Trial(times) => times.len() % 2 == 1,
                    Phase::Keep(on, _) => *on,
                };
                if on { HintMode::Lookahead } else { HintMode::Off }
            }
            (_, mode) => mode,
        }
    }

    /// Notes that the step is done.
    pub(crate) fn end_step(&mut self) {
        if let Some(began) = self.began.take() {
            self.record(began.elapsed().as_secs_f64());
        }
    }

    fn record(&mut self, seconds: f64) {
        match &mut self.phase {
            Phase::Trial(times) => {
                times.push(seconds);
                if times.len() == TRIAL {
                    let every_other = |first: usize| {
                        let mut times: Vec<f64> = times.iter().copied().skip(first).step_by(2).collect();
                        times.sort_by(f64::total_cmp);
                        times[times.len() / 2]
                    };
                    let (without, with) = (every_other(0), every_other(1));
                    self.phase = Phase::Keep(without > 0.98 * with, KEEP);
                }
            }
            Phase::Keep(_, 1) => self.phase = Phase::Trial(Vec::new()),
            Phase::Keep(_, left) => *left -= 1,
        }
    }

    /// Notes what a layer's router chose.
    pub(crate) fn chosen(&mut self, layer: usize, experts: &[u32]) {
        if self.mode != HintMode::Last {
            return;
        }
        if self.last.len() <= layer {
            self.last.resize_with(layer + 1, Vec::new);
        }
        self.last[layer].clear();
        self.last[layer].extend_from_slice(experts);
    }

    /// What was chosen in a layer the last time.
    pub(crate) fn last(&self, layer: usize) -> &[u32] {
        self.last.get(layer).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs steps of such times without hints and with them; how many of the steps after the trial look ahead.
    fn kept(without: f64, with: f64) -> usize {
        let mut hints = Hints::new(HintMode::Auto);
        let mut ahead = 0;
        for step in 0..KEEP + TRIAL + KEEP {
            let looks_ahead = hints.begin_step(false) == HintMode::Lookahead;
            if step < KEEP {
                assert!(looks_ahead);
            } else if step >= KEEP + TRIAL {
                ahead += usize::from(looks_ahead);
            } else {
                assert_eq!(looks_ahead, (step - KEEP) % 2 == 1);
            }
            hints.record(if looks_ahead { with } else { without });
        }
        assert!(matches!(&hints.phase, Phase::Trial(times) if times.is_empty()), "it is tried again");
        ahead
    }

    #[test]
    fn what_is_faster_is_kept() {
        assert_eq!((kept(1.0, 0.9), kept(1.0, 1.01), kept(1.0, 1.1)), (KEEP, KEEP, 0));
    }

    #[test]
    fn prompts_are_no_steps_of_decoding() {
        let mut hints = Hints::new(HintMode::Auto);
        assert_eq!(hints.begin_step(true), HintMode::Lookahead);
        hints.end_step();
        assert!(matches!(hints.phase, Phase::Keep(true, KEEP)), "no step of decoding has passed");
        assert_eq!(Hints::new(HintMode::Off).begin_step(true), HintMode::Off);
    }
}
