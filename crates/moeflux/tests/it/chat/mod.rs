//! Conversations: prompts, and what answers say.

mod calls;
mod conversation;
#[cfg(feature = "grammar")]
mod formats;
mod parser;
