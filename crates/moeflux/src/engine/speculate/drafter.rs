//! Drafts for one sequence, and what comes of them.

use std::time::Duration;

use super::super::runner::Runner;
use super::mtp::{self, Drafting, Mtp};
use super::ngrams::NGrams;
use super::policy::{Acceptance, Policy, Source, StepEstimate};
use super::{MAX_DRAFT, Speculate, Speculated, option};
use crate::backend::{BackendError, CancelToken};
use crate::error::Error;
use crate::model::{Model, Pass};
use crate::sequence::Sequence;

/// Drafts the tokens that one sequence may go on with. Before a step it [plans](Self::plan) how many and
/// [drafts](draft_batch) them; after the step it takes the hidden states of the tokens that were [read](Self::read) and
/// [judges](Self::judge) how many drafts were chosen.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Drafter {
    how: Speculate,
    ngrams: Option<NGrams>,
    mtp: Option<Mtp>,
    /// How often this sequence's drafts were right.
    acceptance: Acceptance,
    /// What the drafts of the step to run are made by, and how many there are to be.
    planned: Option<(Source, usize)>,
    speculated: Speculated,
}

/// A sequence to draft for.
pub(in crate::engine) struct DraftRequest<'a> {
    pub(in crate::engine) drafter: &'a mut Drafter,
    pub(in crate::engine) sequence: &'a Sequence,
    /// The token that was chosen last, which the sequence has not read.
    pub(in crate::engine) pending_token: u32,
    /// Most tokens to draft.
    pub(in crate::engine) most: usize,
    /// Takes the drafts.
    pub(in crate::engine) drafts: &'a mut Vec<u32>,
}

impl Drafter {
    /// Most tokens drafted by n-grams where nothing is measured.
    const NGRAMS: usize = 4;
    /// Most tokens drafted by the MTP layer where that is measured.
    const MTP: usize = 3;

    /// Checks that a model can speculate so.
    pub(in crate::engine) fn check(how: Speculate, model: &Model) -> Result<(), Error> {
        how.validate()?;
        match how {
            Speculate::Mtp { .. } if !model.has_mtp() => Err(option(
                "auto, off or ngram, since no layer for multi-token prediction is loaded",
                how.to_string(),
            )),
            _ => Ok(()),
        }
    }

    /// A drafter for a new sequence; `None` if nothing is to be drafted.
    pub(in crate::engine) fn new(how: Speculate, runner: &Runner) -> Option<Self> {
        let has_ngrams = matches!(how, Speculate::Auto | Speculate::Lookup);
        (how != Speculate::Off).then(|| Drafter {
            how,
            ngrams: has_ngrams.then(NGrams::default),
            mtp: if how.uses_mtp() { Mtp::new(runner.model(), runner) } else { None },
            acceptance: Acceptance::default(),
            planned: None,
            speculated: Speculated::default(),
        })
    }

    /// Starts again with a sequence that will read its tokens a second time.
    pub(in crate::engine) fn restart(&mut self, runner: &Runner) {
        if self.mtp.is_some() {
            self.mtp = Mtp::new(runner.model(), runner);
        }
        self.planned = None;
    }

    /// What the model has to compute for it.
    pub(in crate::engine) fn pass(&self) -> Pass {
        if self.mtp.is_some() { Pass::WithHidden } else { Pass::Tokens }
    }

    /// Memory of its states that nothing else shares, in bytes.
    pub(in crate::engine) fn own_bytes(&self) -> usize {
        self.mtp.as_ref().map_or(0, Mtp::own_bytes)
    }

