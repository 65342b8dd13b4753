//! Guesses for one sequence, and what comes of them.

use std::time::{Duration, Instant};

use super::super::runner::{Input, Outputs, Run, Runner};
use super::further::Further;
use super::ngrams::NGrams;
use super::policy::Source;
use super::{MAX_DRAFT, Speculate, Speculated, option};
use crate::backend::CancelToken;
use crate::error::Error;
use crate::model::{Model, Pass};
use crate::sequence::Sequence;

/// Guesses what one sequence goes on with: asked before a step of its ([`draft`](Self::draft)), told after it what was
/// read ([`read`](Self::read)) and which guesses were chosen ([`judge`](Self::judge)).
#[derive(Debug)]
pub(in crate::engine) struct Drafter {
    how: Speculate,
    lookup: Option<NGrams>,
    further: Option<Further>,
    /// By what the guesses of the step that runs were made.
    source: Option<Source>,
    speculated: Speculated,
}

/// Tokens that a step reads ahead: one that was told of, and guesses of the ones after it.
#[derive(Debug)]
pub(in crate::engine) struct Ahead {
    pub(in crate::engine) tokens: Vec<u32>,
    /// Of each, `[tokens, vocab_size]`.
    logits: Vec<f32>,
    /// What further guesses are made by, of each.
    hidden: Vec<f32>,
    /// How many of the tokens were told of.
    pub(in crate::engine) used: usize,
}

impl Ahead {
    /// Reads `told` and guesses; nothing is committed.
    pub(in crate::engine) fn run(
        (model, runner): (&Model, &mut Runner),
        sequence: &mut Sequence,
        drafter: &mut Drafter,
        told: u32,
        most: usize,
        cancel: Option<&CancelToken>,
    ) -> Result<Self, Error> {
        let mut tokens = vec![told];
        tokens.extend(drafter.draft(model, runner, sequence, told, most, cancel)?);
        let (start, mut hidden) = (Instant::now(), Vec::new());
        let run =
            Run { keep_each: tokens.len() > 1, kept: Some(&mut hidden), ..Run::new(drafter.pass(), cancel) };
        let input = Input { outputs: Outputs::All, ..Input::new(sequence, &tokens) };
        let logits = runner.forward(model, &mut [input], run, None)?.to_vec();
        runner.policy.stepped(tokens.len() - 1, start.elapsed());
        Ok(Ahead { tokens, logits, hidden, used: 0 })
    }

    /// The logits after `told`, if it is the next of the tokens.
    pub(in crate::engine) fn take(&mut self, told: u32) -> Option<&[f32]> {
        let index = self.used;
        let vocab_size = self.logits.len() / self.tokens.len();
        (self.tokens.get(index) == Some(&told)).then(|| {
            self.used += 1;
            &self.logits[index * vocab_size..(index + 1) * vocab_size]
        })
    }

    /// Has the sequence keep the tokens that were told of.
    pub(in crate::engine) fn commit(&self, sequence: &mut Sequence) -> Result<(), Error> {
        if self.used == 0 {
            return Ok(());
        }
        Input::new(sequence, &self.tokens).commit(self.used)
    }

    /// What the model made of those.
    pub(in crate::engine) fn hidden(&self) -> &[f32] {
        &self.hidden[..self.hidden.len() / self.tokens.len() * self.used]
    }
}

impl Drafter {
    /// Most tokens guessed by lookup where nothing is measured.
    const LOOKUP: usize = 4;
    /// Most tokens guessed by the layer for multi-token prediction where that is measured.
    const FURTHER: usize = 3;

    /// For a sequence of the model; `None` if nothing is to be guessed.
    pub(in crate::engine) fn new(
        how: Speculate,
        model: &Model,
        runner: &Runner,
    ) -> Result<Option<Self>, Error> {
        how.validate()?;
        let (lookup, further) = match how {
            Speculate::Off => return Ok(None),
            Speculate::Auto => (Some(NGrams::default()), Further::new(model, runner)),
            Speculate::Lookup => (Some(NGrams::default()), None),
            Speculate::Mtp { .. } => (
                None,
                Some(Further::new(model, runner).ok_or_else(|| {
                    option(
                        "auto, off or ngram, since no layer for multi-token prediction is loaded",
                        how.to_string(),
                    )
                })?),
            ),
        };
        Ok(Some(Drafter { how, lookup, further, source: None, speculated: Speculated::default() }))
    }

    /// What the model has to compute for it.
    pub(in crate::engine) fn pass(&self) -> Pass {
        if self.further.is_some() { Pass::Kept } else { Pass::Tokens }
    }

    /// At most `most` guesses of what follows the sequence and `told`.
    pub(in crate::engine) fn draft(
        &mut self,
        model: &Model,
        runner: &mut Runner,
        sequence: &Sequence,
        told: u32,
        most: usize,
        cancel: Option<&CancelToken>,
    ) -> Result<Vec<u32>, Error> {
        let most = most.min(MAX_DRAFT);
        let found = match &mut self.lookup {
            Some(grams) => grams.draft(sequence.tokens(), told, most).to_vec(),
            None => Vec::new(),
        };
        let choice = match self.how {
            Speculate::Off => None,
            Speculate::Lookup => Some((Source::Lookup, found.len().min(Self::LOOKUP))),
            Speculate::Mtp { depth } => Some((Source::Further, depth.min(most))),
            Speculate::Auto => {
                let further = if self.further.is_some() { most.min(Self::FURTHER) } else { 0 };
                let mut sources = vec![(Source::Lookup, found.len()), (Source::Further, further)];
                sources.retain(|&(_, most)| most > 0);
                runner.policy.choose(&sources)
            }
        };
        self.source = None;
        let Some((source, n)) = choice.filter(|&(_, n)| n > 0) else { return Ok(Vec::new()) };
        let (drafts, [first, others]) = match (source, &mut self.further) {
            (Source::Further, Some(further)) => further.draft(model, runner, sequence, told, n, cancel)?,
            _ => (found[..n].to_vec(), [Duration::ZERO; 2]),
        };
        if !drafts.is_empty() {
            self.source = Some(source);
            runner.policy.drafted(source, drafts.len(), first, others);
        }
        Ok(drafts)
    }

    /// The sequence has read tokens, and the model made this of each.
    pub(in crate::engine) fn read(
        &mut self,
        model: &Model,
        runner: &mut Runner,
        sequence: &Sequence,
        hidden: &[f32],
    ) -> Result<(), Error> {
        match &mut self.further {
            Some(further) => further.read(model, runner, sequence, hidden),
            None => Ok(()),
        }
    }

    /// Of the last guesses the first few were chosen.
    pub(in crate::engine) fn judge(&mut self, runner: &mut Runner, drafted: usize, accepted: usize) {
        if let Some(source) = self.source.take() {
            self.speculated.drafted += drafted;
            self.speculated.accepted += accepted;
            runner.policy.judged(source, drafted, accepted);
        }
    }

    /// What guesses came to so far.
    pub(in crate::engine) fn speculated(&self) -> Speculated {
        self.speculated
    }
}
