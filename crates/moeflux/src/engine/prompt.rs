//! A prompt on its way into a sequence.

use std::ops::Range;

use super::event::{Event, PromptLogprob};
use super::request::GenerateRequest;
use super::runner::Outputs;
use crate::sampling::{LogSoftmax, SamplingError};
use crate::sequence::Sequence;

/// What of a prompt has been read, and what is to be read next. It knows nothing of how that is done.
#[derive(Debug)]
pub(super) struct Prompt {
    tokens: Vec<u32>,
    /// Where its messages end, in order.
    marks: Vec<usize>,
    /// How many of the most likely tokens to tell with each of its tokens.
    logprobs: Option<usize>,
    /// Whether a token is wanted after it.
    goes_on: bool,
    read: usize,
}

/// Most logits that a chunk asks for where each token wants its own: 64 MiB.
const PROMPT_LOGITS: usize = 16 << 20;

impl Prompt {
    /// The prompt of a request, taken out of it.
    pub(super) fn of(request: &mut GenerateRequest) -> Self {
        let mut marks = std::mem::take(&mut request.marks);
        marks.sort_unstable();
        Prompt {
            tokens: std::mem::take(&mut request.prompt),
            marks,
            logprobs: request.prompt_logprobs,
            goes_on: request.max_tokens > 0,
            read: 0,
        }
    }

    /// Tokens that are only to be read.
    pub(super) fn only(tokens: Vec<u32>) -> Self {
        Prompt { goes_on: false, ..Prompt::again(tokens) }
    }

    /// Tokens that are to be read again, up to the last, after which a token is wanted.
    pub(super) fn again(tokens: Vec<u32>) -> Self {
        Prompt { tokens, marks: Vec::new(), logprobs: None, goes_on: true, read: 0 }
    }

    /// All its tokens.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many of them have been read.
    pub(super) fn read(&self) -> usize {
        self.read
    }

    /// How many have not.
    pub(super) fn left(&self) -> usize {
        self.tokens.len() - self.read
    }

    /// Whether all have been.
    pub(super) fn is_read(&self) -> bool {
        self.read == self.tokens.len()
    }

    /// Whether the log-probability of each token is asked for, so that each has to be read.
    pub(super) fn wants_logprobs(&self) -> bool {
        self.logprobs.is_some()
    }

    /// The sequence had the first few tokens already.
    pub(super) fn skip(&mut self, known: usize) {
        self.read = known;
    }

    /// Marks the sequence after so many tokens too.
    pub(super) fn mark_at(&mut self, len: usize) {
        if let Err(index) = self.marks.binary_search(&len) {
            self.marks.insert(index, len);
        }
    }

    /// The tokens to read next, at most `most`, and which of them want logits.
    pub(super) fn chunk(
        &self,
        sequence: &Sequence,
        most: usize,
        vocab_size: usize,
    ) -> (Range<usize>, Outputs) {
        let most = if self.wants_logprobs() { most.min((PROMPT_LOGITS / vocab_size).max(1)) } else { most };
        let n = sequence.chunk_towards(sequence.len() + self.goal() - self.read, most);
        let rows = self.read..self.read + n;
        let outputs = match self.logprobs {
            Some(_) => Outputs::All,
            None if self.goes_on && rows.end == self.tokens.len() => Outputs::Last,
            None => Outputs::None,
        };
        (rows, outputs)
    }

    /// Takes note that the sequence has read a chunk, with these logits.
    pub(super) fn apply_chunk(
        &mut self,
        sequence: &mut Sequence,
        rows: Range<usize>,
        logits: &[f32],
        vocab_size: usize,
    ) -> Result<Event, SamplingError> {
        if rows.end == self.goal() {
            sequence.mark();
        }
        let total = self.tokens.len();
        let mut logprobs = Vec::new();
        if let Some(n) = self.logprobs {
            if rows.start == 0 {
                let token = self.tokens[0];
                logprobs.push(PromptLogprob { token, logprob: None, top_logprobs: Vec::new() });
            }
            let successors = &self.tokens[rows.start + 1..total.min(rows.end + 1)];
            for (&token, logits) in successors.iter().zip(logits.chunks_exact(vocab_size)) {
                let model = LogSoftmax::new(logits)?;
                let (logprob, top_logprobs) = (Some(model.of(token)), model.top(n));
                logprobs.push(PromptLogprob { token, logprob, top_logprobs });
            }
        }
        self.read = rows.end;
        Ok(Event::Prefill { done: self.read, total, logprobs })
    }

    /// Where the chunks to read next end: at the next mark, or with the last token.
    fn goal(&self) -> usize {
        let total = self.tokens.len();
        self.marks.iter().copied().find(|&mark| mark > self.read).map_or(total, |mark| mark.min(total))
    }
}
