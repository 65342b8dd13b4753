//! One completion: from logits to tokens and text, until there is a reason to stop. It knows nothing of how the logits
//! are computed.

use std::sync::Arc;
use std::time::Duration;

use super::event::{Event, LastToken, StopReason};
use super::request::GenerateRequest;
use crate::error::Error;
use crate::model::Model;
use crate::sampling::{Grammar, GrammarCompiler, LogSoftmax, Sampler, TokenLogprob, TokenRoles, TokenSet};
use crate::text::{Decoding, StopOutcome, StopStrings, Thinking, Tokenizer};

/// What has been said, and how to go on.
#[derive(Debug)]
pub(super) struct Completion {
    model: Arc<Model>,
    max_tokens: usize,
    min_tokens: usize,
    stop_strings: Vec<String>,
    ignore_eos: bool,
    logprobs: usize,
    sampler: Sampler,
    /// Boxed, since it is large and rare.
    grammar: Option<Box<Grammar>>,
    reasoning: Option<Thinking>,
    /// Gone once a stop string has ended it.
    text: Option<Text>,
    tokens: usize,
    /// The token that ended it, if one did.
    last: Option<LastToken>,
}

/// A chosen token.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    token: u32,
    logprob: f32,
    top_logprobs: Vec<TokenLogprob>,
}

/// What came of a chosen token.
pub(super) enum TokenResult {
    /// The token, which is to be read next, and its event.
    Token(u32, Event),
    /// The end, and the last of the text.
    Finished(StopReason, String),
}

/// From tokens to text that may be shown.
#[derive(Debug)]
struct Text {
    decoding: Decoding,
    stops: StopStrings,
}

impl Completion {
    /// A completion of `past`, the tokens that the sequence has, and the request's prompt.
    pub(super) fn new(
        model: &Arc<Model>,
        grammars: &GrammarCompiler,
        past: &[u32],
        request: &GenerateRequest,
    ) -> Result<Self, Error> {
        request.validate()?;
        let GenerateRequest { prompt, sampling, constraint, stop, continued, .. } = request;
        let tokenizer = model.tokenizer();
        let stops = StopStrings::new(stop.clone())?;
        let roles = TokenRoles::of(sampling, tokenizer)?;
        let mut sampler = Sampler::with_roles(sampling.clone(), roles, model.vocab_size())?;
        let Some(before) = (past.len() + prompt.len()).checked_sub(*continued) else {
            let expected = "at most the tokens of sequence and prompt";
            return Err(Error::Option { option: "continued", expected, found: continued.to_string() });
        };
        let (past, past_output) = past.split_at(before.min(past.len()));
        let (prompt, prompt_output) = prompt.split_at(before - past.len());
        sampler.accept_prompt(past);
        sampler.accept_prompt(prompt);
        let grammar = constraint
            .as_ref()
            .map(|constraint| grammars.compile_unless(constraint, tokenizer, &request.cancel));
        let mut completion = Completion {
            model: Arc::clone(model),
            max_tokens: request.max_tokens,
            min_tokens: request.min_tokens,
            stop_strings: stop.clone(),
            ignore_eos: request.ignore_eos,
            logprobs: request.logprobs.unwrap_or(0),
            sampler,
            grammar: grammar.transpose()?.map(Box::new),
            reasoning: thinking(past, prompt, tokenizer, request.reasoning_budget)?,
            text: Some(Text { decoding: tokenizer.decoding(false), stops }),
            tokens: 0,
            last: None,
        };
        for &token in past_output.iter().chain(prompt_output) {
            completion.accept(token)?;
            // No token is new yet, so this text is not looked at for stop strings.
            completion.push_text(token)?;
        }
        Ok(completion)
    }

    /// Tokens chosen so far.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// The token that ended it, if one did.
    pub(super) fn take_last(&mut self) -> Option<LastToken> {
        self.last.take()
    }

    /// Whether there are as many tokens as allowed.
    pub(super) fn is_full(&self) -> bool {
        self.tokens == self.max_tokens
    }

    /// How many more are allowed.
    pub(super) fn left(&self) -> usize {
        self.max_tokens - self.tokens
    }

    /// Has a thread find out which tokens the constraint allows next.
    pub(super) fn look_ahead(&mut self) {
        if !self.grammar_waits()
            && let Some(grammar) = &mut self.grammar
        {
            grammar.look_ahead();
        }
    }

    /// Whether that is known, after so long at most.
    pub(super) fn is_ready(&mut self, patience: Duration) -> bool {
        self.grammar.as_mut().is_none_or(|grammar| grammar.is_ready(patience))
    }

