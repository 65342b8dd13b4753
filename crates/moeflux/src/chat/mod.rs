//! Conversations: prompts from messages and tools, and what the text of an answer says.
//!
//! [`Chat`] holds a conversation with a model and streams each answer as [`Delta`]s. Its parts serve callers that run
//! requests themselves, as the server does: [`ChatOptions`] renders prompts and makes the constraints that force tool
//! calls, [`Format`] is how a model writes thoughts and calls, and a [`Parser`] reads those out of an answer's text.
//!
//! ```no_run
//! use moeflux::{Chat, Delta};
//! # fn main() -> Result<(), moeflux::chat::ChatError> {
//! let mut chat = Chat::open("models/demo")?.with_system("Answer briefly.");
//! for delta in chat.ask("What is 17 + 25?")? {
//!     if let Delta::Text(text) = delta? {
//!         print!("{text}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A tool call is reported when it is complete, or as soon as its arguments are longer than a line: from then on they stream as
//! they are written. Text that begins like a call and is none, or that is cut off before, is part of the answer's text, as
//! the model wrote it. So is a call of a tool that is not offered.

mod answer;
mod constraint;
mod conversation;
mod detect;
mod error;
mod format;
mod formats;
mod harmony;
mod options;
mod parser;
mod prefill;
mod read;
mod schema;
mod tagged;
mod thoughts;
mod tools;

pub use answer::{Answer, Delta, ToolCall};
pub use conversation::{Chat, Reply};
pub use error::ChatError;
pub use format::{Format, Syntax};
pub use options::{ChatOptions, ToolChoice};
pub use parser::Parser;
pub use prefill::Prefill;
