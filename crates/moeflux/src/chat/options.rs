//! How a conversation is rendered, and which tools may or must be called.

use serde_json::{Map, Value};

use super::tools::{self, Tools};
use super::{ChatError, Format, Parser, Prefill, constraint};
use crate::sampling::Constraint;
use crate::text::{ChatRequest, Message, Tokenizer};

/// Tools and settings of a conversation beside its messages.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatOptions {
    /// Tools in the form of OpenAI's chat API: `{type: "function", function: {name, description, parameters}}`.
    pub tools: Vec<Value>,
    /// Which of them may or must be called.
    pub tool_choice: ToolChoice,
    /// Whether an answer may call several tools. It binds only where calls are required.
    pub parallel_tool_calls: bool,
    /// Whether to think first; `None` leaves it to the template.
    pub enable_thinking: Option<bool>,
    /// More variables for the template, such as `reasoning_effort`.
    pub template_variables: Map<String, Value>,
    /// The beginning of the answer, which the model continues. It decides whether to think: not after its text has begun.
    pub prefill: Option<Prefill>,
}

/// Which tools may or must be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model chooses.
    #[default]
    Auto,
    /// None may be called, and none is offered.
    None,
    /// At least one must be called, whichever.
    Required,
    /// The tool of this name must be called.
    Named(String),
}

impl Default for ChatOptions {
    /// No tools, several calls in an answer, and the template's own choice whether to think.
    fn default() -> Self {
        Self {
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            enable_thinking: None,
            template_variables: Map::new(),
            prefill: None,
        }
    }
}

impl ChatOptions {
    /// The prompt that a model's chat template makes of a conversation, up to where the answer begins or is to be continued.
    pub fn prompt(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<String, ChatError> {
        if messages.is_empty() {
            return Err(ChatError::NoMessages);
        }
        let tools = self.offered();
        if let Some(index) = tools.iter().position(|tool| tools::name(tool).is_none()) {
            return Err(ChatError::Tool { index, found: tools[index].to_string() });
        }
        let thinks = self.prefill.as_ref().map(|prefill| !prefill.reasoning.is_empty());
        let prompt = tokenizer.render_chat(&ChatRequest {
            messages,
            tools: (!tools.is_empty()).then_some(tools),
            add_generation_prompt: true,
            enable_thinking: thinks.or(self.enable_thinking),
            extra: self.template_variables.clone(),
            now: None,
        })?;
        Ok(match &self.prefill {
            None => prompt,
            Some(prefill) => prefill.append(prompt, Format::of(tokenizer), tokenizer),
        })
    }

    /// The constraint of the answer to `prompt`: the calls that `tool_choice` requires, in the model's format, else calls or
    /// `form`, which the caller wants. Where the model chooses and there is no form, calls that it makes meet their schema: text
    /// is free up to the token that begins a call. [`ChatError::ConstraintWithTools`] if tools may be called and the form is a
    /// grammar, which can't be joined with that of calls.
    pub fn constraint(
        &self,
        tokenizer: &Tokenizer,
        format: Format,
        prompt: &str,
        form: Option<Constraint>,
    ) -> Result<Option<Constraint>, ChatError> {
        let tools = Tools::new(self.offered());
        if !self.tool_choice.is_required() {
            return match form {
                _ if tools.is_empty() => Ok(form),
                Some(form) if format.calls().is_none() => Ok(Some(form)),
                Some(form) => {
                    constraint::calls_or_form(format, tokenizer, &tools, &form, self.parallel_tool_calls)
                        .map(Some)
                        .ok_or(ChatError::ConstraintWithTools)
                }
                None if cfg!(feature = "grammar") => Ok(constraint::lazy(format, tokenizer, &tools, prompt)),
                None => Ok(None),
            };
        }
        if tools.is_empty() {
            return Err(ChatError::NoTools);
        }
        if let ToolChoice::Named(name) = &self.tool_choice
            && tools.get(name).is_none()
        {
            let tools = tools.iter().map(|tool| tool.name.clone()).collect();
            return Err(ChatError::UnknownTool { name: name.clone(), tools });
        }
        let calls = format.constraint(tokenizer, self.offered(), &self.tool_choice, self.parallel_tool_calls);
        calls.map(Some).ok_or(ChatError::UnknownCalls)
    }

    /// A parser of the answer to a prompt of [`prompt`](Self::prompt).
    pub fn parser(&self, format: Format, prompt: &str) -> Parser {
        let mut parser = Parser::new(format, self.offered(), prompt);
        if let Some(prefill) = &self.prefill {
            // It belongs to what has begun: it is no part of the continuation.
            drop(parser.push(&prefill.header(format, prompt)));
        }
        parser
    }

    /// Whether an answer may call a tool.
    pub fn offers_tools(&self) -> bool {
        !self.offered().is_empty()
    }

    /// The tools that the model is shown.
    fn offered(&self) -> &[Value] {
        if self.tool_choice == ToolChoice::None { &[] } else { &self.tools }
    }
}

impl ToolChoice {
    /// Whether an answer without a call is no answer.
    pub fn is_required(&self) -> bool {
        matches!(self, ToolChoice::Required | ToolChoice::Named(_))
    }
}
