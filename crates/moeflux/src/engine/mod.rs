//! Evaluates tokens and generates text.

mod generate;
mod graphs;
mod runner;

pub use generate::{Event, GenerateRequest, Generation, Outcome, StopReason};
pub use runner::{Input, Outputs};

use self::runner::Runner;
use crate::backend::{Observer, cpu::CpuBackend};
use crate::error::Error;
use crate::model::Model;
use crate::sequence::Sequence;

/// How an engine runs. None of it changes the output.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Threads that compute.
    pub threads: usize,
    /// Most tokens of a prompt in one step. Larger is faster and takes more memory.
    pub prefill_chunk: usize,
    /// Whether transient tensors share buffers; off only to compare.
    pub planned_memory: bool,
}

impl Default for EngineOptions {
    /// A thread for each core that the process may use, chunks of 256 tokens, planned memory.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        EngineOptions { threads, prefill_chunk: 256, planned_memory: true }
    }
}

/// A model on a backend.
#[derive(Debug)]
pub struct Engine {
    model: Model,
    runner: Runner,
}

impl Engine {
    /// An engine on the CPU.
    pub fn new(model: Model, options: &EngineOptions) -> Result<Self, Error> {
        for (option, value) in [("threads", options.threads), ("prefill_chunk", options.prefill_chunk)] {
            if value == 0 {
                return Err(Error::Option { option, expected: "at least 1", found: value.to_string() });
            }
        }
        let threads = options.threads;
        let backend = CpuBackend::new(threads).map_err(|source| Error::Threads { threads, source })?;
        Ok(Engine { model, runner: Runner::new(Box::new(backend), options) })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// An empty sequence of this model.
    pub fn sequence(&self) -> Sequence {
        self.model.sequence()
    }

    /// Appends tokens and returns the logits of the last one, `[vocab_size]`.
    ///
    /// Runs in chunks; after an error the sequence holds the chunks that were finished.
    pub fn eval(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        self.runner.append(&self.model, sequence, tokens, Outputs::Last)
    }

    /// Appends tokens and returns the logits of each, `[n_tokens, vocab_size]`, chunk by chunk as [`eval`](Self::eval).
    pub fn eval_all(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        self.runner.append(&self.model, sequence, tokens, Outputs::All)
    }

    /// Runs one step over several sequences at once and returns the logits asked for, `[n_outputs, vocab_size]`, in the
    /// order of the inputs. After an error every sequence is as it was.
    pub fn step(
        &mut self,
        inputs: &mut [Input<'_>],
        observer: Option<&mut dyn Observer>,
    ) -> Result<&[f32], Error> {
        self.runner.step(&self.model, inputs, None, observer)
    }

    /// Appends a prompt and samples what follows. Work happens as the events are taken.
    pub fn generate<'a>(
        &'a mut self,
        sequence: &'a mut Sequence,
        request: GenerateRequest,
    ) -> Result<Generation<'a>, Error> {
        Generation::new(&self.model, &mut self.runner, sequence, request)
    }

    /// Memory held for transient tensors, in bytes.
    pub fn transient_bytes(&self) -> usize {
        self.runner.transient_bytes()
    }
}
