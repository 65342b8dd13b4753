//! Conversations: prompts, and what answers say.

mod conversation;
#[cfg(feature = "grammar")]
mod formats;
mod parser;
