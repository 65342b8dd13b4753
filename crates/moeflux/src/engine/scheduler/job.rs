//! What a request has become on its way through the scheduler.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_channel::Sender;

use super::super::completion::{Completion, Told};
use super::super::event::{Event, Outcome, StopReason};
use super::super::handle::{Embedding, EngineStats, RequestError, Saved, SubmitOptions};
use super::super::prompt::Prompt;
use super::super::speculate::Speculated;
use crate::backend::CancelToken;
use crate::error::Error;
use crate::sequence::Sequence;

/// A request that waits or runs.
#[derive(Debug)]
pub(in crate::engine) struct Job {
    /// What is to be read before the goal is worked on.
    pub(in crate::engine) prompt: Prompt,
    pub(in crate::engine) goal: Goal,
    pub(in crate::engine) priority: i32,
    /// See [`SubmitOptions::share`](crate::SubmitOptions::share).
    pub(in crate::engine) share: u64,
    pub(in crate::engine) record: Record,
    /// What it has read, while it is preempted and there is memory to keep it.
    pub(super) paused: Option<Sequence>,
    /// Logits from which the next token is to be chosen, once it is known which tokens its constraint allows.
    pub(super) held: Option<Vec<f32>>,
    /// When its time slice began, and how many steps it has had since.
    pub(super) slice: (Instant, usize),
    /// Since when nobody has read what was told, if it was preempted for that.
    pub(super) unread: Option<Instant>,
    /// The last token told of, which has not been read.
    pub(super) told: Option<u32>,
}

/// What the prompt is read for.
#[derive(Debug)]
pub(in crate::engine) enum Goal {
    /// To go on from it: several samples part where it ends.
    Generate(Vec<Sample>),
    /// To know what the model made of it.
    Embed { sum: Vec<f64>, reply: Sender<Result<Embedding, RequestError>> },
    /// To keep it in a file.
    Save { path: PathBuf, reply: Sender<Result<Saved, RequestError>> },
}

/// One completion of a prompt.
#[derive(Debug)]
pub(in crate::engine) struct Sample {
    pub(in crate::engine) completion: Completion,
    pub(in crate::engine) events: Sender<Result<Event, RequestError>>,
    /// Of the whole request, and of this sample.
    pub(in crate::engine) cancel: [CancelToken; 2],
}

/// What will be told of it at its end.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Record {
    pub(super) submitted: Instant,
    /// The first time it was let in.
    pub(super) started: Option<Instant>,
    /// When the prompt had been read.
    pub(super) read: Option<Instant>,
    /// Tokens of the prompt that the sequence has.
    pub(super) prompt_tokens: usize,
    /// How many of them an earlier sequence had read.
    pub(super) cached_tokens: usize,
}

impl Job {
    pub(in crate::engine) fn new(prompt: Prompt, goal: Goal, options: SubmitOptions) -> Self {
        let submitted = Instant::now();
        let record = Record { submitted, started: None, read: None, prompt_tokens: 0, cached_tokens: 0 };
        Self::of(prompt, goal, options, record)
    }

    /// A job that goes on where another has come to.
    pub(super) fn of(prompt: Prompt, goal: Goal, options: SubmitOptions, record: Record) -> Self {
        let SubmitOptions { priority, share } = options;
        let slice = (Instant::now(), 0);
        Job {
            prompt,
            goal,
            priority,
            share,
            record,
            paused: None,
            held: None,
            slice,
            unread: None,
            told: None,
        }
    }

    /// Whether one of its samples has been told more than `most` events that nobody has read.
    pub(super) fn is_unread(&self, most: usize) -> bool {
        match &self.goal {
            Goal::Generate(samples) => samples.iter().any(|sample| sample.events.len() > most),
            Goal::Embed { .. } | Goal::Save { .. } => false,
        }
    }

    /// How many sequences it takes, or will.
    pub(super) fn sequences(&self) -> usize {
        match &self.goal {
            Goal::Generate(samples) => samples.len(),
            Goal::Embed { .. } | Goal::Save { .. } => 1,
        }
    }

    /// Whether it may read again what it has read: not if its log-probabilities have been told of.
    pub(super) fn can_pause(&self) -> bool {
        !(self.is_reading() && self.prompt.wants_logprobs())
    }

