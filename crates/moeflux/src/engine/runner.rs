//! Turns inputs into steps of the backend.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::graphs::GraphCache;
use crate::backend::{Backend, CancelToken, Observer, Segment, Step};
use crate::error::Error;
use crate::experts::{DeviceTally, ExpertStore};
use crate::graph::{GraphError, StepShape};
use crate::model::{Model, Pass};
use crate::options::EngineOptions;
use crate::placement::{StateBudget, free_states};
use crate::sequence::{KvType, Position, Sequence};

/// What one sequence brings to a step.
#[derive(Debug)]
pub struct Input<'a> {
    /// The sequence to append to.
    pub sequence: &'a mut Sequence,
    /// The tokens to append, at least one.
    pub tokens: &'a [u32],
    /// Their positions for RoPE; `None` for text, which counts on.
    pub positions: Option<&'a [Position]>,
    /// Which of them want logits.
    pub outputs: Outputs,
}

impl<'a> Input<'a> {
    /// Text whose last token wants logits.
    pub fn new(sequence: &'a mut Sequence, tokens: &'a [u32]) -> Self {
        Input { sequence, tokens, positions: None, outputs: Outputs::Last }
    }

    /// Where its tokens stand.
    fn positions(&self) -> Result<Vec<Position>, Error> {
        match self.positions {
            None => {
                let next = self.sequence.next_position();
                Ok((next..).take(self.tokens.len()).map(|position| [position; 3]).collect())
            }
            Some(positions) if positions.len() == self.tokens.len() => Ok(positions.to_vec()),
            Some(positions) => {
                Err(Error::Positions { tokens: self.tokens.len(), positions: positions.len() })
            }
        }
    }

    /// Has the sequence take the states after the first `kept` tokens, at least one.
    pub(super) fn commit(&mut self, kept: usize) -> Result<(), Error> {
        let positions = self.positions()?;
        self.sequence.commit(&self.tokens[..kept], &positions[..kept]);
        Ok(())
    }
}

/// Which tokens of an input want logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// None: the tokens are only to be read.
    None,
    /// The last.
    Last,
    /// Each.
    All,
}

/// What a run computes, and with what.
pub(super) struct Run<'a> {
    pub(super) pass: Pass,
    /// Of each input whether the first few of its tokens may be committed; empty if of none.
    pub(super) keep_each: &'a [bool],
    /// See [`Step::given`].
    pub(super) hidden_input: &'a [f32],
    /// See [`Step::kept`].
    pub(super) kept: Option<&'a mut Vec<f32>>,
    /// Memory of all states that there are, in bytes, if there are others than the inputs'.
    pub(super) states: Option<u64>,
    pub(super) cancel: Option<&'a CancelToken>,
}

impl<'a> Run<'a> {
    pub(super) fn new(pass: Pass, cancel: Option<&'a CancelToken>) -> Self {
        Run { pass, keep_each: &[], hidden_input: &[], kept: None, states: None, cancel }
    }
}

/// A model on a backend, and the graphs that it runs.
pub(super) struct Runner {
    model: Arc<Model>,
    backend: Box<dyn Backend>,
    graphs: GraphCache,
    prefill_chunk: usize,
    state_budget: Option<StateBudget>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("backend", &self.backend.name()).finish_non_exhaustive()
    }
}

impl Runner {
    pub(super) fn new(
        model: Arc<Model>,
        backend: Box<dyn Backend>,
        options: &EngineOptions,
        prefill_chunk: usize,
        state_budget: Option<StateBudget>,
    ) -> Self {
        Runner {
            model,
            backend,
            graphs: GraphCache::new(options.planned_memory),
            prefill_chunk,
            state_budget,
        }
    }

    pub(super) fn model(&self) -> &Arc<Model> {
        &self.model
    }

    pub(super) fn prefill_chunk(&self) -> usize {
        self.prefill_chunk
    }

    pub(super) fn experts(&self) -> Option<&Arc<ExpertStore>> {
        self.backend.experts()
    }

    pub(super) fn device_experts(&self) -> Option<&Arc<DeviceTally>> {
        self.backend.device_experts()
    }

    /// Memory for the states of all requests, in bytes: where experts make room for states, theirs and a quarter of the
    /// experts', and else a share of what is free.
    pub(super) fn state_limit(&self) -> Result<u64, GraphError> {
        self.state_budget.map_or_else(|| free_states(self.model()), |budget| Ok(budget.most()))
    }

    pub(super) fn kv_type(&self) -> KvType {
        self.backend.kv_type()
    }

    pub(super) fn transient_bytes(&self) -> usize {
        self.backend.transient_bytes()
    }

