//! What is asked of a generation.

use super::speculate::Speculate;
use crate::backend::CancelToken;
use crate::error::Error;
use crate::sampling::{Constraint, MAX_TOP_LOGPROBS, SamplingOptions};

/// What to generate.
///
/// The default generates greedily until the model ends its text or the context is full. Name what differs, and later options
/// change nothing: `GenerateRequest { prompt, max_tokens: 50, ..GenerateRequest::default() }`.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Tokens to append to the sequence first.
    pub prompt: Vec<u32>,
    /// After how many tokens of the prompt to [mark](crate::Sequence::mark) the sequence, besides its end: where messages
    /// end, since that is where conversations are edited. It changes nothing else.
    pub marks: Vec<usize>,
    /// How many of the last tokens of sequence and prompt were chosen by an earlier generation of the same request that
    /// this one goes on with: as if it had not stopped, with the same random numbers, penalties and place in the
    /// constraint. `max_tokens` and `min_tokens` count new tokens, and stop strings are looked for in new text.
    pub continued: usize,
    /// How to choose each token.
    pub sampling: SamplingOptions,
    /// Most tokens to generate, [`usize::MAX`] by default: as many as the context has room for. With 0 the prompt is only read.
    pub max_tokens: usize,
    /// Before so many tokens the model can't choose to end, and stop strings are not looked for: they count from the text
    /// of the next token on.
    pub min_tokens: usize,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Whether to go on after an end-of-sequence token.
    pub ignore_eos: bool,
    /// Tell with each token how many of the most likely ones, at most 20. See [`LogSoftmax`](crate::sampling::LogSoftmax)
    /// for what the numbers are.
    pub logprobs: Option<usize>,
    /// The same for each token of the prompt, which is then read in smaller chunks.
    pub prompt_logprobs: Option<usize>,
    /// What the output must look like. Where the prompt ends with an opened thinking block, what comes after that block.
    pub constraint: Option<Constraint>,
    /// Most tokens inside thinking blocks (`<think>` to `</think>`, or the messages of gpt-oss's channel `analysis`): then the
    /// end of the block is chosen, whatever the model would say. The prompt counts as inside if it ends with what opens a
    /// block and nothing but whitespace.
    pub reasoning_budget: Option<usize>,
    /// Whether and how to guess tokens to be faster. It changes nothing else.
    pub speculate: Speculate,
    /// Stops the generation from elsewhere.
    pub cancel: CancelToken,
}

impl Default for GenerateRequest {
    fn default() -> Self {
        GenerateRequest {
            prompt: Vec::new(),
            marks: Vec::new(),
            continued: 0,
            sampling: SamplingOptions::default(),
            max_tokens: usize::MAX,
            min_tokens: 0,
            stop: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: None,
            constraint: None,
            reasoning_budget: None,
            speculate: Speculate::default(),
            cancel: CancelToken::default(),
        }
    }
}

impl GenerateRequest {
    /// Checks what can be checked without a model.
    pub(super) fn validate(&self) -> Result<(), Error> {
        for (option, n) in [("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)] {
            if let Some(n) = n.filter(|&n| n > MAX_TOP_LOGPROBS) {
                return Err(Error::Option { option, expected: "at most 20", found: n.to_string() });
            }
        }
        if self.min_tokens > self.max_tokens {
            let found = format!("{} with max_tokens {}", self.min_tokens, self.max_tokens);
            return Err(Error::Option { option: "min_tokens", expected: "at most max_tokens", found });
        }
        if let Some(constraint) = self.constraint.as_ref().filter(|_| self.ignore_eos) {
            let expected = "not set with a constraint, since nothing can follow a complete output";
            let found = format!("set with a {}", constraint.kind());
            return Err(Error::Option { option: "ignore_eos", expected, found });
        }
        Ok(())
    }
}
