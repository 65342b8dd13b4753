//! Why a request does not get what it asked for.

use std::sync::Arc;

use crate::error::Error;

/// A request that was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Too many wait already.
    #[error("{limit} requests wait already: try again later, or allow more")]
    QueueFull {
        /// How many may wait.
        limit: usize,
    },
    /// The engine takes no more requests.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The thread that runs the engine has ended.
    #[error("the engine has stopped")]
    Stopped,
    /// It can't be run.
    #[error(transparent)]
    Invalid(Box<Error>),
}

impl From<Error> for SubmitError {
    fn from(error: Error) -> Self {
        SubmitError::Invalid(Box::new(error))
    }
}

/// A request that was taken and came to nothing, or not to its end.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Something went wrong with it.
    #[error(transparent)]
    Failed(Arc<Error>),
    /// The thread that runs the engine has ended.
    #[error("the engine has stopped")]
    Stopped,
}

impl From<Error> for RequestError {
    fn from(error: Error) -> Self {
        RequestError::Failed(Arc::new(error))
    }
}
