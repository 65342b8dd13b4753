//! Evaluates tokens and generates text.
//!
//! There is one loop: an [`EngineCore`] advances all its requests by [`step`](EngineCore::step).
//! [`Engine::generate`] is that loop for one request on a sequence of the caller's, an [`EngineHandle`] a thread that runs it for
//! many clients.

mod completion;
mod core;
mod event;
mod generate;
mod graphs;
mod handle;
mod prompt;
mod request;
mod requests;
mod runner;
mod scheduler;
mod snapshot;
mod speculate;
mod truncate;

use std::sync::Arc;

pub use self::core::EngineCore;
pub use event::{Event, LastToken, Outcome, PromptLogprob, StopReason};
pub use generate::{Generation, Samples};
pub use handle::{
    Embedding, EngineHandle, EngineStats, Pending, RequestError, Restored, Saved, SchedulerOptions,
    SubmitError, SubmitOptions, Ticket,
};
pub use request::GenerateRequest;
pub use requests::{RequestId, StepEvent};
pub use runner::{Input, Outputs};
pub use speculate::{MAX_DRAFT, Speculate, Speculated};
pub use truncate::Truncated;

use self::runner::Runner;
use self::speculate::Policy;
#[cfg(feature = "gpu")]
use crate::backend::gpu::{GpuBackend, GpuMemory};
use crate::backend::{Backend, Observer, cpu::CpuBackend};
use crate::error::Error;
use crate::experts::{DeviceTally, ExpertStore};
use crate::model::Model;
pub use crate::options::EngineOptions;
use crate::placement::Placement;
use crate::sampling::GrammarCompiler;
use crate::sequence::Sequence;

/// Tokens of a prompt in one step on a backend that is given.
const PREFILL_CHUNK: usize = 512;

/// A model on a backend.
#[derive(Debug)]
pub struct Engine {
    runner: Runner,
    grammars: Arc<GrammarCompiler>,
    /// What speculation has cost and gained so far.
    policy: Policy,
}

impl Engine {
    /// An engine on the CPU.
    pub fn new(model: Model, options: &EngineOptions) -> Result<Self, Error> {
        options.check()?;
        let placement = Placement::decide(&model, options)?;
        let model = Arc::new(model);
        let backend = CpuBackend::open(&model, &placement, &options.compute())?;
        let Placement { prefill_chunk, states, .. } = placement;
        let runner = Runner::new(model, Box::new(backend), options, prefill_chunk, states);
        Ok(Self::of(runner))
    }

    /// An engine on another backend, which has room for the whole model.
    pub fn with_backend(
        model: Model,
        backend: Box<dyn Backend>,
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let prefill_chunk = options.prefill_chunk.unwrap_or(PREFILL_CHUNK);
        let runner = Runner::new(Arc::new(model), backend, options, prefill_chunk, None);
        Ok(Self::of(runner))
    }

    fn of(runner: Runner) -> Self {
        Engine { runner, grammars: Arc::default(), policy: Policy::default() }
    }

    /// An engine on a GPU, which holds so much of the model as its memory allows; experts that are not there are brought as
    /// routers ask for them. Options of experts say how the host keeps those.
    #[cfg(feature = "gpu")]
    pub fn on_gpu(
        model: Model,
        device: moeflux_wgpu::Device,
        memory: GpuMemory,
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let placement = GpuBackend::place(&device, &model, memory, options)?;
        let backend = GpuBackend::open(device, &model, &placement, &options.compute())?;
        let runner = Runner::new(Arc::new(model), Box::new(backend), options, placement.prefill_chunk, None);
        Ok(Self::of(runner))
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.runner.model()
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
        self.model().sequence(self.runner.kv_type())
    }

    /// Appends tokens and returns the logits of the last one, `[vocab_size]`.
    ///
    /// Runs in chunks; after an error the sequence holds the chunks that were finished.
    pub fn eval(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        self.runner.append(sequence, tokens, Outputs::Last)
    }

    /// Appends tokens and returns the logits of each, `[n_tokens, vocab_size]`, chunk by chunk as [`eval`](Self::eval).
    pub fn eval_all(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        self.runner.append(sequence, tokens, Outputs::All)
    }

    /// Runs one step over several sequences at once and returns the logits asked for, `[n_outputs, vocab_size]`, in the
    /// order of the inputs. After an error every sequence is as it was.
    pub fn step(
        &mut self,
        inputs: &mut [Input<'_>],
        observer: Option<&mut dyn Observer>,
    ) -> Result<&[f32], Error> {
        self.runner.step(inputs, observer)
    }

    /// Appends a prompt and samples what follows. Work happens as the events are taken.
    pub fn generate<'a>(
        &'a mut self,
        sequence: &'a mut Sequence,
        request: GenerateRequest,
    ) -> Result<Generation<'a>, Error> {
        Generation::new(self, sequence, request)
    }

    /// Appends a prompt to copies of a sequence and samples `n` completions of it, which run at once: the prompt is read once.
    /// The first is the one that [`generate`](Self::generate) would give; each further one has a seed larger by one.
    pub fn generate_samples(
        &mut self,
        sequence: &Sequence,
        request: GenerateRequest,
        n: usize,
    ) -> Result<Samples<'_>, Error> {
        Samples::new(self, sequence, request, n)
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
