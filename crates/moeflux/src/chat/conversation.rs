//! A conversation with a model.

use std::collections::VecDeque;
use std::path::Path;

use serde_json::Value;

use super::{Answer, ChatError, ChatOptions, Delta, Format, Parser, ToolCall};
use crate::engine::{Engine, EngineOptions, Event, GenerateRequest, Generation, Outcome};
use crate::model::{Model, ModelOptions};
use crate::sampling::SamplingOptions;
use crate::sequence::Sequence;
use crate::text::{Content, Message};

/// A conversation with a model: its messages, and the sequence in which they are evaluated.
///
/// Each answer is a function of the messages alone. The sequence is kept from answer to answer and cut back to where the new
/// prompt differs, so only new tokens are read; messages may therefore be changed, removed or replaced at any time.
#[derive(Debug)]
pub struct Chat {
    /// The conversation so far, in the form of OpenAI's chat API.
    pub messages: Vec<Message>,
    /// Tools, and how the messages are rendered.
    pub options: ChatOptions,
    /// Everything else that is asked of an answer: sampling, limits, stop strings, a constraint. Its prompt is not used.
    /// [`new`](Self::new) sets the sampling that the model recommends, with seed 0, and no limit but the context.
    pub request: GenerateRequest,
    engine: Engine,
    sequence: Sequence,
    format: Format,
    outcome: Option<Outcome>,
}

impl Chat {
    /// Opens a model's folder or file and begins a conversation, on the CPU with default options.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ChatError> {
        let model = Model::open(path, &ModelOptions::default())?;
        Ok(Self::new(Engine::new(model, &EngineOptions::default())?))
    }

    /// Begins a conversation on an engine.
    pub fn new(engine: Engine) -> Self {
        let tokenizer = engine.model().tokenizer();
        let sampling = SamplingOptions::recommended(tokenizer.generation_defaults());
        Self {
            messages: Vec::new(),
            options: ChatOptions::default(),
            request: GenerateRequest { sampling, ..GenerateRequest::default() },
            format: Format::of(tokenizer),
            sequence: engine.sequence(),
            engine,
            outcome: None,
        }
    }

    /// This conversation with a system message; see [`set_system`](Self::set_system).
    #[must_use]
    pub fn with_system(mut self, text: &str) -> Self {
        self.set_system(text);
        self
    }

    /// This conversation with tools that the model may call, in the form of OpenAI's chat API:
    /// `{type: "function", function: {name, description, parameters}}`.
    #[must_use]
    pub fn with_tools(mut self, tools: Vec<Value>) -> Self {
        self.options.tools = tools;
        self
    }

    /// This conversation with a model that thinks before it answers, or does not. Without it the template chooses.
    #[must_use]
    pub fn with_thinking(mut self, enable: bool) -> Self {
        self.options.enable_thinking = Some(enable);
        self
    }

    /// This conversation with other sampling than the model recommends.
    #[must_use]
    pub fn with_sampling(mut self, sampling: SamplingOptions) -> Self {
        self.request.sampling = sampling;
        self
    }

    /// Replaces the system message; an empty text removes it.
    pub fn set_system(&mut self, text: &str) {
        self.messages.retain(|message| message.role != "system");
        if !text.is_empty() {
            self.messages.insert(0, Message::new("system", text));
        }
    }

    /// Appends a question and begins the answer.
    ///
    /// The answer is computed as the deltas are taken. After an error the conversation is what it was before the question.
    pub fn ask(&mut self, question: impl Into<String>) -> Result<Reply<'_>, ChatError> {
        self.messages.push(Message::new("user", question));
        self.start(self.messages.len() - 1)
    }

    /// Begins the answer to the messages as they are, such as to results of tools, or to an edited conversation.
    pub fn reply(&mut self) -> Result<Reply<'_>, ChatError> {
        self.start(self.messages.len())
    }

    /// The tool calls of the last answer that have no result yet.
    pub fn pending_calls(&self) -> Vec<ToolCall> {
        let (calls, results) = self.last_calls();
        calls.iter().skip(results).filter_map(ToolCall::of_json).collect()
    }

    /// Appends the result of the first of the [pending calls](Self::pending_calls); [`reply`](Self::reply) goes on when all
    /// have one.
    pub fn push_result(&mut self, result: impl Into<String>) -> Result<(), ChatError> {
        let (calls, results) = self.last_calls();
        let call = calls.get(results).ok_or(ChatError::NoPendingCall)?;
        let name = ToolCall::of_json(call).map(|call| call.name);
        let tool_call_id = call.get("id").and_then(Value::as_str).map(str::to_owned);
        let content = Some(Content::Text(result.into()));
        let role = "tool".to_owned();
        self.messages.push(Message { role, content, tool_call_id, name, ..Message::default() });
        Ok(())
    }

    /// Forgets all messages but the system's, and what was evaluated.
    pub fn clear(&mut self) {
        self.messages.retain(|message| message.role == "system");
        self.sequence = self.engine.sequence();
    }

    /// The engine that answers.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The sequence in which the conversation is evaluated.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// How the last answer ended and what it took; `None` if it did not end. `prompt_tokens` counts the whole prompt, and
    /// `cached_tokens` those of it that were not read again.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The calls of the last answer, and how many results follow it.
    fn last_calls(&self) -> (&[Value], usize) {
        let results = self.messages.iter().rev().take_while(|message| message.role == "tool").count();
        let last = self.messages.iter().rev().nth(results);
        (last.map_or(&[], |message| message.tool_calls.as_slice()), results)
    }

    /// Begins an answer; if there is none, only the first `kept` messages stay.
    fn start(&mut self, kept: usize) -> Result<Reply<'_>, ChatError> {
        self.outcome = None;
        let (request, parser, known, cached) = match self.prepare() {
            Ok(prepared) => prepared,
            Err(error) => {
                self.messages.truncate(kept);
                return Err(error);
            }
        };
        let Self { engine, sequence, messages, outcome, .. } = self;
        let generation = match engine.generate(sequence, request) {
            Ok(generation) => generation,
            Err(error) => {
                messages.truncate(kept);
                return Err(error.into());
            }
        };
        let answer = Answer::default();
        let ready = VecDeque::new();
        Ok(Reply {
            generation,
            parser,
            answer,
            ready,
            messages,
            kept,
            known,
            cached,
            outcome,
            state: State::Running,
        })
    }

    /// Renders the prompt and cuts the sequence back to what it shares with it. Returns the request for the rest, the
    /// parser of the answer, the number of tokens that the sequence has, and how many of those were not read again.
    fn prepare(&mut self) -> Result<(GenerateRequest, Parser, usize, usize), ChatError> {
        let model = self.engine.model();
        let tokenizer = model.tokenizer();
        let prompt = self.options.prompt(tokenizer, &self.messages)?;
        let constraint =
            self.options.constraint(tokenizer, self.format, &prompt, self.request.constraint.clone())?;
        let tokens = tokenizer.encode_within(&prompt, model.context_length(), &self.request.cancel)?;
        let parser = self.options.parser(self.format, &prompt);
        let known = self.sequence.reusable(&tokens);
        let replayed = self.engine.truncate(&mut self.sequence, known)?.replayed;
        // A later prompt may differ from here on: this is where the last answer ended.
        self.sequence.mark();
        let request =
            GenerateRequest { prompt: tokens[known..].to_vec(), constraint, ..self.request.clone() };
        Ok((request, parser, known, known - replayed))
    }
}

