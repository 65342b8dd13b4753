//! A conversation: its messages, and the sequence in which they are evaluated.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use moeflux::text::{ChatRequest, Message};
use moeflux::{CancelToken, Engine, GenerateRequest, Sequence, Truncated};

use crate::answer::answer;
use crate::interrupt::Interrupt;
use crate::reasoning::ReasoningSplitter;
use crate::stats::Stats;

/// Messages and what was evaluated of them. The sequence is kept from turn to turn and cut where the conversation turns
/// another way, so only what is new is read.
pub(crate) struct Conversation {
    engine: Engine,
    sequence: Sequence,
    messages: Vec<Message>,
}

impl Conversation {
    /// An empty one.
    pub(crate) fn new(engine: Engine) -> Self {
        let sequence = engine.sequence();
        Self { engine, sequence, messages: Vec::new() }
    }

    /// The engine that answers.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Forgets everything but the system message.
    pub(crate) fn reset(&mut self) {
        self.messages.retain(|message| message.role == "system");
        self.sequence = self.engine.sequence();
    }

    /// Sets the system message, or removes it if `text` is empty.
    pub(crate) fn set_system(&mut self, text: &str) {
        self.messages.retain(|message| message.role != "system");
        if !text.is_empty() {
            self.messages.insert(0, Message::new("system", text));
        }
    }

    /// Writes the messages as JSON, as OpenAI's API has them.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.messages)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))
    }

    /// Replaces the messages by those that a file holds; says how many.
    pub(crate) fn load(&mut self, path: &Path) -> Result<usize> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        self.messages = serde_json::from_str(&text).with_context(|| {
            format!("{}: expected a JSON list of messages with role and content", path.display())
        })?;
        self.sequence = self.engine.sequence();
        Ok(self.messages.len())
    }

    /// Asks `question`, streaming the answer. `request` says all but the prompt. After an error the
    /// conversation is what it was before.
    pub(crate) fn ask(
        &mut self,
        question: &str,
        think: bool,
        request: GenerateRequest,
        interrupt: &Interrupt,
    ) -> Result<Stats> {
        self.messages.push(Message::new("user", question));
        let result = self.answer(think, request, interrupt);
        if result.is_err() {
            self.messages.pop();
        }
        result
    }

    /// Answers the last question again, instead of as before. After an error the conversation is what it was before.
    pub(crate) fn retry(
        &mut self,
        think: bool,
        request: GenerateRequest,
        interrupt: &Interrupt,
    ) -> Result<Stats> {
        let question = self.last_question().context("there is no message to answer again")?;
        let before = self.messages.split_off(question + 1);
        let result = self.answer(think, request, interrupt);
        if result.is_err() {
            self.messages.extend(before);
        }
        result
    }

    /// Takes back the last question and its answer.
    pub(crate) fn undo(&mut self) -> Result<()> {
        let question = self.last_question().context("there is no message to remove")?;
        self.messages.truncate(question);
        Ok(())
    }

    fn last_question(&self) -> Option<usize> {
        self.messages.iter().rposition(|message| message.role == "user")
    }

    fn answer(&mut self, think: bool, request: GenerateRequest, interrupt: &Interrupt) -> Result<Stats> {
        let tokenizer = self.engine.model().tokenizer();
        let prompt = tokenizer.render_chat(&ChatRequest {
            messages: &self.messages,
            add_generation_prompt: true,
            enable_thinking: Some(think),
            ..ChatRequest::default()
        })?;
        let most = self.engine.model().context_length();
        let tokens = tokenizer.encode_within(&prompt, most, &CancelToken::default())?;
        // What was read of another question, or of an answer that was taken back, is dropped.
        let known = self.sequence.reusable(&tokens);
        let Truncated { replayed } = self.engine.truncate(&mut self.sequence, known)?;
        // Where the last answer ends is where the next question may be taken back.
        self.sequence.mark();
        let (new, cached_tokens) = (tokens[known..].to_vec(), known - replayed);
        let seed = request.sampling.seed;
        let splitter = ReasoningSplitter::after(&prompt);
        let answer = interrupt.during(|cancel| {
            let request = GenerateRequest { prompt: new, cancel, ..request };
            answer(&mut self.engine, &mut self.sequence, request, Some(splitter), true)
        })?;
        let stats = Stats::new(&answer, &self.engine, &self.sequence, cached_tokens, seed, None);
        let mut message = Message::new("assistant", answer.text);
        message.reasoning_content = Some(answer.reasoning).filter(|reasoning| !reasoning.is_empty());
        self.messages.push(message);
        Ok(stats)
    }
}
