//! What can be wrong with a model.

use crate::graph::GraphError;
use crate::text::TextError;

/// A model that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The checkpoint is not what it should be.
    #[error(transparent)]
    Checkpoint(#[from] moeflux_checkpoint::Error),
    /// Weights whose shapes contradict each other.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The tokenizer, a chat template or their files.
    #[error(transparent)]
    Text(#[from] TextError),
}
