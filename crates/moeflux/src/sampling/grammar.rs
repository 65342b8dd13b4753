//! Constraints by llguidance: which tokens may come next.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use llguidance::api::{GrammarWithLexer, StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::{Constraint, ConstraintError, ConstraintLimits, TokenSet};
use crate::background;
use crate::cancel::CancelToken;
use crate::text::Tokenizer;

/// Compiles constraints for one tokenizer. The trie of its tokens is built with the first of them, and then shared.
///
/// A constraint comes from a client, so it is [measured](Constraint::measure) first, then compiled on a thread with a large
/// stack and a low priority, two at a time, each for ten seconds at most. The last 32 are kept for requests with the same
/// constraint.
#[derive(Default)]
pub struct GrammarCompiler(Arc<Inner>);

#[derive(Default)]
struct Inner {
    factory: OnceLock<ParserFactory>,
    compiled: Mutex<Compiled>,
    /// Told when a compilation has ended.
    ended: Condvar,
}

/// What has been compiled, the latest last, and how many are being compiled.
#[derive(Default)]
struct Compiled {
    known: Vec<(Constraint, Result<Origin, String>)>,
    running: usize,
}

/// A constraint at the start of an output, for all that begin there.
type Origin = Arc<Mutex<Matcher>>;

/// Constraints that are compiled at once.
const AT_ONCE: usize = 2;
/// Compiled constraints that are kept.
const KEPT: usize = 32;
/// Time that compiling may take.
pub(super) const TIME: Duration = Duration::from_secs(10);
/// How often to look whether whoever asked has gone.
const LOOK: Duration = Duration::from_millis(10);
/// Stack of a compilation. What passes the [limits](ConstraintLimits) needs a twentieth of it.
pub(super) const STACK: usize = 64 << 20;

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let built = self.0.factory.get().is_some();
        f.debug_struct("GrammarCompiler").field("built", &built).finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    /// The constraint at the start of an output. The tokenizer has to be the same each time.
    pub fn compile(
        &self,
        constraint: &Constraint,
        tokenizer: &Tokenizer,
    ) -> Result<Grammar, ConstraintError> {
        self.compile_unless(constraint, tokenizer, &CancelToken::default())
    }

    /// The same, unless whoever asked cancels: [`ConstraintError::Cancelled`].
    pub fn compile_unless(
        &self,
        constraint: &Constraint,
        tokenizer: &Tokenizer,
        cancel: &CancelToken,
    ) -> Result<Grammar, ConstraintError> {
        let kind = constraint.kind();
        constraint.measure(&ConstraintLimits::default())?;
        let inner = &self.0;
        if inner.factory.get().is_none() {
            let factory = factory(tokenizer)?;
            inner.factory.get_or_init(|| factory);
        }
        let start = Instant::now();
        let mut started = false;
        let mut compiled = inner.lock();
        let matcher = loop {
            if let Some(known) = compiled.known(constraint) {
                break known;
            }
            if cancel.is_cancelled() {
                return Err(ConstraintError::Cancelled { kind });
            }
            if start.elapsed() > TIME {
                return Err(ConstraintError::TooSlow { kind, seconds: TIME.as_secs() });
            }
            if !started && compiled.running < AT_ONCE {
                compiled.running += 1;
                started = true;
                let (inner, constraint) = (Arc::clone(inner), constraint.clone());
                let spawned = background::spawn("moeflux-grammar", STACK, move || inner.run(constraint));
                if let Err(source) = spawned {
                    compiled.running -= 1;
                    return Err(ConstraintError::Thread { kind, source });
                }
            }
            compiled = inner.ended.wait_timeout(compiled, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(compiled);
        let matcher = matcher.map_err(|detail| ConstraintError::Invalid { kind, detail })?;
        let (origin, eos_ids) = (Some(matcher), tokenizer.eos_ids().into());
        Ok(Grammar { kind, origin, matcher: None, mask: Mask::Unknown, eos_ids, tokens: 0, has_ended: false })
    }
}

impl Inner {
    /// What threads that panicked left there is whole: each change is one step.
    fn lock(&self) -> MutexGuard<'_, Compiled> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles a constraint and keeps what comes of it.
    fn run(&self, constraint: Constraint) {
        let result = catch_unwind(AssertUnwindSafe(|| self.matcher(&constraint)));
        let result = result.unwrap_or_else(|_| Err("the compiler of grammars failed on it".to_owned()));
        let mut compiled = self.lock();
        compiled.running -= 1;
        if compiled.known.len() == KEPT {
            drop(compiled.known.remove(0));
        }
        compiled.known.push((constraint, result.map(|matcher| Arc::new(Mutex::new(matcher)))));
        drop(compiled);
        self.ended.notify_all();
    }

    fn matcher(&self, constraint: &Constraint) -> Result<Matcher, String> {
        let factory = self.factory.get().ok_or("there is no vocabulary")?;
        let grammar = TopLevelGrammar::from_grammar(grammar(constraint)?);
        let parser = factory.create_parser(grammar).map_err(|error| detail(&error))?;
        Ok(Matcher::new(Ok(parser)))
    }
}

impl Compiled {
    /// What came of a constraint.
    fn known(&mut self, constraint: &Constraint) -> Option<Result<Origin, String>> {
        let index = self.known.iter().position(|(known, _)| known == constraint)?;
        let entry = self.known.remove(index);
        let result = entry.1.clone();
        self.known.push(entry);
        Some(result)
    }
}

/// A constraint at some place of an output.
pub struct Grammar {
    kind: &'static str,
    /// What it begins from, until it has begun: a completion that waits for its turn takes no memory.
    origin: Option<Origin>,
    /// Elsewhere while the mask is computed ahead.
    matcher: Option<Matcher>,
    mask: Mask,
    eos_ids: Arc<[u32]>,
    /// Number of tokens accepted.
    tokens: usize,
    /// An end-of-sequence token was accepted.
    has_ended: bool,
}

/// Which tokens may come next, as far as that has been found out.
enum Mask {
    Unknown,
    /// A thread finds out; it gives the matcher back.
    Ahead(mpsc::Receiver<(Matcher, Result<SimpleVob, String>)>),
    Known(Result<SimpleVob, String>),
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
        self.wait(None);
        let Some(matcher) = &mut self.matcher else {
            return Err(self.dead_end("it could not be followed".to_owned()));
        };
        let stopped = matcher.stop_reason();
        if self.has_ended || !stopped.is_ok() {
            return Err(self.dead_end(format!("it has ended ({stopped})")));
        }
        let mask = match std::mem::replace(&mut self.mask, Mask::Unknown) {
            Mask::Known(mask) => mask,
            Mask::Unknown | Mask::Ahead(_) => matcher.compute_mask_or_eos().map_err(|error| detail(&error)),
        };
        let mask = mask.map_err(|error| self.dead_end(error))?;
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

    /// Has a thread find out what [`allowed`](Self::allowed) will say, while the caller does something else.
    pub(crate) fn look_ahead(&mut self) {
        if self.has_ended || !matches!(self.mask, Mask::Unknown) {
            return;
        }
        let (origin, matcher) = (self.origin.take(), self.matcher.take());
        if origin.is_none() && matcher.is_none() {
            return;
        }
        let (reply, mask) = mpsc::sync_channel(1);
        self.mask = Mask::Ahead(mask);
        background::hand_over(Box::new(move || {
            let Some(mut matcher) = matcher.or_else(|| origin.as_ref().map(begin)) else { return };
            let mask = matcher.compute_mask_or_eos().map_err(|error| detail(&error));
            // A completion that has ended is not waited with.
            drop(reply.send((matcher, mask)));
        }));
    }

    /// Whether [`allowed`](Self::allowed) can say at once, after so long at most.
    pub(crate) fn is_ready(&mut self, patience: Duration) -> bool {
        self.wait(Some(patience));
        !matches!(self.mask, Mask::Ahead(_))
    }

    /// Waits until the mask is known, for so long at most.
    fn wait(&mut self, patience: Option<Duration>) {
        let Mask::Ahead(mask) = &self.mask else {
            if patience.is_none()
                && let Some(origin) = self.origin.take()
            {
                self.matcher = Some(begin(&origin));
            }
            return;
        };
        let known = match patience {
            Some(patience) => mask.recv_timeout(patience),
            None => mask.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        };
        match known {
            Ok((matcher, mask)) => (self.matcher, self.mask) = (Some(matcher), Mask::Known(mask)),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            // The thread is gone, and the matcher with it.
            Err(mpsc::RecvTimeoutError::Disconnected) => self.mask = Mask::Unknown,
        }
    }

    /// Takes the token that was chosen. An end-of-sequence token ends the output: nothing can come after it.
    pub fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.wait(None);
        let taken = if self.eos_ids.contains(&token) { self.end() } else { self.advance(token) };
        self.mask = Mask::Unknown;
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
        let Some(matcher) = &mut self.matcher else { return false };
        match matcher.stop_reason() {
            StopReason::NotStopped => matcher.is_accepting().unwrap_or(false),
            reason => reason.is_ok(),
        }
    }

    fn advance(&mut self, token: u32) -> Result<(), String> {
        let Some(matcher) = &mut self.matcher else { return Err("it could not be followed".to_owned()) };
        if self.has_ended || matcher.is_stopped() {
            return Err("the output can only end".to_owned());
        }
        matcher.consume_token(token).map_err(|error| detail(&error))
    }

    fn dead_end(&self, detail: String) -> ConstraintError {
        ConstraintError::DeadEnd { kind: self.kind, tokens: self.tokens, detail }
    }
}

