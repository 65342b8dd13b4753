//! A conversation in the terminal: the library's, with answers that Ctrl-C stops, and files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use moeflux::chat::{Chat, ChatOptions};
use moeflux::{Engine, GenerateRequest};

use crate::answer::{Meters, follow};
use crate::interrupt::Interrupt;
use crate::stats::Stats;

/// A conversation whose answers are shown.
pub(crate) struct Conversation {
    chat: Chat,
}

impl Conversation {
    /// An empty one.
    pub(crate) fn new(engine: Engine, options: ChatOptions) -> Self {
        let mut chat = Chat::new(engine);
        chat.options = options;
        Self { chat }
    }

    /// The engine that answers.
    pub(crate) fn engine(&self) -> &Engine {
        self.chat.engine()
    }

    /// Forgets everything but the system message.
    pub(crate) fn reset(&mut self) {
        self.chat.clear();
    }

    /// Sets the system message, or removes it if `text` is empty.
    pub(crate) fn set_system(&mut self, text: &str) {
        self.chat.set_system(text);
    }

    /// Lets the model think before it answers, or not.
    pub(crate) fn set_thinking(&mut self, enable: bool) {
        self.chat.options.enable_thinking = Some(enable);
    }

    /// Writes the messages as JSON, as OpenAI's API has them.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.chat.messages)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))
    }

    /// Replaces the messages by those that a file holds; says how many.
    pub(crate) fn load(&mut self, path: &Path) -> Result<usize> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let messages = serde_json::from_str(&text).with_context(|| {
            format!("{}: expected a JSON list of messages with role and content", path.display())
        })?;
        self.chat.clear();
        self.chat.messages = messages;
        Ok(self.chat.messages.len())
    }

    /// Asks `question`, streaming the answer. `request` says all but the prompt. After an error the
    /// conversation is what it was before.
    pub(crate) fn ask(
        &mut self,
        question: &str,
        request: GenerateRequest,
        interrupt: &Interrupt,
    ) -> Result<Stats> {
        self.answer(Some(question), request, interrupt)
    }

    /// Answers the last question again, instead of as before. After an error the conversation is what it was before.
    pub(crate) fn retry(&mut self, request: GenerateRequest, interrupt: &Interrupt) -> Result<Stats> {
        let question = self.last_question().context("there is no message to answer again")?;
        let before = self.chat.messages.split_off(question + 1);
        let result = self.answer(None, request, interrupt);
        if result.is_err() {
            self.chat.messages.extend(before);
        }
        result
    }

    /// Gives the model the result of the first tool call that has none; when all have one, streams the answer to them.
    pub(crate) fn give_result(
        &mut self,
        result: &str,
        request: GenerateRequest,
        interrupt: &Interrupt,
    ) -> Result<Option<Stats>> {
        self.chat.push_result(result)?;
        if !self.chat.pending_calls().is_empty() {
            return Ok(None);
        }
        self.answer(None, request, interrupt).map(Some)
    }

    /// Takes back the last question and its answer.
    pub(crate) fn undo(&mut self) -> Result<()> {
        let question = self.last_question().context("there is no message to remove")?;
        self.chat.messages.truncate(question);
        Ok(())
    }

    fn last_question(&self) -> Option<usize> {
        self.chat.messages.iter().rposition(|message| message.role == "user")
    }

    fn answer(
        &mut self,
        question: Option<&str>,
        request: GenerateRequest,
        interrupt: &Interrupt,
    ) -> Result<Stats> {
        let chat = &mut self.chat;
        let mut answer = interrupt.during(|cancel| -> Result<_> {
            chat.request = GenerateRequest { cancel, ..request };
            let meters = Meters::start(chat.engine());
            let mut reply = match question {
                Some(question) => chat.ask(question)?,
                None => chat.reply()?,
            };
            follow(&mut std::iter::from_fn(|| reply.next_event()), &meters, true)
        })?;
        // Statistics count the tokens that were read apart from those that were there.
        let cached_tokens = answer.outcome.cached_tokens;
        answer.outcome.prompt_tokens -= cached_tokens;
        let seed = chat.request.sampling.seed;
        let state_bytes = chat.sequence().state_bytes();
        Ok(Stats::new(&answer, chat.engine().model(), state_bytes, cached_tokens, seed, None))
    }
}
