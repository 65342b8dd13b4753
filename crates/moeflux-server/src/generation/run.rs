//! A running generation.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use moeflux::chat::{self, Delta, Parser};
use moeflux::engine::{Outcome, PromptLogprob, RequestError, Ticket};
use moeflux::{CancelToken, Event, StopReason};
use tokio::time::Sleep;
use tracing::Span;

use super::stops::Stops;
use super::{Finish, Output, TokenInfo, Usage};
use crate::error::{Failure, FailureKind, from_request};
use crate::metrics::Meter;
use crate::models::Lease;

/// A running generation: a stream of outputs, which ends after every sample is done or after an error. Dropping it
/// cancels.
pub struct Generation {
    samples: Vec<Sample>,
    /// The sample to ask next, so that none waits for the others.
    turn: usize,
    ready: VecDeque<Output>,
    prompt_tokens: usize,
    cancel: CancelToken,
    time: Duration,
    /// Fires when its time is up.
    deadline: Pin<Box<Sleep>>,
    failed: bool,
    /// What it says in the log it says as part of the request.
    span: Span,
    /// Keeps the model in memory.
    model: Lease,
}

/// Which tokens are told, with their log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// None.
    Nothing,
    /// Those of the text.
    Text,
    /// Also the one that ends it.
    TextAndEnd,
}

/// One of the answers.
struct Sample {
    ticket: Ticket,
    parser: Parser,
    stops: Stops,
    meter: Meter,
    telling: Telling,
    /// Tokens since the last delta: they belong to what the next one is.
    undecided: usize,
    reasoning_tokens: usize,
    has_called: bool,
    is_done: bool,
}

/// A sample as a whole.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Everything it said.
    pub content: chat::Answer,
    /// What the model made of the prompt's tokens, if that was asked for.
    pub prompt_logprobs: Vec<PromptLogprob>,
    /// Its tokens, if log-probabilities were asked for.
    pub tokens: Vec<TokenInfo>,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// What it took.
    pub usage: Usage,
}