/// An answer while it is computed: an iterator of deltas.
///
/// When it is dropped, what has come of the answer is the conversation's last message, also if the answer has not ended.
/// After an error the conversation is what it was before.
#[derive(Debug)]
pub struct Reply<'c> {
    generation: Generation<'c>,
    parser: Parser,
    answer: Answer,
    /// Deltas that the iterator has not returned yet.
    ready: VecDeque<Delta>,
    messages: &'c mut Vec<Message>,
    /// Messages that stay after an error.
    kept: usize,
    /// Tokens of the prompt that the sequence had.
    known: usize,
    /// Those of them that were not read again.
    cached: usize,
    outcome: &'c mut Option<Outcome>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Ended,
    Failed,
}

impl Reply<'_> {
    /// Computes to the end and returns the whole answer.
    pub fn complete(mut self) -> Result<Answer, ChatError> {
        while let Some(event) = self.next_event() {
            event?;
        }
        Ok(self.answer.clone())
    }

    /// The next event of the engine with the deltas that are certain since, for callers that show progress or log
    /// probabilities; `None` after the end. The iterator does not return these deltas again.
    pub fn next_event(&mut self) -> Option<Result<(Event, Vec<Delta>), ChatError>> {
        let mut event = match self.generation.next()? {
            Ok(event) => event,
            Err(error) => {
                self.state = State::Failed;
                self.messages.truncate(self.kept);
                return Some(Err(error.into()));
            }
        };
        let deltas = self.parser.read(&event);
        for delta in &deltas {
            self.answer.push(delta.clone());
        }
        if let Event::Done(outcome) = &mut event {
            self.state = State::Ended;
            outcome.prompt_tokens += self.known;
            outcome.cached_tokens = self.cached;
            *self.outcome = Some(outcome.clone());
        }
        Some(Ok((event, deltas)))
    }
}

impl Iterator for Reply<'_> {
    type Item = Result<Delta, ChatError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(delta) = self.ready.pop_front() {
                return Some(Ok(delta));
            }
            match self.next_event()? {
                Ok((_, deltas)) => self.ready.extend(deltas),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        if self.state == State::Failed {
            return;
        }
        for delta in self.parser.finish() {
            self.answer.push(delta);
        }
        let calls = self.messages.iter().map(|message| message.tool_calls.len()).sum();
        self.messages.push(self.answer.message(calls));
    }
}