/// A matcher at the start. It has the states of its lexer for itself, which grow with what it is given.
fn begin(origin: &Origin) -> Matcher {
    origin.lock().unwrap_or_else(PoisonError::into_inner).deep_clone()
}

/// What llguidance says, without its note that it could say more.
fn detail(error: &dyn fmt::Display) -> String {
    format!("{error:#}").replace("<non-verbose/>", "").trim().to_owned()
}

/// States of the lexer that an output may lead to, a kilobyte or two each.
const LEXER_STATES: usize = 50_000;

/// Between the tokens of JSON: what people and libraries write, and never more, so that a model can't lose itself in it.
const WHITESPACE: &str = r"\x20|\r?\n[\x20\t]{0,40}";

/// The constraint as llguidance takes it.
fn grammar(constraint: &Constraint) -> Result<GrammarWithLexer, String> {
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
fn with_whitespace(schema: Value) -> Result<Value, String> {
    let mut schema = match schema {
        Value::Object(schema) => super::without_unknown_formats(schema),
        Value::Bool(true) => serde_json::Map::new(),
        other => return Err(format!("expected an object or `true`, found {other}")),
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
    let limits = factory.quiet().limits_mut();
    limits.verbose_errors = false;
    limits.max_lexer_states = LEXER_STATES;
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