    /// Appends tokens chunk by chunk and returns the logits asked for.
    pub(super) fn append(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        outputs: Outputs,
    ) -> Result<Vec<f32>, Error> {
        self.check(sequence, tokens)?;
        let mut logits = Vec::new();
        let mut left = tokens;
        while !left.is_empty() {
            let n = sequence.chunk_towards(sequence.len() + left.len(), self.prefill_chunk);
            let (chunk, rest) = left.split_at(n);
            left = rest;
            let outputs = if outputs == Outputs::Last && !left.is_empty() { Outputs::None } else { outputs };
            let input = Input { outputs, ..Input::new(sequence, chunk) };
            logits.extend_from_slice(self.step(&mut [input], None)?);
        }
        Ok(logits)
    }

    /// One run of the graph over all inputs, then the sequences take their new states.
    pub(super) fn step(
        &mut self,
        inputs: &mut [Input<'_>],
        observer: Option<&mut dyn Observer>,
    ) -> Result<&[f32], Error> {
        let logits = self.forward(inputs, Run::new(Pass::Tokens, None), observer)?;
        for input in inputs {
            input.commit(input.tokens.len())?;
        }
        Ok(logits)
    }

    /// One run of a graph over all inputs. The sequences are as before until their inputs are
    /// [committed](Input::commit): all tokens of an input or, if `run.keep_each` says so, the first few.
    pub(super) fn forward(
        &mut self,
        inputs: &mut [Input<'_>],
        run: Run<'_>,
        observer: Option<&mut dyn Observer>,
    ) -> Result<&[f32], Error> {
        for input in &*inputs {
            self.check(input.sequence, input.tokens)?;
        }
        let Batch { tokens, positions, outputs, rows } = Batch::gather(inputs)?;
        let mut segments: Vec<Segment<'_>> = inputs
            .iter_mut()
            .zip(rows)
            .enumerate()
            .map(|(index, (input, rows))| {
                if run.keep_each.get(index) == Some(&true) {
                    input.sequence.reserve_each(rows.len());
                } else {
                    input.sequence.reserve(rows.len());
                }
                Segment { sequence: &mut *input.sequence, rows }
            })
            .collect();

        // The states of the layer for further tokens are small beside the model's, and not known here together with them.
        let budget = self.state_budget.filter(|_| run.pass != Pass::Mtp);
        if let (Some(budget), Some(store)) = (budget, self.backend.experts()) {
            let of_inputs = || segments.iter().map(|segment| segment.sequence.held_bytes() as u64).sum();
            budget.share(store, run.states.unwrap_or_else(of_inputs))?;
        }
        let shape = StepShape { n_tokens: tokens.len(), n_outputs: outputs.len() };
        let (graph, plan) = self.graphs.get(&self.model, run.pass, shape)?;
        let mut step = Step {
            tokens: &tokens,
            positions: &positions,
            outputs: &outputs,
            segments: &mut segments,
            hidden_input: run.hidden_input,
            kept: run.kept,
            cancel: run.cancel,
        };
        Ok(self.backend.run(&self.model, graph, plan, &mut step, observer)?)
    }

    /// Whether the tokens can be appended.
    pub(super) fn check(&self, sequence: &Sequence, tokens: &[u32]) -> Result<(), Error> {
        if sequence.model() != self.model.id() {
            return Err(Error::ForeignSequence);
        }
        let (expected, found) = (self.kv_type(), sequence.kv_type());
        if expected != found {
            return Err(Error::KvType { expected, found });
        }
        check_tokens(&self.model, sequence.len(), tokens)
    }
}

/// Whether tokens can be appended to so many: there are some, the model knows them and has room for them.
pub(super) fn check_tokens(model: &Model, len: usize, tokens: &[u32]) -> Result<(), Error> {
    if tokens.is_empty() {
        return Err(Error::NoTokens);
    }
    let vocab_size = model.vocab_size();
    if let Some(index) = tokens.iter().position(|&token| token as usize >= vocab_size) {
        return Err(Error::TokenOutOfRange { index, token: tokens[index], vocab_size });
    }
    let (new, context) = (tokens.len(), model.context_length());
    if len + new > context {
        return Err(Error::ContextFull { len, new, context });
    }
    Ok(())
}

/// The inputs of a step, row by row.
struct Batch {
    tokens: Vec<u32>,
    positions: Vec<Position>,
    outputs: Vec<usize>,
    rows: Vec<Range<usize>>,
}

impl Batch {
    fn gather(inputs: &[Input<'_>]) -> Result<Self, Error> {
        let mut batch = Batch { tokens: vec![], positions: vec![], outputs: vec![], rows: vec![] };
        for input in inputs {
            let first = batch.tokens.len();
            batch.tokens.extend_from_slice(input.tokens);
            let rows = first..batch.tokens.len();
            batch.positions.extend(input.positions()?);
            match input.outputs {
                Outputs::None => {}
                Outputs::Last => batch.outputs.push(rows.end - 1),
                Outputs::All => batch.outputs.extend(rows.clone()),
            }
            batch.rows.push(rows);
        }
        Ok(batch)
    }
}