impl Generation {
    pub(super) fn new(
        model: Lease,
        samples: Vec<(Ticket, Parser, Stops)>,
        prompt_tokens: usize,
        telling: Telling,
        cancel: CancelToken,
        time: Duration,
    ) -> Self {
        let sample = |(ticket, parser, stops)| Sample {
            ticket,
            parser,
            stops,
            meter: model.meter(),
            telling,
            undecided: 0,
            reasoning_tokens: 0,
            has_called: false,
            is_done: false,
        };
        Generation {
            samples: samples.into_iter().map(sample).collect(),
            turn: 0,
            ready: VecDeque::new(),
            prompt_tokens,
            cancel,
            time,
            deadline: Box::pin(tokio::time::sleep(time)),
            failed: false,
            span: Span::current(),
            model,
        }
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// The model that generates.
    pub fn model(&self) -> &Lease {
        &self.model
    }

    /// Waits for the end and returns every sample.
    pub async fn collect(mut self) -> Result<Vec<Answer>, Failure> {
        let mut answers = vec![Answer::default(); self.samples.len()];
        while let Some(output) = self.next().await {
            match output? {
                Output::Prefill { sample, logprobs, .. } => answers[sample].prompt_logprobs.extend(logprobs),
                Output::Piece { sample, deltas, token } => {
                    let answer = &mut answers[sample];
                    answer.tokens.extend(token);
                    for delta in deltas {
                        answer.content.push(delta);
                    }
                }
                Output::Done { sample, finish, usage } => {
                    answers[sample].finish = Some(finish);
                    answers[sample].usage = usage;
                }
            }
        }
        Ok(answers)
    }

    /// The next outputs of a sample, from an event of its ticket.
    fn take(&mut self, index: usize, event: Option<Result<Event, RequestError>>) -> Result<(), Failure> {
        let sample = &mut self.samples[index];
        match event {
            Some(Ok(Event::Prefill { done, total, logprobs })) => {
                self.ready.push_back(Output::Prefill { done, total, sample: index, logprobs });
            }
            // The engine may have gone on for some tokens after a stop text.
            Some(Ok(Event::Token { .. })) if sample.stops.is_hit() => {}
            Some(Ok(Event::Token { id, text, logprob, top_logprobs })) => {
                sample.meter.token();
                sample.stops.token();
                let deltas = sample.parser.push(&text);
                let deltas = sample.stops.push(deltas);
                sample.count(&deltas, 1);
                if sample.stops.is_hit() {
                    sample.ticket.cancel();
                    if !deltas.is_empty() {
                        self.ready.push_back(Output::Piece { sample: index, deltas, token: None });
                    }
                    return Ok(());
                }
                let token = (sample.telling != Telling::Nothing).then_some(TokenInfo {
                    id,
                    logprob,
                    top: top_logprobs,
                });
                if !deltas.is_empty() || token.is_some() {
                    self.ready.push_back(Output::Piece { sample: index, deltas, token });
                }
            }
            Some(Ok(Event::Done(outcome))) => {
                sample.is_done = true;
                let mut deltas = sample.parser.push(&outcome.text);
                deltas.extend(sample.parser.finish());
                let deltas = sample.stops.finish(deltas);
                sample.count(&deltas, 0);
                let finish = sample.finish(&outcome);
                let usage = sample.usage(&outcome);
                let ends = sample.telling == Telling::TextAndEnd
                    && matches!(outcome.stop, StopReason::EndOfSequence(_));
                let token = outcome.last.filter(|_| ends).map(|last| TokenInfo {
                    id: last.id,
                    logprob: last.logprob,
                    top: last.top_logprobs,
                });
                if !deltas.is_empty() || token.is_some() {
                    self.ready.push_back(Output::Piece { sample: index, deltas, token });
                }
                tracing::info!(
                    parent: &self.span,
                    model = self.model.name(),
                    sample = index,
                    finish = ?outcome.stop,
                    prompt_tokens = usage.prompt_tokens,
                    cached_tokens = usage.cached_tokens,
                    completion_tokens = usage.completion_tokens,
                    prefill_ms = outcome.prefill.as_millis() as u64,
                    decode_ms = outcome.decode.as_millis() as u64,
                    "answer ended"
                );
                self.ready.push_back(Output::Done { sample: index, finish, usage });
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(from_request(&error)),
            None => return Err(from_request(&RequestError::Stopped)),
        }
        Ok(())
    }
}

impl Stream for Generation {
    type Item = Result<Output, Failure>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(output) = this.ready.pop_front() {
            return Poll::Ready(Some(Ok(output)));
        }
        let n = this.samples.len();
        if this.failed || this.samples.iter().all(|sample| sample.is_done) {
            return Poll::Ready(None);
        }
        for index in (this.turn..n).chain(0..this.turn) {
            while !this.samples[index].is_done {
                let Poll::Ready(event) = this.samples[index].ticket.poll_next_unpin(context) else { break };
                let taken = this.take(index, event);
                this.failed = taken.is_err();
                if let Err(failure) = taken {
                    return Poll::Ready(Some(Err(failure)));
                }
                if let Some(output) = this.ready.pop_front() {
                    this.turn = (index + 1) % n;
                    return Poll::Ready(Some(Ok(output)));
                }
            }
        }
        if this.deadline.as_mut().poll(context).is_ready() {
            this.cancel.cancel();
            this.failed = true;
            let message =
                format!("the answer was not complete after {} s, the server's limit", this.time.as_secs());
            return Poll::Ready(Some(Err(Failure::new(FailureKind::TimeUp, message))));
        }
        Poll::Pending
    }
}

impl Sample {
    /// Counts tokens as the kind of what is said next.
    fn count(&mut self, deltas: &[Delta], tokens: usize) {
        self.undecided += tokens;
        self.has_called |= deltas.iter().any(|delta| matches!(delta, Delta::ToolCall { .. }));
        if let Some(first) = deltas.first() {
            let tokens = mem::take(&mut self.undecided);
            if matches!(first, Delta::Reasoning(_)) {
                self.reasoning_tokens += tokens;
            }
        }
    }

    fn finish(&self, outcome: &Outcome) -> Finish {
        match &outcome.stop {
            _ if self.stops.is_hit() && !self.has_called => {
                Finish::StopText(self.stops.hit_text().unwrap_or_default().to_owned())
            }
            StopReason::StopString(_) | StopReason::Cancelled if self.stops.is_hit() => Finish::ToolCalls,
            StopReason::EndOfSequence(_) if self.has_called => Finish::ToolCalls,
            StopReason::EndOfSequence(_) => Finish::EndOfTurn,
            StopReason::StopString(text) => Finish::StopText(text.clone()),
            StopReason::Cancelled => Finish::Cancelled,
            // All others are limits.
            _ => Finish::Length,
        }
    }

    fn usage(&self, outcome: &Outcome) -> Usage {
        Usage {
            prompt_tokens: outcome.prompt_tokens,
            cached_tokens: outcome.cached_tokens,
            completion_tokens: self.stops.tokens_at_hit().unwrap_or(outcome.completion_tokens),
            reasoning_tokens: self.reasoning_tokens,
            prefill: outcome.prefill,
            decode: outcome.decode,
        }
    }
}