    /// Chooses the next token from the model's logits, `[vocab_size]`.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<Chosen, Error> {
        let model = LogSoftmax::new(logits)?;
        let token = match self.reasoning.as_ref().and_then(Thinking::forced) {
            Some(token) => token,
            None => {
                let allowed = self.allowed()?;
                self.sampler.sample_among(&model, allowed.as_ref())?
            }
        };
        Ok(Chosen { token, logprob: model.of(token), top_logprobs: model.top(self.logprobs) })
    }

    /// The tokens that may come next; `None` is all.
    fn allowed(&mut self) -> Result<Option<TokenSet>, Error> {
        let waits = self.grammar_waits();
        let mut allowed = match &mut self.grammar {
            Some(grammar) if !waits => Some(grammar.allowed()?),
            _ => None,
        };
        if !self.ignore_eos && (self.tokens < self.min_tokens || waits) {
            let allowed = allowed.get_or_insert_with(|| TokenSet::full(self.model.vocab_size()));
            for &token in self.model.tokenizer().eos_ids() {
                allowed.remove(token);
            }
        }
        Ok(allowed)
    }

    /// Whether there is a constraint, but the thoughts before the output have not ended.
    fn grammar_waits(&self) -> bool {
        self.grammar.is_some() && self.reasoning.as_ref().is_some_and(Thinking::is_inside)
    }

    /// Takes a chosen token, and turns it into text or into the end.
    pub(super) fn apply(&mut self, chosen: Chosen) -> Result<TokenResult, Error> {
        let Chosen { token, logprob, top_logprobs } = chosen;
        self.tokens += 1;
        self.accept(token)?;
        if !self.ignore_eos && self.model.tokenizer().eos_ids().contains(&token) {
            self.last = Some(LastToken { id: token, logprob, top_logprobs });
            return Ok(TokenResult::Finished(StopReason::EndOfSequence(token), self.finish()?));
        }
        let StopOutcome { text, hit } = self.push_text(token)?;
        if let Some(hit) = hit {
            self.text = None;
            self.last = Some(LastToken { id: token, logprob, top_logprobs });
            return Ok(TokenResult::Finished(StopReason::StopString(self.stop_strings[hit].clone()), text));
        }
        Ok(TokenResult::Token(token, Event::Token { id: token, text, logprob, top_logprobs }))
    }

    /// Lets all that follows the tokens know of one more.
    fn accept(&mut self, token: u32) -> Result<(), Error> {
        self.sampler.accept(token);
        // Inside a constrained output the markers of thinking are text like any other.
        let waits = self.grammar_waits();
        match (&mut self.grammar, &mut self.reasoning) {
            (Some(grammar), _) if !waits => grammar.accept(token)?,
            (_, Some(reasoning)) => reasoning.accept(token),
            (_, None) => {}
        }
        Ok(())
    }

    /// The text that a token completes.
    fn push_text(&mut self, token: u32) -> Result<StopOutcome, Error> {
        let Some(Text { decoding, stops }) = &mut self.text else {
            return Ok(StopOutcome { text: String::new(), hit: None });
        };
        // Embeddings are padded beyond the tokenizer; a token without a name is no text.
        let tokenizer = self.model.tokenizer();
        let is_known = tokenizer.token(token).is_some();
        let piece = if is_known { decoding.push(tokenizer, token)? } else { "" };
        if self.tokens <= self.min_tokens {
            return Ok(StopOutcome { text: piece.to_owned(), hit: None });
        }
        Ok(stops.push(piece))
    }

    /// The text that was held back, when no more will come.
    pub(super) fn finish(&mut self) -> Result<String, Error> {
        let Some(Text { decoding, mut stops }) = self.text.take() else { return Ok(String::new()) };
        let outcome = stops.push(&decoding.finish(self.model.tokenizer())?);
        Ok(outcome.text + &stops.finish())
    }
}

/// The tracker of thinking blocks after a sequence and a prompt. A budget for thoughts is an error if there can't be one.
fn thinking(
    past: &[u32],
    prompt: &[u32],
    tokenizer: &Tokenizer,
    budget: Option<usize>,
) -> Result<Option<Thinking>, Error> {
    let thinking = Thinking::after(past, prompt, tokenizer, budget)?;
    if thinking.is_none() && budget.is_some() {
        return Err(Error::Option {
            option: "reasoning_budget",
            expected: "a model that thinks between the tokens <think> and </think>, or in the channel `analysis`",
            found: "a tokenizer without them".to_owned(),
        });
    }
    Ok(thinking)
}
