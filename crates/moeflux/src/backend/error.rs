//! What can go wrong in a backend.

use moeflux_experts::StoreError;
use moeflux_kernels::MatrixError;

use crate::graph::GraphError;

/// A step that did not finish.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Someone asked it to stop.
    #[error("cancelled")]
    Cancelled,
    /// An expert could not be read.
    #[error(transparent)]
    Experts(Box<StoreError>),
    /// The bytes that were read of an expert are not those of its matrices.
    #[error("an expert as it was read: {0}")]
    Matrix(#[from] MatrixError),
    /// The GPU did not do as asked.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] moeflux_wgpu::GpuError),
}

impl From<StoreError> for BackendError {
    fn from(error: StoreError) -> Self {
        BackendError::Experts(Box::new(error))
    }
}

/// A backend that cannot be opened for a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The device did not do as asked.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The checkpoint does not hold experts as they are computed with.
    #[error(transparent)]
    Checkpoint(#[from] moeflux_checkpoint::Error),
    /// Weights whose shapes contradict each other.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The experts cannot be streamed as asked.
    #[error(transparent)]
    Experts(Box<StoreError>),
    /// The thread pool could not be made.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// Why.
        source: moeflux_kernels::PoolError,
    },
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        OpenError::Experts(Box::new(error))
    }
}

/// A step cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The graph of a step cannot be made.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An operation did not run.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