    /// Decides how many drafts the sequence has in the next step, and by what: as many as make the whole step's tokens come
    /// fastest. Drafts by n-grams are there at once.
    fn plan(
        &mut self,
        policy: &Policy,
        estimate: &mut StepEstimate,
        sequence: &Sequence,
        pending_token: u32,
        most: usize,
        drafts: &mut Vec<u32>,
    ) {
        let most = most.min(MAX_DRAFT);
        let found = match &mut self.ngrams {
            Some(ngrams) => ngrams.draft(sequence.tokens(), pending_token, most),
            None => &[],
        };
        let choice = match self.how {
            Speculate::Off => None,
            Speculate::Lookup => Some((Source::NGrams, found.len().min(Self::NGRAMS))),
            Speculate::Mtp { depth } => Some((Source::Mtp, depth.min(most))),
            Speculate::Auto => {
                let mtp = if self.mtp.is_some() { most.min(Self::MTP) } else { 0 };
                let sources = [(Source::NGrams, found.len()), (Source::Mtp, mtp)];
                policy.choose(&self.acceptance, &sources, estimate)
            }
        };
        self.planned = choice.filter(|&(_, n)| n > 0);
        if let Some((source, n)) = self.planned {
            policy.add(&self.acceptance, source, n, estimate);
            if source == Source::NGrams {
                drafts.extend_from_slice(&found[..n]);
            }
        }
    }

    /// Takes the hidden states of tokens that the sequence has read, `[tokens, hidden_size]`.
    pub(in crate::engine) fn read(
        &mut self,
        runner: &mut Runner,
        sequence: &Sequence,
        hidden: &[f32],
    ) -> Result<(), Error> {
        match &mut self.mtp {
            Some(mtp) => mtp.read(runner, sequence, hidden),
            None => Ok(()),
        }
    }

    /// Of the last step's drafts the first `accepted` were chosen. Those that an end of the text left untried tell nothing.
    pub(in crate::engine) fn judge(
        &mut self,
        policy: &mut Policy,
        drafted: usize,
        accepted: usize,
        has_ended: bool,
    ) {
        let Some((source, _)) = self.planned.take() else { return };
        self.speculated.drafted += drafted;
        self.speculated.accepted += accepted;
        if !has_ended {
            self.acceptance.judged(source, drafted, accepted);
            policy.acceptance.judged(source, drafted, accepted);
        }
    }

    /// What drafts came to so far.
    pub(in crate::engine) fn speculated(&self) -> Speculated {
        self.speculated
    }
}

/// Drafts for all these sequences, which make one step with `rows` tokens in all before drafts. Drafts are a matter of speed
/// alone: where the MTP layer can't be run, there are none.
pub(in crate::engine) fn draft_batch(
    runner: &mut Runner,
    policy: &mut Policy,
    requests: &mut [DraftRequest<'_>],
    rows: usize,
    cancel: Option<&CancelToken>,
) {
    let mut estimate = policy.begin_step(rows);
    for request in &mut *requests {
        let DraftRequest { drafter, sequence, pending_token, most, drafts } = request;
        drafter.plan(policy, &mut estimate, sequence, *pending_token, *most, drafts);
    }
    let mut batch = Vec::new();
    for DraftRequest { drafter, sequence, pending_token, drafts, .. } in requests {
        if let (Some((Source::Mtp, n)), Some(mtp)) = (drafter.planned, &mut drafter.mtp) {
            batch.push(Drafting { mtp, sequence, pending_token: *pending_token, n, drafts });
        }
    }
    if batch.is_empty() {
        return;
    }
    match mtp::draft(runner, &mut batch, cancel) {
        Ok(times) => {
            let drafted: Vec<usize> = batch.iter().map(|drafting| drafting.drafts.len()).collect();
            policy.drafted(Source::Mtp, &drafted, times);
        }
        Err(Error::Backend(BackendError::Cancelled)) => {}
        Err(error) => {
            tracing::warn!(%error, "the layer for multi-token prediction failed: a step has fewer drafts");
        }
    }
}

impl Policy {
    /// The drafts of a batch took so long: the first of each sequence, and all others.
    fn drafted(&mut self, source: Source, drafted: &[usize], [first, others]: [Duration; 2]) {
        let sequences = drafted.iter().filter(|&&n| n > 0).count() as u32;
        let further: usize = drafted.iter().map(|n| n.saturating_sub(1)).sum();
        if sequences > 0 {
            self.add_draft_time(source, first / sequences, (further > 0).then(|| others / further as u32));
        }
    }
}
