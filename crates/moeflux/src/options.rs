//! Options of an engine: plain values, below everything that reads them.

use std::fmt;

use moeflux_experts::{PolicyKind, StoreOptions};
use moeflux_kernels::Precision;

/// How an engine runs. Only `precision` changes the output.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Threads that compute.
    pub threads: usize,
    /// How exactly it computes.
    pub precision: Precision,
    /// Most tokens of a prompt in one step; `None` lets the engine choose. Larger is faster and takes more memory.
    pub prefill_chunk: Option<usize>,
    /// Whether transient tensors share buffers; off only to compare.
    #[doc(hidden)]
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
            precision: Precision::Fast,
            prefill_chunk: None,
            planned_memory: true,
            experts: ExpertOptions::default(),
        }
    }
}

/// More threads than any machine has cores; each takes memory for its stack.
const MAX_THREADS: usize = 1024;

impl EngineOptions {
    /// Checks that each option has a value that can be.
    pub(crate) fn check(&self) -> Result<(), OptionError> {
        for (option, value) in [("threads", Some(self.threads)), ("prefill_chunk", self.prefill_chunk)] {
            if let Some(value @ 0) = value {
                return Err(OptionError { option, expected: "at least 1", found: value.to_string() });
            }
        }
        if self.threads > MAX_THREADS {
            let found = self.threads.to_string();
            return Err(OptionError { option: "threads", expected: "at most 1024", found });
        }
        Ok(())
    }

    /// The options that a backend reads once it is decided where experts live.
    pub fn compute(&self) -> ComputeOptions {
        let ExpertOptions { hints, store, .. } = self.experts.clone();
        ComputeOptions { threads: self.threads, precision: self.precision, hints, store }
    }
}

/// An engine option that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: expected {expected}, found {found}")]
pub struct OptionError {
    /// The option's name.
    pub option: &'static str,
    /// The values that it can have.
    pub expected: &'static str,
    /// The value that it has.
    pub found: String,
}

/// How a backend computes, and how experts come to it. Where experts live is not among them: a
/// [placement](crate::placement) says that.
#[derive(Clone)]
pub struct ComputeOptions {
    /// Threads that compute, or pack experts for a device.
    pub threads: usize,
    /// How exactly a backend on the CPU computes.
    pub precision: Precision,
    /// Whether reads begin before the router has spoken.
    pub hints: HintMode,
    /// How a store of experts reads. Its budget is replaced by that of the placement.
    pub store: StoreOptions,
}

impl ComputeOptions {
    /// Which experts leave a memory that is full.
    pub fn policy(&self) -> PolicyKind {
        self.store.policy
    }
}

impl fmt::Debug for ComputeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ComputeOptions { threads, precision, hints, store } = self;
        f.debug_struct("ComputeOptions")
            .field("threads", threads)
            .field("numbers", precision)
            .field("hints", hints)
            .field("io", &store.io)
            .field("policy", &store.policy)
            .finish_non_exhaustive()
    }
}

/// How experts are kept. None of it changes the output.
#[derive(Clone)]
pub struct ExpertOptions {
    /// How much memory there is: what decides whether experts are mapped or streamed.
    pub memory: MemoryRequest,
    /// Tokens of context whose state is counted against the memory.
    pub context: usize,
    /// Whether reads begin before the router has spoken.
    pub hints: HintMode,
    /// Whether a GPU that has not room for all experts has them in memory of the host that it reads by itself.
    pub host_copy: HostCopy,
    /// How the store of streamed experts works. Its budget is replaced by what the memory allows.
    /// [`Io::Mapped`](moeflux_experts::Io::Mapped) maps all experts, whatever the memory.
    pub store: StoreOptions,
}

/// Whether all experts are copied to memory of the host that a GPU reads by itself. It is locked there, and filling it takes a
/// while when a model is opened; then no layer waits for the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostCopy {
    /// Where the host has room for it.
    #[default]
    Auto,
    /// Always: where there is no room, no model is opened.
    Always,
    /// Never: experts are packed and sent as routers ask for them.
    Never,
}

impl Default for ExpertOptions {
    /// What is free, less a reserve; 4,096 tokens of context; the store's defaults; hints where they help.
    fn default() -> Self {
        ExpertOptions {
            memory: MemoryRequest::default(),
            context: 4096,
            hints: HintMode::default(),
            host_copy: HostCopy::default(),
            store: StoreOptions::new(0),
        }
    }
}

impl fmt::Debug for ExpertOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExpertOptions { memory, context, hints, host_copy, store } = self;
        f.debug_struct("ExpertOptions")
            .field("memory", memory)
            .field("context", context)
            .field("hints", hints)
            .field("host_copy", host_copy)
            .field("io", &store.io)
            .field("policy", &store.policy)
            .finish_non_exhaustive()
    }
}

/// Where hints come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HintMode {
    /// There are none.
    Off,
    /// The experts that the sequence's last token chose in the next layer.
    Last,
    /// What the next layer's router says of this layer's router input: the residual stream changes little from one layer
    /// to the next (Eliseev & Mazur 2023, section 3.2).
    Lookahead,
    /// [`Lookahead`](Self::Lookahead) while it helps.
    #[default]
    Auto,
}

/// How much memory the caller allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryRequest {
    /// Bytes for the whole process. `None`: what is free, less a reserve for everyone else.
    pub process: Option<u64>,
    /// Bytes for the slots of experts; the experts are then streamed even if they would fit. `None`: what the process's
    /// limit leaves.
    pub experts: Option<u64>,
}
