//! What can go wrong in placing a model.

use super::{GpuMemoryError, HostCopyError, MemoryError};
use crate::graph::GraphError;

/// A model that has no place here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// The host has too little memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A GPU has too little memory.
    #[error(transparent)]
    GpuMemory(#[from] GpuMemoryError),
    /// A GPU cannot read experts in the host's memory as asked.
    #[error(transparent)]
    HostCopy(#[from] HostCopyError),
    /// Weights whose shapes contradict each other.
    #[error(transparent)]
    Graph(#[from] GraphError),
}
