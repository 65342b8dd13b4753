//! Evaluates tokens and generates text.

mod completion;
mod event;
mod generate;
mod graphs;
mod handle;
mod prompt;
mod reasoning;
mod request;
mod runner;
mod scheduler;
mod snapshot;
mod speculate;
mod truncate;

use std::sync::Arc;

use moeflux_kernels::Numbers;

pub use event::{Event, LastToken, Outcome, PromptLogprob, StopReason};
pub use generate::Generation;
pub use handle::{
    Embedding, EngineHandle, EngineStats, Pending, RequestError, Restored, Saved, SchedulerOptions,
    SubmitError, SubmitOptions, Ticket,
};
pub use request::GenerateRequest;
pub use runner::{Input, Outputs};
pub use speculate::{MAX_DRAFT, Speculate, Speculated};
pub use truncate::Truncated;

use self::runner::Runner;
#[cfg(feature = "gpu")]
use crate::backend::gpu::{GpuBackend, GpuMemory};
use crate::backend::{Backend, Observer, cpu::CpuBackend};
use crate::error::Error;
use crate::experts::{DeviceTally, ExpertOptions, ExpertStore, Placement, place};
use crate::memory::Loading;
use crate::model::Model;
use crate::sampling::GrammarCompiler;
use crate::sequence::Sequence;

/// How an engine runs. Only `numbers` changes the output.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Threads that compute.
    pub threads: usize,
    /// How exactly it computes.
    pub numbers: Numbers,
    /// Most tokens of a prompt in one step; `None` lets the engine choose. Larger is faster and takes more memory.
    pub prefill_chunk: Option<usize>,
    /// Whether transient tensors share buffers; off only to compare.
    pub planned_memory: bool,
    /// Where experts are kept, and in how much memory.
    pub experts: ExpertOptions,
}

impl Default for EngineOptions {
    /// A thread for each core that the process may use, fast numbers, planned memory.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        EngineOptions {
            threads,
            numbers: Numbers::Fast,
            prefill_chunk: None,
            planned_memory: true,
            experts: ExpertOptions::default(),
        }
    }
}

impl EngineOptions {
    fn check(&self) -> Result<(), Error> {
        for (option, value) in [("threads", Some(self.threads)), ("prefill_chunk", self.prefill_chunk)] {
            if let Some(value @ 0) = value {
                return Err(Error::Option { option, expected: "at least 1", found: value.to_string() });
            }
        }
        if self.threads > MAX_THREADS {
            let found = self.threads.to_string();
            return Err(Error::Option { option: "threads", expected: "at most 1024", found });
        }
        Ok(())
    }
}

/// More threads than any machine has cores; each takes memory for its stack.
const MAX_THREADS: usize = 1024;

/// Tokens of a prompt in one step on a backend that is given.
const PREFILL_CHUNK: usize = 512;

/// A model on a backend.
#[derive(Debug)]
pub struct Engine {
    model: Arc<Model>,
    runner: Runner,
    grammars: Arc<GrammarCompiler>,
}

impl Engine {
    /// An engine on the CPU.
    pub fn new(model: Model, options: &EngineOptions) -> Result<Self, Error> {
        options.check()?;
        let threads = options.threads;
        let backend =
            CpuBackend::new(threads, options.numbers).map_err(|source| Error::Threads { threads, source })?;
        let Placement { store, resident, prefill_chunk, room } = place(&model, options)?;
        let model = Arc::new(model);
        let backend = backend.while_loading(Loading::start(model.clone(), resident));
        let backend = match store {
            Some(store) => backend.streaming(store, options.experts.hints),
            None => backend,
        };
        let runner = Runner::new(Box::new(backend), options, prefill_chunk, room);
        Ok(Engine { model, runner, grammars: Arc::default() })
    }

    /// An engine on another backend, which has room for the whole model.
    pub fn with_backend(
        model: Model,
        backend: Box<dyn Backend>,
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let prefill_chunk = options.prefill_chunk.unwrap_or(PREFILL_CHUNK);
        let runner = Runner::new(backend, options, prefill_chunk, None);
        Ok(Engine { model: Arc::new(model), runner, grammars: Arc::default() })
    }

    /// An engine on a GPU, which holds so much of the model as its memory allows; experts that are not there are brought as
    /// routers ask for them. Options of experts say how the host keeps those.
    #[cfg(feature = "gpu")]
    pub fn on_gpu(
        model: Model,
        device: moeflux_gpu::Device,
        memory: GpuMemory,
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let (backend, prefill_chunk) = GpuBackend::for_model(device, &model, memory, options)?;
        let runner = Runner::new(Box::new(backend), options, prefill_chunk, None);
        Ok(Engine { model: Arc::new(model), runner, grammars: Arc::default() })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What streams the experts; `None` if they are mapped.
    pub fn experts(&self) -> Option<&Arc<ExpertStore>> {
        self.runner.experts()
    }

    /// What became of experts on a GPU that has not room for all of them; `None` if it has, or there is none.
    pub fn device_experts(&self) -> Option<&Arc<DeviceTally>> {
        self.runner.device_experts()
    }

    /// An empty sequence of this model, for this engine's numbers: caches are of float32 in exact mode and of half
    /// floats in fast mode. An engine of the other mode refuses it.
    pub fn sequence(&self) -> Sequence {
        self.model.sequence(self.runner.kv_type())
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
        Generation::new(&self.model, &mut self.runner, &self.grammars, sequence, request)
    }

    /// Most tokens of a prompt in one step.
    pub fn prefill_chunk(&self) -> usize {
        self.runner.prefill_chunk()
    }

    /// Memory held for transient tensors, in bytes.
    pub fn transient_bytes(&self) -> usize {
        self.runner.transient_bytes()
    }
}
