//! What targets of constraints share: bytes as choices, and a compilation that must end.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use moeflux::sampling::{Constraint, ConstraintError, ConstraintLimits, GrammarCompiler};
use moeflux::text::Tokenizer;

/// Bytes as choices; zeros when they are used up.
pub struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub fn next(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A short text, as the bytes have it.
    pub fn text(&mut self) -> String {
        let length = usize::from(self.next() % 24).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    #[allow(dead_code)] // one target asks
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Compiles a constraint for the demo's tokenizer and asks what may come first.
pub fn compile(constraint: &Constraint) {
    static DEMO: OnceLock<(GrammarCompiler, Tokenizer)> = OnceLock::new();
    let (grammars, tokenizer) = DEMO.get_or_init(|| {
        // A panic in the compiler's library is an error to its caller; only what is wrong here ends the run.
        std::panic::set_hook(Box::new(|_| ()));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
        (GrammarCompiler::default(), Tokenizer::open(&folder).expect("the demo has a tokenizer"))
    });
    let start = Instant::now();
    let measured = constraint.measure(&ConstraintLimits::default());
    fault_if(start.elapsed() > Duration::from_secs(5), "it takes long to measure");
    let compiled = grammars.compile(constraint, tokenizer);
    fault_if(start.elapsed() > Duration::from_secs(20), "it takes long to compile");
    match (measured, compiled) {
        (Err(ConstraintError::TooLarge { found, limit, .. }), Err(ConstraintError::TooLarge { .. })) => {
            fault_if(found <= limit, "it is refused within the limit");
        }
        (Ok(()), Ok(mut grammar)) => {
            let first = grammar.allowed();
            fault_if(first.is_ok_and(|first| first.is_empty()), "it allows nothing");
        }
        (Ok(()), Err(error)) => {
            fault_if(matches!(error, ConstraintError::TooLarge { .. }), "it is measured in two ways");
        }
        _ => fault_if(true, "what is too large compiles"),
    }
}

fn fault_if(is_wrong: bool, what: &str) {
    if is_wrong {
        eprintln!("{what}");
        std::process::abort();
    }
}
