//! Constraints by llguidance: which tokens may come next.

use std::fmt;
use std::sync::{Arc, OnceLock};

use llguidance::api::{GrammarWithLexer, StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::{Constraint, ConstraintError, TokenSet};
use crate::text::Tokenizer;

/// Compiles constraints for one tokenizer. The trie of its tokens is built with the first of them, and then shared.
#[derive(Default)]
pub struct GrammarCompiler(OnceLock<ParserFactory>);

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarCompiler").field("built", &self.0.get().is_some()).finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    /// The constraint at the start of an output. The tokenizer has to be the same each time.
    pub fn compile(
        &self,
        constraint: &Constraint,
        tokenizer: &Tokenizer,
    ) -> Result<Grammar, ConstraintError> {
        let kind = constraint.kind();
        let factory = match self.0.get() {
            Some(factory) => factory,
            None => {
                let factory = factory(tokenizer)?;
                self.0.get_or_init(|| factory)
            }
        };
        let parser = factory.create_parser(TopLevelGrammar::from_grammar(grammar(constraint)?));
        let parser = parser.map_err(|error| ConstraintError::Invalid { kind, detail: detail(&error) })?;
        Ok(Grammar {
            kind,
            matcher: Matcher::new(Ok(parser)),
            eos_ids: tokenizer.eos_ids().into(),
            tokens: 0,
            has_ended: false,
        })
    }
}

/// A constraint at some place of an output.
pub struct Grammar {
    kind: &'static str,
    matcher: Matcher,
    eos_ids: Arc<[u32]>,
    /// Number of tokens accepted.
    tokens: usize,
    /// An end-of-sequence token was accepted.
    has_ended: bool,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar")
            .field("kind", &self.kind)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl Grammar {
    /// Which tokens may come next: at least one, or [`ConstraintError::DeadEnd`]. Tokens beyond the tokenizer's are never
    /// among them.
    pub fn allowed(&mut self) -> Result<TokenSet, ConstraintError> {
        let stopped = self.matcher.stop_reason();
        if self.has_ended || !stopped.is_ok() {
            return Err(self.dead_end(format!("it has ended ({stopped})")));
        }
        let mask = self.matcher.compute_mask_or_eos().map_err(|error| self.dead_end(detail(&error)))?;
        let mut allowed = TokenSet::from_words(mask.as_slice().to_vec());
        // A Lark grammar may name an end-of-sequence token; it is an end all the same.
        if !self.is_complete() {
            self.eos_ids.iter().for_each(|&token| allowed.remove(token));
        }
        if allowed.is_empty() {
            return Err(self.dead_end("none of them leads on".to_owned()));
        }
        Ok(allowed)
    }

    /// Takes the token that was chosen. An end-of-sequence token ends the output: nothing can come after it.
    pub fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        let taken = if self.eos_ids.contains(&token) { self.end() } else { self.advance(token) };
        let refused =
            |detail| ConstraintError::Refused { token, tokens: self.tokens, kind: self.kind, detail };
        taken.map_err(refused)?;
        self.tokens += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        if self.has_ended || !self.is_complete() {
            return Err("the output is not complete, or it has ended".to_owned());
        }
        self.has_ended = true;
        Ok(())
    }

    /// Whether the output can end here.
    fn is_complete(&mut self) -> bool {
        match self.matcher.stop_reason() {
            StopReason::NotStopped => self.matcher.is_accepting().unwrap_or(false),
            reason => reason.is_ok(),
        }
    }

    fn advance(&mut self, token: u32) -> Result<(), String> {
        if self.has_ended || self.matcher.is_stopped() {
            return Err("the output can only end".to_owned());
        }
        self.matcher.consume_token(token).map_err(|error| detail(&error))
    }

    fn dead_end(&self, detail: String) -> ConstraintError {
        ConstraintError::DeadEnd { kind: self.kind, tokens: self.tokens, detail }
    }
}

/// What llguidance says, without its note that it could say more.
fn detail(error: &dyn fmt::Display) -> String {
    format!("{error:#}").replace("<non-verbose/>", "").trim().to_owned()
}

/// Between the tokens of JSON: what people and libraries write, and never more, so that a model can't lose itself in it.
const WHITESPACE: &str = r"\x20|\r?\n[\x20\t]{0,40}";

/// The constraint as llguidance takes it.
fn grammar(constraint: &Constraint) -> Result<GrammarWithLexer, ConstraintError> {
    Ok(match constraint {
        Constraint::JsonSchema(schema) => {
            GrammarWithLexer::from_json_schema(with_whitespace(schema.clone())?)
        }
        Constraint::JsonObject => {
            GrammarWithLexer::from_json_schema(with_whitespace(json!({ "type": "object" }))?)
        }
        Constraint::Regex(regex) => GrammarWithLexer::from_regex(regex),
        Constraint::Lark(grammar) => GrammarWithLexer::from_lark(grammar.clone()),
    })
}

/// The schema, with the whitespace that it allows.
fn with_whitespace(schema: Value) -> Result<Value, ConstraintError> {
    let mut schema = match schema {
        Value::Object(schema) => schema,
        Value::Bool(true) => serde_json::Map::new(),
        other => {
            let detail = format!("expected an object or `true`, found {other}");
            return Err(ConstraintError::Invalid { kind: "JSON schema", detail });
        }
    };
    schema.entry("x-guidance").or_insert_with(|| json!({ "whitespace_pattern": WHITESPACE }));
    Ok(Value::Object(schema))
}

/// What llguidance knows of a tokenizer.
fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, ConstraintError> {
    let tokens = tokens(tokenizer)?;
    let eos_ids = tokenizer.eos_ids();
    let &first = eos_ids.first().ok_or(ConstraintError::NoEndOfSequence)?;
    let vocab_size = tokens.len();
    if let Some(&token) = eos_ids.iter().find(|&&token| token as usize >= vocab_size) {
        return Err(ConstraintError::UnknownEndOfSequence { token, vocab_size });
    }
    let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, first), &tokens).with_eos_tokens(eos_ids);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    // It is to report by errors, not on stderr.
    let slices = llguidance::earley::SlicedBiasComputer::general_slices();
    let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
        .map_err(|error| ConstraintError::Vocabulary { detail: error.to_string() })?;
    factory.quiet().limits_mut().verbose_errors = false;
    Ok(factory)
}

/// The bytes of every token; none for ids without a token, which are so never allowed. Special tokens have a mark before
/// their name: no text leads to them, a Lark grammar can name them.
fn tokens(tokenizer: &Tokenizer) -> Result<Vec<Vec<u8>>, ConstraintError> {
    let bytes = tokenizer.token_bytes()?;
    let marked = bytes.into_iter().enumerate().map(|(id, bytes)| {
        let id = id as u32;
        if tokenizer.is_special(id) || tokenizer.eos_ids().contains(&id) {
            let name = tokenizer.token(id).unwrap_or_default();
            return [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat();
        }
        bytes
    });
    Ok(marked.collect())
}
