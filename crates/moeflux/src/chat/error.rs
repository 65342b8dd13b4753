//! What can go wrong in a conversation.

use crate::error::Error;
use crate::model::ModelError;
use crate::text::TextError;

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The model could not be opened, or the engine could not run a request.
    #[error(transparent)]
    Engine(Box<Error>),
    /// There is nothing to answer.
    #[error("messages: expected at least one message, found none")]
    NoMessages,
    /// A tool without a name.
    #[error(
        "tools[{index}]: expected {{\"type\": \"function\", \"function\": {{\"name\": …}}}}, found {found}"
    )]
    Tool {
        /// Its place in the list, from 0.
        index: usize,
        /// The JSON that was given.
        found: String,
    },
    /// A tool that must be called and is not offered.
    #[error("tool_choice: expected auto, none, required or one of the tools ({}), found {name}", tools.join(", "))]
    UnknownTool {
        /// The tool that was chosen.
        name: String,
        /// The names of those that are offered.
        tools: Vec<String>,
    },
    /// A call is required, and there is nothing to call.
    #[error("tool_choice: a call is required, but no tool is offered")]
    NoTools,
    /// A call is required of a model whose format of calls is not known.
    #[error("the format of this model's tool calls is unknown, so a call cannot be required")]
    UnknownCalls,
    /// A constraint that cannot be joined with the grammar of calls.
    #[error(
        "an answer that a grammar prescribes cannot call tools: use a JSON schema, or remove the grammar or the tools, or set the tool choice to none"
    )]
    ConstraintWithTools,
    /// A result without a call that waits for one.
    #[error("no tool call waits for a result: the last answer has none, or each has its result")]
    NoPendingCall,
}

impl From<Error> for ChatError {
    fn from(error: Error) -> Self {
        ChatError::Engine(Box::new(error))
    }
}

impl From<TextError> for ChatError {
    fn from(error: TextError) -> Self {
        Error::from(error).into()
    }
}

impl From<ModelError> for ChatError {
    fn from(error: ModelError) -> Self {
        Error::from(error).into()
    }
}
