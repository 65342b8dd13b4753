//! Drafts by the model's layer for multi-token prediction (MTP).

use std::time::{Duration, Instant};

use moeflux_kernels::{first_logit, largest_logit};

use super::super::runner::{Input, Outputs, Run, Runner};
use crate::backend::CancelToken;
use crate::error::Error;
use crate::model::{Model, Pass};
use crate::sequence::{Position, Sequence};

/// The layer's own sequence, which lags behind the model's: its row for a token needs the token after it. It begins where the
/// request's prompt does, so of what an earlier sequence has read the layer sees nothing; that makes drafts worse at most.
#[derive(Clone, Debug)]
pub(super) struct Mtp {
    sequence: Sequence,
    /// Hidden states of the model's last tokens, those that the layer has not read, `[rows, hidden_size]`.
    pending: Vec<f32>,
    hidden_size: usize,
}

/// One request's part of a batch of drafts.
pub(super) struct Drafting<'a> {
    pub(super) mtp: &'a mut Mtp,
    /// The model's sequence.
    pub(super) sequence: &'a Sequence,
    /// The token after it.
    pub(super) pending_token: u32,
    /// Most tokens to draft.
    pub(super) n: usize,
    /// Takes them.
    pub(super) drafts: &'a mut Vec<u32>,
}

/// Tokens after which the layer reads pending rows though no drafts are made.
const MAX_PENDING: usize = 64;

/// One sequence's part of a run of the layer.
struct Part<'a> {
    sequence: &'a mut Sequence,
    tokens: Vec<u32>,
    positions: Vec<Position>,
    /// `[tokens, hidden_size]`
    hidden: Vec<f32>,
}

impl Mtp {
    /// The layer's state for a new sequence of the model; `None` if the model has no such layer.
    pub(super) fn new(model: &Model, runner: &Runner) -> Option<Self> {
        let sequence = model.mtp_sequence(runner.kv_type())?;
        let hidden_size = model.config().decoder().hidden_size;
        Some(Mtp { sequence, pending: Vec::new(), hidden_size })
    }

    /// Takes the hidden states of tokens that the model's sequence has read.
    pub(super) fn read(
        &mut self,
        runner: &mut Runner,
        sequence: &Sequence,
        hidden: &[f32],
    ) -> Result<(), Error> {
        self.pending.extend_from_slice(hidden);
        if self.rows() <= MAX_PENDING {
            return Ok(());
        }
        let (mut part, rest) = self.part(sequence, None);
        run(runner, std::slice::from_mut(&mut part), Outputs::None, None)?;
        self.pending = rest;
        Ok(())
    }

    /// Memory of its states that nothing else shares, in bytes.
    pub(super) fn own_bytes(&self) -> usize {
        self.sequence.own_bytes()
    }

    /// The pending rows whose next tokens are known, as a part of a run, and the pending rows that are left.
    fn part(&mut self, sequence: &Sequence, pending_token: Option<u32>) -> (Part<'_>, Vec<f32>) {
        let rows = sequence.len() + 1 - self.rows()..sequence.len();
        let mut tokens = sequence.tokens()[rows.clone()].to_vec();
        let mut positions: Vec<Position> = rows.map(|index| sequence.position(index)).collect();
        if let Some(token) = pending_token {
            tokens.push(token);
            positions.push([sequence.next_position(); 3]);
        }
        let (hidden, rest) = self.pending.split_at(tokens.len() * self.hidden_size);
        (Part { tokens, positions, hidden: hidden.to_vec(), sequence: &mut self.sequence }, rest.to_vec())
    }

    fn rows(&self) -> usize {
        self.pending.len() / self.hidden_size
    }
}

