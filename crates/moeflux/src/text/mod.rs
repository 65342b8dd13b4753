//! Text in and out: the tokenizer, chat templates, streaming detokenisation and stop strings.
//!
//! Everything here works from the files of a checkpoint and knows nothing of models or devices.

mod error;
mod flash_moe;
mod generation;
mod gguf;
mod message;
mod stop;
mod stream;
mod template;
mod thinking;
mod tiktoken;
mod tokenizer;

pub use error::TextError;
pub use generation::GenerationDefaults;
pub use message::{Content, Message};
pub use stop::{StopOutcome, StopStrings};
pub(crate) use stream::Decoding;
pub use stream::TokenStream;
pub use template::{ChatRequest, ChatTemplate};
pub(crate) use thinking::{THINK, Thinking};
pub use tokenizer::Tokenizer;
