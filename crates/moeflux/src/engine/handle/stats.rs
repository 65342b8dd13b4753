//! What an engine does and has done.

use std::time::Duration;

/// Numbers of an [`EngineHandle`](super::EngineHandle), as of its last step. Counts are since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Sequences that run.
    pub running: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Steps so far.
    pub steps: u64,
    /// Time that steps took.
    pub busy: Duration,
    /// Tokens of prompts that were read.
    pub prompt_tokens: u64,
    /// Tokens of prompts that did not have to be read, since an earlier sequence began alike.
    pub cached_tokens: u64,
    /// Tokens that were chosen.
    pub completion_tokens: u64,
    /// Completions, embeddings and saved sequences that came to their end.
    pub finished: u64,
    /// Those that nobody wanted any more.
    pub cancelled: u64,
    /// Times that one was preempted so that another got its turn.
    pub preempted: u64,
    /// Those that failed.
    pub failed: u64,
    /// Memory of the states of sequences that run, in bytes, as far as nobody else holds it.
    pub state_bytes: u64,
    /// Memory of prefixes that are kept, in bytes.
    pub prefix_bytes: u64,
    /// Memory for transient tensors, in bytes.
    pub transient_bytes: u64,
}
