//! Guesses by the model's layer for multi-token prediction.

use std::time::{Duration, Instant};

use moeflux_kernels::{first_logit, largest_logit};

use super::super::runner::{Input, Outputs, Run, Runner};
use crate::backend::CancelToken;
use crate::error::Error;
use crate::model::{Model, Pass};
use crate::sequence::{Position, Sequence};

/// The layer's own sequence, which lags behind the model's: its row for a token needs the token after it. It begins where
/// generation does, so of what the model has read before, the layer sees nothing; that makes guesses worse at most.
#[derive(Debug)]
pub(super) struct Further {
    sequence: Sequence,
    /// What the model made of its last tokens, those that the layer has not read, `[rows, hidden_size]`.
    pending: Vec<f32>,
    hidden_size: usize,
    /// The layer's own last row of its last run that was asked for a guess.
    kept: Vec<f32>,
}

/// Tokens after which the layer reads what is pending though nobody asks for guesses.
const PENDING: usize = 64;

impl Further {
    /// For a sequence of the model; `None` if it has no such layer.
    pub(super) fn new(model: &Model, runner: &Runner) -> Option<Self> {
        let sequence = model.further_sequence(runner.kv_type())?;
        let hidden_size = model.config().decoder().hidden_size;
        Some(Further { sequence, pending: Vec::new(), hidden_size, kept: Vec::new() })
    }

    /// The model has read more, and this is what it made of it.
    pub(super) fn read(
        &mut self,
        model: &Model,
        runner: &mut Runner,
        sequence: &Sequence,
        hidden: &[f32],
    ) -> Result<(), Error> {
        self.pending.extend_from_slice(hidden);
        if self.rows() > PENDING { self.feed(model, runner, sequence, None).map(drop) } else { Ok(()) }
    }

    /// At most `n` tokens that may follow the sequence and `told`, and how long the first and the others took.
    pub(super) fn draft(
        &mut self,
        model: &Model,
        runner: &mut Runner,
        sequence: &Sequence,
        told: u32,
        n: usize,
        cancel: Option<&CancelToken>,
    ) -> Result<(Vec<u32>, [Duration; 2]), Error> {
        let start = Instant::now();
        let mut drafts = Vec::with_capacity(n);
        if self.rows() == 0 {
            return Ok((drafts, [Duration::ZERO; 2]));
        }
        drafts.extend(self.feed(model, runner, sequence, Some((told, cancel)))?);
        let first = start.elapsed();
        let len = self.sequence.len();
        let mut position = sequence.next_position();
        while let Some(&last) = drafts.last().filter(|_| drafts.len() < n) {
            position += 1;
            let given = self.kept[self.kept.len() - self.hidden_size..].to_vec();
            let next = self.run(model, runner, &[last], &[[position; 3]], &given, Outputs::Last, cancel);
            match next {
                Ok(Some(next)) => drafts.push(next),
                Ok(None) => break,
                Err(error) => {
                    self.sequence.rewind(len);
                    return Err(error);
                }
            }
        }
        self.sequence.rewind(len);
        Ok((drafts, [first, start.elapsed().saturating_sub(first)]))
    }

    /// Reads what is pending, as far as the tokens after it are known; the token that follows `told` in its opinion.
    fn feed(
        &mut self,
        model: &Model,
        runner: &mut Runner,
        sequence: &Sequence,
        told: Option<(u32, Option<&CancelToken>)>,
    ) -> Result<Option<u32>, Error> {
        let rows = sequence.len() + 1 - self.rows()..sequence.len();
        let mut tokens = sequence.tokens()[rows.clone()].to_vec();
        let mut positions: Vec<Position> = rows.map(|index| sequence.position(index)).collect();
        let mut outputs = Outputs::None;
        if let Some((told, _)) = told {
            tokens.push(told);
            positions.push([sequence.next_position(); 3]);
            outputs = Outputs::Last;
        }
        let given = std::mem::take(&mut self.pending);
        let read = tokens.len() * self.hidden_size;
        let cancel = told.and_then(|(_, cancel)| cancel);
        let guess = self.run(model, runner, &tokens, &positions, &given[..read], outputs, cancel);
        // A run that failed has read nothing.
        self.pending = if guess.is_ok() { given[read..].to_vec() } else { given };
        guess
    }

    /// One run of the layer, which its sequence takes.
    #[expect(clippy::too_many_arguments, reason = "the parts of one step, each once")]
    fn run(
        &mut self,
        model: &Model,
        runner: &mut Runner,
        tokens: &[u32],
        positions: &[Position],
        given: &[f32],
        outputs: Outputs,
        cancel: Option<&CancelToken>,
    ) -> Result<Option<u32>, Error> {
        let mut input =
            Input { outputs, positions: Some(positions), ..Input::new(&mut self.sequence, tokens) };
        let kept = (outputs != Outputs::None).then_some(&mut self.kept);
        let run = Run { given, kept, ..Run::new(Pass::Further, cancel) };
        let logits = runner.forward(model, std::slice::from_mut(&mut input), run, None)?;
        // Logits that nothing can be chosen by are no guess.
        let guess = largest_logit(logits).ok().and_then(|largest| first_logit(logits, largest));
        input.commit(tokens.len())?;
        Ok(guess.map(|token| token as u32))
    }

    fn rows(&self) -> usize {
        self.pending.len() / self.hidden_size
    }
}