    /// Whether there is something of it that can be read again.
    pub(super) fn can_forget(&self) -> bool {
        self.paused.is_some() && self.can_pause()
    }

    /// Whether it reads its prompt; else it decodes.
    pub(super) fn is_reading(&self) -> bool {
        !self.prompt.is_read()
    }

    /// Ends what nobody wants any more. Whether anything is left to do.
    pub(super) fn sweep(&mut self, totals: &mut EngineStats) -> bool {
        match &mut self.goal {
            Goal::Generate(samples) => {
                for sample in samples.extract_if(.., |sample| sample.is_cancelled()) {
                    totals.cancelled += 1;
                    sample.end(StopReason::Cancelled, None, &self.record);
                }
                !samples.is_empty()
            }
            Goal::Embed { reply, .. } => {
                totals.cancelled += u64::from(reply.is_closed());
                !reply.is_closed()
            }
            Goal::Save { reply, .. } => {
                totals.cancelled += u64::from(reply.is_closed());
                !reply.is_closed()
            }
        }
    }

    /// Lets nobody want it any more.
    pub(super) fn cancel(&mut self) {
        match &self.goal {
            Goal::Generate(samples) => samples.iter().for_each(|sample| sample.cancel[1].cancel()),
            Goal::Embed { reply, .. } => drop(reply.close()),
            Goal::Save { reply, .. } => drop(reply.close()),
        }
    }

    /// What stops a step in which there is nothing but this, where one token does.
    pub(super) fn cancel_token(&self) -> Option<CancelToken> {
        match &self.goal {
            Goal::Generate(samples) => match samples.as_slice() {
                [sample] => Some(sample.cancel[1].clone()),
                _ => None,
            },
            Goal::Embed { .. } | Goal::Save { .. } => None,
        }
    }

    /// Tells everyone who waits for it that it failed.
    pub(super) fn fail(self, error: &RequestError) {
        match self.goal {
            Goal::Generate(samples) => {
                for sample in samples {
                    sample.send(Err(error.clone()));
                }
            }
            Goal::Embed { reply, .. } => drop(reply.try_send(Err(error.clone()))),
            Goal::Save { reply, .. } => drop(reply.try_send(Err(error.clone()))),
        }
    }

    /// Tells all samples.
    pub(super) fn tell(&self, event: &Event) {
        if let Goal::Generate(samples) = &self.goal {
            for sample in samples {
                sample.send(Ok(event.clone()));
            }
        }
    }
}

impl Sample {
    /// Whether nobody wants it any more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.events.is_closed() || self.cancel.iter().any(CancelToken::is_cancelled)
    }

    /// What nobody reads piles up until the job is preempted for it; who does not listen misses it.
    pub(super) fn send(&self, event: Result<Event, RequestError>) {
        drop(self.events.try_send(event));
    }

    /// Chooses a token and tells of it; `None` if it was the last, with the reason and the rest of the text.
    pub(super) fn go_on(
        &mut self,
        logits: &[f32],
    ) -> Result<Result<u32, (StopReason, Option<String>)>, Error> {
        let chosen = self.completion.choose(logits)?;
        Ok(match self.completion.tell(chosen)? {
            Told::Token(token, event) => {
                self.send(Ok(event));
                if self.completion.is_full() { Err((StopReason::MaxTokens, None)) } else { Ok(token) }
            }
            Told::End(stop, text) => Err((stop, Some(text))),
        })
    }

    /// Tells that it has ended, with the last of its text unless that is still to be found.
    pub(super) fn end(mut self, stop: StopReason, text: Option<String>, record: &Record) {
        let text = match text.map_or_else(|| self.completion.finish(), Ok) {
            Ok(text) => text,
            Err(error) => return self.send(Err(error.into())),
        };
        let now = Instant::now();
        let Record { submitted, started, read, prompt_tokens, cached_tokens } = *record;
        let last = self.completion.take_last();
        self.send(Ok(Event::Done(Outcome {
            text,
            stop,
            last,
            prompt_tokens,
            cached_tokens,
            completion_tokens: self.completion.tokens(),
            speculated: Speculated::default(),
            queued: started.unwrap_or(now) - submitted,
            prefill: started.map_or(Duration::ZERO, |started| read.unwrap_or(now) - started),
            decode: read.map_or(Duration::ZERO, |read| now - read),
        })));
    }
}