/// Drafts for several requests at once: the layer runs once for the first drafts of all of them, once for the second and so
/// on. Returns the time that the first drafts took and that of all others.
pub(super) fn draft(
    runner: &mut Runner,
    batch: &mut [Drafting<'_>],
    cancel: Option<&CancelToken>,
) -> Result<[Duration; 2], Error> {
    let start = Instant::now();
    let mut batch: Vec<&mut Drafting<'_>> =
        batch.iter_mut().filter(|drafting| drafting.n > 0 && drafting.mtp.rows() > 0).collect();
    if batch.is_empty() {
        return Ok([Duration::ZERO; 2]);
    }
    let (mut parts, rests): (Vec<_>, Vec<_>) = batch
        .iter_mut()
        .map(|drafting| drafting.mtp.part(drafting.sequence, Some(drafting.pending_token)))
        .unzip();
    let (guesses, mut hidden) = run(runner, &mut parts, Outputs::Last, cancel)?;
    for ((drafting, guess), rest) in batch.iter_mut().zip(guesses).zip(rests) {
        drafting.mtp.pending = rest;
        drafting.drafts.extend(guess);
    }
    let first = start.elapsed();
    let lens: Vec<usize> = batch.iter().map(|drafting| drafting.mtp.sequence.len()).collect();
    let result = draft_further(runner, &mut batch, &mut hidden, cancel);
    for (drafting, len) in batch.iter_mut().zip(lens) {
        drafting.mtp.sequence.rewind(len);
    }
    result?;
    Ok([first, start.elapsed().saturating_sub(first)])
}

/// The drafts after the first, each from the layer's own hidden state of the one before, `[batch, hidden_size]`.
fn draft_further(
    runner: &mut Runner,
    batch: &mut [&mut Drafting<'_>],
    hidden: &mut Vec<f32>,
    cancel: Option<&CancelToken>,
) -> Result<(), Error> {
    let mut members: Vec<usize> = (0..batch.len()).collect();
    for depth in 1.. {
        let mut parts = Vec::new();
        let mut next_members = Vec::new();
        for (index, drafting) in batch.iter_mut().enumerate() {
            // Those that were in the last run, have a draft of it and are to have another.
            let Some(row) = members.iter().position(|&member| member == index) else { continue };
            let (Some(&last), true) = (drafting.drafts.get(depth - 1), drafting.n > depth) else { continue };
            let Drafting { mtp, sequence, .. } = &mut **drafting;
            let position = sequence.next_position() + depth as u32;
            next_members.push(index);
            parts.push(Part {
                tokens: vec![last],
                positions: vec![[position; 3]],
                hidden: hidden[row * mtp.hidden_size..(row + 1) * mtp.hidden_size].to_vec(),
                sequence: &mut mtp.sequence,
            });
        }
        if parts.is_empty() {
            return Ok(());
        }
        let (guesses, next_hidden) = run(runner, &mut parts, Outputs::Last, cancel)?;
        drop(parts);
        for (&index, guess) in next_members.iter().zip(guesses) {
            batch[index].drafts.extend(guess);
        }
        (members, *hidden) = (next_members, next_hidden);
    }
    Ok(())
}

/// One run of the layer, which the parts' sequences take: the likeliest token of each part that asks for logits, if there is
/// one, and the layer's own hidden states of those, `[parts, hidden_size]`.
fn run(
    runner: &mut Runner,
    parts: &mut [Part<'_>],
    outputs: Outputs,
    cancel: Option<&CancelToken>,
) -> Result<(Vec<Option<u32>>, Vec<f32>), Error> {
    let given: Vec<f32> = parts.iter().flat_map(|part| part.hidden.iter().copied()).collect();
    if given.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut hidden = Vec::new();
    let mut inputs: Vec<Input<'_>> = parts
        .iter_mut()
        .map(|part| Input {
            outputs,
            positions: Some(&part.positions),
            ..Input::new(part.sequence, &part.tokens)
        })
        .collect();
    let kept = (outputs != Outputs::None).then_some(&mut hidden);
    let run = Run { hidden_input: &given, kept, ..Run::new(Pass::Mtp, cancel) };
    let vocab_size = runner.model().vocab_size();
    let logits = runner.forward(&mut inputs, run, None)?;
    // Logits without a largest one give no draft.
    let guess = |logits: &[f32]| {
        largest_logit(logits).ok().and_then(|largest| first_logit(logits, largest)).map(|token| token as u32)
    };
    let guesses = logits.chunks_exact(vocab_size).map(guess).collect();
    for input in &mut inputs {
        input.commit(input.tokens.len())?;
    }
    Ok((guesses, hidden))
}
