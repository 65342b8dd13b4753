//! The one error of the library. Each layer has errors of its own; here they are joined, each under the name of what it is
//! about, whichever layer found it.

use std::path::PathBuf;

use crate::backend::{BackendError, MeasureError, OpenError};
use crate::experts::StoreError;
use crate::graph::GraphError;
use crate::model::ModelError;
use crate::options::OptionError;
use crate::placement::{GpuMemoryError, HostCopyError, MemoryError, PlacementError};
use crate::sampling::{ConstraintError, RolesError, SamplingError};
use crate::sequence::KvType;
use crate::sequence::mflx::MflxError;
use crate::sequence::snapshot::SnapshotError;
use crate::text::TextError;

/// An error of the library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint is not what it should be.
    #[error(transparent)]
    Checkpoint(#[from] moeflux_checkpoint::Error),
    /// The tokenizer, a chat template or their files.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Sampling options that make no sense, or logits that can't be sampled from.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A constraint that can't be used, or met.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// Weights whose shapes contradict each other.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A step that did not finish; its sequences are as they were.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The experts cannot be streamed as asked.
    #[error(transparent)]
    Experts(Box<StoreError>),
    /// There is too little memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// There is too little memory on the GPU.
    #[error(transparent)]
    GpuMemory(#[from] GpuMemoryError),
    /// A GPU cannot read experts in the host's memory as asked.
    #[error(transparent)]
    HostCopy(#[from] HostCopyError),
    /// The thread pool could not be made.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// Why.
        source: moeflux_kernels::PoolError,
    },
    /// A thread beside the engine's own could not be started.
    #[error("cannot start a thread for the engine: {source}")]
    EngineThread {
        /// Why.
        source: std::io::Error,
    },
    /// An engine option that can't be.
    #[error("{option}: expected {expected}, found {found}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A token that the model doesn't know.
    #[error("token {index} is {token}, but the model's vocabulary has {vocab_size} tokens")]
    TokenOutOfRange {
        /// Place among the tokens given.
        index: usize,
        /// The token.
        token: u32,
        /// One past the largest token.
        vocab_size: usize,
    },
    /// More tokens than the model was made for.
    #[error(
        "the sequence has {len} tokens and {new} more are to be added, but the model's context ends at {context}; \
         shorten the prompt or start a new sequence"
    )]
    ContextFull {
        /// Tokens that the sequence has.
        len: usize,
        /// Tokens to be added.
        new: usize,
        /// The model's context length.
        context: usize,
    },
    /// Nothing to evaluate.
    #[error("no tokens were given: the model needs at least one to continue from")]
    NoTokens,
    /// One position is needed for each token.
    #[error("{tokens} tokens were given with {positions} positions")]
    Positions {
        /// Number of tokens.
        tokens: usize,
        /// Number of positions.
        positions: usize,
    },
    /// The sequence was made by an engine of another mode.
    #[error(
        "the sequence's caches are of {found:?}, but this engine's numbers need {expected:?}: start the sequence with \
         this engine, or use one of the mode that made it"
    )]
    KvType {
        /// What the engine works on.
        expected: KvType,
        /// What the sequence has.
        found: KvType,
    },
    /// One sequence would take more than there is for all.
    #[error(
        "the states of this sequence alone take {bytes} bytes, but there are {budget} for all sequences; shorten it, or \
         raise the budget"
    )]
    StateBudget {
        /// What it takes.
        bytes: u64,
        /// What there is.
        budget: u64,
    },
    /// A sequence can't be made longer by cutting it.
    #[error("the sequence has {len} tokens: it cannot be cut to {to}")]
    Truncate {
        /// Tokens that it has.
        len: usize,
        /// How many it was to have.
        to: usize,
    },
    /// A snapshot of a sequence can't be written or read.
    #[error("{}: {source}", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SnapshotError,
    },
    /// An `MFLX` snapshot can't be written or read.
    #[error("MFLX snapshot: {0}")]
    Mflx(#[from] MflxError),
    /// The sequence was made by another model.
    #[error("the sequence belongs to another model: its states mean nothing to this one")]
    ForeignSequence,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Error::Experts(Box::new(error))
    }
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Checkpoint(error) => Error::Checkpoint(error),
            ModelError::Graph(error) => Error::Graph(error),
            ModelError::Text(error) => Error::Text(error),
        }
    }
}

impl From<PlacementError> for Error {
    fn from(error: PlacementError) -> Self {
        match error {
            PlacementError::Memory(error) => Error::Memory(error),
            PlacementError::GpuMemory(error) => Error::GpuMemory(error),
            PlacementError::HostCopy(error) => Error::HostCopy(error),
            PlacementError::Graph(error) => Error::Graph(error),
        }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Backend(error) => Error::Backend(error),
            OpenError::Checkpoint(error) => Error::Checkpoint(error),
            OpenError::Graph(error) => Error::Graph(error),
            OpenError::Experts(error) => Error::Experts(error),
            OpenError::Threads { threads, source } => Error::Threads { threads, source },
        }
    }
}

impl From<MeasureError> for Error {
    fn from(error: MeasureError) -> Self {
        match error {
            MeasureError::Graph(error) => Error::Graph(error),
            MeasureError::Backend(error) => Error::Backend(error),
        }
    }
}

impl From<RolesError> for Error {
    fn from(error: RolesError) -> Self {
        match error {
            RolesError::Sampling(error) => Error::Sampling(error),
            RolesError::Text(error) => Error::Text(error),
        }
    }
}

impl From<OptionError> for Error {
    fn from(OptionError { option, expected, found }: OptionError) -> Self {
        Error::Option { option, expected, found }
    }
}
